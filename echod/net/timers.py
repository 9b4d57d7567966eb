"""Timers: a lazy heap that never looks at a clock; `now` is always an argument.

A cancelled timer stays in the heap until it comes up, or until the dead outnumber the living: then the heap is
built anew, so that a million short connections with a three-hour timer each leave nothing behind.  Adding and
cancelling cost O(log n), amortised.  Times are seconds of the monotonic clock.
"""

import heapq
import math
from collections.abc import Callable

_FEW = 64
"""So few dead timers are never worth rebuilding the heap for."""


class Timer:
    """One call to come; `cancel` takes it back, at any time and as often as one likes."""

    __slots__ = ("_callback", "_timers")

    def __init__(self, timers: "Timers", callback: Callable[[float], None]) -> None:
        self._timers: Timers | None = timers
        self._callback: Callable[[float], None] | None = callback

    def cancel(self) -> None:
        """Take the call back; once it was made or taken back this does nothing."""
        timers, self._timers, self._callback = self._timers, None, None
        if timers is not None:
            timers._bury()

    def _fire(self, now: float) -> bool:
        callback, self._timers, self._callback = self._callback, None, None
        if callback is not None:
            callback(now)
        return callback is not None


class Timers:
    """The calls to come, soonest first; equals in the order in which they were added."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._added = 0
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def add(self, when: float, callback: Callable[[float], None]) -> Timer:
        """Have `callback(now)` called by the first `run_due(now)` with `now >= when`."""
        timer = Timer(self, callback)
        self._added += 1
        heapq.heappush(self._heap, (when, self._added, timer))
        return timer

    def wait(self, now: float) -> float | None:
        """Seconds until the next timer is due, never negative; None when there is none, or none that ever will be."""
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
