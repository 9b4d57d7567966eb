"""Admission: who may come in, over all workers together.

The total is the sum of what the workers' rows say.  A worker takes a place before it accepts, and gives it back if that
makes one too many; so there are never more clients than the limit, whoever else is accepting at that moment.

The count per source is a table in shared memory, one for each worker, so that what a dead worker held is forgotten by
wiping its table.  The tables are read and changed under a lock of the kernel's, because a limit that two workers can
overrun together is none; fcntl(2) gives the lock back when its holder dies, which no lock in memory would.

When limits change, the parent makes new tables, hands their descriptor to the workers, and each counts its clients
again there.  Until the last has done so a source may be let in more often than it should; afterwards nobody is let in
above the limit.
"""

import fcntl
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from echod.shared.counters import Counters

_MASK = (1 << 64) - 1


class SourceTable:
    """Sources and how many clients each has: open addressing with linear probing, the keys never 0 and below 2**64.

    `cells` are pairs of key and count in zeroed memory, a power of two of them, and at most half may be in use.
    `multiplier` is odd and secret, so that nobody can choose addresses that all fall on one cell.
    """

    def __init__(self, cells: memoryview, multiplier: int) -> None:
        self._keys = cells[: len(cells) // 2]
        self._counts = cells[len(cells) // 2 :]
        self._mask = len(self._keys) - 1
        self._shift = 64 - self._mask.bit_length()
        self._multiplier = multiplier

    def count(self, key: int) -> int:
        """Clients of `key` now."""
        return self._counts[self._find(key)]

    def add(self, key: int) -> None:
        """One client more."""
        place = self._find(key)
        self._keys[place] = key
        self._counts[place] += 1

    def remove(self, key: int) -> None:
        """One client less; a source without clients leaves no trace."""
        hole = self._find(key)
        self._counts[hole] -= 1
        if self._counts[hole]:
            return
        self._keys[hole] = 0
        place = (hole + 1) & self._mask
        while moved := self._keys[place]:
            # Whoever was pushed past the hole by its owner moves back (Knuth, volume 3, 6.4, algorithm R).
            if (place - self._home(moved)) & self._mask >= (place - hole) & self._mask:
                self._keys[hole], self._counts[hole] = moved, self._counts[place]
                self._keys[place] = self._counts[place] = 0
                hole = place
            place = (place + 1) & self._mask

    def clear(self) -> None:
        """Forget every source."""
        for cells in (self._keys, self._counts):
            cells.cast("B")[:] = bytes(cells.nbytes)

    def _home(self, key: int) -> int:
        return ((key * self._multiplier) & _MASK) >> self._shift

    def _find(self, key: int) -> int:
        place = self._home(key)
        while self._keys[place] not in (key, 0):
            place = (place + 1) & self._mask
        return place


class Limits:
    """What all workers may hold together; make it before the fork.

    `max_connections` is for all clients and `max_per_source` for those of one source (see `address.source`), 0 for no
    such limit.  So many as `inherited` may be there at first, whatever the limit.
    """

    def __init__(self, counters: Counters, max_connections: int, max_per_source: int, inherited: int = 0) -> None:
        self._counters = counters
        self._inherited = inherited
        self._max_connections = self._max_per_source = 0
        self._tables: list[SourceTable] = []
        self._fd = -1
        self.change(max_connections, max_per_source)

    @property
    def counts_sources(self) -> bool:
        """Whether there is a limit per source at all."""
        return bool(self._tables)

    def change(self, max_connections: int, max_per_source: int) -> Sequence[int]:
        """In the parent: set other limits, and return the descriptors that the workers need to `follow`.

        The descriptors stay this object's own.  Raises OSError if there is no memory for the tables or no descriptor,
        and has set nothing then.
        """
        if (max_connections, max_per_source) == (self._max_connections, self._max_per_source):
            return []
        # As many as may be let in by the old limit or by the new one, and as there are, if the old one was lowered.
        most = max(max_connections, self._max_connections, self._inherited, self._counters.clients_now())
        if not max_per_source:
            self._set(max_connections, max_per_source, [])
            return []
        cells = len(self._counters.rows) * 2 * 2 ** (2 * most).bit_length()
        fd = os.memfd_create("echod-limits", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, (cells + 1) * 8)
            os.pwrite(fd, os.urandom(8), cells * 8)
            self._set(max_connections, max_per_source, [fd])
        except OSError:
            os.close(fd)
            raise
        return [fd]

    def follow(
        self,
        worker: int,
        max_connections: int,
        max_per_source: int,
        fds: Sequence[int],
        sources: Iterable[int | None],
    ) -> None:
        """In a worker: set what the parent has changed, and count the sources of all its clients again.

        `fds` are the worker's copies of the parent's descriptors, and become this object's.
        """
        if (max_connections, max_per_source) == (self._max_connections, self._max_per_source):
            return
        self._set(max_connections, max_per_source, fds)
        self.count(worker, sources)

    def count(self, worker: int, sources: Iterable[int | None]) -> None:
        """Count one more client of each of `sources`: those that are there already, whatever they may.

        Without the lock, like `vacate`: of a worker that is not there, or by itself in a table that is new.
        """
        if self._tables:
            for source in sources:
                if source is not None:
                    self._tables[worker].add(source)

    def close(self) -> None:
        """Forget the tables."""
        self._tables = []
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _set(self, max_connections: int, max_per_source: int, fds: Sequence[int]) -> None:
        tables = [table for fd in fds for table in self._map(fd)]
        self.close()
        self._max_connections, self._max_per_source = max_connections, max_per_source
        if fds:
            (self._fd,), self._tables = fds, tables

    def _map(self, fd: int) -> list[SourceTable]:
        memory = memoryview(mmap.mmap(fd, 0)).cast("Q")
        cells = (len(memory) - 1) // len(self._counters.rows)
        starts = range(0, len(memory) - 1, cells)
        return [SourceTable(memory[start : start + cells], memory[-1] | 1) for start in starts]

    def vacate(self, worker: int) -> None:
        """Free the places of a worker that is dead, for its successor.

        Without the lock: the parent does this, and must not wait for a worker that hangs with it.  Who reads the table
        meanwhile finds clients that are gone anyway, or does not.
        """
        self._counters.rows[worker].vacate()
        if self._tables:
            self._tables[worker].clear()

    def take_place(self, worker: int) -> bool:
        """Take a place among all clients; False, and nothing taken, when there is none."""
        self._counters.rows[worker].clients_now += 1
        if self._counters.clients_now() <= self._max_connections:
            return True
        self.give_place(worker)
        return False

    def give_place(self, worker: int) -> None:
        """Give a place back."""
        self._counters.rows[worker].clients_now -= 1

    def admit(self, worker: int, source: int | None) -> bool:
        """Count one more client of `source`; False, and nothing counted, when it has as many as it may."""
        if source is None:
            return True
        with self._locked():
            if sum(table.count(source) for table in self._tables) >= self._max_per_source:
                return False
            self._tables[worker].add(source)
            return True

    def dismiss(self, worker: int, source: int | None) -> None:
        """Count one less client of `source`, one that was admitted."""
        if source is not None:
            with self._locked():
                self._tables[worker].remove(source)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
