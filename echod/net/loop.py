"""The event loop: `selectors` and timers, served in turns that always have the same order.

A turn waits for descriptors or the next timer, reads the clock once, calls back for each descriptor that is ready,
then for each timer that is due.  Callbacks run to their end and must not block.  An exception in a descriptor's
callback does not end the loop, because an error on one connection must not end all others: `on_bug(fd, error)` decides.

A watched descriptor has one callback, which takes no argument.  A descriptor here waits for one thing at a time, so no
callback needs a mask, and the system call that the callback makes anyway shows errors (EPOLLERR, EPOLLHUP).

The number of a closed descriptor goes to the next socket at once, although epoll_wait(2) may have reported the old
descriptor ready in the same turn.  So a new callback is called from the next turn on, and readiness of the old
descriptor finds no callback.
"""

import errno
import heapq
import math
import select
import selectors
import time
from collections.abc import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
NOTHING = 0
"""Watch a descriptor for its failure only; for `Loop.rewatch`."""

_BATCH = 256
"""Most descriptors served before the timers are; each wait allocates 12 bytes for each of them."""
_FEW = 64
"""Number of cancelled timers up to which rebuilding the heap is not worth its cost."""


class Timer:
    """One call in the future; `cancel` withdraws it, and may be called at any time and more than once."""

    __slots__ = ("_callback", "_timers")

    def __init__(self, timers: "Timers", callback: Callable[[float], None]) -> None:
        self._timers: Timers | None = timers
        self._callback: Callable[[float], None] | None = callback

    def cancel(self) -> None:
        """Withdraw the call; after it was made or withdrawn this does nothing."""
        timers, self._timers, self._callback = self._timers, None, None
        if timers is not None:
            timers._bury()

    def _fire(self, now: float) -> bool:
        callback, self._timers, self._callback = self._callback, None, None
        if callback is not None:
            callback(now)
        return callback is not None


