"""Limits on the number of clients, in total and per source, counted over all workers together.

The total is the sum of the workers' rows.  A worker takes a place before it accepts, and gives it back if the total
then exceeds the limit; so there are never more clients than the limit, even if other workers accept at the same time.

Each worker has a table in shared memory that counts its clients per source, so clearing a dead worker's table removes
its clients.  The tables are read and changed under a kernel lock, because otherwise two workers together could exceed
the limit; fcntl(2) releases the lock when its holder dies, which a lock in memory would not.  The kernel also knows the
holder, so the parent can kill one that keeps the lock (`Limits.lock_holder`).

A worker that an attacker controls can write anything into any table.  So the memory is sealed, since access beyond the
end of a file that it has truncated would kill the others (SIGBUS); and no contents make a search endless or an addition
fail.  Wrong counts can only make a limit wrong.

When limits change, the parent makes new tables and sends their descriptor to the workers, and each counts its clients
again there.  Until the last worker has done so, a source may get more connections than the limit; afterwards none is
admitted above it.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from echod.net import address
from echod.shared.counters import Counters

_MASK = (1 << 64) - 1
IPV6_PREFIX = 64
"""Bits of an IPv6 address that a site has for itself, usually (RFC 6177)."""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_FLOCK = struct.Struct("hhqqi")
"""`struct flock`, fcntl(2): type, whence, start, length, process."""


class SourceTable:
    """The number of clients of each source: open addressing with linear probing; keys are never 0 and below 2**64.

    `cells` are pairs of key and count in zeroed memory; their number is a power of two, and at most half may be in use.
    `multiplier` is odd and secret, so no attacker can choose addresses that all hash to one cell.
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
        """Count one client more."""
        place = self._find(key)
        self._keys[place] = key
        self._counts[place] = (self._counts[place] + 1) & _MASK

    def remove(self, key: int) -> None:
        """Count one client fewer; a source without clients takes no cell."""
        hole = self._find(key)
        self._counts[hole] = max(0, self._counts[hole] - 1)
        if self._counts[hole]:
            return
        self._keys[hole] = 0
        for place in self._places(hole + 1):
            moved = self._keys[place]
            if not moved:
                break
            # A key that probing pushed past the hole moves back into it (Knuth, volume 3, 6.4, algorithm R).
            if (place - self._home(moved)) & self._mask >= (place - hole) & self._mask:
                self._keys[hole], self._counts[hole] = moved, self._counts[place]
                self._keys[place] = self._counts[place] = 0
                hole = place

    def clear(self) -> None:
        """Remove all sources."""
        for cells in (self._keys, self._counts):
            cells.cast("B")[:] = bytes(cells.nbytes)

    def _home(self, key: int) -> int:
        return ((key * self._multiplier) & _MASK) >> self._shift

    def _find(self, key: int) -> int:
        for place in self._places(self._home(key)):
            if self._keys[place] in (key, 0):
                return place
        return self._home(key)  # never in a table that only `add` and `remove` have changed

    def _places(self, first: int) -> Iterator[int]:
        """All places, beginning with this one."""
        return (place & self._mask for place in range(first, first + len(self._keys)))


