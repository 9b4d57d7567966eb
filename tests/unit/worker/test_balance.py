"""balance: one worker's decision whether to accept, from what the others say of themselves."""

import os
from collections.abc import Iterator

import pytest

from echod.shared.counters import Counters
from echod.worker.balance import Balance, on_ring, open_bell, ring


class Workers:
    """Three workers, of which number 0 decides."""

    def __init__(self) -> None:
        self.counters = Counters(3)
        self.bells = [open_bell() for _ in self.counters.rows]
        self.balance = Balance(self.counters, 0, self.bells)

    def are(
        self, clients: tuple[int, int, int], accepting: tuple[int, ...] = (), available: tuple[int, ...] = (0, 1, 2)
    ) -> None:
        """Let each have so many clients, and these accept, and these if they were called."""
        for number, row in enumerate(self.counters.rows):
            row.clients_now = clients[number]
            row.available = number in available
            row.accepting = number in accepting

    def rung(self) -> set[int]:
        """Who was called since this was last asked."""
        found = set()
        for number, bell in enumerate(self.bells):
            try:
                os.eventfd_read(bell)
            except BlockingIOError:
                continue
            found.add(number)
        return found


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Workers whose bells are closed again."""
    workers = Workers()
    yield workers
    for bell in workers.bells:
        os.close(bell)


@pytest.mark.parametrize("clients", [(0, 0, 0), (5, 5, 6), (4, 5, 5)])
def test_one_that_is_not_ahead_accepts(workers: Workers, clients: tuple[int, int, int]) -> None:
    """As many as another is not ahead; whoever has the fewest accepts, and calls nobody."""
    workers.are(clients, accepting=(1, 2))
    assert not workers.balance.steps_back()
    assert workers.rung() == set()


@pytest.mark.parametrize("accepting", [(1,), (1, 2)])
def test_one_that_is_ahead_steps_back_for_one_at_the_door(workers: Workers, accepting: tuple[int, ...]) -> None:
    """One better than itself that accepts is enough."""
    workers.are((6, 5, 6), accepting)
    assert workers.balance.steps_back()
    assert workers.rung() == set()


def test_one_that_is_a_little_ahead_goes_on(workers: Workers) -> None:
    """When no better one is at the door yet, it calls the one with the fewest clients, and accepts meanwhile."""
    workers.are((6, 5, 5))
    assert not workers.balance.steps_back()
    assert workers.rung() == {1}


def test_one_that_is_far_ahead_waits(workers: Workers) -> None:
    """When no better one is at the door yet, but one has many clients fewer, it calls that, and accepts no more."""
    workers.are((6, 5, 4))
    assert workers.balance.steps_back()
    assert workers.rung() == {2}


def test_one_that_would_not_come_is_not_reckoned_with(workers: Workers) -> None:
    """Whoever is dead, in a pause or at its end is neither waited for nor called."""
    workers.are((6, 0, 5), available=(0, 2))
    assert not workers.balance.steps_back()
    assert workers.rung() == {2}


def test_one_that_hangs_is_not_reckoned_with(workers: Workers) -> None:
    """Whoever has not ticked in two looks can't serve, whatever its row says; until it ticks again."""
    workers.are((6, 0, 6), accepting=(1, 2))
    workers.counters.rows[1].tick()
    workers.balance.tick()
    workers.balance.tick()
    assert workers.balance.steps_back()
    workers.balance.tick()
    assert not workers.balance.steps_back()
    assert workers.rung() == set()
    workers.counters.rows[1].tick()
    workers.balance.tick()
    assert workers.balance.steps_back()


def test_call_all(workers: Workers) -> None:
    """One that can't accept at all calls every other, and not itself."""
    workers.balance.call_all()
    workers.balance.call_all()
    assert workers.rung() == {1, 2}


def test_a_worker_alone_never_steps_back() -> None:
    """There is nobody to step back for, and nobody to call."""
    counters = Counters(1)
    counters.rows[0].clients_now = 1000
    bell = open_bell()
    balance = Balance(counters, 0, [bell])
    balance.tick()
    balance.call_all()
    assert not balance.steps_back()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(bell)
    os.close(bell)


def test_ringing_twice_is_ringing_once(workers: Workers) -> None:
    """The callback is called once, and leaves the bell silent."""
    answers: list[str] = []
    answer = on_ring(workers.bells[0], lambda: answers.append("yes"))
    ring(workers.bells[0])
    ring(workers.bells[0])
    answer()
    assert answers == ["yes"]
    assert workers.rung() == set()
