"""Bytes to send that tell where in the stream they belong, so that what is lost, repeated or mixed up is found."""

import os

PERIOD = 65_521
"""Prime, so that messages of any size that is no multiple of it are each from another place of the stream, and one that
is repeated or skipped differs from the next."""


class Pattern:
    """An endless stream of random bytes that repeats after 65,521, of which any part up to `largest` bytes is had
    without copying more than that part.  Kept in memory are 64 KiB and `largest` bytes."""

    def __init__(self, largest: int) -> None:
        period = os.urandom(PERIOD)
        self._block = (period * (largest // PERIOD + 2))[: PERIOD + largest]

    def part(self, offset: int, count: int) -> bytes:
        """`count` bytes of the stream from `offset` on; at most `largest`."""
        start = offset % PERIOD
        return self._block[start : start + count]
