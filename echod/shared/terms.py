"""The terms by which workers serve: everything that a reload can change in a running worker, and its form as a message.

The message is JSON, so it can contain only values.
"""

import json
from dataclasses import asdict, dataclass
from typing import Self

from echod.log.events import LogOptions
from echod.net.sockopts import SocketOptions


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, or infinity: inactivity before `idle`, no acknowledgement before `stalled`, and the time to linger."""

    idle: float
    stall: float
    linger: float


@dataclass(frozen=True, slots=True)
class ServiceTerms:
    """The terms; `chunk_size` is in bytes, `drain` (time for draining) and `tick` (between two ticks) in seconds.

    With `sets_accepted_options` a worker sets the socket options on each accepted connection, since it may have arrived
    in the kernel's queue before the listening socket had these options.  `max_connections`, `max_per_source` and
    `ipv6_prefix` are those of `limits.Limits`; `kernel_memory` is the number of bytes that the slow clients of all
    workers together may occupy (`worker.memory`), 0 for any number; `handover` is whether a restart keeps connections.
    """

    chunk_size: int
    timeouts: Timeouts
    socket_options: SocketOptions
    sets_accepted_options: bool
    drain: float
    tick: float
    max_connections: int
    max_per_source: int
    ipv6_prefix: int
    kernel_memory: int
    handover: bool
    log_options: LogOptions

    def encode(self) -> bytes:
        """As a message, of a few hundred bytes."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """The terms that `encode` has encoded."""
        values = json.loads(message)
        parts = {
            "timeouts": Timeouts(**values["timeouts"]),
            "socket_options": SocketOptions(**values["socket_options"]),
            "log_options": LogOptions(**values["log_options"]),
        }
        return cls(**values | parts)
