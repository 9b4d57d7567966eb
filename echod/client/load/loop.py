"""The event loop of one load process: callbacks for descriptors and for times.

Each descriptor has one callback, which gets the events that the descriptor is ready for, since sending and receiving
happen at the same time.  Times are nanoseconds of the monotonic clock.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from heapq import heappop, heappush

clock = time.monotonic_ns

READ = select.EPOLLIN
WRITE = select.EPOLLOUT

_BATCH = 256
"""The most descriptors served before due times are; each wait allocates 12 bytes for each descriptor."""


class Loop:
    """The loop of a process.  Create it after the fork: an epoll instance shared with the parent would serve both.

    With `precise` it wakes up within about 60 microseconds of a time (the kernel's timer slack, prctl(2)).  Without, it
    wakes up to a millisecond late, the unit of epoll_wait(2), which saves a system call in each turn.
    """

    def __init__(self, precise: bool) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._times: list[tuple[int, int, Callable[[int], None]]] = []
        self._entries = 0
        self._precise = precise

    def watch(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` whenever `descriptor` is ready for `events`, or has failed."""
        self._epoll.register(descriptor, events)
        self._callbacks[descriptor] = callback

    def rewatch(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        """Change the events and the callback of a watched descriptor."""
        self._epoll.modify(descriptor, events)
        self._callbacks[descriptor] = callback

    def unwatch(self, descriptor: int) -> None:
        """Stop watching a descriptor; call this before closing it."""
        self._epoll.unregister(descriptor)
        del self._callbacks[descriptor]

    def call_at(self, when: int, callback: Callable[[int], None]) -> None:
        """Call `callback(now)` once, at `when` or soon after."""
        self._entries += 1  # of two callbacks that are due at the same time, the first requested is called first
        heappush(self._times, (when, self._entries, callback))

    def turn(self) -> None:
        """Wait until something can be done, and do it."""
        callbacks = self._callbacks
        for descriptor, events in self._wait():
            # A callback earlier in this turn may have unwatched this descriptor.
            callback = callbacks.get(descriptor)
            if callback is not None:
                callback(events)
        now = clock()
        times, due = self._times, []
        while times and times[0][0] <= now:
            due.append(heappop(times)[2])
        # Times that these callbacks request are for the next turn, however early they are: a turn must end.
        for callback in due:
            callback(now)

    def close(self) -> None:
        """Close the epoll instance; watched descriptors stay open."""
        self._epoll.close()

    def _wait(self) -> list[tuple[int, int]]:
        seconds = max(self._times[0][0] - clock(), 0) / 1e9 if self._times else None
        if self._precise:
            # select(2) counts in microseconds; Python's epoll rounds up to milliseconds, which would count as the
            # server's delay.  The limit of 1024 descriptors does not matter: the epoll instance was opened before the
            # connections, so its number is low.
            select.select([self._epoll], [], [], seconds)
            seconds = 0
        return self._epoll.poll(seconds, _BATCH)
