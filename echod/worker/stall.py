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
from echod.worker.relay import Relay

FLOOR = 1000
"""Bytes per second.

About what a serial line of 9,600 baud carries.  A higher floor would shorten the deadlines, which hardly matters: a
client that wants to occupy a connection can as well be idle.  A lower one would let them exceed hours.
"""
_LUMP = 17 * (32 << 10)
"""Bytes, at most, that a receiver frees at once: its kernel joins segments (17 fragments of at most 32 KiB, skbuff.h).

Measured over loopback with a buffer of 128 KiB: 129,543 bytes were read between two acknowledgements, not a sixteenth.
"""
_NOTHING_OWED = -1


class Stall:
    """Watches the client on `sock`, served by `relay`, from `now` on."""

    __slots__ = ("_acked", "_acked_at", "_relay", "_sock")

    def __init__(self, sock: socket.socket, relay: Relay, now: float) -> None:
        self._sock = sock
        self._relay = relay
        self._acked = _NOTHING_OWED
        self._acked_at = now

    @property
    def owed(self) -> bool:
        """Whether bytes were due when `observe` was called last."""
        return self._acked != _NOTHING_OWED

    def observe(self, now: float) -> None:
        """Ask the kernel how much the client has acknowledged; call this several times within a time-out.

        A client that acknowledges bytes also counts as active in the relay.
        """
        queued = tcpinfo.unacknowledged(self._sock.fileno())
        acked = self._relay.sent - queued
        owed = bool(queued or self._relay.pending)
        if owed and acked == self._acked:
            return
        if owed:
            self._relay.touch()
        self._acked = acked if owed else _NOTHING_OWED
        self._acked_at = now

    def is_over(self, timeout: float, now: float) -> bool:
        """Whether bytes are due and, as far as observed, the client has acknowledged none until the deadline.

        The deadline is after `timeout` seconds plus the `patience` with a client that reads slowly.
        """
        if not self.owed or now - self._acked_at < timeout:
            return False
        return now - self._acked_at >= timeout + patience(tcpinfo.buffered_by_client(self._sock))


def patience(buffered: int) -> float:
    """Seconds in which a client that reads `FLOOR` bytes a second acknowledges some, with `buffered` bytes unread."""
    return min(buffered, buffered / 16 + _LUMP) / FLOOR
