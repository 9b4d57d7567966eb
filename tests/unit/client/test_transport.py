"""echod.client.transport."""

import errno
import socket

import pytest

from echod.client.transport import (
    ANYWHERE,
    Origin,
    begin_connecting,
    connected_to_itself,
    silence,
    statistics,
    statistics_line,
)
from tests.unit.client.peers import DEADLINE, already_reset, faithful, mute, serving


def connected(port: int, origin: Origin = ANYWHERE) -> socket.socket:
    """A connection to this port of the loopback address, which is not made yet."""
    connection, code = begin_connecting(("127.0.0.1", port), origin)
    assert code == errno.EINPROGRESS
    return connection


def test_source_port() -> None:
    """A connection comes from the --source-port, and the next one from the next port of the range."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as spare:
        spare.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        spare.bind(("127.0.0.1", 0))
        port = spare.getsockname()[1]
        origin = Origin("127.0.0.1", range(port, port + 1))
        with connected(listener.getsockname()[1], origin) as connection:
            assert connection.getsockname() == ("127.0.0.1", port)


def test_source_port_of_a_range() -> None:
    """A port of the range that is in use is skipped."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        origin = Origin("127.0.0.1", range(taken, taken + 20))
        with connected(listener.getsockname()[1], origin) as connection:
            assert taken < connection.getsockname()[1] < taken + 20


def test_source_port_in_use() -> None:
    """A single port that is in use is an error that names the argument."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            OSError, match=f"cannot use --source 127.0.0.1 --source-port {port}: Address already in use"
        ):
            begin_connecting(("127.0.0.1", 7), Origin("127.0.0.1", range(port, port + 1)))


def test_source_port_of_another_connection() -> None:
    """A single port that has a connection to the address already is an error that says so."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        connected(listener.getsockname()[1], Origin(ports=range(20_000, 30_000))) as first,
    ):
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot use --source-port {port}: every such port has a connection"):
            connected(listener.getsockname()[1], Origin(ports=range(port, port + 1)))


def test_share() -> None:
    """Several processes have different ports, all of them together."""
    origin = Origin(ports=range(10, 15))
    assert [[*origin.share(first, 2).ports] for first in range(2)] == [[10, 12, 14], [11, 13]]


def test_interface() -> None:
    """A connection goes through the --interface; one that does not exist is an error that names the argument."""
    with serving(faithful()) as port, connected(port, Origin(interface="lo")) as connection:
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).startswith(b"lo\0")
    with pytest.raises(OSError, match="cannot use --interface nosuch0: No such device"):
        begin_connecting(("127.0.0.1", 7), Origin(interface="nosuch0"))


@pytest.mark.parametrize(
    ("address", "level", "option"),
    [
        (("127.0.0.1", 7), socket.IPPROTO_IP, socket.IP_TOS),
        (("::1", 7, 0, 0), socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
    ],
)
@pytest.mark.usefixtures("ipv6")
def test_dscp(address: tuple[str, int], level: int, option: int) -> None:
    """The code point is in the upper six bits of the traffic class (RFC 2474)."""
    connection, _ = begin_connecting(address, Origin(dscp=46))
    with connection:
        assert connection.getsockopt(level, option) == 46 << 2


def test_connected_to_itself() -> None:
    """A socket that the kernel connected to itself is recognised, since it would echo everything without a server."""
    with socket.socket() as loop:
        loop.bind(("127.0.0.1", 0))
        loop.connect(loop.getsockname())
        assert connected_to_itself(loop)
    with serving(faithful()) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        assert not connected_to_itself(connection)


def test_connected_to_itself_when_reset() -> None:
    """A connection that is already reset was not to itself."""
    with already_reset() as connection:
        assert not connected_to_itself(connection)


def test_statistics() -> None:
    """The kernel's numbers are those that ss(8) shows, and a line has all of them."""
    with serving(faithful()) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        found = statistics(connection)
        assert found is not None
        assert found["mss"] == connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        assert found["pmtu"] == connection.getsockopt(socket.IPPROTO_IP, 14)  # IP_MTU, ip(7)
        assert 0 < found["rtt"] < DEADLINE
        assert (found["unacked"], found["lost"]) == (0, 0)
        assert [word for name in found for word in [name] if f"{name} " not in statistics_line(found)] == []


def test_statistics_of_a_unix_socket() -> None:
    """A unix socket has no such numbers."""
    one, other = socket.socketpair()
    with one, other:
        assert statistics(one) is None
        assert silence(one, 1) == ""


def test_silent_server() -> None:
    """If everything is acknowledged, also our end, the server is silent."""
    with serving(mute) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"x")
        connection.shutdown(socket.SHUT_WR)
        assert silence(connection, 1) == "all acknowledged, nothing came back: the server is silent"
        assert silence(connection, 2, 1) == "all acknowledged, no more came back: the server is silent"
