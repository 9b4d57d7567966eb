"""tcpinfo: the kernel's counters, on real connections."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from echod.net import tcpinfo
from tests.unit.hand_loop import DEADLINE

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def tcp() -> Iterator[Pair]:
    """A client, and the accepted end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), DEADLINE)
        sock, _ = listener.accept()
    with client, sock:
        yield client, sock


def wait_for(sock: socket.socket, unread: int, unacknowledged: int) -> None:
    """Wait until the queues hold these numbers of bytes."""
    deadline = time.monotonic() + DEADLINE
    while (tcpinfo.unread(sock.fileno()), tcpinfo.unacknowledged(sock.fileno())) != (unread, unacknowledged):
        assert time.monotonic() < deadline
        os.sched_yield()


def test_owes_nothing(tcp: Pair) -> None:
    """No bytes are due at first, with unread bytes only, once all read bytes are written back, or half-closed."""
    client, sock = tcp
    assert not tcpinfo.owes(sock)
    client.sendall(b"12345")
    wait_for(sock, 5, 0)
    assert not tcpinfo.owes(sock)
    sock.sendall(sock.recv(3))
    assert not tcpinfo.owes(sock)
    client.shutdown(socket.SHUT_WR)
    wait_for(sock, 2, 0)
    assert not tcpinfo.owes(sock)
    sock.sendall(sock.recv(3))
    wait_for(sock, 0, 0)
    assert not tcpinfo.owes(sock)


def test_owes(tcp: Pair) -> None:
    """Bytes that were read and not written back are due."""
    client, sock = tcp
    client.sendall(b"12345")
    wait_for(sock, 5, 0)
    data = sock.recv(5)
    assert tcpinfo.owes(sock)
    sock.sendall(data[:4])
    wait_for(sock, 0, 0)
    assert tcpinfo.owes(sock)
    sock.sendall(data[4:])
    assert not tcpinfo.owes(sock)


def test_owes_with_full_queues(tcp: Pair) -> None:
    """The answer is exact to the byte with megabytes in the queues."""
    client, sock = tcp
    client.setblocking(False)
    sock.setblocking(False)
    pending = b""
    with suppress(BlockingIOError):
        while True:
            client.send(bytes(1 << 16))
            pending = pending or sock.recv(1 << 16)
            pending = pending[sock.send(pending) :]
    assert tcpinfo.owes(sock) == bool(pending)


def test_owes_if_the_kernel_does_not_know() -> None:
    """A unix socket has no such counters, so bytes count as due."""
    one, other = socket.socketpair()
    with one, other:
        assert tcpinfo.owes(one)


def test_owes_on_an_ended_side(tcp: Pair) -> None:
    """Once our side has ended, bytes count as due."""
    _, sock = tcp
    sock.shutdown(socket.SHUT_WR)
    assert tcpinfo.owes(sock)


def test_a_kernel_without_the_counters(tcp: Pair) -> None:
    """A kernel whose `struct tcp_info` is shorter has no counters, so there is an error and no guess."""

    class Old(socket.socket):
        def getsockopt(self, *arguments: int) -> bytes:  # type: ignore[override]
            value = super().getsockopt(*arguments)
            assert isinstance(value, bytes)
            return value[:104]

    with Old(fileno=os.dup(tcp[1].fileno())) as sock:
        with pytest.raises(OSError, match="Protocol not available"):
            tcpinfo.owes(sock)
        assert tcpinfo.buffered_by_client(sock) == 64 << 20


def test_mptcp_has_counters_of_one_path_only() -> None:
    """Bytes count as due on a connection by MPTCP."""
    try:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, tcpinfo.IPPROTO_MPTCP)
    except OSError:
        pytest.skip("this kernel has no MPTCP")
    with listener:
        assert tcpinfo.owes(listener)


def test_buffered_by_client(tcp: Pair) -> None:
    """At most as many bytes lie in the client's buffer as it has acknowledged."""
    client, sock = tcp
    assert tcpinfo.buffered_by_client(sock) == 0
    sock.sendall(b"12345")
    wait_for(sock, 0, 0)
    assert tcpinfo.buffered_by_client(sock) == 5
    assert client.recv(5) == b"12345"
    assert tcpinfo.buffered_by_client(sock) == 5


@pytest.mark.parametrize(("size", "scale"), [(4096, 0), (1 << 20, 4)])
def test_buffered_by_client_with_a_small_buffer(size: int, scale: int) -> None:
    """At most twice the largest window of the client lies in its buffer, whatever has passed."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size // 2)
        client.connect(listener.getsockname())
        with listener.accept()[0] as sock:
            for _ in range(64):
                sock.sendall(bytes(1 << 16))
                received = 0
                while received < 1 << 16:
                    received += len(client.recv(1 << 16))
            wait_for(sock, 0, 0)
            assert size <= tcpinfo.buffered_by_client(sock) <= 2 * 65535 << scale


def test_buffered_by_a_unix_client() -> None:
    """On a unix socket it is what the client has not read."""
    one, other = socket.socketpair()
    with one, other:
        assert tcpinfo.buffered_by_client(one) == 0
        one.sendall(b"hello")
        assert tcpinfo.buffered_by_client(one) >= 5
        assert other.recv(5) == b"hello"
        assert tcpinfo.buffered_by_client(one) == 0


def test_kernel_memory(tcp: Pair) -> None:
    """Bytes that were not read, or not acknowledged, occupy at least their size; nothing remains of those that were."""
    client, sock = tcp
    assert tcpinfo.kernel_memory(sock) == 0
    client.sendall(bytes(10_000))
    wait_for(sock, 10_000, 0)
    assert tcpinfo.kernel_memory(sock) >= 10_000
    while tcpinfo.unread(sock.fileno()):
        sock.recv(10_000)
    assert tcpinfo.kernel_memory(sock) == 0
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sock.send(bytes(10_000))
    assert tcpinfo.kernel_memory(sock) >= tcpinfo.unacknowledged(sock.fileno()) > 0


def test_kernel_memory_that_is_unknown() -> None:
    """Where the kernel does not say, it is 0."""

    class Old(socket.socket):
        def getsockopt(self, *_: object) -> bytes:  # type: ignore[override]
            raise OSError(errno.ENOPROTOOPT, "")

    with Old() as sock:
        assert tcpinfo.kernel_memory(sock) == 0
