"""A loop whose clock is moved by hand, on real descriptors: what takes an hour takes no time, and nothing is raced."""

from collections.abc import Callable

from echod.net.loop import Loop

DEADLINE = 20.0
"""Seconds after which a descriptor that a test waits for will never be ready."""


def raises(fd: int, error: Exception) -> None:
    """What to do with a bug: fail the test."""
    raise error


class HandLoop(Loop):
    """A loop that turns when it is told to, and for which time passes when it is told so.

    `script` is what happens while it is meant to `run`.
    """

    def __init__(
        self,
        on_bug: Callable[[int, Exception], None] = raises,
        script: Callable[["HandLoop"], None] = lambda loop: None,
    ) -> None:
        super().__init__(on_bug)
        self.now = 1000.0
        self.script = script
        self.stopped = False

    def run(self) -> None:
        """Let the script happen."""
        self.script(self)

    def stop(self) -> None:
        """Remember that the loop was to end."""
        self.stopped = True

    def turn(self, *, wait: bool = True) -> bool:
        """Call back for what is ready, which must be something if it is waited for; whether anything was."""
        ready = self._poller.poll(DEADLINE if wait else 0)
        assert ready or not wait, f"nothing happens to {sorted(self._callbacks)}"
        for fd, _ in ready:
            callback = self._callbacks.get(fd)
            if callback is not None:
                try:
                    callback()
                except Exception as error:  # noqa: BLE001  as the real one does
                    self._on_bug(fd, error)
        return bool(ready)

    def until(self, done: Callable[[], bool]) -> None:
        """Turn until that is so."""
        while not done():
            self.turn()

    def settle(self) -> None:
        """Turn as long as anything is ready."""
        while self.turn(wait=False):
            pass

    def pass_time(self, seconds: float) -> None:
        """Move the clock, and make the calls that are due then."""
        self.now += seconds
        self._timers.run_due(self.now)

    def due_in(self) -> float | None:
        """Seconds until the next call, if there is one."""
        return self._timers.wait(self.now)

    def watches(self, fd: int) -> bool:
        """Whether the descriptor is watched."""
        return fd in self._callbacks
