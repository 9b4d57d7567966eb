"""The event loop: `selectors`, timers and a wake-up descriptor, in one turn that never changes.

A turn waits for descriptors or the next timer, reads the clock once, calls back for each descriptor that is ready,
then for each timer that is due.  Callbacks run to their end and must not block.  One that raises for a descriptor does
not end the loop: `on_bug(fd, error)` decides, since on the open internet one client's misfortune must not be
everyone's.

A watched descriptor has one callback, which takes no argument: whoever watches for one thing at a time (and everyone
here does) needs no mask, and errors (EPOLLERR, EPOLLHUP) come to light by the call that the callback makes anyway.
"""

import select
import selectors
import time
from collections.abc import Callable

from echod.net.timers import Timer, Timers

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

_BATCH = 256
"""Most descriptors served before the timers get their turn; each wait allocates 12 bytes for each."""


class Poller(selectors.EpollSelector):
    """`selectors.EpollSelector` with the two things that it lacks for a server."""

    def register_exclusive(self, fd: int) -> None:
        """Watch a listening descriptor that other processes watch too: a connection wakes one of them, not all.

        EPOLLEXCLUSIVE, epoll_ctl(2).  `register` knows no such event.
        """
        self._selector.register(fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)  # type: ignore[attr-defined]
        self._fd_to_key[fd] = selectors.SelectorKey(fd, fd, READ, None)  # type: ignore[attr-defined]

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """The descriptors that are ready, as epoll_wait(2) tells them; `timeout` in seconds.

        `select` would find a key and build a tuple for each before the first is served: measured, 5 % of an echo.
        """
        ready: list[tuple[int, int]] = self._selector.poll(timeout, _BATCH)  # type: ignore[attr-defined]
        return ready


class Loop:
    """One process's loop.  Make it after the fork: an epoll instance shared with a parent would serve both."""

    def __init__(self, on_bug: Callable[[int, Exception], None]) -> None:
        self.now = time.monotonic()
        """Seconds of the monotonic clock, read once a turn."""
        self._poller = Poller()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timers = Timers()
        self._on_bug = on_bug
        self._running = False

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Have `callback()` called whenever `fd` is ready for `events` (READ or WRITE) or has failed."""
        self._poller.register(fd, events)
        self._callbacks[fd] = callback

    def watch_exclusive(self, fd: int, callback: Callable[[], None]) -> None:
        """`watch` for READ, where several processes wait on one listening socket."""
        self._poller.register_exclusive(fd)
        self._callbacks[fd] = callback

    def rewatch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Change what a watched descriptor is watched for, or only who is called, which costs no system call."""
        self._poller.modify(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Watch `fd` no more; do this before closing it."""
        self._poller.unregister(fd)
        del self._callbacks[fd]

    def call_later(self, delay: float, callback: Callable[[float], None]) -> Timer:
        """Have `callback(now)` called once, `delay` seconds after the beginning of this turn or soon after."""
        return self._timers.add(self.now + delay, callback)

    def run(self) -> None:
        """Turn until `stop`."""
        self._running = True
        while self._running:
            self._turn()

    def stop(self) -> None:
        """End `run` when this turn's callbacks have been called."""
        self._running = False

    def close(self) -> None:
        """Give the descriptor of the epoll instance back; what was watched stays open."""
        self._poller.close()

    def _turn(self) -> None:
        callbacks = self._callbacks
        ready = self._poller.poll(self._timers.wait(self.now))
        self.now = time.monotonic()
        for fd, _ in ready:
            # Whoever was called before may have unwatched this one: look now, not when it became ready.
            callback = callbacks.get(fd)
            if callback is not None:
                try:
                    callback()
                except Exception as error:  # noqa: BLE001  whatever it is, the owner of the loop decides
                    self._on_bug(fd, error)
        self._timers.run_due(self.now)
