"""Whether a client has stopped acknowledging the bytes that it is owed.

The bytes sent less those still queued are the bytes that the client has acknowledged: tcpi_bytes_acked, to the byte.
This tells a slow client from one that takes nothing; the progress of send(2) does not.
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
        """Ask the kernel how much the client has acknowledged; to be called several times within a time-out.

        A client that acknowledges is active, by the relay's stamp too.
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
        """Whether, as far as observed, the client is owed bytes and has acknowledged none for `timeout` seconds."""
        return self._acked != _NOTHING_OWED and now - self._acked_at >= timeout
