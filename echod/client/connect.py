"""A target -> a connected stream socket, and what it took."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable

from echod.client.faults import ConnectError, reason
from echod.client.resolver import NEVER, SockAddr, resolve
from echod.client.target import Target
from echod.client.words import endpoint

_QUEUE_FULL = 0.01
"""Seconds before a unix socket is tried again whose queue of connections is full."""


class Attempt:
    """One try to connect: to `where`, or `address` in words, for `seconds`, and the `failure` it ended with, if any."""

    def __init__(self, where: SockAddr, seconds: float, failure: str) -> None:
        self.where, self.address = where, endpoint(where)
        self.seconds, self.failure = seconds, failure

    def __str__(self) -> str:
        outcome = self.failure or "connected"
        return f"{self.address}: {outcome} after {self.seconds * 1000:.3f} ms"

    def fields(self) -> dict[str, object]:
        """The attempt as `--json` tells it."""
        return {"address": self.address, "seconds": self.seconds, "failure": self.failure or None}


def open_connection(
    target: Target,
    timeout: float,
    on_attempt: Callable[[Attempt], None] = lambda attempt: None,
    on_trying: Callable[[SockAddr], None] = lambda address: None,
) -> socket.socket:
    """Resolve `target` and connect to it, as `connect_to_any` does; resolving takes as long as the resolver is
    configured to.  Raises ConnectError, with every reason."""
    return connect_to_any(resolve(target), target, timeout, on_attempt, on_trying)


def connect_to_any(
    addresses: list[SockAddr],
    target: Target,
    timeout: float,
    on_attempt: Callable[[Attempt], None],
    on_trying: Callable[[SockAddr], None] = lambda address: None,
    deadline: float = NEVER,
) -> socket.socket:
    """Connect to the first of `addresses` that can be; the socket keeps the timeout.

    Each is tried in turn, as socket.create_connection does, for `timeout` seconds, and none after `deadline` (of
    time.monotonic()).  Of the time until then each gets no more than its share, so that one which does not answer
    leaves some for the others.  `on_trying` is told of each before it is tried, and `on_attempt` of how that ended, the
    one that succeeds too.  Raises ConnectError, which names `target` and every reason.
    """
    attempts: list[Attempt] = []
    asked = False
    for address in addresses:
        began = time.monotonic()
        connection: socket.socket | None = None
        opened = False
        failure = ""
        try:
            if began >= deadline:
                raise TimeoutError("no time was left to try")
            on_trying(address)
            unconnected = open_socket(address, target.source)
            opened = True
            share = (deadline - began) / (len(addresses) - len(attempts))
            connection = _connect(unconnected, address, min(timeout, share))
        except OSError as error:
            failure = reason(error)
            # For want of a local port or address connect(2) fails before it sends anything.
            asked = asked or (opened and error.errno != errno.EADDRNOTAVAIL)
        attempts.append(Attempt(address, time.monotonic() - began, failure))
        on_attempt(attempts[-1])
        if connection:
            return connection
    raise ConnectError(str(target), [(attempt.address, attempt.failure) for attempt in attempts], asked)


def connected_to_itself(connection: socket.socket) -> bool:
    """Whether both ends are one socket, which returns all that it is sent and would pass for an echo server.

    Linux does that when nobody listens on a port of the ephemeral range and the kernel happens to choose
    the very same port for the local end (a simultaneous open, RFC 9293 section 3.5).
    """
    try:
        return bool(connection.getsockname() == connection.getpeername())
    except OSError:  # ENOTCONN: accepted and already reset, so there was someone
        return False


def open_socket(address: SockAddr, source: str) -> socket.socket:
    """A stream socket of the family of `address`, which comes from the address `source`, if there is one.

    Raises OSError.
    """
    if isinstance(address, bytes):
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # IPv6 addresses have a flow label and a scope besides (ipv6(7)).
    family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
    connection = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if source:
        try:
            # The port is chosen when it is known where to: else all connections of this machine share 28,000.
            connection.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            # Resolved first, for the zone of a link-local address, of which bind() makes nothing by itself.
            [(*_, where)] = socket.getaddrinfo(source, 0, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            connection.bind(where)
        except OSError as error:
            connection.close()
            raise OSError(error.errno, f"cannot use --source {source}: {reason(error)}") from error
    return connection


_IP_BIND_ADDRESS_NO_PORT = 24  # ip(7); the socket module has no name for it


def _connect(connection: socket.socket, address: SockAddr, timeout: float) -> socket.socket:
    """Connect, or close the socket and raise OSError."""
    try:
        connection.settimeout(timeout)
        _connect_before(connection, address, time.monotonic() + timeout)
        if connected_to_itself(connection):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_before(connection: socket.socket, address: SockAddr, deadline: float) -> None:
    """connect(2) until `deadline`, also where the queue of a unix socket is full; raises OSError.

    Where the socket has a time-out, that of a unix socket fails at once instead (EAGAIN, unix(7)).  SO_SNDTIMEO, by
    which the kernel would wait, was rejected: whoever is stopped and continued meanwhile gets EINTR (signal(7)), and
    Python takes that for connected.
    """
    while True:
        try:
            connection.connect(address)
            return
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out") from None
            time.sleep(min(left, _QUEUE_FULL))
