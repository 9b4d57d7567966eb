"""sweep: how often each session is looked at, what is counted, and which are reset for the memory that they occupy."""

import math
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from echod.net import tcpinfo
from echod.shared.counters import WorkerCounters
from echod.shared.terms import Timeouts
from echod.worker.memory import SLOW
from echod.worker.quiet import SILENCE
from echod.worker.sweep import SLICE, Sweep
from tests.unit.hand_loop import HandLoop
from tests.unit.worker.terms import TICK, terms

NEVER = Timeouts(math.inf, math.inf, math.inf)


class Client:
    """The part of a session that a sweep needs."""

    def __init__(self, memory: int = 0) -> None:
        self.memory = memory
        self.started = 0.0
        self.looked = 1000.0
        self.counted = self.bytes_echoed = 0
        self.looks: list[float] = []
        self.asked = 0
        self.rests = False
        self.ended = ""

    @property
    def sock(self) -> "Client":
        """Itself: only `kernel_memory` below uses it."""
        return self

    def is_at_rest(self, now: float, idle: float) -> bool:
        """As the test says."""
        return self.rests

    def check(self, now: float, timeouts: Timeouts) -> None:
        """Remember when."""
        self.looks.append(now)

    def abort(self, reason: str) -> None:
        """Remember why."""
        self.ended = reason


@pytest.fixture
def loop() -> Iterator[HandLoop]:
    """A loop whose clock the test moves."""
    with closing(HandLoop(time=1000.0)) as loop:
        yield loop


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client occupies as much as the test says."""

    def kernel_memory(client: Any) -> int:
        client.asked += 1
        return int(client.memory)

    monkeypatch.setattr(tcpinfo, "kernel_memory", kernel_memory)


def sweep_over(clients: list[Client], loop: HandLoop, row: WorkerCounters | None = None, share: float = 1.0) -> Sweep:
    """A sweep over these clients that follows no terms yet."""
    sessions: Any = dict(enumerate(clients))
    return Sweep(sessions, row or WorkerCounters(), share, loop)


@pytest.mark.parametrize(
    ("timeouts", "draining", "pause"),
    [
        (NEVER, False, TICK),
        (Timeouts(2.0, math.inf, math.inf), False, 0.5),
        (Timeouts(math.inf, 0.4, math.inf), False, 0.1),
        (NEVER, True, SILENCE / 4),
    ],
)
def test_looks_within_each_time_out(loop: HandLoop, timeouts: Timeouts, draining: bool, pause: float) -> None:
    """A session is looked at every tick, and four times within each time-out."""
    client = Client()
    sweep_over([client], loop).follow(terms(timeouts=timeouts), draining=draining)
    for count in range(3):
        loop.pass_time(pause * 0.9)
        assert len(client.looks) == count
        loop.pass_time(pause * 0.1001)
        assert len(client.looks) == count + 1


def test_spread_over_turns(loop: HandLoop) -> None:
    """No turn looks at more than `SLICE` sessions, and a round takes no longer for that."""
    clients = [Client() for _ in range(3 * SLICE + 1)]
    sweep_over(clients, loop).follow(terms(timeouts=NEVER), draining=False)
    loop.pass_time(TICK)
    looked_at = [sum(len(client.looks) for client in clients)]
    for _ in range(4):
        loop.pass_time(TICK / 4)
        looked_at.append(sum(len(client.looks) for client in clients))
    assert looked_at == [SLICE, 2 * SLICE, 3 * SLICE, 3 * SLICE + 1, 4 * SLICE + 1]


def test_at_rest(loop: HandLoop) -> None:
    """A session at rest is neither looked at, nor is the kernel asked about it."""
    client = Client()
    client.rests = True
    sweep_over([client], loop).follow(terms(kernel_memory=1), draining=False)
    loop.pass_time(TICK)
    assert (client.looks, client.asked) == ([], 0)


def test_the_same_terms_postpone_nothing(loop: HandLoop) -> None:
    """Terms that a reload brings do not postpone the next look; shorter time-outs advance it."""
    client = Client()
    sweep = sweep_over([client], loop)
    for _ in range(4):
        sweep.follow(terms(timeouts=NEVER), draining=False)
        loop.pass_time(TICK / 4)
    assert len(client.looks) == 1
    sweep.follow(terms(timeouts=Timeouts(TICK, math.inf, math.inf)), draining=False)
    loop.pass_time(TICK / 4)
    assert len(client.looks) == 2


def test_count(loop: HandLoop) -> None:
    """The bytes echoed since the last look are added to the worker's counters."""
    client, row = Client(), WorkerCounters()
    row.bytes_echoed = 100
    sweep_over([client], loop, row).follow(terms(), draining=False)
    for echoed in (5, 5, 12):
        client.bytes_echoed = echoed
        loop.pass_time(TICK)
        assert (row.bytes_echoed, row.bytes_live, client.counted) == (100 + echoed, echoed, echoed)


