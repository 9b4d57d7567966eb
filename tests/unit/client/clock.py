"""The client's clock under the test's control."""

import time
from collections.abc import Callable

import pytest

from echod.client.ping.connection import Connection

_perf_counter_ns = time.perf_counter_ns


class Clock:
    """Replaces time.monotonic and time.perf_counter_ns.

    The clock stands still until the test advances it, so that a slow machine makes nothing late.  Waits in the kernel
    last as long as requested, by the kernel's own clock.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.now = time.perf_counter_ns()
        self.on_look: Callable[[], None] = lambda: None
        """Called before each reading of the clock, while it stands still."""
        self._runs_from: int | None = None
        monkeypatch.setattr(time, "perf_counter_ns", self._look)
        monkeypatch.setattr(time, "monotonic", lambda: self._look() / 1e9)

    def _look(self) -> int:
        if self._runs_from is not None:
            return self.now + _perf_counter_ns() - self._runs_from
        self.on_look()
        return self.now

    def leap_after_a_part(self, seconds: float) -> None:
        """Advance by `seconds` whenever a part of an echo has been received."""
        receive = Connection._receive

        def receive_and_leap(probe: Connection, message: bytes, received: int, sent: int) -> int:
            count = receive(probe, message, received, sent)
            if received + count < len(message):
                self.leap(seconds)
            return count

        self._monkeypatch.setattr(Connection, "_receive", receive_and_leap)

    def leap(self, seconds: float) -> None:
        """Advance by `seconds` at once."""
        self.now += round(seconds * 1e9)

    def run(self) -> None:
        """Run like a real clock from now on."""
        self._runs_from = _perf_counter_ns()
