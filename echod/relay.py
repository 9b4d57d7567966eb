"""Moving a client's bytes back to it.

Lock-step: a relay reads only while nothing is pending, and sends what it has read at once.  What the socket does not
take becomes pending, and nothing is read until that is gone.  From this follows the rest: there is never more than one
chunk of a client in memory; a client that does not read is not read from; and the end of input is seen only when
everything before it has been sent, so that a half-close needs no special case (RFC 862: "any data received is sent
back").

A relay waits for one thing at a time: input while `pending` is empty, else room.  It owns no socket, knows no loop,
and tells its owner when it has to wait for something else, or has come to an end.
"""

import os
from collections.abc import Callable
from typing import Protocol

Read = Callable[[int, int], bytes]
Write = Callable[[int, bytes | memoryview], int]

_NOTHING = memoryview(b"")


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
    """Copies what arrives on the descriptor `fd` back into it, at most `chunk_size` bytes at a time.

    `read` and `write` are those of `os`, or behave like them.  Measured, they cost a tenth less per echo than `recv`
    and `send` of a socket object, or `recv_into` a shared buffer: the interpreter passes them their arguments faster.
    """

    __slots__ = (
        "_chunk_size",
        "_clock",
        "_fd",
        "_owner",
        "_read",
        "_write",
        "active",
        "chunks",
        "pending",
        "received",
    )

    def __init__(
        self,
        fd: int,
        chunk_size: int,
        clock: Clock,
        owner: Owner,
        read: Read = os.read,
        write: Write = os.write,
    ) -> None:
        self._fd = fd
        self._chunk_size = chunk_size
        self._clock = clock
        self._owner = owner
        self._read = read
        self._write = write
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

    def on_readable(self) -> None:
        """Read one chunk and send it back.  This is the hot path: each line of it costs every echo."""
        try:
            data = self._read(self._fd, self._chunk_size)
        except BlockingIOError:
            return
        except OSError as error:
            self._owner.on_broken(error)
            return
        if not data:
            self._owner.on_eof()
            return
        self.received += len(data)
        self.chunks += 1
        self.active = self._clock.now
        try:
            sent = self._write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.pending = memoryview(data)
            self._owner.on_broken(error)
            return
        if sent != len(data):
            self.pending = memoryview(data)[sent:]
            self._owner.on_blocked()

    def on_writable(self) -> None:
        """Send what is pending, as far as the socket takes it."""
        try:
            sent = self._write(self._fd, self.pending)
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
