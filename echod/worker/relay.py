"""Sending a client's bytes back to it.

Lock-step: a relay reads only while nothing is pending, and sends at once what it has read.  Bytes that the socket does
not accept become pending, and the relay reads no more until they are sent.  So memory never holds more than one chunk
per client; a relay does not read from a client that does not read; and it sees the end of input only after it has sent
everything before it, so a half-close needs no special case (RFC 862: "any data received is sent back").

A relay waits for one thing at a time: input while `pending` is empty, else room.  It neither owns the socket nor knows
the loop; it calls its owner when it must wait for something else, or when the connection has ended.
"""

import mmap
from typing import Protocol

from echod.handover.state import ConnectionState

_NOTHING = memoryview(b"")


class Socket(Protocol):
    """The part of a connected, non-blocking socket that a relay needs."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read what has arrived, at most as much as fits into `buffer`; 0 means the end of input."""

    def send(self, data: memoryview, /) -> int:
        """Send as much of `data` as the kernel accepts now."""


class Clock(Protocol):
    """The time of this turn of the loop, in seconds of the monotonic clock."""

    now: float


class Owner(Protocol):
    """The object that watches the socket for a relay."""

    def on_blocked(self) -> None:
        """The socket accepts no more bytes: wait for room, then call `on_writable`."""

    def on_flushed(self) -> None:
        """The pending bytes are sent: wait for input, then call `on_readable`."""

    def on_eof(self) -> None:
        """The client has closed its side, and all its bytes have been sent back."""

    def on_broken(self, error: OSError) -> None:
        """The connection has failed."""


def open_buffer(chunk_size: int) -> memoryview:
    """Memory for one chunk, at the beginning of a page.

    Not a bytearray: from about 128 KiB up malloc(3) places it 16 bytes after the beginning of a page.  Received bytes
    often begin with a page, and where the target of a copy lies a few bytes further into its page than the source, the
    processor copies slowly (`rep movsb`).  Measured at 100 KiB, a message then costs 1.6 times as much.
    """
    return memoryview(mmap.mmap(-1, chunk_size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class Relay:
    """Sends the bytes that arrive on `sock` back, through `buffer`, whose size is the chunk size.

    All relays of a loop may share the buffer: it holds nothing between two calls.  `recv_into` costs the same at any
    chunk size, while `recv` allocates a whole chunk each time, which is expensive from 128 KiB up.
    """

    __slots__ = ("_buffer", "_clock", "_count", "_owner", "_sock", "_window", "active", "chunks", "pending", "received")

    def __init__(self, sock: Socket, buffer: memoryview, clock: Clock, owner: Owner) -> None:
        self._sock = sock
        self._buffer = buffer
        self._clock = clock
        self._owner = owner
        # The last chunk's size, and the part of the buffer that held it.  The next chunk often has the same size, and
        # not slicing the buffer again saves, measured, 2 % of an echo of 64 bytes.  No chunk has the size -1, and the
        # end of input has 0.
        self._count = -1
        self._window = buffer
        self.pending = _NOTHING
        """Bytes that were received and that the socket has not accepted back yet."""
        self.received = 0
        """Bytes received."""
        self.chunks = 0
        """Reads by which these bytes were received."""
        self.active = clock.now
        """When bytes last moved, by the clock."""

    @property
    def sent(self) -> int:
        """Bytes that the socket has accepted back."""
        return self.received - len(self.pending)

    def resume(self, state: ConnectionState) -> None:
        """Continue a connection from the state in which another process left it."""
        self.received, self.chunks, self.active = state.received, state.chunks, state.active
        self.pending = memoryview(state.pending) if state.pending else _NOTHING

    def renew(self, sock: Socket, buffer: memoryview) -> None:
        """Use this socket and this buffer from the next call on; pending bytes are a copy, and lie in no buffer.

        The window is replaced with the buffer that it is a part of.  If it stayed, the next chunk of the same size
        would be answered with the contents of the old buffer.
        """
        self._sock = sock
        self._buffer = self._window = buffer
        self._count = -1

    def touch(self) -> None:
        """Count the client as active now: no bytes moved here, but its kernel has acknowledged some."""
        self.active = self._clock.now

    def on_readable(self) -> None:
        """Read one chunk and send it back.  This is the hot path: each line of it adds to the cost of every echo."""
        try:
            count = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self._owner.on_broken(error)
            return
        if count != self._count:
            if not count:
                self._owner.on_eof()
                return
            self._count = count
            self._window = self._buffer[:count]
        self.received += count
        self.chunks += 1
        self.active = self._clock.now
        try:
            sent = self._sock.send(self._window)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.pending = memoryview(bytes(self._window))
            self._owner.on_broken(error)
            return
        if sent != count:
            self.pending = memoryview(bytes(self._window[sent:]))
            self._owner.on_blocked()

    def on_writable(self) -> None:
        """Send as many of the pending bytes as the socket accepts."""
        try:
            sent = self._sock.send(self.pending)
        except BlockingIOError:
            return
        except OSError as error:
            self._owner.on_broken(error)
            return
        self.active = self._clock.now
        self.pending = self.pending[sent:]
        if not self.pending:
            self.pending = _NOTHING
            self._owner.on_flushed()