def test_slow_clients_that_occupy_most(loop: HandLoop) -> None:
    """Of the slow clients those that occupy most are reset, until the others are within this worker's share."""
    fast, young, *_ = clients = [Client(memory) for memory in (400, 300, 20, 30)]
    sweep_over(clients, loop, share=0.5).follow(terms(kernel_memory=50), draining=False)
    fast.bytes_echoed = int(SLOW * TICK)
    young.started = loop.now + TICK * 0.9
    loop.pass_time(TICK)
    assert [client.ended for client in clients] == ["", "", "", "memory"]
    assert [client.asked for client in clients] == [0, 0, 1, 1]


def test_fast_client_of_a_busy_machine(loop: HandLoop) -> None:
    """A client's speed is measured since the last look, so a late look makes no client slow at the next one."""
    client = Client(100)
    sweep_over([client], loop).follow(terms(kernel_memory=50), draining=False)
    for seconds in (1.4, 0.6, 1.0):
        client.bytes_echoed += int(1.5 * SLOW * seconds)
        loop.pass_time(TICK * seconds)
    assert (len(client.looks), client.asked, client.ended) == (3, 0, "")


def test_fast_client_among_others_that_leave(loop: HandLoop) -> None:
    """A client whose turn comes earlier because older ones have left is not slow for having echoed less until then."""
    client = Client(100)
    sessions: Any = dict(enumerate([*(Client() for _ in range(15 * SLICE)), client]))
    Sweep(sessions, WorkerCounters(), 1.0, loop).follow(terms(kernel_memory=50), draining=False)
    for _ in range(32):
        client.bytes_echoed += int(1.5 * SLOW * TICK / 16)
        loop.pass_time(TICK / 16)
        if len(client.looks) == 1:
            for number in [*sessions][:-1]:
                del sessions[number]
    assert (len(client.looks), client.asked, client.ended) == (2, 0, "")


def test_memory_of_a_client_that_has_left(loop: HandLoop) -> None:
    """A client that ends in the middle of a round no longer occupies memory: no other is reset for it."""
    clients = [Client() for _ in range(SLICE + 1)]
    clients[0].memory, clients[-1].memory = 30, 40
    sessions: Any = dict(enumerate(clients))
    Sweep(sessions, WorkerCounters(), 1.0, loop).follow(terms(kernel_memory=50), draining=False)
    loop.pass_time(TICK)
    del sessions[0]
    loop.pass_time(TICK)
    assert (clients[0].asked, clients[-1].asked, clients[-1].ended) == (1, 1, "")


def test_without_a_limit_of_memory(loop: HandLoop) -> None:
    """Without a limit the kernel is not asked."""
    client = Client(1 << 40)
    sweep_over([client], loop).follow(terms(kernel_memory=0), draining=False)
    loop.pass_time(TICK)
    assert (client.asked, client.ended) == (0, "")
