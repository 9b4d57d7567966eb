"""Histograms: percentiles accurate to 1 %, exact sums."""

import random
import statistics

from hypothesis import given
from hypothesis import strategies as st

from echod.client.histogram import Histogram, bounds

TIMES = st.lists(st.integers(0, 10**14), min_size=1, max_size=200)


def of(times: list[int]) -> Histogram:
    """A histogram of these times."""
    histogram = Histogram()
    for time in times:
        histogram.record(time)
    return histogram


def test_empty() -> None:
    """Without times everything is 0."""
    histogram = Histogram()
    assert (histogram.count, histogram.mean, histogram.deviation, histogram.percentile(50)) == (0, 0, 0, 0)


@given(TIMES)
def test_percentiles(times: list[int]) -> None:
    """A percentile differs by at most 1 % from the exact one."""
    histogram = of(times)
    for percent in (0, 1, 50, 90, 99.9, 100):
        true = sorted(times)[max(-(-len(times) * percent // 100), 1).__int__() - 1]
        assert abs(histogram.percentile(percent) - true) <= true / 100 + 0.5


@given(TIMES)
def test_exact(times: list[int]) -> None:
    """Count, sum, least and greatest are exact, and the deviation is the standard deviation."""
    histogram = of(times)
    assert (histogram.count, histogram.total) == (len(times), sum(times))
    assert (histogram.least, histogram.greatest) == (min(times), max(times))
    assert abs(histogram.deviation - statistics.pstdev(times)) <= 1e-6 * (1 + max(times))


@given(TIMES, TIMES)
def test_add(some: list[int], others: list[int]) -> None:
    """The sum of two histograms is the histogram of all times."""
    histogram = of(some)
    histogram.add(of(others))
    assert vars(histogram) == vars(of(some + others))


def test_add_nothing() -> None:
    """An empty histogram changes nothing, neither the least nor the greatest."""
    histogram = of([7])
    histogram.add(Histogram())
    assert (histogram.least, histogram.greatest, histogram.count) == (7, 7, 1)


@given(st.integers(0, 10**18))
def test_bounds(time: int) -> None:
    """A time is within the bounds of its bucket, which differ by at most 1/64 of it."""
    (bucket,) = of([time]).buckets
    low, high = bounds(bucket)
    assert low <= time <= high
    assert high - low <= time / 64


def test_memory() -> None:
    """A hundred thousand times from a microsecond to a minute take less than 2000 buckets."""
    draw = random.Random(1)
    assert len(of([int(10 ** draw.uniform(3, 10.8)) for _ in range(100_000)]).buckets) < 2000


def test_before_it_began() -> None:
    """A negative time counts as 0."""
    assert of([-5]).greatest == 0
