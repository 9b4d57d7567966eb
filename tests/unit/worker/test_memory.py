"""memory: which clients are reset when slow clients occupy too much."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from echod.net import tcpinfo
from echod.worker.memory import over_budget


@dataclass(frozen=True)
class Client:
    """A client whose queues occupy `memory` bytes."""

    sock: socket.socket
    memory: int


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Client]]:
    """Clients that occupy 0, 30, 10 and 20 bytes."""
    with ExitStack() as stack:
        found = [Client(stack.enter_context(socket.socket()), memory) for memory in (0, 30, 10, 20)]
        memory = {client.sock: client.memory for client in found}
        monkeypatch.setattr(tcpinfo, "kernel_memory", lambda sock: memory[sock])
        yield found


@pytest.mark.parametrize(
    ("budget", "reset"),
    [(61, []), (60, []), (59, [30]), (30, [30]), (29, [30, 20]), (9, [30, 20, 10]), (0, [30, 20, 10])],
)
def test_largest_first(clients: list[Client], budget: int, reset: list[int]) -> None:
    """No more clients are reset than necessary, those that occupy most first, and none that occupies nothing."""
    assert [client.memory for client in over_budget(clients, budget)] == reset
    assert over_budget([], budget) == []
