"""balance: one worker's decision whether to accept, from the counters of the others."""

import os
from collections.abc import Iterator

import pytest

from echod.shared.counters import Counters
from echod.worker.balance import Balance, on_wakeup, open_wakeup, wake


class Workers:
    """Three workers, of which number 0 decides."""

    def __init__(self) -> None:
        self.counters = Counters(3)
        self.wakeups = [open_wakeup() for _ in self.counters.rows]
        self.balance = Balance(self.counters, 0, self.wakeups)

    def are(
        self, clients: tuple[int, int, int], accepting: tuple[int, ...] = (), available: tuple[int, ...] = (0, 1, 2)
    ) -> None:
        """Set each worker's number of clients, which workers accept, and which would accept if they were woken."""
        for number, row in enumerate(self.counters.rows):
            row.clients_now = clients[number]
            row.available = number in available
            row.accepting = number in accepting

    def woken(self) -> set[int]:
        """The workers that were woken since the last call."""
        found = set()
        for number, wakeup in enumerate(self.wakeups):
            try:
                os.eventfd_read(wakeup)
            except BlockingIOError:
                continue
            found.add(number)
        return found


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Workers whose descriptors are closed again."""
    workers = Workers()
    yield workers
    for wakeup in workers.wakeups:
        os.close(wakeup)


@pytest.mark.parametrize("clients", [(0, 0, 0), (5, 5, 6), (4, 5, 5)])
def test_one_that_is_not_ahead_accepts(workers: Workers, clients: tuple[int, int, int]) -> None:
    """A worker with as many clients as another, or fewer, accepts and wakes none."""
    workers.are(clients, accepting=(1, 2))
    assert not workers.balance.steps_back()
    assert workers.woken() == set()


@pytest.mark.parametrize("accepting", [(1,), (1, 2)])
def test_one_that_is_ahead_steps_back_for_one_that_accepts(workers: Workers, accepting: tuple[int, ...]) -> None:
    """If a worker with fewer clients accepts, this one steps back and wakes none."""
    workers.are((6, 5, 6), accepting)
    assert workers.balance.steps_back()
    assert workers.woken() == set()


def test_one_that_is_a_little_ahead_goes_on(workers: Workers) -> None:
    """While no worker with fewer clients accepts, it wakes the one with the fewest and continues to accept."""
    workers.are((6, 5, 5))
    assert not workers.balance.steps_back()
    assert workers.woken() == {1}


def test_one_that_is_far_ahead_waits(workers: Workers) -> None:
    """If no worker with fewer clients accepts, but one has far fewer, it wakes that one and stops accepting."""
    workers.are((6, 5, 4))
    assert workers.balance.steps_back()
    assert workers.woken() == {2}


def test_one_that_would_not_accept_is_left_out(workers: Workers) -> None:
    """A worker that is dead, paused or stopping is neither waited for nor woken."""
    workers.are((6, 0, 5), available=(0, 2))
    assert not workers.balance.steps_back()
    assert workers.woken() == {2}


def test_one_that_hangs_is_left_out(workers: Workers) -> None:
    """A worker without a tick in two checks is left out, whatever its row says, until it ticks again."""
    workers.are((6, 0, 6), accepting=(1, 2))
    workers.counters.rows[1].ticks += 1
    workers.balance.tick()
    workers.balance.tick()
    assert workers.balance.steps_back()
    workers.balance.tick()
    assert not workers.balance.steps_back()
    assert workers.woken() == set()
    workers.counters.rows[1].ticks += 1
    workers.balance.tick()
    assert workers.balance.steps_back()


def test_wake_all(workers: Workers) -> None:
    """A worker that cannot accept wakes every other worker, and not itself."""
    workers.balance.wake_all()
    workers.balance.wake_all()
    assert workers.woken() == {1, 2}


def test_a_worker_alone_never_steps_back() -> None:
    """A single worker never steps back, and wakes none."""
    counters = Counters(1)
    counters.rows[0].clients_now = 1000
    wakeup = open_wakeup()
    balance = Balance(counters, 0, [wakeup])
    balance.tick()
    balance.wake_all()
    assert not balance.steps_back()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(wakeup)
    os.close(wakeup)


def test_waking_twice_is_waking_once(workers: Workers) -> None:
    """The callback is called once, and leaves the descriptor with nothing to read."""
    calls: list[str] = []
    callback = on_wakeup(workers.wakeups[0], lambda: calls.append("called"))
    wake(workers.wakeups[0])
    wake(workers.wakeups[0])
    callback()
    assert calls == ["called"]
    assert workers.woken() == set()
