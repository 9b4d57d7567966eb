"""Bytes to send that tell where in the stream they belong, so that what is lost, repeated or mixed up is found."""

import os

_PERIOD = 65_521
"""Prime, so that no message size divides it, and a message that is repeated or skipped differs from the next."""


class Pattern:
    """An endless stream of random bytes that repeats after 65,521, of which any part up to `largest` bytes is had
    without copying more than that part.  Kept in memory are 64 KiB and `largest` bytes."""

    def __init__(self, largest: int) -> None:
        period = os.urandom(_PERIOD)
        self._block = (period * (largest // _PERIOD + 2))[: _PERIOD + largest]

    def part(self, offset: int, count: int) -> bytes:
        """`count` bytes of the stream from `offset` on; at most `largest`."""
        start = offset % _PERIOD
        return self._block[start : start + count]
