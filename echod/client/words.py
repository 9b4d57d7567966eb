"""Bytes and sockets as text that is safe to show on a terminal."""

import os
import socket

_SHOWN = 64
_PROTOCOLS = {0: "0 (the family's own)", socket.IPPROTO_TCP: "IPPROTO_TCP"}


def quoted(data: bytes | memoryview) -> str:
    """`data` between double quotes, every byte outside printable ASCII escaped as Python would.

    What a stranger's server sends must not reach a terminal as control sequences by way of a message.  Longer
    data is cut after 64 bytes and its full length told.
    """
    text = bytes(data[:_SHOWN]).decode("latin-1").encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{text}"' if len(data) <= _SHOWN else f'"{text}"... ({len(data)} bytes)'


def printable(text: str) -> str:
    """`text`, with what a terminal would obey or can't show escaped as Python would: control characters, line breaks,
    and bytes of a command line that were no text."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


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
        # ENOTCONN: the other end has reset the connection already, and the kernel forgot who it was.
        return "gone already"


def endpoint(address: tuple[str, int] | tuple[str, int, int, int] | str | bytes) -> str:
    """An address of socket(7) as echoc's users write it."""
    if isinstance(address, str):
        address = os.fsencode(address)
    if isinstance(address, bytes):
        path = printable(address.removeprefix(b"\0").decode("utf-8", "backslashreplace"))
        return f"unix:@{path}" if address.startswith(b"\0") else f"unix:{path or ' (unnamed)'}"
    # getnameinfo, for the zone of a link-local address; the flags keep it from asking anyone for names.
    host, port = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
