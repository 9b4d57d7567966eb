"""Which worker accepts next: never one with more clients than another worker that is waiting for them.

All workers wait on the same listening sockets, and the kernel wakes any of them: measured, one of two workers got 63 of
64 clients.  So a worker with more clients than another one steps back, which means that it stops accepting.  One worker
is always accepting: a worker steps back only for a better one, and wakes that one if it does not accept yet.
"""

import contextlib
import os
from collections.abc import Callable, Sequence

from echod.shared.counters import Counters

SLACK = 1
"""The number of clients by which a worker may exceed another one that was woken but does not accept yet.

Above this the worker waits for the other: otherwise it takes all clients while the other gets no processor (measured,
63 of 64).
"""
SILENT = 2
"""Consecutive checks of a worker without a tick after which the balance leaves it out.

Not 1: both workers tick once a second, and the order of the two may change.
"""


class Balance:
    """One worker's view of the others.

    `wakeups` has a descriptor for each worker (`open_wakeup`), by which another worker makes it check its sockets.
    """

    def __init__(self, counters: Counters, worker: int, wakeups: Sequence[int]) -> None:
        self._own = counters.rows[worker]
        self._others = [(row, fd) for row, fd in zip(counters.rows, wakeups, strict=True) if row is not self._own]
        self._ticks = [-1 for _ in self._others]
        self._silent = [0 for _ in self._others]
        self._alive = list(self._others)

    def steps_back(self) -> bool:
        """Whether another worker should accept the next client; wakes the best one if no better one is accepting."""
        own = self._own.clients_now
        better = [(row, wakeup) for row, wakeup in self._alive if row.available and row.clients_now < own]
        if not better or any(row.accepting for row, _ in better):
            return bool(better)
        best, wakeup = min(better, key=lambda other: other[0].clients_now)
        wake(wakeup)
        return own - best.clients_now > SLACK

    def wake_all(self) -> None:
        """Wake every other worker, because this one cannot accept."""
        for _, wakeup in self._others:
            wake(wakeup)

    def tick(self) -> None:
        """About once a second, check which workers have ticked since, and leave out those that have not."""
        ticks = [row.ticks for row, _ in self._others]
        looks = zip(self._silent, self._ticks, ticks, strict=True)
        self._silent = [silent + 1 if old == new else 0 for silent, old, new in looks]
        self._alive = [other for other, silent in zip(self._others, self._silent, strict=True) if silent < SILENT]
        self._ticks = ticks


def open_wakeup() -> int:
    """A descriptor (eventfd(2), non-blocking) that one process watches and others write to, to wake it."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def wake(wakeup: int) -> None:
    """Wake the process that watches `wakeup`; several calls before it wakes count as one."""
    with contextlib.suppress(BlockingIOError):  # its counter is full, so it has been woken
        os.eventfd_write(wakeup, 1)


def on_wakeup(wakeup: int, callback: Callable[[], None]) -> Callable[[], None]:
    """A loop's callback for `wakeup`, which calls `callback`."""

    def on_readable() -> None:
        with contextlib.suppress(BlockingIOError):  # already read, by a worker that should not
            os.eventfd_read(wakeup)
        callback()

    return on_readable
