"""Which worker accepts next: never one that has more clients than another which is waiting for them.

All workers wait on the same listening sockets, and the kernel wakes whichever it likes: measured, one of two workers
got 63 of 64 clients.  So a worker that is ahead of another steps back from the door.  There is always somebody at it:
whoever steps back has seen a better one there, and calls it if it is not.
"""

import os
from collections.abc import Callable

from echod.shared.counters import Counters

SLACK = 1
"""Clients that a worker may be ahead of one that was called but is not at the door yet.

More, and it waits for that one: without this, and no processor free for the other, it gets all (measured, 63 of 64).
"""
SILENT = 2
"""Looks at a worker that has not ticked, after which it is not reckoned with.

Not 1: both come round once a second, and which of them is first may change.
"""


class Balance:
    """One worker's view of the others.

    `bells` has a descriptor for each worker (eventfd(2), non-blocking): ringing it makes that worker look again.
    """

    def __init__(self, counters: Counters, worker: int, bells: list[int]) -> None:
        self._own = counters.rows[worker]
        self._others = [(row, bell) for row, bell in zip(counters.rows, bells, strict=True) if row is not self._own]
        self._ticks = [-1 for _ in self._others]
        self._silent = [0 for _ in self._others]
        self._alive = list(self._others)

    def steps_back(self) -> bool:
        """Whether another worker should have the next client; if it is not waiting for one, it is called."""
        own = self._own.clients_now
        better = [(row, bell) for row, bell in self._alive if row.available and row.clients_now < own]
        if not better or any(row.accepting for row, _ in better):
            return bool(better)
        best, bell = min(better, key=lambda other: other[0].clients_now)
        ring(bell)
        return own - best.clients_now > SLACK

    def call_all(self) -> None:
        """Make every other worker look again: this one can't accept at all."""
        for _, bell in self._others:
            ring(bell)

    def tick(self) -> None:
        """Once a second or so: a worker that ticks no more is not reckoned with."""
        ticks = [row.ticks for row, _ in self._others]
        looks = zip(self._silent, self._ticks, ticks, strict=True)
        self._silent = [silent + 1 if old == new else 0 for silent, old, new in looks]
        self._alive = [other for other, silent in zip(self._others, self._silent, strict=True) if silent < SILENT]
        self._ticks = ticks


def open_bell() -> int:
    """A descriptor to ring, and to watch for being rung."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def ring(bell: int) -> None:
    """Ring it; ringing twice before anybody looks is ringing once."""
    os.eventfd_write(bell, 1)


def on_ring(bell: int, callback: Callable[[], None]) -> Callable[[], None]:
    """A loop's callback for `bell`."""

    def answer() -> None:
        os.eventfd_read(bell)
        callback()

    return answer
