"""Whether a client takes nothing of what it is due.

What we sent less what is still queued is what the client has acknowledged, tcpi_bytes_acked to the byte; it tells a
slow client from one that takes nothing, which the progress of send(2) does not.
"""

import math

from echod.net import tcpinfo as queues
from echod.worker.relay import Relay

_NOTHING_DUE = -1


class Stall:
    """Looks after the client on `fd`, served by `relay`, from `now` on."""

    __slots__ = ("_acked", "_acked_at", "_fd", "_relay")

    def __init__(self, fd: int, relay: Relay, now: float) -> None:
        self._fd = fd
        self._relay = relay
        self._acked = _NOTHING_DUE
        self._acked_at = now

    def is_over(self, timeout: float, now: float) -> bool:
        """Whether the client is due bytes and has acknowledged none for `timeout` seconds, as far as looks can tell.

        To be asked several times within that.  One that acknowledges is active, by the relay's stamp too.
        """
        if math.isinf(timeout):
            return False
        queued = queues.unacknowledged(self._fd)
        acked = self._relay.sent - queued
        due = bool(queued or self._relay.pending)
        if due and acked == self._acked:
            return now - self._acked_at >= timeout
        if due:
            self._relay.active = now
        self._acked = acked if due else _NOTHING_DUE
        self._acked_at = now
        return False
