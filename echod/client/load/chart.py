"""A histogram of times as lines of text."""

from __future__ import annotations

from echod.client.histogram import Histogram, bounds

_WIDTH = 40
"""Characters of the longest bar: with what stands before it a line fits a terminal of 80."""

_STEPS = (1, 2, 5)


def chart(histogram: Histogram) -> list[str]:
    """A line for each of `rows`: the step, the count, its share of all, and a bar."""
    found = rows(histogram)
    most = max((count for _, count in found), default=0)
    lines = []
    for step, count in found:
        bar = "#" * (count * _WIDTH // most or count > 0)
        share = 100 * count / histogram.count
        lines.append(f"<= {duration(step):>7} {count:>12} {share:6.2f} %  {bar}".rstrip())
    return lines


def rows(histogram: Histogram) -> list[tuple[float, int]]:
    """From the shortest time to the longest, in steps of 1, 2 and 5 microseconds, 10, 20 and so on: the step in
    seconds, and how many times were at most that long, but longer than the step before."""
    counts: dict[int, int] = {}
    for bucket, count in histogram.buckets.items():
        # A bucket goes where its middle is; no step is further off than the hundredth that a bucket is wide.
        row = _row(sum(bounds(bucket)) / 2000)
        counts[row] = counts.get(row, 0) + count
    if not counts:
        return []
    return [(_step(row) / 1e6, counts.get(row, 0)) for row in range(min(counts), max(counts) + 1)]


def duration(seconds: float) -> str:
    """A time in three digits or more, and its unit: "1.23 ms"."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size * 0.9995:
            return _rounded(seconds / size, unit)
    return _rounded(seconds * 1e6, "us")


def _rounded(value: float, unit: str) -> str:
    decimals = 0 if value >= 99.95 or value == int(value) else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f} {unit}"


def _row(microseconds: float) -> int:
    row = 0
    while _step(row) < microseconds:
        row += 1
    return row


def _step(row: int) -> int:
    """The longest time of a row, in microseconds."""
    power, step = divmod(row, len(_STEPS))
    return _STEPS[step] * int(10**power)
