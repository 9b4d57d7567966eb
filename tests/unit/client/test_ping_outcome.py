"""echod.client.ping.outcome: what is counted, and how it is told."""

import time

import pytest

from echod.client.faults import OverdueError
from echod.client.ping.outcome import Outcome, milliseconds
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
    """A time has as many decimals as ping(8) would print."""
    assert milliseconds(nanoseconds) == words


def test_echo_that_is_not_late() -> None:
    """Who stops while an echo is out for less than twice the longest time so far has not lost that message."""
    outcome = Outcome()
    outcome.on_sending(time.perf_counter_ns())
    outcome.on_echo(3600 * SECOND, None)
    outcome.on_sending(time.perf_counter_ns())
    outcome.stop()
    assert (outcome.transmitted, outcome.received, outcome.outage, outcome.flawless) == (1, 1, None, True)


def test_echo_that_is_late() -> None:
    """Who stops while an echo is out for longer has lost that message."""
    outcome = Outcome()
    outcome.on_sending(time.perf_counter_ns() - 3 * SECOND)
    outcome.on_echo(SECOND, None)
    outcome.on_sending(time.perf_counter_ns() - 3 * SECOND)
    outcome.stop()
    assert (outcome.transmitted, outcome.received, outcome.flawless) == (2, 1, False)
    assert outcome.outage
    assert (outcome.outage.lost, outcome.outage.nanoseconds >= 3 * SECOND) == (1, True)


def test_echo_that_tcp_may_still_repair(clock: Clock) -> None:
    """However short the times so far, a message is not lost before TCP would have sent it once more."""
    outcome = Outcome()
    outcome.on_sending(clock.now)
    outcome.on_echo(1, None)
    outcome.on_sending(clock.now)
    clock.leap(0.2)
    outcome.stop()
    assert (outcome.transmitted, outcome.received, outcome.outage, outcome.flawless) == (1, 1, None, True)


def test_first_echo() -> None:
    """Who stops before anything has come back has lost everything."""
    outcome = Outcome()
    outcome.on_sending(time.perf_counter_ns())
    outcome.stop()
    assert outcome.lines()[0].startswith("1 messages transmitted, 0 received, 100% loss, time ")


def test_length_of_an_outage() -> None:
    """An outage began when the first message that was lost was sent, and ends with the next echo."""
    outcome = Outcome()
    for ago in (5, 3):
        outcome.on_sending(time.perf_counter_ns() - ago * SECOND)
        outcome.on_loss(OverdueError(1, 56, 0))
    outcome.on_sending(time.perf_counter_ns())
    outage = outcome.on_echo(1, None)
    assert outage
    assert (outage.lost, outage.nanoseconds >= 5 * SECOND, outcome.outage) == (2, True, None)


def test_flawless() -> None:
    """Of nothing it can't be said that it came back."""
    assert not Outcome().flawless


def test_short_line() -> None:
    """In the middle of it, it is told how many came back so far, and in what time."""
    outcome = Outcome()
    assert outcome.short_line() == "0/0 messages"
    for _ in range(2):
        outcome.on_sending(time.perf_counter_ns())
        outcome.on_echo(1_000_000, None)
    assert outcome.short_line() == "2/2 messages, 0% loss, min/avg/p50/max = 1.000/1.000/1.000/1.000 ms"
