"""log.formatters: the parts of a line that no event's test compares."""

from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from echod.log.formatters import utc

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.integers(0, 4_000_000_000_000_000))
@example(1_999_999)
@example(1_700_000_000_999_999)
def test_utc(microseconds: int) -> None:
    """The microsecond is exact, although a Unix time is a float, and the second fits to it."""
    time = EPOCH + timedelta(microseconds=microseconds)
    assert utc(microseconds / 1_000_000) == time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_utc_rounds_up_to_the_next_second() -> None:
    """A time just below a second is not written with seven digits."""
    assert utc(59.9999999) == "1970-01-01T00:01:00.000000Z"
