"""A connection on its way from one process to another: its socket, its state, and the state's form as JSON.

JSON, because the two processes may run different versions: the reader ignores a field that it does not know.  Where
both run the same version, the names of the fields are left out (`pack`).  The reader trusts nothing, since the JSON
comes from another process.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

_COUNT_MAX = 2**63 - 1
_WORD_MAX = 64
"""Characters of a name or a reason."""
_SO_COOKIE = 57
"""asm-generic/socket.h; `socket` has no name for it."""
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_PLAIN_JSON = json.JSONEncoder(separators=(",", ":"))


class ConnectionState(NamedTuple):
    """The state of a connection that a process needs, besides its socket, to serve it.

    A new connection has only its name, the peer's address as accept(2) returned it, and its start.  Times are seconds
    of CLOCK_MONOTONIC, which is the same for all processes of a boot.
    """

    name: str
    """Identifies the connection in the events; empty if its state was lost."""
    sockaddr: Any
    started: float
    active: float
    """When bytes last moved."""
    received: int = 0
    chunks: int = 0
    pending: bytes = b""
    """The bytes that were received and not sent back yet."""
    lingers: str = ""
    """Why the server has shut its side down; empty if it has not."""
    restarts: int = 0
    """The number of restarts that the connection has survived."""


class Connection(NamedTuple):
    """A connection that another process has served."""

    sock: socket.socket
    state: ConnectionState


class TakenOver(NamedTuple):
    """The connections that were taken from a queue.

    `forgotten` of them continue with new counters, because their state is lost; `lost` more could not continue.
    """

    connections: list[Connection]
    forgotten: int
    lost: int


def encode(state: ConnectionState) -> dict[str, Any]:
    """The state as a JSON object, with the number of the pending bytes in place of the bytes.

    A client may have bound its end of a unix socket to any bytes.  No event shows that name, so it is left out.
    """
    sockaddr = "" if isinstance(state.sockaddr, (str, bytes)) else state.sockaddr
    return state._asdict() | {"sockaddr": sockaddr, "pending": len(state.pending)}


def decode(values: Mapping[str, Any], pending: bytes, family: int, now: float) -> ConnectionState:
    """The state that `encode` has encoded, for a socket of `family`.  Raises ValueError for invalid values."""
    if not isinstance(values, dict):
        raise ValueError(values)
    state = ConnectionState(
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
    if not state.name or len(pending) > state.received or (pending and state.lingers):
        raise ValueError(state)
    return state


def pack(state: ConnectionState) -> bytes:
    """The state as a line of JSON for a process of the same version: a list of the values, without the pending bytes.

    The parent keeps one for each connection.  With the names it takes 120 bytes more.
    """
    return _PLAIN_JSON.encode([*encode(state).values()]).encode()


def unpack(line: bytes, family: int, now: float) -> ConnectionState:
    """The state that `pack` has packed.  Raises ValueError or RecursionError if `line` is not one."""
    values = json.loads(line)
    if not isinstance(values, list) or len(values) != len(ConnectionState._fields):
        raise ValueError(values)
    return decode(dict(zip(ConnectionState._fields, values, strict=True)), b"", family, now)


def adopt(fd: int) -> socket.socket | None:
    """The connection whose descriptor another process sent, made non-blocking; None if it is no connection.

    A descriptor that is not a connection is closed.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return None
    try:
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        listens = 1
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM or listens:
        sock.close()
        return None
    sock.setblocking(False)
    return sock


def cookie(sock: socket.socket) -> int:
    """The kernel's number of a socket, the same for all descriptors of it in all processes.

    Without SO_COOKIE it is the inode: no two open sockets have the same, unless the machine has opened 2^32 sockets.
    """
    try:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)
    except OSError:
        return os.fstat(sock.fileno()).st_ino


def _number(value: object, most: float) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    raise ValueError(value)


def _count(value: object) -> int:
    if isinstance(value, int):
        return int(_number(value, _COUNT_MAX))
    raise ValueError(value)


def _word(value: object) -> str:
    """Short printable text, which fits into any event."""
    if isinstance(value, str) and len(value) <= _WORD_MAX and value.isascii() and value.isprintable():
        return value
    raise ValueError(value)


def _sockaddr(value: object, family: int) -> Any:
    """The address of a peer; on a unix socket a peer has none."""
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
