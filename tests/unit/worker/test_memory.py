"""memory: which clients are reset when slow clients occupy too much."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from echod.net import tcpinfo
from echod.worker.memory import SLOW, Budget

TICK = 0.5
NOW = 100.0


@dataclass(eq=False)
class Client:
    """A client whose queues occupy `memory` bytes."""

    sock: socket.socket
    memory: int
    started: float = 0.0
    counted: int = 0
    bytes_echoed: int = 0
    asked: int = 0


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Client]]:
    """Clients that occupy 0, 30, 10 and 20 bytes."""
    with ExitStack() as stack:
        found = [Client(stack.enter_context(socket.socket()), memory) for memory in (0, 30, 10, 20)]
        by_sock = {client.sock: client for client in found}

        def kernel_memory(sock: socket.socket) -> int:
            by_sock[sock].asked += 1
            return by_sock[sock].memory

        monkeypatch.setattr(tcpinfo, "kernel_memory", kernel_memory)
        yield found


def excess(clients: list[Client], most: int) -> list[int]:
    """What the clients occupy that are to be reset."""
    return [client.memory for client in Budget[Client](TICK).excess(clients, most, NOW)]


@pytest.mark.parametrize(
    ("most", "reset"),
    [(61, []), (60, []), (59, [30]), (30, [30]), (29, [30, 20]), (9, [30, 20, 10]), (0, [30, 20, 10])],
)
def test_largest_first(clients: list[Client], most: int, reset: list[int]) -> None:
    """No more clients are reset than necessary, those that occupy most first, and none that occupies nothing."""
    assert excess(clients, most) == reset
    assert excess([], most) == []


def test_only_slow_ones(clients: list[Client]) -> None:
    """A client that was fast since the last tick, or is younger than a tick, is not part of the budget."""
    clients[1].bytes_echoed = int(SLOW * TICK)
    clients[2].started = NOW
    assert excess(clients, 0) == [20]
    clients[1].bytes_echoed -= 1
    assert excess(clients, 0) == [30, 20]


def test_idle_clients_cost_nothing(clients: list[Client]) -> None:
    """The kernel is not asked again about a client that occupied nothing, until it has received more of its echo."""
    budget = Budget[Client](TICK)
    for _ in range(3):
        budget.excess(clients, 100, NOW)
    assert [client.asked for client in clients] == [1, 3, 3, 3]
    clients[0].bytes_echoed = clients[0].memory = 1
    budget.excess(clients, 100, NOW)
    clients[0].counted = 1
    budget.excess(clients, 100, NOW)
    assert clients[0].asked == 3
