"""From a target to a connected stream socket: resolve its name, and try its addresses in turn."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable

from echod.client.errors import ConnectError, UntestableError, reason
from echod.client.target import UNIX, Target, is_address
from echod.client.text import endpoint

NEVER = float("inf")
"""No deadline.  math.inf is the same, in a module that takes a quarter of a millisecond to import."""

_LOOPBACK = ("127.0.0.1", "::1")

_QUEUE_FULL = 0.01
"""Seconds between two attempts to connect to a unix socket whose accept queue is full."""

_IP_BIND_ADDRESS_NO_PORT = 24  # ip(7); the socket module does not define it

SockAddr = tuple[str, int] | tuple[str, int, int, int] | bytes
"""An address in the form that socket(7) takes: IPv4, IPv6, or the path of a unix socket."""


class Attempt:
    """One attempt to connect: `where` to, `address` as text, the `seconds` it took, and its `failure` ("" for none)."""

    def __init__(self, where: SockAddr, seconds: float, failure: str) -> None:
        self.where, self.address = where, endpoint(where)
        self.seconds, self.failure = seconds, failure

    def __str__(self) -> str:
        outcome = self.failure or "connected"
        return f"{self.address}: {outcome} after {self.seconds * 1000:.3f} ms"

    def fields(self) -> dict[str, object]:
        """The attempt in the form that `--json` prints."""
        return {"address": self.address, "seconds": self.seconds, "failure": self.failure or None}


def open_connection(
    target: Target,
    timeout: float,
    on_attempt: Callable[[Attempt], None] = lambda attempt: None,
    on_trying: Callable[[SockAddr], None] = lambda address: None,
) -> socket.socket:
    """Resolve `target` and connect to it, as `connect_to_any` does, without a deadline.

    Resolving takes as long as the system's resolver is configured to wait.  Raises ConnectError with every reason.
    """
    return connect_to_any(resolve(target), target, timeout, on_attempt, on_trying)


def resolve(target: Target, deadline: float = NEVER) -> list[SockAddr]:
    """The addresses of `target`, in the order in which to try them; at least one.

    "localhost" is 127.0.0.1 and ::1 without a query (RFC 6761, section 6.3), because a system without /etc/hosts does
    not know the name.  Any other name takes as long as the system's resolver is configured to wait, but not longer than
    until `deadline` (of time.monotonic()).  Raises ConnectError if the name has no address or takes longer,
    UntestableError if the resolver cannot be started.
    """
    if target.host.startswith(UNIX):
        path = os.fsencode(target.host.removeprefix(UNIX))
        return [b"\0" + path[1:] if path.startswith(b"@") else path]
    found: list[SockAddr] = []
    failure = ""
    for name in _LOOPBACK if target.host.lower() == "localhost" else (target.host,):
        try:
            found += _look_up(name, target) if is_address(name) else _look_up_in_thread(name, target, deadline)
        except OSError as error:
            failure = reason(error)
        except UnicodeError:
            failure = "not a valid host name"
    if not found:
        raise ConnectError(str(target), [("", failure)], asked=False)
    return found


def connect_to_any(
    addresses: list[SockAddr],
    target: Target,
    timeout: float,
    on_attempt: Callable[[Attempt], None],
    on_trying: Callable[[SockAddr], None] = lambda address: None,
    deadline: float = NEVER,
) -> socket.socket:
    """Connect to the first of `addresses` that accepts; the socket keeps the timeout.

    Each is tried in turn, as socket.create_connection does, for `timeout` seconds, and none after `deadline` (of
    time.monotonic()).  Of the time until the deadline each gets an equal share at most, so that an address that does
    not answer leaves time for the others.  `on_trying` is called before each attempt, `on_attempt` after each,
    including the successful one.  Raises ConnectError, which names `target` and every reason.
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
                raise TimeoutError("no time left")
            on_trying(address)
            unconnected = open_socket(address, target.source)
            opened = True
            share = (deadline - began) / (len(addresses) - len(attempts))
            connection = _connect(unconnected, address, min(timeout, share))
        except OSError as error:
            failure = reason(error)
            # Without a free local port or address connect(2) fails before it sends anything.
            asked = asked or (opened and error.errno != errno.EADDRNOTAVAIL)
        attempts.append(Attempt(address, time.monotonic() - began, failure))
        on_attempt(attempts[-1])
        if connection:
            return connection
    raise ConnectError(str(target), [(attempt.address, attempt.failure) for attempt in attempts], asked)


