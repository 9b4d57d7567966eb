"""Terms of service for tests; each test changes those that it is about."""

import math
from typing import Any

from echod.log.events import LogOptions
from echod.net.sockopts import SocketOptions
from echod.shared.terms import ServiceTerms, Timeouts

TICK = 1.0


def terms(**changes: Any) -> ServiceTerms:
    """The terms with these changes."""
    values: dict[str, Any] = {
        "chunk_size": 1 << 16,
        "timeouts": Timeouts(math.inf, math.inf, 2.0),
        "socket_options": SocketOptions(math.inf, 10.0, 3),
        "sets_accepted_options": False,
        "drain": 5.0,
        "tick": TICK,
        "max_connections": 100,
        "max_per_source": 0,
        "ipv6_prefix": 64,
        "kernel_memory": 0,
        "handover": True,
        "log_options": LogOptions("info", "json", connections=True, payload=False),
    }
    return ServiceTerms(**values | changes)
