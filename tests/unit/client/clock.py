"""The clock by which the client waits and measures, moved by hand."""

import time
from collections.abc import Callable

import pytest

from echod.client.ping.connection import Connection

_perf_counter_ns = time.perf_counter_ns


class Clock:
    """time.monotonic and time.perf_counter_ns, of which only what the code under test reads is changed.

    It stands, so that nothing is late that is merely slow, until the test has it leap.  What waits in the kernel waits
    for as long as it was told, by the kernel's own clock.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.now = time.perf_counter_ns()
        self.on_look: Callable[[], None] = lambda: None
        """What happens just before each look at it, while it stands."""
        self._runs_from: int | None = None
        monkeypatch.setattr(time, "perf_counter_ns", self._look)
        monkeypatch.setattr(time, "monotonic", lambda: self._look() / 1e9)

    def _look(self) -> int:
        if self._runs_from is not None:
            return self.now + _perf_counter_ns() - self._runs_from
        self.on_look()
        return self.now

    def leap_after_a_part(self, seconds: float) -> None:
        """Let so much time pass whenever a probe has received a part of an echo, and not before it has."""
        receive = Connection._receive

        def receive_and_leap(probe: Connection, message: bytes, received: int, sent: int) -> int:
            count = receive(probe, message, received, sent)
            if received + count < len(message):
                self.leap(seconds)
            return count

        self._monkeypatch.setattr(Connection, "_receive", receive_and_leap)

    def leap(self, seconds: float) -> None:
        """Let so much time pass at once."""
        self.now += round(seconds * 1e9)

    def run(self) -> None:
        """Go on as any other clock from now on."""
        self._runs_from = _perf_counter_ns()
