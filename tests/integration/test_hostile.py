"""Clients that misbehave: whatever they do, the others are served and nothing is left behind."""

import contextlib
import os
import random
import resource
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.integration.daemon import Configured, Daemon, freeze, receive_all
from tests.integration.faults import never_hung
from tests.integration.peers import (
    about,
    clients,
    connect,
    descriptors,
    echoes,
    exchange,
    reset,
    send_until_blocked,
)

BATCH = 250
"""Clients between two looks at the events, lest these wait for the tests and are dropped."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    """The victim of all tests."""
    file = tmp_path_factory.mktemp("hostile") / "echod.toml"
    with Configured(file, "", "--host", "127.0.0.1", "--log-level", "debug", faults=[never_hung()]) as daemon:
        yield daemon
        assert daemon.stop() == 0
        assert daemon.of("draining")[0]["clients"] == 0
        accepted = len(daemon.of("connection_accepted"))
        assert daemon.of("stopped")[0]["clients_total"] == accepted == len(daemon.of("connection_closed"))


@pytest.fixture
def victim(shared: Configured) -> Iterator[Configured]:
    """A daemon that after the test serves as before, in the same process, with as many descriptors and no client."""
    worker, before = shared.workers[0], descriptors(shared.workers[0])
    yield shared
    with connect(shared.addresses[0]) as sock:
        assert exchange(sock, b"still there?") == b"still there?"
        about(shared, sock, "connection_closed")
    # The kernel's queue is first come, first served: whoever came before this client has been accepted.
    shared.wait_for("connection_closed", len(shared.of("connection_accepted")))
    assert (shared.workers[0], descriptors(worker)) == (worker, before)
    assert not [event for event in shared.events if event["level"] not in ("debug", "info")]


def test_reset_with_an_echo_pending(victim: Daemon) -> None:
    """Clients that reset while they are due a lot are gone at once."""
    for _ in range(20):
        sock = connect(victim.addresses[0], receive_buffer=2048)
        send_until_blocked(sock, bytes(4 << 20))
        reset(sock)
    victim.wait_for("connection_closed", 20, where=lambda event: event["reason"] == "reset")


def test_reset_at_once(victim: Daemon) -> None:
    """Clients that send and reset, as fast as they can, are no trouble."""
    address = victim.addresses[0]
    for _ in range(4):
        count = len(victim.of("connection_closed"))
        for number in range(BATCH):
            sock = connect(address)
            sock.sendall(bytes(number))
            reset(sock)
        victim.wait_for("connection_closed", count + BATCH)


def test_never_read(victim: Configured) -> None:
    """Clients that send all they can and never read are reset one day, and others are served meanwhile."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            # A small buffer, because the time in which a client may acknowledge nothing grows with its buffer.
            sock = stack.enter_context(connect(victim.addresses[0], receive_buffer=2048))
            send_until_blocked(sock, bytes(16 << 20))
        assert echoes(victim.addresses[0], random.Random(1).randbytes(1 << 20))
        victim.reload("limits.stall_timeout = '300ms'")
        victim.wait_for("connection_closed", 20, where=lambda event: event["reason"] == "stalled")
        victim.reload("")


def test_thousands_that_send_nothing(victim: Daemon) -> None:
    """3,000 clients that connect and send nothing do not prevent others from being served."""
    with many_descriptors(3100), contextlib.ExitStack() as stack:
        batches = []
        for _ in range(3000 // BATCH):
            count = len(victim.of("connection_accepted"))
            batches.append(stack.enter_context(contextlib.ExitStack()))
            batches[-1].enter_context(clients(victim.addresses[0], BATCH))
            victim.wait_for("connection_accepted", count + BATCH)
        assert echoes(victim.addresses[0])
        for batch in batches:
            count = len(victim.of("connection_closed"))
            batch.close()
            victim.wait_for("connection_closed", count + BATCH)


def test_closing_at_once(victim: Daemon) -> None:
    """2,000 clients that connect and are gone are no trouble."""
    address = victim.addresses[0]
    for _ in range(2000 // BATCH):
        count = len(victim.of("connection_closed"))
        for _ in range(BATCH):
            connect(address).close()
        victim.wait_for("connection_closed", count + BATCH)


def test_gone_before_they_are_accepted(victim: Daemon) -> None:
    """Clients that have reset while they were waiting in the kernel's queue are accepted and gone, and the one behind
    them is served."""
    address = victim.addresses[0]
    freeze(victim.workers[0])
    try:
        for _ in range(200):
            reset(connect(address))
        for _ in range(50):
            sock = connect(address)
            sock.sendall(b"hello")
            reset(sock)
        last = connect(address)
    finally:
        os.kill(victim.workers[0], signal.SIGCONT)
    with last:
        assert exchange(last, b"hello") == b"hello"


def test_urgent_data(victim: Daemon) -> None:
    """A byte sent as urgent is a byte like any other, and comes back in its place (RFC 6093 section 6)."""
    with connect(victim.addresses[0]) as sock:
        sock.sendall(b"before ")
        sock.send(b"!", socket.MSG_OOB)
        sock.sendall(b" after")
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == b"before ! after"


def test_closes_while_it_is_sent_to(victim: Daemon) -> None:
    """Clients that send a lot, read a little and close are gone at once."""
    for _ in range(20):
        with connect(victim.addresses[0]) as sock:
            send_until_blocked(sock, bytes(1 << 20))
            assert sock.recv(1000)


def test_one_by_one_from_all_sides(victim: Daemon) -> None:
    """Clients that send one byte each in turn, and break off in as many ways, get what they are due until then."""
    with clients(victim.addresses[0], 60) as socks:
        for byte in random.Random(1).randbytes(10):
            for sock in socks:
                sock.sendall(bytes([byte]))
            for sock in socks:
                assert sock.recv(2) == bytes([byte])
        for sock in socks[::3]:
            sock.shutdown(socket.SHUT_RD)
            sock.sendall(b"x")
        for sock in socks[1::3]:
            reset(sock)


def test_gone_when_echod_stops() -> None:
    """A client that closes without reading, just as echod stops, is no error: it was at its end, or has reset the
    connection, by which of the two the worker saw first."""
    with Daemon() as daemon:
        freeze(daemon.workers[0])
        try:
            for _ in range(20):
                with connect(daemon.addresses[0]) as sock:
                    sock.sendall(b"hello")
            daemon.process.send_signal(signal.SIGTERM)
            daemon.wait_for("draining")
        finally:
            os.kill(daemon.workers[0], signal.SIGCONT)
        assert daemon.read_to_end() == 0
        reasons = [event["reason"] for event in daemon.of("connection_closed")]
        assert len(reasons) == 20
        assert set(reasons) <= {"eof", "reset"}


@contextlib.contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """Allow this process `count` descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"this process may have no more than {hard} descriptors (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
