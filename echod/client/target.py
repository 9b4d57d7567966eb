"""What to connect to, and from where, as a person writes it: HOST PORT, host:port, [v6]:port, unix:/path."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from echod.client.faults import UntestableError
from echod.client.words import endpoint, printable

UNIX = "unix:"
"""What a HOST begins with that names a unix socket: unix:/path, or unix:@name for an abstract one."""

PORT = 10000
"""The port that echod has where nobody says another: that of the socket tutorial."""

HOST_FORMS = "a name, an address, host:port, [IPv6 address]:port, unix:/path or unix:@name"


class Target:
    """An echo service: `host` at `port` (0 for a unix socket), the `family` that its address must be of, and the
    address `source` that connections come from ("" for whichever the kernel chooses)."""

    def __init__(self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC, source: str = "") -> None:
        self.host, self.port, self.family, self.source = host, port, family, source

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
    source: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Target:
    """What the words `host` and `port` mean, and where they are missing ECHOC_HOST, ECHOC_PORT, and localhost:10000.

    A port in `host` is overruled by none: to say it twice is an error.  ECHOC_PORT=tcp://... counts as missing, since
    Kubernetes sets that for a service that is named echoc.  Raises UntestableError, which names the argument or the
    variable.
    """
    if host is None:
        name, own_port = _split(environment.get("ECHOC_HOST") or "localhost", "ECHOC_HOST")
    else:
        name, own_port = _split(host, "HOST")
    if name.startswith(UNIX):
        if port is not None:
            raise UntestableError(f"{name!r} is a unix socket and has no port; leave out {port!r}")
        if family != socket.AF_UNSPEC or source is not None:
            raise UntestableError(
                f"{name!r} is a unix socket: leave out {'-4 and -6' if source is None else '--source'}"
            )
        return Target(name, 0)
    if source is not None:  # an empty one is a variable that nobody has set
        family = _family_of(source, family)
    if own_port is not None and port is not None:
        where = "ECHOC_HOST" if host is None else repr(host)
        raise UntestableError(f"the port is said twice, {own_port} in {where} and {port!r}; say one")
    if own_port is not None:
        number = own_port
    elif port is not None:
        number = _port(port, "PORT")
    elif environment.get("ECHOC_PORT") and "://" not in environment["ECHOC_PORT"]:
        number = _port(environment["ECHOC_PORT"], "ECHOC_PORT")
    else:
        number = PORT
    return Target(name, number, family, source or "")


def _split(text: str, where: str) -> tuple[str, int | None]:
    """A host, and the port where there is one in it."""
    if text.startswith(UNIX):
        if text in (UNIX, UNIX + "@"):
            raise UntestableError(f"{where}: {text!r} is no host; say {HOST_FORMS}")
        return text, None
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket or not _is_ipv6(name) or (rest and not rest.startswith(":")):
            raise UntestableError(f"{where}: {text!r} is no host; say {HOST_FORMS}")
        return name, _port(rest[1:], where) if rest else None
    if text.count(":") == 1:
        name, _, rest = text.partition(":")
        port = _port(rest, where)
    else:
        name, port = text, None
    # A number is a port that lacks its host, but getaddrinfo(3) takes 7 for 0.0.0.7, and a stranger would be asked.
    if not name or name.isdecimal() or (":" in name and not _is_ipv6(name)):
        raise UntestableError(f"{where}: {text!r} is no host; say {HOST_FORMS}")
    return name, port


def _port(text: str, where: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return int(text)
    raise UntestableError(f"{where}: {text!r} is not a port; say a number from 1 to 65535")


def is_address(text: str) -> bool:
    """Whether it is an address of IPv4 or IPv6 in full, which no resolver has to be asked for."""
    return _is_ipv6(text) or _is_address(socket.AF_INET, text)


def _is_ipv6(text: str) -> bool:
    return _is_address(socket.AF_INET6, text.partition("%")[0])  # what follows % is a zone (RFC 4007)


def _is_address(family: socket.AddressFamily, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, UnicodeError, ValueError):
        return False
    return True


def _family_of(source: str, family: socket.AddressFamily) -> socket.AddressFamily:
    own = socket.AF_INET6 if _is_ipv6(source) else socket.AF_INET
    if own == socket.AF_INET and not _is_address(own, source):
        raise UntestableError(f"--source: {source!r} is no address; say an IPv4 or IPv6 address of this machine")
    if family not in (socket.AF_UNSPEC, own):
        raise UntestableError(f"--source: {source!r} is not of the family that -4 or -6 asks for")
    return own
