"""Counters in memory that the parent and the workers share.

Each worker has a row of its own and is the only process to write to it, so nothing needs a lock: an aligned 64-bit
store is atomic.  A row outlives its worker: the successor of a dead worker continues its counts.

An attacker that controls a worker can write anything, so the parent does not use the rows themselves.  `Counters.check`
copies a row if its numbers are possible, and the parent believes the last copies.
"""

import ctypes
import mmap
import time
from contextlib import suppress
from dataclasses import dataclass

from echod.shared.messages import FalseData

_CACHE_LINE = 64
"""Bytes.  A row takes whole lines, so that two workers never write to the same one."""
_PER_SECOND = {"clients_total": 1 << 20, "clients_refused": 1 << 20, "bytes_echoed": 1 << 40}
"""Limits on the growth of totals, far above what a processor can do: a worker accepts some 20,000 clients a second."""
_LIVE_MAX = 1 << 63


@dataclass(frozen=True, slots=True)
class Totals:
    """The counts of all workers together: clients now, clients so far, clients refused, bytes echoed."""

    clients_now: int
    clients_total: int
    clients_refused: int
    bytes_echoed: int


class WorkerCounters(ctypes.Structure):
    """One worker's counters: only that worker writes them, and every process of the pool reads them."""

    clients_now: int
    """Connections that hold a place, including one that is being accepted."""
    clients_total: int
    clients_refused: int
    bytes_echoed: int
    """Bytes sent back to clients so far."""
    bytes_live: int
    """The part of `bytes_echoed` that was sent back on connections still open."""
    handed_over: int
    """Connections that the worker has handed over."""
    ticks: int
    """Ticks of the worker's loop so far: while this rises, the loop runs."""
    accepting: int
    """1 while the worker watches its listening sockets, else 0."""
    available: int
    """1 if the worker would accept if it were woken; 0 if it is dead, paused or stopping."""

    _fields_ = (
        ("clients_now", ctypes.c_uint64),
        ("clients_total", ctypes.c_uint64),
        ("clients_refused", ctypes.c_uint64),
        ("bytes_echoed", ctypes.c_uint64),
        ("bytes_live", ctypes.c_uint64),
        ("handed_over", ctypes.c_uint64),
        ("ticks", ctypes.c_uint64),
        ("accepting", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
    )

    def copy(self) -> "WorkerCounters":
        """The present counts, in memory of this process alone."""
        return WorkerCounters.from_buffer_copy(self)

    def vacate(self) -> None:
        """Forget the state of a dead worker: its clients, and whether it accepted; its totals stay."""
        self.clients_now = self.bytes_live = self.accepting = self.available = 0


class Counters:
    """A row for each of `workers` workers, in anonymous shared memory; create it before the fork."""

    def __init__(self, workers: int) -> None:
        self.before = Totals(0, 0, 0, 0)
        """The totals from before these workers: of earlier pools, and of the echod before."""
        stride = -(-ctypes.sizeof(WorkerCounters) // _CACHE_LINE) * _CACHE_LINE
        memory = mmap.mmap(-1, workers * stride)
        self.rows = [WorkerCounters.from_buffer(memory, number * stride) for number in range(workers)]
        self.believed = [row.copy() for row in self.rows]
        """In the parent: the last numbers of each worker that were possible."""
        self._checked = [time.monotonic()] * workers
        self.clients_max = 0
        """The most clients that a worker can have had at any time; `Limits` knows it."""

    def clients_now(self) -> int:
        """In a worker: connections that hold a place, in all workers together."""
        return sum(row.clients_now for row in self.rows)

    def check(self, worker: int) -> None:
        """In the parent: believe the present numbers of a worker.  Raises `FalseData` if they are not possible."""
        now, before, seen = time.monotonic(), self.believed[worker], self.rows[worker].copy()
        seconds = now - self._checked[worker] + 1
        # While it accepts, a worker holds a place that it may have to give back (`Limits.take_place`).
        most = {"clients_now": self.clients_max + 1, "bytes_live": _LIVE_MAX, "accepting": 1, "available": 1}
        growth = {name: int(rate * seconds) for name, rate in _PER_SECOND.items()} | {"handed_over": self.clients_max}
        for name in (*most, *growth):
            value, known = getattr(seen, name), getattr(before, name)
            low, high = (known, known + growth[name]) if name in growth else (0, most[name])
            if not low <= value <= high:
                raise FalseData(f"its counter {name} is {value}, not from {low} to {high}")
        self.believed[worker], self._checked[worker] = seen, now

    def end(self, worker: int, echoed: int) -> None:
        """In the parent: after the death of a worker, forget its clients, whose connections have echoed these bytes.

        Its totals stay, as far as the parent believes them, for the successor.
        """
        last = self.believed[worker]
        # The worker has counted only a part of the bytes, up to its last look at each connection.
        last.bytes_echoed += max(0, echoed - last.bytes_live)
        last.vacate()
        ctypes.pointer(self.rows[worker])[0] = last

    def totals(self) -> Totals:
        """In the parent: the sums of all rows, and what was counted before."""
        for worker in range(len(self.rows)):
            with suppress(FalseData):  # the next beat finds it too, and kills the worker
                self.check(worker)
        before, rows = self.before, self.believed
        return Totals(
            sum(row.clients_now for row in rows),
            before.clients_total + sum(row.clients_total for row in rows),
            before.clients_refused + sum(row.clients_refused for row in rows),
            before.bytes_echoed + sum(row.bytes_echoed for row in rows),
        )
