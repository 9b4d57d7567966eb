"""Counters in memory that the parent and the workers share.

Each worker has a row of its own and is the only process to write to it, so nothing needs a lock: an aligned 64-bit
store is atomic.  A row outlives its worker: the successor of a dead worker continues its counts.
"""

import mmap
from dataclasses import dataclass

_CLIENTS_NOW, _CLIENTS_TOTAL, _BYTES_ECHOED, _CLIENTS_REFUSED, _TICKS, _ACCEPTING, _AVAILABLE, _HANDED_OVER = range(8)
_BYTES_LIVE = 8
_COLUMNS = 16
"""Columns of a row, rounded up to whole cache lines of 64 bytes: two workers never write to the same line."""


@dataclass(frozen=True, slots=True)
class Totals:
    """The counts of all workers together: clients now, clients so far, clients refused, bytes echoed."""

    clients_now: int
    clients_total: int
    clients_refused: int
    bytes_echoed: int


class WorkerCounters:
    """One worker's counters: only that worker writes them, and every process of the pool reads them."""

    __slots__ = ("_cells",)

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells

    @property
    def clients_now(self) -> int:
        """Connections that hold a place, including one that is being accepted."""
        return self._cells[_CLIENTS_NOW]

    @clients_now.setter
    def clients_now(self, value: int) -> None:
        self._cells[_CLIENTS_NOW] = value

    @property
    def bytes_echoed(self) -> int:
        """Bytes sent back to clients so far."""
        return self._cells[_BYTES_ECHOED]

    @bytes_echoed.setter
    def bytes_echoed(self, value: int) -> None:
        self._cells[_BYTES_ECHOED] = value

    @property
    def bytes_live(self) -> int:
        """The part of `bytes_echoed` that was sent back on connections that are still open."""
        return self._cells[_BYTES_LIVE]

    @bytes_live.setter
    def bytes_live(self, value: int) -> None:
        self._cells[_BYTES_LIVE] = value

    @property
    def ticks(self) -> int:
        """Ticks of the worker's loop so far."""
        return self._cells[_TICKS]

    @property
    def accepting(self) -> bool:
        """Whether the worker is watching its listening sockets now."""
        return bool(self._cells[_ACCEPTING])

    @accepting.setter
    def accepting(self, value: bool) -> None:
        self._cells[_ACCEPTING] = value

    @property
    def available(self) -> bool:
        """Whether the worker would accept if it were woken: it is neither dead nor paused nor stopping."""
        return bool(self._cells[_AVAILABLE])

    @available.setter
    def available(self, value: bool) -> None:
        self._cells[_AVAILABLE] = value

    @property
    def handed_over(self) -> int:
        """Connections that the worker has handed over."""
        return self._cells[_HANDED_OVER]

    def add_handed_over(self, count: int) -> None:
        """Count `count` more connections that were handed over."""
        self._cells[_HANDED_OVER] += count

    def add_client(self) -> None:
        """Count one more client in the total."""
        self._cells[_CLIENTS_TOTAL] += 1

    def add_refused(self) -> None:
        """Count one more refused client."""
        self._cells[_CLIENTS_REFUSED] += 1

    def tick(self) -> None:
        """Count one more tick, which shows that the loop runs."""
        self._cells[_TICKS] += 1

    def vacate(self) -> None:
        """Clear the state of a dead worker: its clients, and whether it accepts; its totals stay."""
        for column in (_CLIENTS_NOW, _ACCEPTING, _AVAILABLE, _BYTES_LIVE):
            self._cells[column] = 0


class Counters:
    """A row for each of `workers` workers, in anonymous shared memory; create it before the fork."""

    def __init__(self, workers: int) -> None:
        self.before = Totals(0, 0, 0, 0)
        """The totals of earlier pools, and of the connections taken over from the previous echod."""
        self._memory = mmap.mmap(-1, workers * _COLUMNS * 8)
        cells = memoryview(self._memory).cast("Q")
        self.rows = [
            WorkerCounters(cells[start : start + _COLUMNS]) for start in range(0, workers * _COLUMNS, _COLUMNS)
        ]

    def clients_now(self) -> int:
        """Connections that hold a place, in all workers together."""
        return sum(row.clients_now for row in self.rows)

    def totals(self) -> Totals:
        """The sums of all rows, added to the totals of before."""
        sums = [sum(column) for column in zip(*(row._cells for row in self.rows), strict=True)]
        before = self.before
        return Totals(
            sums[_CLIENTS_NOW],
            before.clients_total + sums[_CLIENTS_TOTAL],
            before.clients_refused + sums[_CLIENTS_REFUSED],
            before.bytes_echoed + sums[_BYTES_ECHOED],
        )
