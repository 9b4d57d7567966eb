"""On what terms clients are served: all that may change while they are, and its way from the parent to the workers.

As JSON, one message of the socket between the two: nothing that comes from there can be more than values.
"""

import json
from dataclasses import asdict, dataclass
from typing import Self

from echod.log.events import LogOptions
from echod.net.sockopts import SocketOptions


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, or infinity: quiet before `idle`, nothing taken before `stalled`, and how long to linger."""

    idle: float
    stall: float
    linger: float


@dataclass(frozen=True, slots=True)
class ServiceTerms:
    """Bytes of a chunk; how connections are timed out and tuned; seconds to drain in, and between two ticks.

    `tunes_accepted` says that some may come out of the kernel's queue that are tuned otherwise, or not at all: they
    came before the listening socket was.  `max_connections` and `max_per_source` are those of `limits.Limits`, and
    `handover` is whether a restart keeps connections.
    """

    chunk_size: int
    timeouts: Timeouts
    socket_options: SocketOptions
    sets_accepted_options: bool
    drain: float
    tick: float
    max_connections: int
    max_per_source: int
    handover: bool
    log_options: LogOptions

    def encode(self) -> bytes:
        """As a message, of a few hundred bytes."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """From what `encode` has made."""
        values = json.loads(message)
        parts = {
            "timeouts": Timeouts(**values["timeouts"]),
            "socket_options": SocketOptions(**values["socket_options"]),
            "log_options": LogOptions(**values["log_options"]),
        }
        return cls(**values | parts)
