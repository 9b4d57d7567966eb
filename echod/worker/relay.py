"""Moving a client's bytes back to it.

Lock-step: a relay reads only while nothing is pending, and sends what it has read at once.  What the socket does not
take becomes pending, and nothing is read until that is gone.  From this follows the rest: there is never more than one
chunk of a client in memory; a client that does not read is not read from; and the end of input is seen only when
everything before it has been sent, so that a half-close needs no special case (RFC 862: "any data received is sent
back").

A relay waits for one thing at a time: input while `pending` is empty, else room.  It owns no socket, knows no loop,
and tells its owner when it has to wait for something else, or has come to an end.
"""

from typing import Protocol

_NOTHING = memoryview(b"")


class Socket(Protocol):
    """The part of a connected, non-blocking socket that a relay needs."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read what there is, at most as much as `buffer` holds; 0 is the end."""

    def send(self, data: memoryview, /) -> int:
        """Send what can be sent of `data` now."""


class Clock(Protocol):
    """Anything that knows the time of this turn, in seconds of the monotonic clock."""

    now: float


class Owner(Protocol):
    """Whoever watches the socket for a relay."""

    def on_blocked(self) -> None:
        """The socket takes no more: wait for room, then call `on_writable`."""

    def on_flushed(self) -> None:
        """Nothing is pending any more: wait for input, then call `on_readable`."""

    def on_eof(self) -> None:
        """The client has ended its side, and all that it sent has been sent back."""

    def on_broken(self, error: OSError) -> None:
        """The connection has failed."""


class Relay:
    """Copies what arrives on `sock` back into it, by way of `buffer`, whose size is the chunk size.

    The buffer may be shared by all relays of a loop: it holds nothing between two calls.  `recv_into` costs the same at
    any chunk size, while `recv` has to make that many bytes each time, which is dear from 128 KiB up.
    """

    __slots__ = ("_buffer", "_clock", "_count", "_owner", "_sock", "_window", "active", "chunks", "pending", "received")

    def __init__(self, sock: Socket, buffer: memoryview, clock: Clock, owner: Owner) -> None:
        self._sock = sock
        self._buffer = buffer
        self._clock = clock
        self._owner = owner
        # The last chunk's size and its part of the buffer.  The next is often as long, and then not to cut the buffer
        # again saves, measured, 2 % of an echo of 64 bytes.  No chunk has the size -1, and the end of input has 0.
        self._count = -1
        self._window = buffer
        self.pending = _NOTHING
        """What was received and not yet taken by the socket."""
        self.received = 0
        """Bytes received."""
        self.chunks = 0
        """Reads that these bytes came in."""
        self.active = clock.now
        """When bytes last moved, by the clock."""

    @property
    def sent(self) -> int:
        """Bytes that the socket has taken back."""
        return self.received - len(self.pending)

    def renew(self, sock: Socket, buffer: memoryview) -> None:
        """Go on with these, from the next call on; what is pending is a copy, and lies in no buffer.

        The window goes with the buffer that it is a part of, or the next chunk of the same size would be answered with
        what lay in the old one.
        """
        self._sock = sock
        self._buffer = self._window = buffer
        self._count = -1

    def on_readable(self) -> None:
        """Read one chunk and send it back.  This is the hot path: each line of it costs every echo."""
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
        """Send what is pending, as far as the socket takes it."""
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
