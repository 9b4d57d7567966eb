"""Bytes that tell where in the stream they belong."""

from hypothesis import given
from hypothesis import strategies as st

from echod.client.pattern import Pattern

PERIOD = 65_521
PATTERN = Pattern(70_000)
STREAM = PATTERN.part(0, PERIOD) * 4


@given(st.integers(0, 2 * PERIOD), st.integers(0, 70_000))
def test_any_part(offset: int, count: int) -> None:
    """A part is that of one stream, wherever it begins; also one that is longer than the period."""
    assert PATTERN.part(offset, count) == STREAM[offset : offset + count]


def test_far_out() -> None:
    """The stream has no end."""
    assert PATTERN.part(PERIOD * 10**12 + 5, 100) == STREAM[5:105]


def test_shifted() -> None:
    """A part looks like none that begins elsewhere."""
    assert len({PATTERN.part(offset, 16) for offset in range(PERIOD)}) == PERIOD


def test_another() -> None:
    """No two patterns are alike: bytes left from another run are wrong."""
    assert Pattern(100).part(0, 100) != Pattern(100).part(0, 100)
