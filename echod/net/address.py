"""Host names and socket addresses: from a configured host to endpoints, and from a socket address to readable text.

The host `""` is every address of the machine, `"0.0.0.0"` every IPv4 address and `"::"` every IPv6 address.
`localhost` is not looked up (RFC 6761 section 6.3).  `unix:/path` and `unix:@name` are sockets as in unix(7).  Any
other host is an address or a name, and a name stands for every address to which it resolves.  Nothing here opens a
listening socket.

An address is refused if it would listen elsewhere than it seems to, or would never get a connection: `"0"` is every
IPv4 address, and a socket can be bound to a multicast address.  An IPv4-compatible address (`::192.0.2.1`, RFC 4291
section 2.5.5.1) is an IPv6 address like any other.
"""

import fcntl
import ipaddress
import os
import re
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
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

_SIOCGIFNAME = 0x8910
_IFREQ = struct.Struct("16si20x")
"""`struct ifreq`, netdevice(7): an interface's name and number."""
_UCRED = struct.Struct("3i")
"""`struct ucred`, unix(7): pid, uid, gid."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address to bind, without its port, which the kernel may choose.

    `address` is numeric; for AF_UNIX it is the path, or a NUL and the abstract name.  An `optional` endpoint belongs to
    a word such as `localhost`, which means those of its addresses that the machine has.
    """

    family: socket.AddressFamily
    address: str
    scope: int = 0
    optional: bool = field(default=False, compare=False)

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


def resolve(host: str) -> list[Endpoint]:
    """Every endpoint of `host`.

    Raises `CannotListen` for a name that does not resolve, for an address that cannot serve as it is written, and for a
    unix path that the kernel does not accept.
    """
    if host.startswith("unix:"):
        return [_unix(host)]
    if not host or _is_localhost(host):
        return [Endpoint(family, it, optional=True) for family, it in (_LOOPBACK if host else _EVERY).items()]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a valid host name"
        raise CannotListen(
            f"host {host!r} does not resolve: {reason}; use an address of this machine or a name that resolves to one"
        ) from error
    resolved = [
        Endpoint(family, str(sockaddr[0]).partition("%")[0], sockaddr[3] if len(sockaddr) == 4 else 0)
        for family, _, _, _, sockaddr in found
    ]
    for endpoint in resolved:
        _refuse_useless(host, endpoint.address)
    return resolved


def is_name(host: str) -> bool:
    """Whether `host` has to be looked up, which may take long."""
    if not host or host.startswith("unix:") or _is_localhost(host):
        return False
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return True
    return False


def endpoints(hosts: Iterable[str]) -> list[Endpoint]:
    """The endpoints of all `hosts`, in their order, without those that another endpoint covers.

    Raises `CannotListen` as `resolve` does.
    """
    return without_covered(endpoint for host in hosts for endpoint in resolve(host))


def without_covered(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """These endpoints without those that another one covers; one that is given twice is optional only if both are."""
    kept: list[Endpoint] = []
    for endpoint in endpoints:
        if endpoint in kept and not endpoint.optional:
            kept[kept.index(endpoint)] = endpoint
        elif not any(other.covers(endpoint) for other in kept):
            kept = [other for other in kept if not endpoint.covers(other)] + [endpoint]
    return kept


def show(sockaddr: Any, sock: socket.socket | None = None) -> str:
    """A socket address in readable form: `127.0.0.1:7`, `[::1]:7`, `[fe80::1%eth0]:7`, `unix:/path` or `unix:@name`.

    The form of `sockaddr` shows its family: a string or bytes is a unix socket's, two values are IPv4, four are IPv6.
    `sock.family` would show it too, but makes an enum member: measured, that takes as long as getsockname(2).

    The zone of an address is the name of an interface in the network namespace of `sock`, or of this process without
    `sock`.  The two namespaces may differ if systemd passed the socket.
    """
    if isinstance(sockaddr, (str, bytes)):
        name = os.fsdecode(sockaddr)
        return "unix:" + ("@" + name[1:] if name.startswith("\0") else name)
    if len(sockaddr) == 2:
        host, port = sockaddr
        return f"{host}:{port}"
    host, port, _, scope = sockaddr
    host = _unmapped(host)
    if scope and "%" not in host:
        host += "%" + _zone(scope, sock)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peer(sock: socket.socket, sockaddr: Any) -> str:
    """The client of a connection in readable form: its address, or on a unix socket its process and user."""
    if not isinstance(sockaddr, (str, bytes)):
        return show(sockaddr, sock)
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return f"unix:pid={pid},uid={uid}"


def ends(sock: socket.socket, sockaddr: Any, local: str = "") -> dict[str, str]:
    """The addresses of both ends of a connection, for its events; empty if the kernel has no memory to return them.

    `local` is the address of our end if it is known (`local_of`), which saves a system call.
    """
    try:
        return {"peer": peer(sock, sockaddr), "local": local or show(sock.getsockname(), sock)}
    except OSError:
        return {"peer": "", "local": ""}


def local_of(listener: socket.socket) -> str:
    """The address of our end of every connection to this socket, as `show` writes it; empty if it may differ.

    It may differ where the address is a wildcard, on a transparent proxy (IP_TRANSPARENT, ip(7); MPTCP does not say),
    and where the address has a zone, since an interface can be renamed.
    """
    local = show(listener.getsockname(), listener)
    if local.startswith("unix:"):
        return local
    try:
        is_transparent = listener.getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT)
    except OSError:
        is_transparent = True
    return "" if is_transparent or "%" in local or local.startswith(("0.0.0.0:", "[::]:")) else local


