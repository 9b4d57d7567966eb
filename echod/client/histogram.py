"""Times, counted in buckets: constant memory for any number of times, and percentiles accurate to 1 %."""

_BITS = 6
"""Each power of two is divided into 2**6 buckets: a time is within 1/128 of the middle of its bucket."""

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
"""The percentiles that are reported by default."""


class Histogram:
    """Counts of times, in whole nanoseconds, by length; the sum, the sum of squares, the least and the greatest are
    exact."""

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.count = 0
        self.total = 0
        self.squares = 0
        self.least = 0
        self.greatest = 0

    def record(self, nanoseconds: int) -> None:
        """Count one time; a negative one counts as 0."""
        if nanoseconds < 0:
            nanoseconds = 0
        # As in HdrHistogram (Gil Tene), the leading bits of the time are the number of its bucket.
        shift = nanoseconds.bit_length() - _BITS - 1
        if shift < 0:
            shift = 0
        bucket = (shift << _BITS) + (nanoseconds >> shift)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        if not self.count or nanoseconds < self.least:
            self.least = nanoseconds
        if nanoseconds > self.greatest:
            self.greatest = nanoseconds
        self.count += 1
        self.total += nanoseconds
        self.squares += nanoseconds * nanoseconds

    def add(self, other: "Histogram") -> None:
        """Add the counts of `other`."""
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        if other.count:
            self.least = min(self.least, other.least) if self.count else other.least
        self.greatest = max(self.greatest, other.greatest)
        self.count += other.count
        self.total += other.total
        self.squares += other.squares

    @property
    def mean(self) -> float:
        """The average; 0 if nothing was counted."""
        return self.total / self.count if self.count else 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation, which ping(8) calls mdev; 0 if nothing was counted."""
        if not self.count:
            return 0.0
        # In integers: floating-point numbers would lose the difference of two large squares.
        return float((self.squares * self.count - self.total**2) ** 0.5) / self.count

    def percentile(self, percent: float) -> float:
        """The time that `percent` of the times do not exceed; 0 if nothing was counted."""
        wanted = max(percent * self.count / 100, 1)
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                low, high = bounds(bucket)
                return min(max((low + high) / 2, self.least), self.greatest)
        return 0.0

    def fields(self, percentiles: tuple[float, ...] = PERCENTILES) -> dict[str, object] | None:
        """The times in the form that `--json` prints, in seconds; None if nothing was counted."""
        if not self.count:
            return None
        nanoseconds = {"min": self.least, "mean": self.mean, "max": self.greatest, "mdev": self.deviation}
        nanoseconds |= {f"p{percent:g}".replace(".", "_"): self.percentile(percent) for percent in percentiles}
        return {name: value / 1e9 for name, value in nanoseconds.items()}


def bounds(bucket: int) -> tuple[int, int]:
    """The least and the greatest time of a bucket."""
    shift = max((bucket >> _BITS) - 1, 0)
    low = (bucket - (shift << _BITS)) << shift
    return low, low + (1 << shift) - 1
