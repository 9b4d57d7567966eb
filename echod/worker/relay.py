"""Sending a client's bytes back to it.

Lock-step: a relay reads only while nothing is pending, and sends at once what it has read.  Bytes that the socket does
not accept become pending, and the relay reads no more until they are sent.  So memory never holds more than one chunk
per client; a relay does not read from a client that does not read; and it sees the end of input only after it has sent
everything before it, so a half-close needs no special case (RFC 862: "any data received is sent back").

A relay waits for one thing at a time: input while `pending` is empty, else room.  It neither owns the socket nor knows
the loop; it calls its owner when it must wait for something else, or when the connection has ended.

Rejected: os.splice.  It makes bulk transfers 1.2 to 1.9 times cheaper, but needs a pipe for each connection, and a
hand-over would have to move the bytes in the pipe; and the loop would spin after an urgent byte, since splice then
returns EAGAIN while EPOLLIN stays set.  tests/bench/README.md lists what else was tried.
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


class Buffer:
    """The memory through which all relays of a loop echo; it holds nothing between two calls.

    `recv_into` costs the same at any chunk size, while `recv` allocates a whole chunk each time, which is expensive
    from 128 KiB up.  The window belongs here, not to the relays: with thousands of connections the processor's cache is
    the limit, and each object that an echo does not touch makes it faster.
    """

    __slots__ = ("chunk", "count", "window")

    def __init__(self, chunk_size: int) -> None:
        self.resize(chunk_size)

    def resize(self, chunk_size: int) -> None:
        """Use chunks of this size from now on."""
        # Not a bytearray: from about 128 KiB up malloc(3) places it 16 bytes after the beginning of a page.  Received
        # bytes often begin with a page, and where the target of a copy lies a few bytes further into its page than the
        # source, the processor copies slowly (`rep movsb`): measured, a message of 100 KiB costs 1.6 times as much.
        self.chunk = self.window = memoryview(mmap.mmap(-1, chunk_size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        """Room for one chunk; and the part of it that held the last one.

        The next chunk often has the same size, and not slicing the buffer again saves, measured, 2 % of an echo of 64
        bytes.
        """
        self.count = -1
        """The last chunk's size, or -1 before the first; never 0, which stands for the end of input."""


class Relay:
    """Sends the bytes that arrive on `sock` back, through `buffer`."""

    __slots__ = ("_buffer", "_clock", "_owner", "_sock", "active", "chunks", "pending", "received")

    def __init__(self, sock: Socket, buffer: Buffer, clock: Clock, owner: Owner) -> None:
        self._sock = sock
        self._buffer = buffer
        self._clock = clock
        self._owner = owner
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
        return self.received - len(self.pending) if self.pending else self.received

    def resume(self, state: ConnectionState) -> None:
        """Continue a connection from the state in which another process left it."""
        self.received, self.chunks, self.active = state.received, state.chunks, state.active
        self.pending = memoryview(state.pending) if state.pending else _NOTHING

    def use(self, sock: Socket) -> None:
        """Use this socket from the next call on."""
        self._sock = sock

    def end(self) -> None:
        """Let go of the owner and the socket, which know this relay: so reference counts free all three at once.

        The counters remain.
        """
        del self._owner, self._sock

    def touch(self) -> None:
        """Count the client as active now: no bytes moved here, but its kernel has acknowledged some."""
        self.active = self._clock.now

    def on_readable(self) -> None:
        """Read one chunk and send it back.  This is the hot path: each line of it adds to the cost of every echo."""
        buffer = self._buffer
        try:
            count = self._sock.recv_into(buffer.chunk)
        except BlockingIOError:
            return
        except OSError as error:
            self._owner.on_broken(error)
            return
        if count != buffer.count:
            if not count:
                self._owner.on_eof()
                return
            buffer.count = count
            buffer.window = buffer.chunk[:count]
        self.received += count
        self.chunks += 1
        self.active = self._clock.now
        try:
            sent = self._sock.send(buffer.window)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.pending = memoryview(bytes(buffer.window))
            self._owner.on_broken(error)
            return
        if sent != count:
            self.pending = memoryview(bytes(buffer.window[sent:]))
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
