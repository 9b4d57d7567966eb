"""The event loop of one load process: descriptors, and times at which something is to be done.

As the daemon's loop, it has one callback for each descriptor; here that is told what the descriptor is ready for,
since sending and receiving go on at the same time.  Times are nanoseconds of the monotonic clock.
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
"""Most descriptors served before the times get their turn; each wait allocates 12 bytes for each."""


class Loop:
    """One process's loop.  Make it after the fork: an epoll instance shared with a parent would serve both.

    With `precise` it wakes up when a time comes, to some 60 microseconds (the kernel's timer slack, prctl(2)).
    Without, up to a millisecond later, as epoll_wait(2) counts, which saves a system call each turn.
    """

    def __init__(self, precise: bool) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._times: list[tuple[int, int, Callable[[int], None]]] = []
        self._entries = 0
        self._precise = precise
        self.idle = 0
        """Nanoseconds spent waiting."""

    def watch(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        """Have `callback(events)` called whenever `descriptor` is ready for `events`, or has failed."""
        self._epoll.register(descriptor, events)
        self._callbacks[descriptor] = callback

    def rewatch(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        """Change what a watched descriptor is watched for, and who is called."""
        self._epoll.modify(descriptor, events)
        self._callbacks[descriptor] = callback

    def unwatch(self, descriptor: int) -> None:
        """Watch it no more; do this before closing it."""
        self._epoll.unregister(descriptor)
        del self._callbacks[descriptor]

    def call_at(self, when: int, callback: Callable[[int], None]) -> None:
        """Have `callback(now)` called once, at `when` or soon after."""
        self._entries += 1  # of two that are due at once, the one that came first
        heappush(self._times, (when, self._entries, callback))

    def turn(self) -> None:
        """Wait until something can be done, and do it."""
        callbacks = self._callbacks
        for descriptor, events in self._wait():
            # Whoever was called before may have unwatched this one.
            callback = callbacks.get(descriptor)
            if callback is not None:
                callback(events)
        now = clock()
        times, due = self._times, []
        while times and times[0][0] <= now:
            due.append(heappop(times)[2])
        # What these ask for is for another turn, however early: a turn must end, and all that was due must have its go.
        for callback in due:
            callback(now)

    def close(self) -> None:
        """Give the descriptor of the epoll instance back; what was watched stays open."""
        self._epoll.close()

    def _wait(self) -> list[tuple[int, int]]:
        began = clock()
        seconds = max(self._times[0][0] - began, 0) / 1e9 if self._times else None
        if self._precise:
            # select(2) takes microseconds, where Python's epoll rounds up to milliseconds, which would count as the
            # server's delay.  Its limit of 1024 descriptors is none for this one, which was opened before the others.
            select.select([self._epoll], [], [], seconds)
            seconds = 0
        ready = self._epoll.poll(seconds, _BATCH)
        self.idle += clock() - began
        return ready
