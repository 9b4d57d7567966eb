"""Stream sockets, TCP and unix: opening one, and what the kernel knows about its connection.

All that depends on the kind of socket is here: a transport for datagrams would be a second module with these functions.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from echod.client.errors import reason

_IP_BIND_ADDRESS_NO_PORT = 24  # ip(7); the socket module does not define it

_INFO_LENGTH = 184
"""Bytes of `struct tcp_info` (linux/tcp.h) without which it is not used; Linux 4.10 and later have more."""

_FIELDS = {"rtt": 17, "rttvar": 18, "retransmits": 25, "lost": 8, "mss": 4, "pmtu": 15, "cwnd": 20, "unacked": 6}
"""Where the structure has these fields, in words of four bytes."""
_SEGMENTS_IN = slice(140, 144)
_WINDOW_LIMITED = slice(176, 184)
"""Where the structure has the microseconds for which the receiver's window was the limit."""
_OUT_OF_ORDER = slice(224, 228)
"""Where Linux 5.4 and later have the number of segments that arrived before an earlier one; beyond `_INFO_LENGTH`."""

_UNANSWERED = 2
"""The byte that counts the retransmission time-outs since the last acknowledgement."""
_RTO, _LAST_ACK = 2, 14
"""The words that have the retransmission time-out in microseconds, and the milliseconds since the last segment with an
acknowledgement."""

ARRIVED = "all acknowledged"
"""How `silence` begins if the server's kernel has everything that was sent."""

_WITH_FIN = (4, 9, 11)
"""The states FIN_WAIT1, LAST_ACK and CLOSING, in which our FIN is not acknowledged (include/net/tcp_states.h)."""

SockAddr = tuple[str, int] | tuple[str, int, int, int] | bytes
"""An address in the form that socket(7) takes: IPv4, IPv6, or the path of a unix socket."""


class Origin:
    """What a connection comes from: the local address `source`, the next of the local `ports`, the network `interface`;
    None, an empty range and "" leave the choice to the kernel.  `dscp` is the code point of its packets (RFC 2474)."""

    def __init__(self, source: str | None = None, ports: range = range(0), interface: str = "", dscp: int = 0) -> None:
        self.source, self.ports, self.interface, self.dscp = source, ports, interface, dscp
        self.is_set = bool(self.arguments())
        """Whether any argument has set it."""
        self._taken = 0

    def share(self, first: int, step: int) -> Origin:
        """The origin for one of `step` processes, which has its own part of the ports."""
        return Origin(self.source, self.ports[first::step], self.interface, self.dscp)

    def next_port(self) -> int:
        """The next of the ports, which take turns; 0 if the kernel chooses."""
        if not self.ports:
            return 0
        self._taken += 1
        return self.ports[(self._taken - 1) % len(self.ports)]

    def arguments(self) -> list[str]:
        """The arguments that have set this origin."""
        given = {
            "--source": self.source is not None,
            "--source-port": self.ports,
            "--interface": self.interface,
            "--dscp": self.dscp,
        }
        return [name for name, value in given.items() if value]

    def bind(self, connection: socket.socket) -> None:
        """Have a TCP socket connect from here; raises OSError, which names the argument that cannot be used."""
        if self.dscp:
            with _named(f"--dscp {self.dscp}"):
                _set_traffic_class(connection, self.dscp << 2)  # the lower two bits are for ECN (RFC 3168)
        if self.interface:
            with _named(f"--interface {self.interface}"):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(self.interface))
        port = self.next_port()
        given = [f"--source {self.source}"] * (self.source is not None) + [f"--source-port {port}"] * bool(port)
        if given:
            with _named(" ".join(given)):
                _bind(connection, self.source, port)


ANYWHERE = Origin()
"""The kernel chooses everything."""


def begin_connecting(address: SockAddr, origin: Origin) -> tuple[socket.socket, int]:
    """A non-blocking socket that connects to `address`, and the error number of connect(2).

    The number is 0 if the socket is connected, EINPROGRESS if it becomes writable when it is connected, EAGAIN if the
    accept queue of a unix socket is full (unix(7)).  Of several ports those in use are skipped.  Raises OSError if
    the socket cannot be opened or cannot connect from `origin`.
    """
    if not origin.ports:
        return _begin_connecting(address, origin)
    for left in reversed(range(len(origin.ports))):
        try:
            connection, code = _begin_connecting(address, origin)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not left:
                raise
        else:
            if code != errno.EADDRNOTAVAIL:
                return connection, code
            connection.close()
    ports = f"{origin.ports[0]}-{origin.ports[-1]}" if len(origin.ports) > 1 else f"{origin.ports[0]}"
    text = "every such port has a connection to this address, perhaps in TIME_WAIT"
    raise OSError(errno.EADDRNOTAVAIL, f"cannot use --source-port {ports}: {text}")


def failure_of(code: int) -> str:
    """An error number of `begin_connecting` in words."""
    text = os.strerror(code)
    return f"no local port is left ({text})" if code == errno.EADDRNOTAVAIL else text


