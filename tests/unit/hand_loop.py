"""A loop whose clock is moved by hand, on real descriptors: an hour takes no time, and nothing is raced."""

from collections.abc import Callable

from echod.net.loop import Loop

DEADLINE = 20.0
"""Seconds after which a descriptor that a test waits for will never be ready."""


def raises(fd: int, error: Exception) -> None:
    """Fail the test: a bug was found."""
    raise error


class HandLoop(Loop):
    """The real loop, one real turn at a time, by a clock that stands still until the test moves it."""

    def __init__(self, on_bug: Callable[[int, Exception], None] = raises, time: float = 1000.0) -> None:
        self._time = time
        super().__init__(on_bug, clock=lambda: self._time)

    def turn(self, timeout: float | None = DEADLINE) -> int:
        """One turn, in which a descriptor must become ready if it waits for one."""
        count = super().turn(timeout)
        assert count or not timeout, f"no descriptor is ready, of {sorted(self._callbacks)}"
        return count

    def until(self, done: Callable[[], bool]) -> None:
        """Turn until `done()`."""
        while not done():
            self.turn()

    def settle(self) -> None:
        """Turn until no descriptor is ready."""
        while self.turn(0):
            pass

    def pass_time(self, seconds: float) -> None:
        """Move the clock, and take the turn that finds it moved."""
        self._time += seconds
        self.turn(0)

    def due_in(self) -> float | None:
        """Seconds until the next call, if there is one."""
        return self._timers.wait(self.now)

    def callback(self, fd: int) -> Callable[[], None]:
        """What the loop calls when `fd` is ready."""
        return (self._callbacks | self._added)[fd]
