"""What is known of a connection beside its socket, and how that is written down for the next echod.

As JSON, which both can read where their versions differ: a field that the reader does not know is passed over.  Nothing
that is read is trusted, for it came by way of another process.
"""

import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

_COUNT_MAX = 2**63 - 1
_WORD_MAX = 64
"""Characters of a name or a reason."""


class ConnectionState(NamedTuple):
    """A connection's life so far, a new one's being its name, its peer as accept(2) gave it, and its start.

    Times are seconds of CLOCK_MONOTONIC, which is the same for all processes of a boot.
    """

    name: str
    sockaddr: Any
    started: float
    active: float
    """When bytes last moved."""
    received: int = 0
    chunks: int = 0
    pending: bytes = b""
    """What was received and not sent back yet."""
    lingers: str = ""
    """Why the server has ended its side, if it has."""
    restarts: int = 0
    """How many times it has changed hands."""


def encode(life: ConnectionState) -> dict[str, Any]:
    """What can be written as JSON: all but the pending bytes, of which it is said how many they are."""
    return life._asdict() | {"pending": len(life.pending)}


def decode(values: Mapping[str, Any], pending: bytes, family: int, now: float) -> ConnectionState:
    """From what `encode` has made, of a socket of that `family`.  Raises ValueError for whatever that can't be."""
    life = ConnectionState(
        name=_word(values.get("name")),
        sockaddr=_sockaddr(values.get("sockaddr"), family),
        started=_number(values.get("started"), now),
        active=_number(values.get("active"), now),
        received=_count(values.get("received")),
        chunks=_count(values.get("chunks")),
        pending=pending,
        lingers=_word(values.get("lingers")),
        restarts=_count(values.get("restarts")),
    )
    if not life.name or len(pending) > life.received or (pending and life.lingers):
        raise ValueError(life)
    return life


def _number(value: object, most: float) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    raise ValueError(value)


def _count(value: object) -> int:
    if isinstance(value, int):
        return int(_number(value, _COUNT_MAX))
    raise ValueError(value)


def _word(value: object) -> str:
    """Text that fits into any event."""
    if isinstance(value, str) and len(value) <= _WORD_MAX and value.isascii() and value.isprintable():
        return value
    raise ValueError(value)


def _sockaddr(value: object, family: int) -> Any:
    """The address of a peer, which has none on a unix socket."""
    if family == socket.AF_UNIX:
        return ""
    if not isinstance(value, list) or len(value) != (4 if family == socket.AF_INET6 else 2):
        raise ValueError(value)
    host, port, *more = value
    try:
        socket.inet_pton(family, _word(host).partition("%")[0])
    except OSError as error:
        raise ValueError(value) from error
    return (host, _count(port), *map(_count, more))