def source(sockaddr: Any, prefix: int) -> int | None:
    """The number under which a peer is counted, never 0 and below 2**64; None for a unix socket's peer.

    IPv4 counts by address, IPv6 by the first `prefix` bits, since a site has many addresses.  Where these bits are the
    same for strangers, what distinguishes them counts instead: the embedded IPv4 address or the whole address.

    The number is Python's hash of bytes.  Its key is secret, so no client can choose an address that counts as
    another's, and the workers have the same key, since they are forked.
    """
    if isinstance(sockaddr, (str, bytes)):
        return None
    counted = socket.inet_aton(sockaddr[0]) if len(sockaddr) == 2 else _counted(sockaddr, prefix)
    return hash(counted) & _MASK or 1


_MASK = (1 << 64) - 1
_EMBEDS_IPV4 = (
    bytes.fromhex("0064ff9b 00000000 00000000"),  # NAT64, 64:ff9b::/96 (RFC 6052 section 2.1)
    bytes.fromhex("00000000 00000000 ffff0000"),  # IPv4-translated, ::ffff:0:0:0/96 (RFC 2765 section 2.1)
)
_DISTINCT = (
    bytes.fromhex(
        "0064ff9b0001"
    ),  # NAT64 of an operator, 64:ff9b:1::/48 (RFC 8215); the place of the IPv4 address varies
    bytes.fromhex("20010000"),  # Teredo, 2001::/32 (RFC 4380): all clients of a server have one /64
)


def _counted(sockaddr: Any, prefix: int) -> bytes:
    """The part of an IPv6 address that distinguishes its owner."""
    host = _unmapped(sockaddr[0])
    if ":" not in host:
        return socket.inet_aton(host)
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    if packed.startswith(_EMBEDS_IPV4):
        return packed[12:]
    if packed[0] == 0xFE and packed[1] & 0xC0 == 0x80:  # link-local, fe80::/10: unique on its link only
        return packed + int(sockaddr[3]).to_bytes(4)
    if packed.startswith(_DISTINCT):
        return packed
    return (int.from_bytes(packed) >> (128 - prefix)).to_bytes(16)


def _zone(scope: int, sock: socket.socket | None) -> str:
    """The name of the interface with this number, or the number if there is none any more."""
    try:
        if sock is None:
            return socket.if_indextoname(scope)
        found = fcntl.ioctl(sock, _SIOCGIFNAME, _IFREQ.pack(b"", scope))
    except OSError:
        return str(scope)
    return os.fsdecode(_IFREQ.unpack(found)[0].rstrip(b"\0"))


def _unmapped(host: str) -> str:
    return _MAPPED.sub(r"\1", host)


def _is_localhost(host: str) -> bool:
    name = host.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


def _refuse_useless(host: str, address: str) -> None:
    """Raise `CannotListen` if a socket at `address` would not do what `host`, which stands for it, seems to say."""
    ip = ipaddress.ip_address(address)
    literal = _is_literal(host)
    subject = f"host {host!r}" if literal else f"host {host!r} resolves to {address}, which"
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        problem = f"{subject} is an IPv4 address in the form of an IPv6 address; write {ip.ipv4_mapped}"
    elif ip.is_multicast:
        problem = f"{subject} is a multicast address, to which no client can connect; use an address of this machine"
    elif address == "255.255.255.255":
        problem = f"{subject} is the broadcast address, to which no client can connect; use an address of this machine"
    elif ip.is_unspecified and not literal and not _is_short(host):
        # Some name servers give this answer for a name that they block.
        problem = f"{subject} means every address of this machine; write {address} if that is intended"
    elif _is_short(host):
        problem = f"host {host!r} is an ambiguous form of {address}; write all four numbers in decimal, or a host name"
    else:
        return
    raise CannotListen(problem)


def _is_literal(host: str) -> bool:
    """Whether the host is an address in its usual form; an IPv6 address may have a zone."""
    for family, text in ((socket.AF_INET, host), (socket.AF_INET6, host.partition("%")[0])):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def _is_short(host: str) -> bool:
    """Whether the host is an IPv4 address in a form of inet_aton(3) only, as `0` or `127.1`; `010.0.0.1` is 8.0.0.1."""
    try:
        socket.inet_aton(host)
    except (OSError, ValueError):
        return False
    return not _is_literal(host)


def _unix(host: str) -> Endpoint:
    path = host.removeprefix("unix:")
    if not path.startswith(("/", "@")) or "\0" in path or path == "@":
        raise CannotListen(f"host {host!r} is not a unix socket; write unix:/absolute/path or unix:@name")
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise CannotListen(
            f"host {host!r} is too long for a unix socket; at most {UNIX_PATH_MAX} bytes may follow 'unix:'"
        )
    return Endpoint(socket.AF_UNIX, "\0" + path[1:] if path.startswith("@") else path)
