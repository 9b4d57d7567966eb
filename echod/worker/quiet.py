"""Whether a client that is drained is quiet, so that the end of our side cuts nothing short.

A client in the middle of a transfer would take our end for the end of its echo.  That all bytes have been echoed by now
does not show that it has finished: the next ones may be on their way.
"""

from echod.net import tcpinfo
from echod.worker.relay import Relay

SILENCE = 0.5
"""Seconds without a byte after which a client is quiet.  With the quarter of it until the next look (`Sweep`),
this is the most by which quiet clients prolong a stop.

More than the 0.2 s after which TCP repeats a lost packet at the earliest.  Measured at a stop during transfers of
nc(1): over loopback and over links of 2 and 20 Mbit/s, 0.05 s cut none of 60 short.  With 8 % of the packets lost in
each direction, 0.05 s cut 4 of 17 short, 0.3 s 2 of 31, and 0.5 s 1 of 36: what remains is two losses in a row.
"""


class Quiet:
    """Watches the client on `fd`, served by `relay`, while it is drained."""

    __slots__ = ("_busy_at", "_fd", "_relay")

    def __init__(self, fd: int, relay: Relay) -> None:
        self._fd = fd
        self._relay = relay
        self._busy_at = relay.active

    def observe(self, now: float, *, owed: bool) -> bool:
        """Whether nothing is unread or `owed` now, nor, as far as observed, in the last `SILENCE` seconds.

        Owed are bytes that are pending or not acknowledged: the client's next ones may be a round trip away, however
        long that takes, and arrive together with the acknowledgement.
        """
        if owed or tcpinfo.unread(self._fd):
            self._busy_at = now
        return now >= max(self._busy_at, self._relay.active) + SILENCE

    def is_silent(self, now: float) -> bool:
        """Whether the client is quiet except that it has not acknowledged its echo."""
        return not self._relay.pending and now >= self._relay.active + SILENCE and not tcpinfo.unread(self._fd)
