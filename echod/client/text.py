"""Bytes, counts, sockets and addresses as text that is safe to show on a terminal."""

import os
import socket

_SHOWN = 64
_PROTOCOLS = {0: "0 (the family's own)", socket.IPPROTO_TCP: "IPPROTO_TCP"}


def quoted(data: bytes | memoryview) -> str:
    """`data` between double quotes, with every byte outside printable ASCII escaped as in Python.

    Bytes from an unknown server must not reach a terminal as control sequences.  Longer data is cut after 64 bytes,
    and its full length is added.
    """
    text = bytes(data[:_SHOWN]).decode("latin-1").encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{text}"' if len(data) <= _SHOWN else f'"{text}"... ({len(data)} bytes)'


def printable(text: str) -> str:
    """`text`, with control characters, line breaks, and undecodable bytes of a command line escaped as in Python."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def counted(count: int, noun: str) -> str:
    """`count` and its noun: "1 byte", "2 bytes"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def described(connection: socket.socket) -> dict[str, object]:
    """The connection's family, type, protocol and two ends."""
    return {
        "family": socket.AddressFamily(connection.family).name,
        "type": socket.SocketKind(connection.type).name,
        "protocol": _PROTOCOLS.get(connection.proto, str(connection.proto)),
        "local": endpoint(connection.getsockname()),
        "remote": _remote(connection),
    }


def _remote(connection: socket.socket) -> str:
    try:
        return endpoint(connection.getpeername())
    except OSError:
        # ENOTCONN: the server has already reset the connection, and the kernel no longer knows its address.
        return "already disconnected"


def endpoint(address: tuple[str, int] | tuple[str, int, int, int] | str | bytes) -> str:
    """An address of socket(7) in the form in which echoc's users write it."""
    if isinstance(address, str):
        address = os.fsencode(address)
    if isinstance(address, bytes):
        path = printable(address.removeprefix(b"\0").decode("utf-8", "backslashreplace"))
        return f"unix:@{path}" if address.startswith(b"\0") else f"unix:{path or ' (unnamed)'}"
    # getnameinfo(3) adds the zone of a link-local address; with these flags it looks up no names.
    host, port = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
