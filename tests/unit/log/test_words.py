"""log.words: counts, sizes, durations and lists in sentences."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from echod.log.words import amount, enumeration, plural, span


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 connections"), (1, "1 connection"), (1000000, "1,000,000 connections")]
)
def test_plural(count: int, words: str) -> None:
    """Only one is singular, and thousands are separated."""
    assert plural(count, "connection") == words


@pytest.mark.parametrize(
    ("words", "expected"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_enumeration(words: list[str], expected: str) -> None:
    """The last two are joined by `and`."""
    assert enumeration(words) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.00 KiB"),
        (10239, "10.0 KiB"),
        (99 << 10, "99.0 KiB"),
        (999 << 10, "999 KiB"),
        ((1 << 20) - 1, "1.00 MiB"),
        (1 << 30, "1.00 GiB"),
        (1 << 40, "1.00 TiB"),
        (1 << 60, "1.00 EiB"),
        ((1 << 64) - 1, "16.0 EiB"),
        (1 << 72, "4096 EiB"),
    ],
)
def test_amounts(count: int, expected: str) -> None:
    """Units reach as far as the counters of all workers together."""
    assert amount(count) == expected


@given(st.integers(1024, (1 << 64) - 1))
@example(int(999.7 * 1024))
@example(int(9.996 * 1024))
@example(int(99.96 * 1024))
def test_amounts_have_three_digits(count: int) -> None:
    """From 1024 bytes on there are always three digits, so the length of a sentence hardly changes."""
    number, unit = amount(count).split()
    assert len(re.sub(r"\D", "", number)) == 3
    power = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB").index(unit)
    assert float(number) * 1024**power == pytest.approx(count, rel=0.006)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, "0 ms"),
        (0.000001, "0.001 ms"),
        (0.0005, "0.5 ms"),
        (0.0123456, "12.3 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (1.5, "1.5 s"),
        (99.94, "99.9 s"),
        (100, "1 min 40 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (7500, "2 h 5 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_spans(seconds: float, expected: str) -> None:
    """Three digits up to 100 seconds, and the two largest units from then on."""
    assert span(seconds) == expected
