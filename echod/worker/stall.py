"""Whether a client has stopped acknowledging the bytes that are due to it.

The bytes sent minus those still queued are the bytes that the client has acknowledged, exactly tcpi_bytes_acked.  This
distinguishes a slow client from one that acknowledges nothing, which the progress of send(2) does not.

But a client may read and yet acknowledge nothing for minutes: once its receive buffer is full, its kernel accepts bytes
again only when the client has read a sixteenth of the buffer (Linux's __tcp_select_window).  Until then all that the
kernel knows here is the same as for a client that never reads, and both answer window probes.  So a deadline is longer
than the time-out by `patience`: the time in which a client that reads `FLOOR` bytes a second must have acknowledged
some.  No client that is at least this fast is ever reset as stalled.
"""

import socket

from echod.net import tcpinfo

FLOOR = 1000
"""Bytes per second.

About what a serial line of 9,600 baud carries.  A higher floor would shorten the deadlines, which hardly matters: a
client that wants to occupy a connection can as well be idle.  A lower one would let them exceed hours.
"""
_LUMP = 17 * (32 << 10)
"""Bytes, at most, that a receiver frees at once: its kernel joins segments (17 fragments of at most 32 KiB, skbuff.h).

Measured over loopback with a buffer of 128 KiB: 129,543 bytes were read between two acknowledgements, not a sixteenth.
"""


class Stall:
    """A client to which bytes are due, at `now`, and which has acknowledged `acked` bytes so far."""

    __slots__ = ("_acked", "_acked_at")

    def __init__(self, acked: int, now: float) -> None:
        self._acked = acked
        self._acked_at = now

    def observe(self, acked: int, now: float) -> bool:
        """Whether the client has acknowledged bytes since the last call; call this several times within a time-out."""
        if acked == self._acked:
            return False
        self._acked, self._acked_at = acked, now
        return True

    def is_over(self, sock: socket.socket, timeout: float, now: float) -> bool:
        """Whether the client on `sock` has, as far as observed, missed the deadline for acknowledging a byte.

        It is `timeout` seconds after the last acknowledgement, plus the `patience` with a client that reads slowly.
        """
        silence = now - self._acked_at
        return silence >= timeout and silence >= timeout + patience(tcpinfo.buffered_by_client(sock))


def patience(buffered: int) -> float:
    """Seconds in which a client that reads `FLOOR` bytes a second acknowledges some, with `buffered` bytes unread."""
    return min(buffered, buffered / 16 + _LUMP) / FLOOR
