"""sockopts: the options that each connection inherits from its listening socket."""

import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from echod.net.sockopts import UNSENT_MAX, SocketOptions, set_options

KEEPALIVE = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
IDLE = (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
INTERVAL = (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
PROBES = (socket.IPPROTO_TCP, socket.TCP_KEEPCNT)


@contextmanager
def tuned(socket_options: SocketOptions, family: socket.AddressFamily = socket.AF_INET) -> Iterator[socket.socket]:
    """A listening socket."""
    try:
        listener = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error.strerror}")
    with listener:
        set_options(listener, socket_options)
        yield listener


@contextmanager
def accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """The server's end of a connection."""
    with socket.create_connection(listener.getsockname()[:2]), listener.accept()[0] as server:
        yield server


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_connections_inherit_the_options(family: socket.AddressFamily) -> None:
    """The kernel copies the options into every accepted connection."""
    with (
        tuned(SocketOptions(keepalive=600.5, interval=9.5, probes=3), family) as listener,
        accepted(listener) as server,
    ):
        assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)
        assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_MAX
        assert server.getsockopt(*KEEPALIVE)
        assert server.getsockopt(*IDLE) == 601
        assert server.getsockopt(*INTERVAL) == 10
        assert server.getsockopt(*PROBES) == 3
        # With a TCP_USER_TIMEOUT the kernel would ignore TCP_KEEPCNT, and reset clients that read slowly.
        assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


def test_never_is_never() -> None:
    """Without keepalive the kernel ends a connection only after its own retransmissions."""
    with tuned(SocketOptions(math.inf, 75, 9)) as listener, accepted(listener) as server:
        assert not server.getsockopt(*KEEPALIVE)


@pytest.mark.parametrize(
    "other", [SocketOptions(math.inf, 75, 9), SocketOptions(10.0, 60.0, 9), SocketOptions(600.5, 75, 3)]
)
def test_other_options(other: SocketOptions) -> None:
    """Changed options apply to new connections, and to one that was accepted before, as if set from the beginning."""
    options = [KEEPALIVE] if math.isinf(other.keepalive) else [KEEPALIVE, IDLE, INTERVAL, PROBES]
    with tuned(other) as listener, accepted(listener) as server:
        expected = [server.getsockopt(*option) for option in options]
    with tuned(SocketOptions(600.5, 75, 9)) as listener, accepted(listener) as server:
        set_options(listener, other)
        assert [server.getsockopt(*option) for option in options] != expected
        set_options(server, other)
        assert [server.getsockopt(*option) for option in options] == expected
        with accepted(listener) as later:
            assert [later.getsockopt(*option) for option in options] == expected
