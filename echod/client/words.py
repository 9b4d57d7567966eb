"""Bytes and sockets as text that is safe to show on a terminal."""

import socket

_SHOWN = 64
_PROTOCOLS = {0: "0 (the family's own)", socket.IPPROTO_TCP: "IPPROTO_TCP"}


def quoted(data: bytes) -> str:
    """`data` between double quotes, every byte outside printable ASCII escaped as Python would.

    What a stranger's server sends must not reach a terminal as control sequences by way of a message.  Longer
    data is cut after 64 bytes and its full length told.
    """
    text = data[:_SHOWN].decode("latin-1").encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{text}"' if len(data) <= _SHOWN else f'"{text}"... ({len(data)} bytes)'


def described(connection: socket.socket) -> list[str]:
    """The connection's family, type, protocol and two ends, one line each."""
    return [
        f"Family  : {socket.AddressFamily(connection.family).name}",
        f"Type    : {socket.SocketKind(connection.type).name}",
        f"Protocol: {_PROTOCOLS.get(connection.proto, connection.proto)}",
        f"Local   : {_endpoint(connection.getsockname())}",
        f"Remote  : {_remote(connection)}",
    ]


def _remote(connection: socket.socket) -> str:
    try:
        return _endpoint(connection.getpeername())
    except OSError:
        # ENOTCONN: the other end has reset the connection already, and the kernel forgot who it was.
        return "gone already"


def _endpoint(address: tuple[str, int] | str | bytes) -> str:
    if isinstance(address, bytes):
        return "unix:@" + address[1:].decode("utf-8", "backslashreplace")
    if isinstance(address, str):
        return f"unix:{address}" if address else "unix: (unnamed)"
    # getnameinfo, for the zone of a link-local address; the flags keep it from asking anyone for names.
    host, port = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
