"""The target of a connection, in every form in which it can be written: HOST PORT, host:port, [v6]:port, unix:/path."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

from echod.client.errors import UsageError
from echod.client.text import endpoint, printable
from echod.client.transport import ANYWHERE, Origin

UNIX = "unix:"
"""The prefix of a HOST that names a unix socket: unix:/path, or unix:@name for an abstract one."""

PORT = 10000
"""echod's default port, 10000 as in the socket tutorial."""

HOST_FORMS = "a name, an address, host:port, [IPv6 address]:port, unix:/path or unix:@name"


class Target:
    """An echo service: `host` and `port` (0 for a unix socket), the `family` required of its address, and the `origin`
    to connect from."""

    def __init__(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC, origin: Origin = ANYWHERE
    ) -> None:
        self.host, self.port, self.family, self.origin = host, port, family, origin

    def __str__(self) -> str:
        if self.host.startswith(UNIX):
            return endpoint(self.host.removeprefix(UNIX))
        host = printable(self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def parse_target(
    host: str | None,
    port: str | None,
    *,
    family: socket.AddressFamily = socket.AF_UNSPEC,
    origin: Origin = ANYWHERE,
    environment: Mapping[str, str] = os.environ,
) -> Target:
    """The target that `host` and `port` name; the defaults are ECHOC_HOST, ECHOC_PORT, and localhost:10000.

    A port is a number, or the name of a TCP service.  A port in `host` takes precedence over ECHOC_PORT; together with
    `port` it is an error.  ECHOC_PORT=tcp://... is ignored, since Kubernetes sets it for a service named echoc.  Raises
    UsageError, which names the argument or the variable.
    """
    if host is None:
        name, own_port = _split(environment.get("ECHOC_HOST") or "localhost", "ECHOC_HOST")
    else:
        name, own_port = _split(host, "HOST")
    if name.startswith(UNIX):
        if port is not None:
            raise UsageError(f"{name!r} is a unix socket and has no port; leave out {port!r}")
        if given := origin.arguments() or ["-4 and -6"] * (family != socket.AF_UNSPEC):
            raise UsageError(f"{name!r} is a unix socket: leave out {given[0]}")
        return Target(name, 0)
    if origin.source is not None:  # "" comes from an unset variable in a script
        family = _family_of(origin.source, family)
    if own_port is not None and port is not None:
        where = "ECHOC_HOST" if host is None else repr(host)
        raise UsageError(f"the port is given twice, {own_port} in {where} and {port!r}; give it once")
    if own_port is not None:
        number = own_port
    elif port is not None:
        number = _port(port, "PORT")
    elif environment.get("ECHOC_PORT") and "://" not in environment["ECHOC_PORT"]:
        number = _port(environment["ECHOC_PORT"], "ECHOC_PORT")
    else:
        number = PORT
    return Target(name, number, family, origin)


def _split(text: str, where: str) -> tuple[str, int | None]:
    """A host, and its port if `text` has one."""
    if text.startswith(UNIX):
        if text in (UNIX, UNIX + "@"):
            raise UsageError(f"{where}: {text!r} is not a host; give {HOST_FORMS}")
        return text, None
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket or not _is_ipv6(name) or (rest and not rest.startswith(":")):
            raise UsageError(f"{where}: {text!r} is not a host; give {HOST_FORMS}")
        return name, _port(rest[1:], where) if rest else None
    if text.count(":") == 1:
        name, _, rest = text.partition(":")
        port = _port(rest, where)
    else:
        name, port = text, None
    # A number is a port without its host.
    if not name or name.isdecimal() or _is_odd_ipv4(name) or (":" in name and not _is_ipv6(name)):
        raise UsageError(f"{where}: {text!r} is not a host; give {HOST_FORMS}")
    return name, port


def _port(text: str, where: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return int(text)
    if text.isascii() and not text.isdecimal():
        with suppress(OSError):
            return socket.getservbyname(text, "tcp")
    raise UsageError(f"{where}: {text!r} is not a port; give a number from 1 to 65535, or a name in /etc/services")


def is_address(text: str) -> bool:
    """Whether `text` is a complete IPv4 or IPv6 address, which needs no resolver."""
    return _is_ipv6(text) or _is_address(socket.AF_INET, text)


def _is_odd_ipv4(text: str) -> bool:
    """Whether getaddrinfo(3) would take `text` for another IPv4 address than it seems, and contact a stranger: it takes
    7 for 0.0.0.7, 1.2.3 for 1.2.0.3 and 010.0.0.1 for 8.0.0.1 (inet_aton(3))."""
    try:
        socket.inet_aton(text)
    except (OSError, UnicodeError, ValueError):
        return False
    return not _is_address(socket.AF_INET, text)


def _is_ipv6(text: str) -> bool:
    return _is_address(socket.AF_INET6, text.partition("%")[0])  # after the % is a zone (RFC 4007)


def _is_address(family: socket.AddressFamily, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, UnicodeError, ValueError):
        return False
    return True


def _family_of(source: str, family: socket.AddressFamily) -> socket.AddressFamily:
    own = socket.AF_INET6 if _is_ipv6(source) else socket.AF_INET
    if own == socket.AF_INET and not _is_address(own, source):
        raise UsageError(f"--source: {source!r} is not an address; give an IPv4 or IPv6 address of this machine")
    if family not in (socket.AF_UNSPEC, own):
        raise UsageError(f"--source: {source!r} is not of the family that -4 or -6 requires")
    return own
