"""The bytes to send, and their comparison with the echo; without any I/O."""

from __future__ import annotations

import os

from echod.client.errors import WINDOW, EchoError, MismatchError, SurplusError

PERIOD = 65_521
"""Prime, so that successive messages start at different places of the pattern, unless their size is a multiple of it:
a repeated or skipped message differs from the expected one."""


class Pattern:
    """An endless stream of random bytes with a period of 65,521, so that bytes lost, repeated or mixed up are found.

    Any part of up to `largest` bytes is available without copying more than that part.  It takes 64 KiB of memory and
    `largest` bytes.
    """

    def __init__(self, largest: int) -> None:
        period = os.urandom(PERIOD)
        self.block = (period * ((largest + WINDOW) // PERIOD + 2))[: PERIOD + largest + WINDOW]
        """The first period, and `largest` bytes beyond it, and as many as an error shows."""

    def part(self, offset: int, count: int) -> bytes:
        """`count` bytes of the stream from `offset` on; at most `largest`."""
        start = offset % PERIOD
        return self.block[start : start + count]


def compare(data: bytes, offset: int, sent: bytes | bytearray, start: int, outstanding: int) -> EchoError | None:
    """Compare `data`, which was received at `offset` of the echo, with what was sent; None where it is identical.

    The `outstanding` bytes, which were sent and have not come back, begin at `start` in `sent`.  `sent` may end before
    the last of them, but must hold the first len(data), and should hold the next 32 for the error to show.
    """
    # startswith() compares in place; a slice of `sent` would copy up to 256 KiB for each chunk.
    if len(data) <= outstanding and sent.startswith(data, start):
        return None
    expected = bytes(sent[start : start + min(outstanding, len(data) + WINDOW)])
    for index, (one, other) in enumerate(zip(expected, data, strict=False)):
        if one != other:
            return MismatchError(offset + index, expected[index : index + WINDOW], data[index:])
    return SurplusError(offset + outstanding, data[outstanding:])
