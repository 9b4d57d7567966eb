"""stall: the deadline of a client that acknowledges nothing, with queues that the test fills."""

import socket
from collections.abc import Iterator

import pytest

from echod.net import tcpinfo
from echod.worker import stall
from echod.worker.relay import Relay
from echod.worker.stall import FLOOR, Stall, patience
from tests.unit.hand_loop import HandLoop

TIMEOUT = 60.0
KIB, MIB = 1 << 10, 1 << 20
LUMP = 544 * KIB
"""The most that Linux frees at once."""


class Client:
    """A client whose kernel has acknowledged all but `queued` bytes, of which `buffered` are unread there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queued = self.buffered = 0
        monkeypatch.setattr(tcpinfo, "unacknowledged", lambda fd: self.queued)
        monkeypatch.setattr(tcpinfo, "buffered_by_client", lambda sock: self.buffered)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client with nothing in any queue."""
    return Client(monkeypatch)


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A relay that has sent 10 MiB; it uses neither its socket nor its owner here."""
    loop = HandLoop(time=0.0)
    relay = Relay(None, memoryview(b""), loop, None)  # type: ignore[arg-type]
    relay.received = 10 * MIB
    yield relay
    loop.close()


@pytest.mark.parametrize(
    ("buffered", "read"),
    [
        (0, 0),
        (4 * KIB, 4 * KIB),
        (128 * KIB, 128 * KIB),
        (LUMP, LUMP),
        (16 * MIB, MIB + LUMP),
        (1 << 30, (1 << 26) + LUMP),
    ],
)
def test_patience(buffered: int, read: int) -> None:
    """A client must read a sixteenth of its buffer and what its kernel frees at once, but no more than there is."""
    assert patience(buffered) == read / FLOOR


@pytest.mark.parametrize("buffered", [4 * KIB, 128 * KIB, 16 * MIB])
def test_deadline(client: Client, relay: Relay, buffered: int) -> None:
    """A stall is over after the time-out and the patience with that buffer, and not before."""
    client.queued, client.buffered = 1, buffered
    with socket.socket() as sock:
        watched = Stall(sock, relay, 0.0)
        watched.observe(1.0)
        deadline = 1.0 + TIMEOUT + patience(buffered)
        watched.observe(deadline - 0.1)
        assert not watched.is_over(TIMEOUT, deadline - 0.1)
        assert watched.is_over(TIMEOUT, deadline + 0.1)


@pytest.mark.parametrize("buffered", [4 * KIB, 64 * KIB, 128 * KIB, MIB, 4 * MIB, 16 * MIB])
@pytest.mark.parametrize("rate", [FLOOR, 10 * FLOOR])
@pytest.mark.parametrize("timeout", [0.001, TIMEOUT])
def test_floor(client: Client, relay: Relay, buffered: int, rate: int, timeout: float) -> None:
    """A client that reads at the floor or faster, and whose kernel acknowledges as late as it can, never stalls."""
    client.queued, client.buffered = 8 * MIB, buffered
    step = patience(buffered) * FLOOR
    with socket.socket() as sock:
        watched = Stall(sock, relay, 0.0)
        now = 0.0
        watched.observe(now)
        while client.queued > 0:
            for _ in range(7):
                now += step / rate / 7
                watched.observe(now)
                assert not watched.is_over(timeout, now)
            client.queued -= int(step)


def test_nothing_owed(client: Client, relay: Relay) -> None:
    """Without bytes that are due nothing stalls."""
    with socket.socket() as sock:
        watched = Stall(sock, relay, 0.0)
        watched.observe(0.0)
        assert not watched.owed
        assert not watched.is_over(TIMEOUT, 1e9)


def test_never_acknowledges(client: Client, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that acknowledges nothing at all has no buffer to read from, and gets the time-out only."""
    monkeypatch.setattr(stall, "FLOOR", 1)
    client.queued = 1
    with socket.socket() as sock:
        watched = Stall(sock, relay, 0.0)
        watched.observe(0.0)
        assert watched.is_over(TIMEOUT, TIMEOUT)
