"""limits: they are never exceeded, even if workers count at the same time or die."""

import errno
import fcntl
import mmap
import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.shared.counters import Counters
from echod.shared.limits import Limits, SourceTable

ROUNDS = 300
WORKERS = 4

keys = st.one_of(st.integers(1, 2**64 - 1), st.integers(1, 20))


@contextmanager
def limits_for(workers: int, connections: int, per_source: int) -> Iterator[Limits]:
    """Limits whose tables are closed again."""
    limits = Limits(Counters(workers), connections, per_source)
    try:
        yield limits
    finally:
        limits.close()


def fork(function: Callable[[], None]) -> int:
    """A child that calls `function` and exits with 0, or prints its traceback and exits with 1."""
    pid = os.fork()
    if not pid:
        try:
            function()
            os._exit(0)
        except Exception:  # noqa: BLE001  no error may get out of here, into the parent's code
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


class TestSourceTable:
    @given(
        st.lists(st.tuples(keys, st.booleans()), max_size=120),
        st.integers(0, 2**63 - 1).map(lambda number: 2 * number + 1),
        st.sampled_from([1, 3, 8]),
    )
    def test_it_counts_as_a_dictionary_does(self, steps: list[tuple[int, bool]], multiplier: int, most: int) -> None:
        """The counts equal a dictionary's, with many keys in few cells, for any multiplier; removed keys free cells."""
        cells = 2 * 2 ** (2 * most).bit_length()
        memory = memoryview(bytearray(8 * cells)).cast("Q")
        table, model = SourceTable(memory, multiplier), Counter[int]()
        for key, adds in steps:
            if adds and (key in model or len(model) < most):
                table.add(key)
                model[key] += 1
            elif not adds and model[key]:
                table.remove(key)
                model[key] -= 1
            model += Counter()  # without those at 0
            assert table.count(key) == model[key]
        assert {key: table.count(key) for key in model} == dict(model)
        in_use = sorted(key for key in memory[: cells // 2] if key)
        assert in_use == sorted(model)
        table.clear()
        assert not any(memory)

    def test_a_key_behind_a_gap_is_found(self) -> None:
        """A displaced key moves back into the gap, and one in its own cell stays."""
        table = SourceTable(memoryview(bytearray(8 * 16)).cast("Q"), 1)
        first, pushed, third = 1, 2, (2 << 61) + 3  # by their upper three bits: cells 0, 0 and so 1, and 2
        for key in (first, first, pushed, third):
            table.add(key)
        for left in (1, 0):
            table.remove(first)
            assert [table.count(key) for key in (first, pushed, third)] == [left, 1, 1]
        assert list(table._keys[:3]) == [pushed, 0, third]

    @pytest.mark.parametrize("multiplier", [1, 2**64 - 1])
    def test_keys_that_all_fall_on_one_cell(self, multiplier: int) -> None:
        """The worst keys, for which an attacker would need the multiplier, make the table slower, not wrong."""
        memory = memoryview(bytearray(8 * 64)).cast("Q")
        table = SourceTable(memory, multiplier)
        colliding = range(1, 17) if multiplier == 1 else range(2**64 - 16, 2**64)
        assert len({table._home(key) for key in colliding}) == 1
        for key in colliding:
            table.add(key)
        for key in colliding:
            assert table.count(key) == 1
            table.remove(key)
            assert table.count(key) == 0
        assert not any(memory)


class TestTotal:
    def test_as_many_as_there_are_places(self) -> None:
        """All workers together get as many places as the limit; another worker can take a place that was given back."""
        with limits_for(2, 3, 0) as limits:
            assert [limits.take_place(worker) for worker in (0, 1, 0, 1, 0)] == [True, True, True, False, False]
            limits.give_place(0)
            assert limits.take_place(1)
            assert not limits.take_place(1)

    def test_workers_together_never_hold_more(self) -> None:
        """Each place has a token; a worker with a place and no token would prove one place too many."""
        with limits_for(WORKERS, 3, 0) as limits:
            hammer(limits.take_place, limits.give_place, tokens=3)
            assert [limits.take_place(0) for _ in range(4)] == [True, True, True, False]


class TestPerSource:
    def test_each_source_has_as_many_as_the_others(self) -> None:
        """All workers together admit as many clients of a source as the limit; each source is counted separately."""
        with limits_for(2, 10, 2) as limits:
            assert limits.counts_sources
            assert [limits.admit(worker, 7) for worker in (0, 1, 0, 1)] == [True, True, False, False]
            assert limits.admit(0, 8)
            limits.dismiss(0, 7)
            assert limits.admit(1, 7)
            assert not limits.admit(1, 7)

    def test_a_client_without_a_source_is_not_counted(self) -> None:
        """A client of a unix socket has no source, so the limit does not apply to it."""
        with limits_for(1, 10, 1) as limits:
            assert all(limits.admit(0, None) for _ in range(5))
            limits.dismiss(0, None)

    def test_without_a_limit_there_is_nothing_to_count(self) -> None:
        """Without a limit per source there is no table, so no memory and no descriptor; this test would leak one."""
        limits = Limits(Counters(1), 10, 0)
        assert not limits.counts_sources
        limits.vacate(0)

    def test_as_many_sources_as_clients(self) -> None:
        """One worker's table has room for the limit's number of clients, each from a source of its own."""
        with limits_for(1, 100, 1) as limits:
            assert all(limits.admit(0, key) for key in range(1, 101))
            assert not any(limits.admit(0, key) for key in range(1, 101))

    def test_workers_together_never_admit_more(self) -> None:
        """The limit per source is never exceeded, with a token for each client of one source."""
        with limits_for(WORKERS, 100, 2) as limits:
            hammer(lambda worker: limits.admit(worker, 7), lambda worker: limits.dismiss(worker, 7), tokens=2)
            assert [limits.admit(0, 7) for _ in range(3)] == [True, True, False]

    def test_a_worker_that_dies_while_counting_blocks_no_other(self) -> None:
        """The kernel releases the lock of a worker that dies."""
        with limits_for(2, 10, 1) as limits:
            reads, writes = os.pipe()

            def hold() -> None:
                with limits._locked():
                    os.write(writes, b"x")
                    signal.pause()

            pid = fork(hold)
            assert os.read(reads, 1)
            with pytest.raises(BlockingIOError):
                fcntl.lockf(limits._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.kill(pid, signal.SIGKILL)
            assert limits.admit(0, 7)
            os.waitpid(pid, 0)
            os.close(reads)
            os.close(writes)


class TestChange:
    """Limits that change while clients are connected."""

    def others(self, limits: Limits, counters: Counters, most: int, per_source: int) -> Limits:
        """Change the parent's limits, and return those of a worker forked before, after it has followed the change."""
        worker = Limits(counters, limits._max_connections, 0)
        worker._max_per_source = limits._max_per_source
        worker.follow(0, most, per_source, [os.dup(fd) for fd in limits.change(most, per_source)], [7, 7, None, 8])
        return worker

    def test_total(self) -> None:
        """A higher or lower limit takes effect at once; clients already accepted stay."""
        with limits_for(1, 2, 0) as limits:
            assert [limits.take_place(0) for _ in range(3)] == [True, True, False]
            assert limits.change(3, 0) == []
            assert [limits.take_place(0) for _ in range(2)] == [True, False]
            limits.change(1, 0)
            limits.give_place(0)
            assert not limits.take_place(0)

    @pytest.mark.parametrize("before", [0, 1, 5])
    def test_a_worker_counts_its_clients_again(self, before: int) -> None:
        """A worker counts its clients in the new tables, which the parent and the other workers use too."""
        counters = Counters(2)
        limits = Limits(counters, 10, before)
        worker = self.others(limits, counters, 10, 3)
        assert [limits.admit(1, 7), limits.admit(1, 7), worker.admit(0, 7)] == [True, False, False]
        assert [worker.admit(0, 8), worker.admit(0, 8), limits.admit(1, 8)] == [True, True, False]
        worker.dismiss(0, 7)
        assert limits.admit(1, 7)
        for each in (limits, worker):
            each.close()

    def test_clients_already_accepted(self) -> None:
        """Clients already accepted count even above the limit; their number must fall before another is admitted."""
        with limits_for(1, 10, 2) as limits:
            limits.count(0, [7, 7, 7, None])
            assert not limits.admit(0, 7)
            for _ in range(2):
                limits.dismiss(0, 7)
            assert limits.admit(0, 7)

    def test_a_limit_that_is_removed(self) -> None:
        """After a limit is removed, nothing is counted, and no descriptor is left open."""
        counters = Counters(1)
        limits = Limits(counters, 10, 2)
        worker = self.others(limits, counters, 10, 0)
        assert (limits.counts_sources, worker.counts_sources) == (False, False)

    def test_limits_that_do_not_change(self) -> None:
        """If the limits do not change, the tables stay, and no worker counts again."""
        with limits_for(1, 10, 1) as limits:
            assert limits.admit(0, 7)
            assert limits.change(10, 1) == []
            limits.follow(0, 10, 1, [], [8])
            assert [limits.admit(0, 7), limits.admit(0, 8)] == [False, True]

    @pytest.mark.parametrize(("module", "name"), [(os, "memfd_create"), (os, "ftruncate"), (mmap, "mmap")])
    def test_no_memory_or_descriptor(self, monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
        """Without memory or descriptors the limits do not change, and no descriptor is left open."""

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

        with limits_for(1, 10, 1) as limits:
            assert limits.admit(0, 7)
            with monkeypatch.context() as patch:
                patch.setattr(module, name, refuse)
                with pytest.raises(OSError, match="memory"):
                    limits.change(20, 2)
            assert [limits.admit(0, 7), limits.admit(0, 8)] == [False, True]
            limits.change(20, 2)
            assert [limits.admit(0, 7) for _ in range(3)] == [True, True, False]

    @pytest.mark.parametrize(("steps", "room"), [((1,), 100), ((1, 2), 100), ((100, 1), 100)])
    def test_room_for_all_clients_already_accepted(self, steps: tuple[int, ...], room: int) -> None:
        """The new tables have room for all clients already accepted, however low the new limit is."""
        counters = Counters(1)
        limits = Limits(counters, room, 0)
        assert all(limits.take_place(0) for _ in range(room))
        for most in steps:
            limits.change(most, 1)
        worker = Limits(counters, room, 0)
        worker.follow(0, most, 1, [os.dup(limits._fd)], range(1, room + 1))
        assert not any(limits.admit(0, key) for key in range(1, room + 1))
        for each in (limits, worker):
            each.close()


def test_the_clients_of_a_dead_worker_make_room() -> None:
    """The places and sources of a dead worker are freed, and those of other workers are not."""
    with limits_for(2, 2, 1) as limits:
        for worker, key in ((0, 7), (1, 8)):
            assert limits.take_place(worker)
            assert limits.admit(worker, key)
        limits.vacate(0)
        assert [limits.admit(1, 7), limits.admit(1, 8)] == [True, False]
        assert [limits.take_place(1), limits.take_place(1)] == [True, False]


def hammer(take: Callable[[int], bool], give: Callable[[int], None], tokens: int) -> None:
    """Make workers `take` and `give` as fast as they can; after each `take`, a pipe must hold a token for it."""
    reads, writes = os.pipe2(os.O_NONBLOCK)
    os.write(writes, b"t" * tokens)

    def work(worker: int) -> None:
        taken = 0
        while taken < ROUNDS:
            if take(worker):
                taken += 1
                token = os.read(reads, 1)
                os.sched_yield()
                os.write(writes, token)
                give(worker)

    pids = [fork(lambda worker=worker: work(worker)) for worker in range(WORKERS)]  # type: ignore[misc]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * WORKERS
    assert len(os.read(reads, tokens + 1)) == tokens
    os.close(reads)
    os.close(writes)
