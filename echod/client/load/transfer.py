"""Sending, receiving and comparing the bytes of one connection, all at the same time.

What is sent is a part of the pattern, and the pattern says which bytes must come back at any offset, so the memory of a
transfer does not depend on how much is outstanding.  Sending never waits for the echo, nor receiving for sending: no
order in which a server reads and writes stops the transfer.
"""

from __future__ import annotations

import socket

from echod.client.compare import PERIOD, Pattern, compare
from echod.client.errors import BrokenConnectionError, ClosedError, EchoError, ShortfallError, reason
from echod.client.load.loop import READ, WRITE, Loop, clock
from echod.client.load.tally import Tally

PIECE = 64 * 1024
"""The most bytes sent or received at once: from 128 KiB on malloc(3) maps memory for each buffer."""


class Transfer:
    """Sends the pattern, from `phase` on, up to the goal that a subclass sets, in messages of `size` bytes."""

    def __init__(self, pattern: Pattern, phase: int, size: int, loop: Loop, tally: Tally) -> None:
        self._part, self._block = pattern.part, pattern.block
        self._phase = phase  # where in the pattern the connection begins
        self._piece = PIECE
        # One byte more than a message is enough to see surplus bytes; 4 KiB cost no more than 64 bytes.
        self._chunk = min(max(size + 1, 4096), PIECE)
        self._loop = loop
        self._tally = tally
        self._socket: socket.socket | None = None
        self._watched = 0
        self._sent = self._received = self._goal = 0
        self._send_failure = ""
        self._progress = 0  # when the server last accepted or returned bytes, or when they became outstanding

    def on_progress(self, now: int) -> None:
        """More bytes have come back, and were right."""

    def on_closed(self) -> None:
        """The server closed the connection after our half-close, with nothing wrong or missing."""

    def on_fault(self, error: EchoError, why: str) -> None:
        """The echo is wrong or lost; `why` is the system's reason, or ""."""

    def send(self) -> None:
        """Send a piece, and if more is left, the next one when there is room and it is this connection's turn."""
        assert self._socket is not None
        try:
            count = self._socket.send(self._part(self._phase + self._sent, min(self._goal - self._sent, self._piece)))
        except BlockingIOError:
            pass
        except OSError as error:
            self._send_failure = reason(error)  # reported when reading ends: there may be bytes to read
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
            self._progress = clock()
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
        if not data:
            self._on_end()
            return
        received = self._received
        start = (self._phase + received) % PERIOD
        if wrong := compare(data, received, self._block, start, self._sent - received):
            self.on_fault(wrong, "")
            return
        count = len(data)
        self._received = received + count
        self._tally.received += count
        self._progress = now = clock()
        self.on_progress(now)

    def _on_end(self) -> None:
        if self._send_failure:
            self._break(self._send_failure)
        elif self._received < self._sent:
            self.on_fault(ShortfallError(self._sent, self._received), "")
        elif not self._is_half_closed():
            self.on_fault(ClosedError(self._sent), "")
        else:
            self.on_closed()

    def _is_half_closed(self) -> bool:
        raise NotImplementedError

    def _break(self, why: str) -> None:
        self.on_fault(BrokenConnectionError(why, self._sent, self._received), why)
