"""Whether a client has stopped acknowledging the bytes that are due to it.

The bytes sent minus those still queued are the bytes that the client has acknowledged, exactly tcpi_bytes_acked.  This
distinguishes a slow client from one that acknowledges nothing, which the progress of send(2) does not.
"""

from echod.net import tcpinfo
from echod.worker.relay import Relay

_NOTHING_OWED = -1


class Stall:
    """Watches the client on `fd`, served by `relay`, from `now` on."""

    __slots__ = ("_acked", "_acked_at", "_fd", "_relay")

    def __init__(self, fd: int, relay: Relay, now: float) -> None:
        self._fd = fd
        self._relay = relay
        self._acked = _NOTHING_OWED
        self._acked_at = now

    def observe(self, now: float) -> None:
        """Ask the kernel how much the client has acknowledged; call this several times within a time-out.

        A client that acknowledges bytes also counts as active in the relay.
        """
        queued = tcpinfo.unacknowledged(self._fd)
        acked = self._relay.sent - queued
        owed = bool(queued or self._relay.pending)
        if owed and acked == self._acked:
            return
        if owed:
            self._relay.touch()
        self._acked = acked if owed else _NOTHING_OWED
        self._acked_at = now

    def is_over(self, timeout: float, now: float) -> bool:
        """Whether bytes are due and, as far as observed, the client has acknowledged none for `timeout` seconds."""
        return self._acked != _NOTHING_OWED and now - self._acked_at >= timeout
