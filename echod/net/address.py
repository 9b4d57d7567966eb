"""Host names and socket addresses: from a configured host to endpoints, and from a socket address to readable text.

The host `""` is every address of the machine, `"0.0.0.0"` every IPv4 address and `"::"` every IPv6 address.
`localhost` is not looked up (RFC 6761 section 6.3).  `unix:/path` and `unix:@name` are sockets as in unix(7).  Any
other host is an address or a name, and a name stands for every address to which it resolves.  Nothing here opens a
listening socket.
"""

import os
import re
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from echod.errors import CannotListen

UNIX_PATH_MAX = 107
"""Bytes in the path or name of a unix socket (unix(7): 108, with the NUL before or after it)."""

_EVERY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_MAPPED = re.compile(r"^::ffff:(\d+\.\d+\.\d+\.\d+)", re.ASCII)
"""An IPv4 peer of an IPv6 socket that serves both (RFC 4291 section 2.5.5.2).

The dots are required: ::ffff:0:102:304 is in an unrelated network (RFC 2765).
"""

_UCRED = struct.Struct("3i")
"""`struct ucred`, unix(7): pid, uid, gid."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address to bind, without its port, which the kernel may choose.

    `address` is numeric; for AF_UNIX it is the path, or a NUL and the abstract name.
    """

    family: socket.AddressFamily
    address: str
    scope: int = 0

    def sockaddr(self, port: int) -> Any:
        """The address in the form that Python's `bind` expects."""
        match self.family:
            case socket.AF_UNIX:
                return self.address
            case socket.AF_INET6:
                return (self.address, port, 0, self.scope)
            case _:
                return (self.address, port)

    def covers(self, other: "Endpoint") -> bool:
        """Whether a socket bound here also receives connections to `other`, so that `other` cannot be bound as well."""
        return self == other or (self.family == other.family and self.address == _EVERY.get(self.family))


def loopback(family: socket.AddressFamily) -> Endpoint:
    """The loopback address of the family; every machine that supports the family has it."""
    return Endpoint(family, _LOOPBACK[family])


def resolve(host: str) -> list[Endpoint]:
    """Every endpoint of `host`.

    Raises `CannotListen` for a name that does not resolve and for a unix path that the kernel does not accept.
    """
    if host.startswith("unix:"):
        return [_unix(host)]
    if not host:
        return [Endpoint(family, address) for family, address in _EVERY.items()]
    if _is_localhost(host):
        return [Endpoint(family, address) for family, address in _LOOPBACK.items()]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a valid host name"
        raise CannotListen(
            f"host {host!r} does not resolve: {reason}; use an address of this machine or a name that resolves to one"
        ) from error
    return [
        Endpoint(family, str(sockaddr[0]).partition("%")[0], sockaddr[3] if len(sockaddr) == 4 else 0)
        for family, _, _, _, sockaddr in found
    ]


def endpoints(hosts: Iterable[str]) -> list[Endpoint]:
    """The endpoints of all `hosts`, in their order, without those that another endpoint covers.

    Raises `CannotListen` as `resolve` does.
    """
    kept: list[Endpoint] = []
    for endpoint in (endpoint for host in hosts for endpoint in resolve(host)):
        if not any(other.covers(endpoint) for other in kept):
            kept = [other for other in kept if not endpoint.covers(other)] + [endpoint]
    return kept


def show(family: int, sockaddr: Any) -> str:
    """A socket address in readable form: `127.0.0.1:7`, `[::1]:7`, `unix:/path` or `unix:@name`."""
    if family == socket.AF_UNIX:
        name = os.fsdecode(sockaddr)
        return "unix:" + ("@" + name[1:] if name.startswith("\0") else name)
    host, port = _unmapped(sockaddr[0]), sockaddr[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peer(sock: socket.socket, sockaddr: Any) -> str:
    """The client of a connection in readable form: its address, or on a unix socket its process and user."""
    if sock.family != socket.AF_UNIX:
        return show(sock.family, sockaddr)
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return f"unix:pid={pid},uid={uid}"


def source(family: int, sockaddr: Any) -> int | None:
    """The number under which a peer is counted: its IPv4 address, or the /64 of its IPv6 address, since a site has one.

    It is never 0 and below 2**64; None for a unix socket, whose peers have no address.  IPv4 and IPv6 numbers never
    collide, because ::/8, where the IPv4 numbers lie, is not assigned to any network (RFC 4291 section 2.5).
    """
    if family == socket.AF_UNIX:
        return None
    host = _unmapped(sockaddr[0])
    if ":" in host:
        prefix = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]
        return int.from_bytes(prefix) or _LOOPBACK_NET
    return int.from_bytes(socket.inet_aton(host)) | _IPV4_NET


_IPV4_NET = 1 << 32
_LOOPBACK_NET = 1
"""The number of ::/64, which contains ::1 and would otherwise be 0."""


def _unmapped(host: str) -> str:
    return _MAPPED.sub(r"\1", host)


def _is_localhost(host: str) -> bool:
    name = host.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


def _unix(host: str) -> Endpoint:
    path = host.removeprefix("unix:")
    if not path.startswith(("/", "@")) or "\0" in path or path == "@":
        raise CannotListen(f"host {host!r} is not a unix socket; write unix:/absolute/path or unix:@name")
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise CannotListen(
            f"host {host!r} is too long for a unix socket; at most {UNIX_PATH_MAX} bytes may follow 'unix:'"
        )
    return Endpoint(socket.AF_UNIX, "\0" + path[1:] if path.startswith("@") else path)