class Timers:
    """Future calls, soonest first; those due at the same time in the order in which they were added.

    A lazy heap that reads no clock; `now` is always an argument.  A cancelled timer stays in the heap until it reaches
    the top, or until cancelled timers are the majority: then the heap is rebuilt, so a million short connections with a
    three-hour timer each leave nothing behind.  Adding and cancelling cost O(log n), amortised.  Times are seconds of
    the monotonic clock.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._added = 0
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def add(self, when: float, callback: Callable[[float], None]) -> Timer:
        """Add a call of `callback(now)` by the first `run_due(now)` with `now >= when`."""
        timer = Timer(self, callback)
        self._added += 1
        heapq.heappush(self._heap, (when, self._added, timer))
        return timer

    def wait(self, now: float) -> float | None:
        """Seconds until the next timer is due, never negative; None without a timer, or if none will ever be due."""
        while self._heap and self._heap[0][2]._callback is None:
            heapq.heappop(self._heap)
            self._dead -= 1
        if not self._heap or math.isinf(self._heap[0][0]):
            return None
        return max(0.0, self._heap[0][0] - now)

    def run_due(self, now: float) -> None:
        """Make every call that is due at `now`; one added meanwhile waits for the next turn, even if it is due."""
        last = self._added
        while self._heap and self._heap[0][0] <= now and self._heap[0][1] <= last:
            timer = heapq.heappop(self._heap)[2]
            if not timer._fire(now):
                self._dead -= 1

    def _bury(self) -> None:
        self._dead += 1
        if self._dead > _FEW and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2]._callback is not None]
            heapq.heapify(self._heap)
            self._dead = 0


class Poller(selectors.EpollSelector):
    """`selectors.EpollSelector`, with three methods that a server needs in addition."""

    def register_exclusive(self, fd: int) -> None:
        """Watch a listening descriptor that other processes watch too: a connection wakes one of them, not all.

        EPOLLEXCLUSIVE, epoll_ctl(2).  `register` has no such event.  Where the system lacks it (EINVAL), a connection
        wakes all processes.
        """
        try:
            self._selector.register(fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)  # type: ignore[attr-defined]
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._selector.register(fd, select.EPOLLIN)  # type: ignore[attr-defined]
        self._fd_to_key[fd] = selectors.SelectorKey(fd, fd, READ, None)  # type: ignore[attr-defined]

    def change(self, fd: int, events: int) -> None:
        """Watch a registered descriptor for other events; raises OSError, and then changes nothing.

        `modify` would forget a descriptor for which epoll_ctl(2) fails, and leave it registered in the kernel.
        """
        key = self._fd_to_key[fd]  # type: ignore[attr-defined]
        if events != key.events:
            mask = (select.EPOLLIN if events & READ else 0) | (select.EPOLLOUT if events & WRITE else 0)
            self._selector.modify(fd, mask)  # type: ignore[attr-defined]
            self._fd_to_key[fd] = key._replace(events=events)  # type: ignore[attr-defined]

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """The descriptors that are ready, as epoll_wait(2) returns them; `timeout` in seconds.

        `select` would find a key and build a tuple for each before the first is served: measured, 5 % of an echo.
        """
        ready: list[tuple[int, int]] = self._selector.poll(timeout, _BATCH)  # type: ignore[attr-defined]
        return ready


class Loop:
    """One process's loop.  Make it after the fork: an epoll instance shared with a parent would serve both.

    `clock` returns seconds that never go back; a test passes one that it moves by hand.
    """

    def __init__(self, on_bug: Callable[[int, Exception], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.now = clock()
        """Seconds of the clock, which is read once a turn."""
        self._poller = Poller()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._added: dict[int, Callable[[], None]] = {}
        """Callbacks of descriptors that the next wait is the first to include; none of them is in `_callbacks`."""
        self._timers = Timers()
        self._on_bug = on_bug
        self._running = False

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call `callback()` whenever `fd` is ready for `events` (READ or WRITE) or has failed."""
        self._poller.register(fd, events)
        self._added[fd] = callback

    def watch_exclusive(self, fd: int, callback: Callable[[], None]) -> None:
        """Like `watch` for READ, for a listening socket on which several processes wait."""
        self._poller.register_exclusive(fd)
        self._added[fd] = callback

    def rewatch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Change the events of a watched descriptor, or only its callback, which costs no system call."""
        self._poller.change(fd, events)
        (self._added if fd in self._added else self._callbacks)[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`; do this before closing it."""
        self._poller.unregister(fd)
        if self._added.pop(fd, None) is None:
            del self._callbacks[fd]

    def call_later(self, delay: float, callback: Callable[[float], None]) -> Timer:
        """Call `callback(now)` once, `delay` seconds after the beginning of this turn or soon after that."""
        return self._timers.add(self.now + delay, callback)

    def run(self) -> None:
        """Run turns until `stop` is called."""
        self._running = True
        while self._running:
            self.turn(self._timers.wait(self.now))

    def stop(self) -> None:
        """End `run` when this turn's callbacks have been called."""
        self._running = False

    def close(self) -> None:
        """Close the descriptor of the epoll instance; the watched ones stay open."""
        self._poller.close()

    def turn(self, timeout: float | None) -> int:
        """Run one turn, which waits up to `timeout` seconds (None: without a limit); returns how many fds were ready.

        This is the hot path: each line of it adds to the cost of every echo.
        """
        callbacks = self._callbacks
        if self._added:
            callbacks.update(self._added)
            self._added.clear()
        ready = self._poller.poll(timeout)
        self.now = self._clock()
        for fd, _ in ready:
            # An earlier callback of this turn may have unwatched this descriptor, so look its callback up only now.
            callback = callbacks.get(fd)
            if callback is not None:
                try:
                    callback()
                except Exception as error:  # noqa: BLE001  the owner of the loop decides about any error
                    self._on_bug(fd, error)
        self._timers.run_due(self.now)
        return len(ready)
