"""Counters in memory that the parent and the workers share.

Each worker has a row of its own and is the only process to write to it, so nothing needs a lock: an aligned 64-bit
store is atomic.  A row outlives its worker: the successor of a dead worker continues its counts.
"""

import ctypes
import mmap
from dataclasses import dataclass

_CACHE_LINE = 64
"""Bytes.  A row takes whole lines, so that two workers never write to the same one."""


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

    def clients_now(self) -> int:
        """Connections that hold a place, in all workers together."""
        return sum(row.clients_now for row in self.rows)

    def totals(self) -> Totals:
        """The sums of all rows, and what was counted before."""
        before, rows = self.before, self.rows
        return Totals(
            self.clients_now(),
            before.clients_total + sum(row.clients_total for row in rows),
            before.clients_refused + sum(row.clients_refused for row in rows),
            before.bytes_echoed + sum(row.bytes_echoed for row in rows),
        )
