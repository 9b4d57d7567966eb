"""stall: the deadline of a client that acknowledges nothing, with queues that the test fills."""

import socket
from collections.abc import Callable

import pytest

from echod.net import tcpinfo
from echod.worker import stall
from echod.worker.stall import FLOOR, Stall, patience

TIMEOUT = 60.0
KIB, MIB = 1 << 10, 1 << 20
SENT = 10 * MIB
LUMP = 544 * KIB
"""The most that Linux frees at once."""


@pytest.fixture
def buffers(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the bytes that lie unread in the client's buffer, 0 at first."""

    def buffers(count: int) -> None:
        monkeypatch.setattr(tcpinfo, "buffered_by_client", lambda sock: count)

    buffers(0)
    return buffers


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
def test_deadline(buffers: Callable[[int], None], buffered: int) -> None:
    """A stall is over after the time-out and the patience with that buffer, and not before."""
    buffers(buffered)
    with socket.socket() as sock:
        watched = Stall(SENT, 1.0)
        deadline = 1.0 + TIMEOUT + patience(buffered)
        assert not watched.observe(SENT, deadline - 0.1)
        assert not watched.is_over(sock, TIMEOUT, deadline - 0.1)
        assert watched.is_over(sock, TIMEOUT, deadline + 0.1)


@pytest.mark.parametrize("buffered", [4 * KIB, 64 * KIB, 128 * KIB, MIB, 4 * MIB, 16 * MIB])
@pytest.mark.parametrize("rate", [FLOOR, 10 * FLOOR])
@pytest.mark.parametrize("timeout", [0.001, TIMEOUT])
def test_floor(buffers: Callable[[int], None], buffered: int, rate: int, timeout: float) -> None:
    """A client that reads at the floor or faster, and whose kernel acknowledges as late as it can, never stalls."""
    buffers(buffered)
    step = int(patience(buffered) * FLOOR)
    with socket.socket() as sock:
        acked, now = 0, 0.0
        watched = Stall(acked, now)
        while acked < 8 * MIB:
            for _ in range(7):
                now += step / rate / 7
                watched.observe(acked, now)
                assert not watched.is_over(sock, timeout, now)
            acked += step


def test_acknowledged(buffers: Callable[[int], None]) -> None:
    """Any acknowledgement begins the time-out again, and is reported once."""
    with socket.socket() as sock:
        watched = Stall(SENT, 0.0)
        assert [watched.observe(SENT + 1, TIMEOUT - 1), watched.observe(SENT + 1, TIMEOUT)] == [True, False]
        assert not watched.is_over(sock, TIMEOUT, TIMEOUT)
        assert watched.is_over(sock, TIMEOUT, 2 * TIMEOUT)


def test_never_acknowledges(buffers: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that acknowledges nothing at all has no buffer to read from, and gets the time-out only."""
    monkeypatch.setattr(stall, "FLOOR", 1)
    with socket.socket() as sock:
        assert Stall(0, 0.0).is_over(sock, TIMEOUT, TIMEOUT)