class Limits:
    """The limits on the clients of all workers together; create them before the fork.

    `max_connections` limits all clients, and `max_per_source` those of one source (see `address.source`); 0 disables
    the limit per source.
    An IPv6 source is a network with a prefix of `prefix` bits.  The pool may begin with `initial` connections, whatever
    the limit.
    """

    def __init__(
        self, counters: Counters, max_connections: int, max_per_source: int, initial: int = 0, prefix: int = IPV6_PREFIX
    ) -> None:
        self._counters = counters
        self._initial = initial
        self._max_connections = self._max_per_source = 0
        self._tables: list[SourceTable] = []
        self._fd = -1
        self._prefix = 0
        self.change(max_connections, max_per_source, prefix)

    @property
    def counts_sources(self) -> bool:
        """Whether there is a limit per source."""
        return bool(self._tables)

    def source(self, sockaddr: Any) -> int | None:
        """The number under which a peer is counted; see `address.source`."""
        return address.source(sockaddr, self._prefix)

    def change(self, max_connections: int, max_per_source: int, prefix: int = IPV6_PREFIX) -> Sequence[int]:
        """In the parent: set new limits, and return the descriptors that the workers need to `follow`.

        This object owns the descriptors.  Raises OSError if there is no memory or no descriptor for the tables, and
        then changes nothing.
        """
        if (max_connections, max_per_source, prefix) == (self._max_connections, self._max_per_source, self._prefix):
            return []
        # The tables have room for the old limit, for the new one, and for all clients connected, even above both.
        most = max(max_connections, self._max_connections, self._initial, self._counters.totals().clients_now)
        self._counters.clients_max = max(self._counters.clients_max, most)
        if not max_per_source:
            self._set(max_connections, max_per_source, prefix, [])
            return []
        cells = len(self._counters.rows) * 2 * 2 ** (2 * most).bit_length()
        fd = os.memfd_create("echod-limits", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, (cells + 1) * 8)
            os.pwrite(fd, os.urandom(8), cells * 8)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            self._set(max_connections, max_per_source, prefix, [fd])
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
        prefix: int = IPV6_PREFIX,
    ) -> None:
        """In a worker: set the limits that the parent has changed, and count the sources of all its clients again.

        `fds` are the worker's copies of the parent's descriptors; this object owns them from now on.
        """
        if (max_connections, max_per_source, prefix) == (self._max_connections, self._max_per_source, self._prefix):
            return
        self._set(max_connections, max_per_source, prefix, fds)
        self.count(worker, sources)

    def count(self, worker: int, sources: Iterable[int | None]) -> None:
        """Count one more client of each of `sources`, even above the limit, since they are accepted already.

        Takes no lock, like `vacate`: the worker does not run yet, or is the only writer of its new table.
        """
        if self._tables:
            for source in sources:
                if source is not None:
                    self._tables[worker].add(source)

    def close(self) -> None:
        """Release the tables."""
        self._tables = []
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _set(self, max_connections: int, max_per_source: int, prefix: int, fds: Sequence[int]) -> None:
        tables = [table for fd in fds for table in self._map(fd)]
        self.close()
        self._max_connections, self._max_per_source, self._prefix = max_connections, max_per_source, prefix
        if fds:
            (self._fd,), self._tables = fds, tables

    def _map(self, fd: int) -> list[SourceTable]:
        memory = memoryview(mmap.mmap(fd, 0)).cast("Q")
        cells = (len(memory) - 1) // len(self._counters.rows)
        starts = range(0, len(memory) - 1, cells)
        return [SourceTable(memory[start : start + cells], memory[-1] | 1) for start in starts]

    def vacate(self, worker: int) -> None:
        """Free the places of a dead worker for its successor.

        Takes no lock: the parent calls this, and must not wait for a worker that hangs while it holds the lock.  A
        worker that reads the table meanwhile may still count clients that are gone.
        """
        self._counters.rows[worker].vacate()
        if self._tables:
            self._tables[worker].clear()

    def take_place(self, worker: int) -> bool:
        """Take one of the `max_connections` places; if none is free, take nothing and return False."""
        self._counters.rows[worker].clients_now += 1
        if self._counters.clients_now() <= self._max_connections:
            return True
        self.give_place(worker)
        return False

    def give_place(self, worker: int) -> None:
        """Give a place back."""
        self._counters.rows[worker].clients_now -= 1

    def admit(self, worker: int, source: int | None) -> bool:
        """Count one more client of `source`; if it has reached the limit, count nothing and return False."""
        if source is None:
            return True
        with self._locked():
            if sum(table.count(source) for table in self._tables) >= self._max_per_source:
                return False
            self._tables[worker].add(source)
            return True

    def dismiss(self, worker: int, source: int | None) -> None:
        """Count one client fewer of `source`, after `admit` or `count`."""
        if source is not None:
            with self._locked():
                self._tables[worker].remove(source)

    def lock_holder(self) -> int:
        """In the parent: the process that holds the lock; 0 if none does, -1 if the kernel does not say which."""
        if not self._tables:
            return 0
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, holder = _FLOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_GETLK, question))
        return 0 if kind == fcntl.F_UNLCK else int(holder)

    def unlock(self) -> None:
        """In the parent: release a lock without a process, of the file description that all workers share."""
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