def connected_to_itself(connection: socket.socket) -> bool:
    """Whether both ends are the same socket, which returns all that it is sent and would pass for an echo server.

    Linux connects a socket to itself when no socket listens on a port of the ephemeral range and the kernel happens to
    choose the same port for the local end (a simultaneous open, RFC 9293 section 3.5).
    """
    try:
        return bool(connection.getsockname() == connection.getpeername())
    except OSError:  # ENOTCONN: accepted and already reset, so there was a server
        return False


def open_socket(address: SockAddr, source: str) -> socket.socket:
    """A stream socket of the family of `address`, bound to the address `source` if that is not "".

    Raises OSError.
    """
    if isinstance(address, bytes):
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The tuple of an IPv6 address also has a flow label and a scope (ipv6(7)).
    family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
    connection = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if source:
        try:
            # The kernel then chooses the port at connect(2), for one destination; at bind(2) all connections of this
            # machine would share 28,000 ports.
            connection.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            # Resolved first, for the zone of a link-local address, which bind() alone does not understand.
            [(*_, where)] = socket.getaddrinfo(source, 0, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            connection.bind(where)
        except OSError as error:
            connection.close()
            raise OSError(error.errno, f"cannot use --source {source}: {reason(error)}") from error
    return connection


def _look_up(name: str, target: Target) -> list[SockAddr]:
    # typeshed allows for a Python that was built without IPv6.
    answers = socket.getaddrinfo(name, target.port, target.family, socket.SOCK_STREAM)
    return [address for *_, address in answers]  # type: ignore[misc]


def _look_up_in_thread(name: str, target: Target, deadline: float) -> list[SockAddr]:
    """Look up a name in a thread, which ends with the process.

    getaddrinfo(3) cannot be interrupted, not even by Ctrl-C; a thread that waits for it can.
    """
    import _thread  # importing threading would take longer than all the rest of the start

    found: list[SockAddr] = []
    failures: list[Exception] = []
    done = _thread.allocate_lock()
    done.acquire()

    def look_up() -> None:
        try:
            found.extend(_look_up(name, target))
        except (OSError, UnicodeError) as error:
            failures.append(error)
        finally:
            done.release()

    try:
        _thread.start_new_thread(look_up, ())
    except RuntimeError as error:  # pthread_create(3) failed
        raise UntestableError("cannot start a thread to resolve the name; check the limit on tasks") from error
    if not done.acquire(timeout=-1 if deadline == NEVER else max(deadline - time.monotonic(), 0)):
        raise TimeoutError("the name was not resolved in time")
    if failures:
        raise failures[0]
    return found


def _connect(connection: socket.socket, address: SockAddr, timeout: float) -> socket.socket:
    """Connect, or close the socket and raise OSError."""
    try:
        connection.settimeout(timeout)
        _connect_before(connection, address, time.monotonic() + timeout)
        if connected_to_itself(connection):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "no server listens there")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_before(connection: socket.socket, address: SockAddr, deadline: float) -> None:
    """connect(2) until `deadline`, also while the accept queue of a unix socket is full; raises OSError.

    On a unix socket with a time-out connect(2) fails at once in that case (EAGAIN, unix(7)).  SO_SNDTIMEO, with which
    the kernel would wait, was rejected: a process that is stopped and continued meanwhile gets EINTR (signal(7)), and
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
