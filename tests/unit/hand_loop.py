"""A loop on real descriptors whose clock the test moves: an hour takes no time, and there are no races."""

from collections.abc import Callable

from echod.net.loop import Loop

DEADLINE = 20.0
"""Seconds after which a test gives up waiting for a descriptor to become ready."""


def raises(fd: int, error: Exception) -> None:
    """Fail the test: a bug was found."""
    raise error


class HandLoop(Loop):
    """The real loop, run one turn at a time, with a clock that stands still until the test moves it."""

    def __init__(self, on_bug: Callable[[int, Exception], None] = raises, time: float = 1000.0) -> None:
        self._time = time
        super().__init__(on_bug, clock=lambda: self._time)

    def turn(self, timeout: float | None = DEADLINE) -> int:
        """Run one turn; if the loop watches a descriptor, one must become ready."""
        count = super().turn(timeout)
        assert count or not timeout, f"no descriptor is ready, of {[*self._poller.get_map()]}"
        return count

    def until(self, done: Callable[[], bool]) -> None:
        """Run turns until `done()` is true."""
        while not done():
            self.turn()

    def settle(self) -> None:
        """Run turns until no descriptor is ready."""
        while self.turn(0):
            pass

    def pass_time(self, seconds: float) -> None:
        """Move the clock, and run one turn."""
        self._time += seconds
        self.turn(0)

    def due_in(self) -> float | None:
        """Seconds until the next call, if there is one."""
        return self._timers.wait(self.now)

    def callback(self, fd: int) -> Callable[[], None]:
        """What the loop calls when `fd` is ready."""
        callback = self._added.get(fd) or self._callbacks[fd]
        assert callback is not None
        return callback
