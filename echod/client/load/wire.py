"""The bytes of one connection of a load: sent, received and compared at the same time.

What is sent is a part of the pattern, which says what must come back at any position: the memory that a wire takes
does not depend on how much is outstanding.  Sending never waits for the echo, nor the echo for sending: no order in
which a server reads and writes stops it.
"""

from __future__ import annotations

import socket

from echod.client.faults import (
    WINDOW,
    BrokenConnectionError,
    ClosedError,
    EchoError,
    MismatchError,
    ShortfallError,
    SurplusError,
    reason,
)
from echod.client.load.loop import READ, WRITE, Loop, clock
from echod.client.load.tally import Tally
from echod.client.pattern import Pattern

PIECE = 64 * 1024
"""Most bytes sent or received at once: from 128 KiB up malloc(3) maps memory anew for each."""


class Wire:
    """Sends the pattern, from `phase` on, up to the goal that a subclass sets; in messages of `size` bytes."""

    def __init__(self, pattern: Pattern, phase: int, size: int, loop: Loop, tally: Tally) -> None:
        self._part = pattern.part
        self._phase = phase  # where in the pattern the connection begins
        self._piece = PIECE
        # One byte more than a message would show a surplus; 4 KiB cost no more than 64 bytes.
        self._chunk = min(max(size + 1, 4096), PIECE)
        self._loop = loop
        self._tally = tally
        self._socket: socket.socket | None = None
        self._watched = 0
        self._sent = self._received = self._goal = 0
        self._send_failure = ""
        self._heard = 0  # when the server last took or returned something, or began to owe it

    def on_progress(self, now: int) -> None:
        """More has come back, and it was right."""

    def on_all_returned(self) -> None:
        """The server ended the connection, with nothing wrong or missing."""

    def on_fault(self, error: EchoError, why: str) -> None:
        """The echo is wrong or lost; `why` is the system's reason, if there is one."""

    def send(self) -> None:
        """Send a piece of what is wanted, and if that was not all, the next when there is room and turn."""
        assert self._socket is not None
        try:
            count = self._socket.send(self._part(self._phase + self._sent, min(self._goal - self._sent, self._piece)))
        except BlockingIOError:
            pass
        except OSError as error:
            self._send_failure = reason(error)  # to be told when reading ends: there may be bytes to be read
        else:
            self._sent += count
            self._tally.sent += count
        events = READ | WRITE if self._sent < self._goal and not self._send_failure else READ
        if events != self._watched:
            self._watch(events)

    def _watch(self, events: int) -> None:
        assert self._socket is not None
        self._watched = events
        self._loop.rewatch(self._socket.fileno(), events, self._on_ready)

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            self._heard = clock()
            self.send()
        if events & ~WRITE:
            self._receive()

    def _receive(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(self._chunk)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(reason(error))
            return
        count = len(data)
        received = self._received + count
        if received > self._sent or data != self._part(self._phase + self._received, count):
            self.on_fault(self._fault(data), "")
        elif data:
            self._received = received
            self._tally.received += count
            self._heard = now = clock()
            self.on_progress(now)
        elif self._send_failure:
            self._break(self._send_failure)
        elif self._received < self._sent:
            self.on_fault(ShortfallError(self._sent, self._received), "")
        elif not self._is_half_closed():
            self.on_fault(ClosedError(self._sent), "")
        else:
            self.on_all_returned()

    def _is_half_closed(self) -> bool:
        raise NotImplementedError

    def _break(self, why: str) -> None:
        self.on_fault(BrokenConnectionError(why, self._sent, self._received), why)

    def _fault(self, data: bytes) -> EchoError:
        outstanding = self._sent - self._received
        expected = self._part(self._phase + self._received, min(outstanding, len(data)))
        for index, (sent, came) in enumerate(zip(expected, data, strict=False)):
            if sent != came:
                offset = self._received + index
                window = self._part(self._phase + offset, min(WINDOW, self._sent - offset))
                return MismatchError(offset, window, data[index:])
        return SurplusError(self._sent, data[outstanding:])
