"""The pattern, and the comparison of an echo with what was sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.client.compare import PERIOD, Pattern, compare
from echod.client.errors import MismatchError, SurplusError

PATTERN = Pattern(70_000)
STREAM = PATTERN.part(0, PERIOD) * 4


@given(st.integers(0, 2 * PERIOD), st.integers(0, 70_000))
def test_any_part(offset: int, count: int) -> None:
    """A part is the same wherever it begins, also if it is longer than the period."""
    assert PATTERN.part(offset, count) == STREAM[offset : offset + count]


def test_far_out() -> None:
    """The stream has no end."""
    assert PATTERN.part(PERIOD * 10**12 + 5, 100) == STREAM[5:105]


def test_shifted() -> None:
    """No part equals one that begins elsewhere."""
    assert len({PATTERN.part(offset, 16) for offset in range(PERIOD)}) == PERIOD


def test_another() -> None:
    """No two patterns are equal: bytes left over from another run are wrong."""
    assert Pattern(100).part(0, 100) != Pattern(100).part(0, 100)


@pytest.mark.parametrize("largest", [1, 56, 70_000, 3 * PERIOD])
def test_block(largest: int) -> None:
    """The block holds the largest part from any place of the period, and as many bytes as an error shows."""
    pattern = Pattern(largest)
    assert len(pattern.block) == PERIOD + largest + 32
    assert pattern.block[PERIOD:] == (pattern.block[:PERIOD] * 5)[: largest + 32]


@given(
    before=st.binary(max_size=4),
    outstanding=st.binary(max_size=80),
    beyond=st.binary(max_size=80),
    data=st.binary(min_size=1, max_size=100),
    cut=st.integers(0, 80),
)
def test_first_wrong_byte(before: bytes, outstanding: bytes, beyond: bytes, data: bytes, cut: int) -> None:
    """Only bytes that are outstanding, in their order, are identical; the error names the first byte that is not."""
    data = outstanding[:cut] + data  # a common prefix, or hardly any echo would be right
    sent = bytearray(before + outstanding + beyond)
    error = compare(data, 1000, sent, len(before), len(outstanding))
    pairs = enumerate(zip(outstanding, data, strict=False))
    right = next((index for index, (one, other) in pairs if one != other), min(len(outstanding), len(data)))
    if right == len(data):
        assert error is None
    elif right == len(outstanding):
        assert isinstance(error, SurplusError)
        assert (error.offset, error.came) == (1000 + right, data[right:])
    else:
        assert isinstance(error, MismatchError)
        assert (error.offset, error.came) == (1000 + right, data[right:][:32])
        assert error.sent == outstanding[right:][:32]


def test_nothing_outstanding() -> None:
    """Without outstanding bytes every byte is surplus, even if it is the next to be sent."""
    error = compare(b"a", 7, b"abc", 0, 0)
    assert isinstance(error, SurplusError)
    assert (error.offset, error.came) == (7, b"a")
