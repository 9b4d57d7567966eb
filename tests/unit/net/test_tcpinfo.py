"""queues: what the kernel says of a connection, by real ones."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from echod.net import tcpinfo as queues
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
    """Wait until that is in the queues."""
    deadline = time.monotonic() + DEADLINE
    while (queues.unread(sock.fileno()), queues.unacknowledged(sock.fileno())) != (unread, unacknowledged):
        assert time.monotonic() < deadline
        os.sched_yield()


def test_owes_nothing(tcp: Pair) -> None:
    """Neither at first, nor with bytes unread, nor when all that was read was written back; nor after a half-close."""
    client, sock = tcp
    assert not queues.owes(sock)
    client.sendall(b"12345")
    wait_for(sock, 5, 0)
    assert not queues.owes(sock)
    sock.sendall(sock.recv(3))
    assert not queues.owes(sock)
    client.shutdown(socket.SHUT_WR)
    wait_for(sock, 2, 0)
    assert not queues.owes(sock)
    sock.sendall(sock.recv(3))
    wait_for(sock, 0, 0)
    assert not queues.owes(sock)


def test_owes(tcp: Pair) -> None:
    """What was read and not written back."""
    client, sock = tcp
    client.sendall(b"12345")
    wait_for(sock, 5, 0)
    data = sock.recv(5)
    assert queues.owes(sock)
    sock.sendall(data[:4])
    wait_for(sock, 0, 0)
    assert queues.owes(sock)
    sock.sendall(data[4:])
    assert not queues.owes(sock)


def test_owes_with_full_queues(tcp: Pair) -> None:
    """It is exact to the byte with megabytes on their way."""
    client, sock = tcp
    client.setblocking(False)
    sock.setblocking(False)
    pending = b""
    with suppress(BlockingIOError):
        while True:
            client.send(bytes(1 << 16))
            pending = pending or sock.recv(1 << 16)
            pending = pending[sock.send(pending) :]
    assert queues.owes(sock) == bool(pending)


def test_owes_nobody_knows() -> None:
    """On a unix socket, and on a connection of which our side is ended, it can't be told."""
    one, other = socket.socketpair()
    with one, other:
        assert queues.owes(one)


def test_owes_on_an_ended_side(tcp: Pair) -> None:
    """Nothing can be told of a connection that we have ended."""
    _, sock = tcp
    sock.shutdown(socket.SHUT_WR)
    assert queues.owes(sock)