def connected_to_itself(connection: socket.socket) -> bool:
    """Whether both ends are the same socket, which returns all that it is sent and would pass for an echo server.

    Linux connects a socket to itself when no socket listens on a port of the ephemeral range and the kernel happens to
    choose the same port for the local end (a simultaneous open, RFC 9293 section 3.5).
    """
    try:
        return bool(connection.getsockname() == connection.getpeername())
    except OSError:  # ENOTCONN: accepted and already reset, so there was a server
        return False


def send_at_once(connection: socket.socket) -> None:
    """Disable Nagle's algorithm (RFC 896), which delays the end of a message until the rest is acknowledged."""
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def statistics(connection: socket.socket) -> dict[str, float] | None:
    """What TCP knows about the path (TCP_INFO, tcp(7)), in the form that `--json` prints; None for a unix socket.

    `rtt` and `rttvar` are seconds, `mss` and `pmtu` bytes; `retransmits` is the number of segments sent again so far,
    `lost` and `unacked` how many are lost or not acknowledged at the moment, `cwnd` how many may be unacknowledged.
    """
    info = _tcp_info(connection)
    if info is None:
        return None
    words = memoryview(info).cast("I")  # int.from_bytes would take half as long again, for each connection of a load
    fields: dict[str, float] = {name: words[at] for name, at in _FIELDS.items()}
    fields["rtt"] /= 1e6
    fields["rttvar"] /= 1e6
    return fields


def statistics_line(fields: dict[str, float]) -> str:
    """The fields of `statistics` as a line of text."""
    times = f"rtt {fields['rtt'] * 1000:.3f} ms, rttvar {fields['rttvar'] * 1000:.3f} ms"
    return ", ".join([times, *(f"{name} {fields[name]:.0f}" for name in list(_FIELDS)[2:])])


def segments_received(connection: socket.socket) -> int | None:
    """How many TCP segments have arrived, including those without data; None for a unix socket."""
    info = _tcp_info(connection)
    return None if info is None else int.from_bytes(info[_SEGMENTS_IN], sys.byteorder)


def silence(connection: socket.socket, sent: int, received: int = 0) -> str:
    """Which side failed if of `sent` bytes only `received` come back; "" if the kernel does not know."""
    info = _tcp_info(connection)
    if info is None:
        return ""
    import fcntl
    import termios

    # SIOCOUTQ, tcp(7), which has the number of TIOCOUTQ: the bytes that are not acknowledged, sent or not.
    unacknowledged = int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    queued = unacknowledged - (info[0] in _WITH_FIN)
    has_gap = any(info[_OUT_OF_ORDER])
    if queued <= 0 and not received and has_gap:
        return f"{ARRIVED}, the beginning of the echo is missing: the path (or its MTU) drops it"
    if queued <= 0:
        or_path = ", or the path drops the echo" if has_gap else ""  # the gap may be an earlier one
        return f"{ARRIVED}, {'no more' if received else 'nothing'} came back: the server is silent{or_path}"
    words = memoryview(info).cast("I")
    # What this machine drops itself, in a full queue or on an interface that is down, counts as not yet sent.
    if not words[_FIELDS["unacked"]] and any(info[_WINDOW_LIMITED]):
        return f"sent {sent} bytes, {queued} waiting for room: the server does not read"
    if not info[_UNANSWERED] and 1000 * words[_LAST_ACK] < words[_RTO]:
        return f"sent {sent} bytes, {queued} not acknowledged yet: the path is slow, or drops them"
    return f"sent {sent} bytes, {queued} not acknowledged: the path (or its MTU) drops them"


def _begin_connecting(address: SockAddr, origin: Origin) -> tuple[socket.socket, int]:
    connection = _open(address)
    try:
        connection.setblocking(False)
        if origin.is_set and not isinstance(address, bytes):
            origin.bind(connection)
        return connection, connection.connect_ex(address)
    except OSError:
        connection.close()
        raise


@contextmanager
def _named(argument: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot use {argument}: {reason(error)}") from error


def _open(address: SockAddr) -> socket.socket:
    if isinstance(address, bytes):
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The tuple of an IPv6 address also has a flow label and a scope (ipv6(7)).
    family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)


def _bind(connection: socket.socket, source: str | None, port: int) -> None:
    if port:
        # Other connections may have this port, to other addresses; connect(2) fails if one has it to the same address.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    else:
        # The kernel then chooses the port at connect(2), for one destination; at bind(2) all connections of this
        # machine would share 28,000 ports.
        connection.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    # Resolved first, for the zone of a link-local address, which bind() alone does not understand.
    flags = socket.AI_NUMERICHOST | socket.AI_PASSIVE
    [(*_, where)] = socket.getaddrinfo(source, port, connection.family, socket.SOCK_STREAM, flags=flags)
    connection.bind(where)


def _set_traffic_class(connection: socket.socket, value: int) -> None:
    if connection.family == socket.AF_INET:
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, value)
    else:
        connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, value)


def _tcp_info(connection: socket.socket) -> bytes | None:
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _OUT_OF_ORDER.stop)
    except OSError:  # a unix socket
        return None
    return info if len(info) >= _INFO_LENGTH else None
