"""The result of a load as text, and the chart of its latencies."""

import pytest

from echod.client.histogram import Histogram
from echod.client.load.summary import chart, duration, rows, summary, warnings
from echod.client.load.tally import Result, Tally


def test_width() -> None:
    """Values are aligned, within 80 columns, also with many errors of the longest kinds and reasons."""
    total = Tally()
    total.lost = 12_345_678
    for kind, why in (
        ("shortfall", ""),
        ("broken", "Connection reset by peer"),
        ("connect", "no local port is left (Cannot assign requested address)"),
    ):
        total.errors[kind, why] = 12_345_678
    result = Result(total, total, 10.0, 1, [])
    lines = summary("message", [("target", "localhost:7")], result, has_colours=False)
    assert max(map(len, lines)) <= 80
    assert {line[15] for line in lines} == {" "}
    assert " " not in {line[16] for line in lines}


def test_one_of_each() -> None:
    """One byte and one message are singular."""
    total = Tally()
    total.sent = total.received = total.lost = 1
    lines = summary("message", [], Result(total, total, 10.0, 1, []), has_colours=False)
    assert {"sent            1 byte", "received        1 byte", "lost            1 message"} <= set(lines)


@pytest.mark.parametrize(
    ("busy", "starved", "stopped", "sentences"),
    [
        (0.5, 0.2, 0, []),
        (0.97, 0.0, 0, ["echoc itself was the limit: for 97 % of the time it was busy, and for 0 % it had no"]),
        (0.56, 0.42, 0, ["echoc itself was the limit: for 56 % of the time it was busy, and for 42 % it had no"]),
        (0.1, 0.0, 10**9, ["echoc itself was stopped, or had no processor, for 1 s: rates and latencies include"]),
    ],
)
def test_warnings(busy: float, starved: float, stopped: int, sentences: list[str]) -> None:
    """A sentence says that echoc was the limit, by its own work or for lack of a processor, or that it was stopped."""
    total = Tally()
    total.busy, total.starved, total.stopped = int(busy * 20e9), int(starved * 20e9), stopped
    found = warnings(Result(total, total, 10.0, 2, []))
    assert [text[: len(sentence)] for text, sentence in zip(found, sentences, strict=True)] == sentences


def of(*microseconds: float) -> Histogram:
    """A histogram of these times."""
    histogram = Histogram()
    for time in microseconds:
        histogram.record(int(time * 1000))
    return histogram


def test_chart() -> None:
    """The steps are 1, 2 and 5, including empty ones; the longest bar has 40 characters."""
    assert chart(of(*[30] * 80, *[400] * 20, 1500)) == [
        "<=   50 us           80  79.21 %  ########################################",
        "<=  100 us            0   0.00 %",
        "<=  200 us            0   0.00 %",
        "<=  500 us           20  19.80 %  ##########",
        "<=    1 ms            0   0.00 %",
        "<=    2 ms            1   0.99 %  #",
    ]


def test_chart_of_nothing() -> None:
    """Without times there are no lines."""
    assert (chart(Histogram()), rows(Histogram())) == ([], [])


def test_width_of_the_chart() -> None:
    """No line exceeds the terminal, or 80 columns, whatever the counts and times."""
    histogram = of(0.001, 3600e6)
    for bucket in histogram.buckets:
        histogram.buckets[bucket] = histogram.count = 10**12 - 1
    assert all(len(line) <= 80 for line in chart(histogram, 1000))
    assert max(len(line) for line in chart(histogram, 60)) == 60


def test_rows_hold_all() -> None:
    """Every time is counted in one row, the first whose step it does not exceed."""
    assert rows(of(0.5, 1.9, 2.1, 4, 7)) == [(1e-6, 1), (2e-6, 1), (5e-6, 2), (1e-5, 1)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 us"),
        (1.5e-6, "1.50 us"),
        (12.34e-6, "12.3 us"),
        (5e-4, "500 us"),
        (999.4e-6, "999 us"),
        (999.9e-6, "1.00 ms"),
        (0.05, "50 ms"),
        (1.0, "1 s"),
        (123.456, "123 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """A time has three digits and a suitable unit."""
    assert duration(seconds) == text
