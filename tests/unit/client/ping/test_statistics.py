"""The statistics of a ping, and their text."""

import time

import pytest

from echod.client.errors import OverdueError
from echod.client.ping.statistics import Statistics, milliseconds
from tests.unit.client.clock import Clock

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("nanoseconds", "words"),
    [
        (0, "0.000"),
        (123_456, "0.123"),
        (999_600, "1.00"),
        (9_996_000, "10.0"),
        (99_960_000, "100"),
        (12 * SECOND, "12000"),
    ],
)
def test_milliseconds(nanoseconds: int, words: str) -> None:
    """A time has as many decimals as in ping(8)."""
    assert milliseconds(nanoseconds) == words


def test_echo_that_is_not_late() -> None:
    """A message whose echo is outstanding for less than twice the longest time is not lost at the end."""
    statistics = Statistics()
    statistics.on_sending(time.perf_counter_ns())
    statistics.on_echo(3600 * SECOND, None)
    statistics.on_sending(time.perf_counter_ns())
    statistics.stop()
    assert (statistics.transmitted, statistics.received, statistics.outage, statistics.flawless) == (1, 1, None, True)


def test_echo_that_is_late() -> None:
    """A message whose echo is outstanding for longer is lost."""
    statistics = Statistics()
    statistics.on_sending(time.perf_counter_ns() - 3 * SECOND)
    statistics.on_echo(SECOND, None)
    statistics.on_sending(time.perf_counter_ns() - 3 * SECOND)
    statistics.stop()
    assert (statistics.transmitted, statistics.received, statistics.flawless) == (2, 1, False)
    assert statistics.outage
    assert (statistics.outage.lost, statistics.outage.nanoseconds >= 3 * SECOND) == (1, True)


def test_echo_that_tcp_may_still_repair(clock: Clock) -> None:
    """However short the times so far, a message is not lost before TCP would have retransmitted it."""
    statistics = Statistics()
    statistics.on_sending(clock.now)
    statistics.on_echo(1, None)
    statistics.on_sending(clock.now)
    clock.leap(0.2)
    statistics.stop()
    assert (statistics.transmitted, statistics.received, statistics.outage, statistics.flawless) == (1, 1, None, True)


def test_first_echo() -> None:
    """If nothing has come back at the end, everything is lost."""
    statistics = Statistics()
    statistics.on_sending(time.perf_counter_ns())
    statistics.stop()
    assert statistics.lines()[0].startswith("1 message transmitted, 0 received, 100% loss, time ")


def test_length_of_an_outage() -> None:
    """An outage begins when the first lost message is sent, and ends with the next echo."""
    statistics = Statistics()
    for ago in (5, 3):
        statistics.on_sending(time.perf_counter_ns() - ago * SECOND)
        statistics.on_loss(OverdueError(1, 56, 0))
    statistics.on_sending(time.perf_counter_ns())
    outage = statistics.on_echo(1, None)
    assert outage
    assert (outage.lost, outage.nanoseconds >= 5 * SECOND, statistics.outage) == (2, True, None)


def test_flawless() -> None:
    """A ping that sent nothing is not flawless."""
    assert not Statistics().flawless


def test_short_line() -> None:
    """The intermediate result has the counts and the times so far."""
    statistics = Statistics()
    assert statistics.short_line() == "0/0 messages"
    for _ in range(2):
        statistics.on_sending(time.perf_counter_ns())
        statistics.on_echo(1_000_000, None)
    assert statistics.short_line() == "2/2 messages, 0% loss, min/avg/p50/max = 1.000/1.000/1.000/1.000 ms"
