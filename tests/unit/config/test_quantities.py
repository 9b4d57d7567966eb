"""quantities: sizes and durations, in systemd's notation and back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.config.quantities import parse_duration, parse_size, show_duration, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16", 16),
        ("16B", 16),
        ("64KiB", 64 << 10),
        ("64k", 64 << 10),
        (" 1 MiB ", 1 << 20),
        ("1M", 1 << 20),
        ("2G", 2 << 30),
        ("2gib", 2 << 30),
        ("0", 0),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Units are powers of 1024, in any case and with any space."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", " ", "KiB", "64kB", "1MB", "1.5K", "-1", "+1", "1 2", "0x10", "1T", "1_000", "٣", "9" * 5000]
)
def test_what_is_no_size(text: str) -> None:
    """Nothing is guessed, least of all whether kB are 1000 bytes or 1024."""
    with pytest.raises(ValueError):
        parse_size(text)


@given(st.one_of(st.integers(0, 1 << 50), st.integers(0, 1 << 12).map(lambda count: count << 20)))
def test_a_size_that_is_shown_is_read_back(size: int) -> None:
    """No size is rounded."""
    assert parse_size(show_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1, "1"), (1025, "1025"), (1024, "1KiB"), (3 << 20, "3MiB"), (1 << 30, "1GiB")]
)
def test_sizes_are_shown_in_the_largest_unit_that_is_exact(size: int, text: str) -> None:
    """As people write them."""
    assert show_size(size) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5h", 5400),
        ("1min 30s", 90),
        ("1min30s", 90),
        (" 2 hours ", 7200),
        ("100ms", 0.1),
        ("7us", 7e-6),
        ("7µs", 7e-6),
        ("7μs", 7e-6),
        ("1w 1d 1hr 1m 1sec", 694861),
        ("0", 0),
        ("infinity", math.inf),
        (" infinity ", math.inf),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """Terms add up; a number alone is seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "s", "1 parsec", "1M", "1y", "1month", "-1s", "1,5s", "1e3", "1.5.2", "1s,", "inf", "5 x 5", "٣"]
)
def test_what_is_no_duration(text: str) -> None:
    """Months and years, which systemd knows too, are no time-outs; the rest is no notation at all."""
    with pytest.raises(ValueError):
        parse_duration(text)


@given(st.one_of(st.integers(0, 10**7), st.floats(0, 10**7).map(lambda seconds: round(seconds, 6))))
def test_a_duration_that_is_shown_is_read_back(seconds: float) -> None:
    """To the microsecond, which is as exact as systemd's are."""
    assert parse_duration(show_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.5, "0.5s"),
        (90, "1min 30s"),
        (3600, "1h"),
        (90061, "1d 1h 1min 1s"),
        (math.inf, "infinity"),
        (1e-6, "0.000001s"),
    ],
)
def test_durations_are_shown_in_the_units_of_systemd(seconds: float, text: str) -> None:
    """Whole seconds by their units, others as one number."""
    assert show_duration(seconds) == text
