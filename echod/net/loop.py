"""The event loop: epoll(7) and timers, served in turns that always have the same order.

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
from collections.abc import Callable, Mapping
from typing import Any

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
NOTHING = 0
"""Watch a descriptor for its failure only; for `Loop.rewatch`."""

_MASKS = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)
"""What epoll calls NOTHING, READ, WRITE, and both."""
_UNWATCHED = 255
_BATCH = 256
"""Most descriptors served before the timers are; with more, latencies differ more (tests/bench/README.md)."""
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
    the top, or until cancelled timers are the majority: then the heap is rebuilt, so a million cancelled timers of
    three hours leave nothing behind.  Adding and cancelling cost O(log n), amortised.  Times are seconds of the
    monotonic clock.
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


class Poller(selectors.BaseSelector):
    """A selector on epoll(7) that keeps ten bytes for each descriptor, in two tables indexed by its number.

    A new descriptor gets the lowest number that is free, so the tables have few gaps.  `selectors.EpollSelector` keeps
    a SelectorKey in a dict, a hundred bytes more, and makes a new key at each change.  Here only the methods of the
    `selectors` interface make a key, and the loop uses the others.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._events = bytearray()
        """The events for which each descriptor is watched, or `_UNWATCHED`."""
        self.data: list[Any] = []
        """The data with which each descriptor is registered, or None; the loop keeps its callbacks here."""

    def add(self, fd: int, events: int) -> None:
        """Watch a descriptor, without data; raises OSError, and then changes nothing."""
        self._epoll.register(fd, _MASKS[events])
        self._note(fd, events)

    def add_exclusive(self, fd: int) -> None:
        """Watch a listening descriptor that other processes watch too: a connection wakes one of them, not all.

        EPOLLEXCLUSIVE, epoll_ctl(2).  Where the system lacks it (EINVAL), a connection wakes all processes.
        """
        try:
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._epoll.register(fd, select.EPOLLIN)
        self._note(fd, READ)

    def change(self, fd: int, events: int) -> None:
        """Watch a registered descriptor for other events; raises OSError, and then changes nothing."""
        if events != self._events[fd]:
            self._epoll.modify(fd, _MASKS[events])
            self._events[fd] = events

    def remove(self, fd: int) -> None:
        """Stop watching a descriptor, which may be closed already; raises KeyError if it is not registered."""
        if not 0 <= fd < len(self._events) or self._events[fd] == _UNWATCHED:
            raise KeyError(f"descriptor {fd} is not registered")
        self._events[fd] = _UNWATCHED
        self.data[fd] = None
        try:  # contextlib.suppress would take as long as the system call
            self._epoll.unregister(fd)
        except OSError:
            pass

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """The descriptors that are ready, as epoll_wait(2) returns them; `timeout` in seconds.

        `select` would make a key and a tuple for each before the first is served: measured, 5 % of an echo.
        """
        return self._epoll.poll(timeout, _BATCH)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a descriptor; raises ValueError, KeyError or OSError, and then changes nothing."""
        fd = _number(fileobj)
        if events not in (READ, WRITE, READ | WRITE):
            raise ValueError(f"invalid events: {events}")
        try:
            self.add(fd, events)
        except FileExistsError:
            raise KeyError(f"descriptor {fd} is already registered") from None
        self.data[fd] = data
        return self.get_key(fd)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Stop watching a descriptor; raises KeyError if it is not registered."""
        key = self.get_key(fileobj)
        self.remove(key.fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """The keys of the descriptors that are ready, and the events for which they are; `timeout` in seconds."""
        ready = []
        for fd, mask in self.poll(timeout and max(timeout, 0)):
            events = (READ if mask & ~select.EPOLLOUT else 0) | (WRITE if mask & ~select.EPOLLIN else 0)
            key = self.get_key(fd)
            ready.append((key, events & key.events))
        return ready

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """The key of a registered descriptor, whose `fileobj` is the number too; raises KeyError."""
        fd = _number(fileobj)
        events = self._events[fd] if 0 <= fd < len(self._events) else _UNWATCHED
        if events == _UNWATCHED:
            raise KeyError(f"descriptor {fd} is not registered")
        return selectors.SelectorKey(fd, fd, events, self.data[fd])

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """The key of each registered descriptor, by its number."""
        return {fd: self.get_key(fd) for fd, events in enumerate(self._events) if events != _UNWATCHED}

    def close(self) -> None:
        """Close the descriptor of the epoll instance; the watched ones stay open."""
        self._epoll.close()

    def _note(self, fd: int, events: int) -> None:
        if fd >= len(self._events):
            missing = fd + 1 - len(self._events)
            self._events.extend([_UNWATCHED] * missing)
            self.data.extend([None] * missing)
        self._events[fd] = events


def _number(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())


class Loop:
    """One process's loop.  Make it after the fork: an epoll instance shared with a parent would serve both.

    `clock` returns seconds that never go back; a test passes one that it moves by hand.
    """

    def __init__(self, on_bug: Callable[[int, Exception], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.now = clock()
        """Seconds of the clock, which is read once a turn."""
        self._poller = Poller()
        self._callbacks: list[Callable[[], None] | None] = self._poller.data
        """By descriptor.  A list: with a dict an echo takes 24 ns more, and 81 ns with 3,000 connections."""
        self._added: dict[int, Callable[[], None]] = {}
        """Callbacks of descriptors that are watched since the last wait; none of them is in `_callbacks` yet."""
        self._timers = Timers()
        self._on_bug = on_bug
        self._running = False

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call `callback()` whenever `fd` is ready for `events` (READ or WRITE) or has failed."""
        self._poller.add(fd, events)
        self._added[fd] = callback

    def watch_exclusive(self, fd: int, callback: Callable[[], None]) -> None:
        """Like `watch` for READ, for a listening socket on which several processes wait."""
        self._poller.add_exclusive(fd)
        self._added[fd] = callback

    def rewatch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Change the events of a watched descriptor, or only its callback, which costs no system call."""
        self._poller.change(fd, events)
        (self._added if fd in self._added else self._callbacks)[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`; do this before closing it."""
        self._poller.remove(fd)
        self._added.pop(fd, None)

    def call_later(self, delay: float, callback: Callable[[float], None]) -> Timer:
        """Call `callback(now)` once, `delay` seconds after the beginning of this turn or soon after that."""
        return self._timers.add(self.now + delay, callback)

    def call_at_multiple(self, period: float, callback: Callable[[float], None]) -> Timer:
        """Call `callback(now)` once, at the next multiple of `period` seconds that is more than half a period away.

        So calls with one period, or a multiple of it, share a wake-up.
        """
        return self.call_later(1.5 * period - (self.now + period / 2) % period, callback)

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
            for fd, added in self._added.items():
                callbacks[fd] = added
            self._added.clear()
        ready = self._poller.poll(timeout)
        self.now = self._clock()
        for fd, _ in ready:
            # An earlier callback of this turn may have unwatched this descriptor, so look its callback up only now.
            callback = callbacks[fd]
            if callback is not None:
                try:
                    callback()
                except Exception as error:  # noqa: BLE001  the owner of the loop decides about any error
                    self._on_bug(fd, error)
        self._timers.run_due(self.now)
        return len(ready)
