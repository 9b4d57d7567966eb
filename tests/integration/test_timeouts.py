"""How long echod has patience: with clients that are quiet, and with clients that take nothing."""

import os
import random
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NoReturn

import pytest

from tests.integration.daemon import DEADLINE, Configured, Daemon, freeze, receive_all
from tests.integration.faults import never_hung, slow_is
from tests.integration.network import inside, joined_networks
from tests.integration.peers import about, connect, exchange, send_until_blocked

SMALL = 2048
"""A receive buffer that is soon full."""
FLOOR = 400_000
"""Bytes per second: four hundred times what echod demands, so that the deadlines are as much shorter."""


@pytest.fixture(scope="module")
def impatient() -> Iterator[Daemon]:
    """A daemon that closes quiet clients soon."""
    with Daemon(
        "--host", "127.0.0.1", "--limits-idle-timeout", "300ms", "--log-level", "debug", faults=[never_hung()]
    ) as daemon:
        yield daemon


@contextmanager
def coming_at_once(daemon: Daemon, data: bytes) -> Iterator[socket.socket]:
    """A client whose bytes are there when it is accepted, however long it takes to send them."""
    freeze(daemon.workers[0])
    try:
        sock = connect(daemon.addresses[0])
        sock.sendall(data)
    finally:
        os.kill(daemon.workers[0], signal.SIGCONT)
    with sock:
        yield sock


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    """The daemon of `strict`."""
    file = tmp_path_factory.mktemp("timeouts") / "echod.toml"
    with Configured(file, "", "--host", "127.0.0.1", faults=[slow_is(FLOOR), never_hung()]) as daemon:
        yield daemon


@pytest.fixture
def strict(configured: Configured) -> Configured:
    """A daemon that resets clients that take nothing, soon after a reload with `STRICT`."""
    configured.reload("limits.stall_timeout = 0")
    return configured


STRICT = "limits.stall_timeout = '500ms'"


@pytest.mark.parametrize("data", [b"", b"hello"], ids=["silent", "quiet"])
def test_idle(impatient: Daemon, data: bytes) -> None:
    """A client that is quiet for the idle time-out gets the end of the connection, not a reset."""
    with coming_at_once(impatient, data) as sock:
        assert receive_all(sock) == data
        sock.shutdown(socket.SHUT_WR)
        closed = about(impatient, sock, "connection_closed")
    assert (closed["reason"], closed["bytes_sent"]) == ("idle", len(data))


def test_idle_destroys_nothing(impatient: Daemon) -> None:
    """What is on its way to a client when it is closed for being idle arrives, even if the client then sends more."""
    data = random.Random(1).randbytes(50_000)
    with coming_at_once(impatient, data) as sock:
        poll = select.poll()
        poll.register(sock, select.POLLRDHUP)
        assert poll.poll(DEADLINE * 1000), "the daemon does not end its side"
        sock.sendall(b"late")
        closed = about(impatient, sock, "connection_closed")
        assert receive_all(sock) == data
    assert (closed["reason"], closed["bytes_received"], closed["bytes_sent"]) == ("late", len(data) + 4, len(data))


def test_sends_on_after_the_end(impatient: Daemon) -> None:
    """A client that goes on sending after its idle connection was closed is reset at once."""
    with connect(impatient.addresses[0]) as sock:
        assert receive_all(sock) == b""
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_for_ever(sock)
        closed = about(impatient, sock, "connection_closed")
    assert (closed["reason"], closed["bytes_sent"]) == ("late", 0)
    assert closed["bytes_received"] > 0


def test_stalled(strict: Configured) -> None:
    """A client that takes nothing of what it is due is reset: what it gets can't look whole."""
    data = random.Random(2).randbytes(8 << 20)
    with connect(strict.addresses[0], receive_buffer=SMALL) as sock:
        sent = send_until_blocked(sock, data)
        strict.reload(STRICT)
        closed = about(strict, sock, "connection_closed")
        with pytest.raises(ConnectionResetError):
            receive_all(sock)
    assert closed["reason"] == "stalled"
    assert closed["bytes_sent"] < closed["bytes_received"] <= sent


def test_stalled_in_the_kernel(strict: Configured) -> None:
    """A client that takes nothing is reset also if its echo is small enough to lie in the kernel's buffers."""
    data = random.Random(3).randbytes(50_000)
    with connect(strict.addresses[0], receive_buffer=SMALL) as sock:
        sock.sendall(data)
        strict.reload(STRICT)
        closed = about(strict, sock, "connection_closed")
        with pytest.raises(ConnectionResetError):
            receive_all(sock)
    assert (closed["reason"], closed["bytes_sent"]) == ("stalled", len(data))


def test_ends_without_reading(strict: Configured) -> None:
    """A client that takes nothing is reset also if it has ended its side."""
    with connect(strict.addresses[0], receive_buffer=SMALL) as sock:
        send_until_blocked(sock, bytes(8 << 20))
        sock.shutdown(socket.SHUT_WR)
        strict.reload(STRICT)
        assert about(strict, sock, "connection_closed")["reason"] == "stalled"


def test_slow_is_not_stalled(strict: Configured) -> None:
    """A client that reads at the floor, or at four times the floor, gets everything, whatever its receive buffer.

    This lasts until each client has filled its buffer and, at the floor, has emptied a sixteenth of it several times.
    """
    data = random.Random(4).randbytes(24 << 20)
    with ExitStack() as stack:
        readers = [
            SlowReader(stack.enter_context(connect_with_buffer(strict.addresses[0], buffer)), rate, data)
            for buffer in (4 << 10, 64 << 10, 0, 1 << 20, 16 << 20)
            for rate in (FLOOR, 4 * FLOOR)
        ]
        for reader in readers:
            reader.fill()
        strict.reload("limits.stall_timeout = '500ms'")
        began = time.monotonic()
        while (passed := time.monotonic() - began) < 5.0:
            for reader in readers:
                reader.read_until(passed)
            select.select([], [], [], 0.01)
        strict.reload("limits.stall_timeout = 0")
        for reader in readers:
            reader.finish()
            assert about(strict, reader.sock, "connection_closed")["reason"] == "eof"


class SlowReader:
    """A client that sends as much as it can, and reads `rate` bytes a second."""

    def __init__(self, sock: socket.socket, rate: int, data: bytes) -> None:
        self.sock = sock
        self.rate = rate
        self.data = data
        self.sent = self.received = 0

    def fill(self) -> None:
        """Send until nothing moves."""
        self.sock.setblocking(False)
        self.sent += send_until_blocked(self.sock, self.data[self.sent :])
        self.sock.setblocking(False)

    def read_until(self, passed: float) -> None:
        """Read what is due to be read after `passed` seconds, and send what there is room for."""
        with suppress(BlockingIOError):
            self._take(self.sock.recv(max(0, int(passed * self.rate) - self.received)))
        with suppress(BlockingIOError):
            self.sent += self.sock.send(self.data[self.sent : self.sent + 65536])

    def finish(self) -> None:
        """Read the rest, and compare it with what was sent."""
        self.sock.settimeout(DEADLINE)
        self.sock.shutdown(socket.SHUT_WR)
        while chunk := self.sock.recv(1 << 20):
            self._take(chunk)
        assert self.received == self.sent

    def _take(self, chunk: bytes) -> None:
        assert chunk == self.data[self.received : self.received + len(chunk)]
        self.received += len(chunk)


def connect_with_buffer(address: str, size: int) -> socket.socket:
    """A client whose receive buffer has this size; 0 leaves it to the kernel."""
    sock = socket.socket()
    sock.settimeout(DEADLINE)
    if size:
        # SO_RCVBUFFORCE (33), since the system may allow less (net.core.rmem_max); the kernel doubles the value.
        sock.setsockopt(socket.SOL_SOCKET, 33 if os.geteuid() == 0 else socket.SO_RCVBUF, size // 2)
    host, _, port = address.rpartition(":")
    sock.connect((host, int(port)))
    return sock


def test_idle_without_reading(strict: Configured) -> None:
    """Where a stall is never seen, a client that takes nothing is one that is quiet."""
    with connect(strict.addresses[0], receive_buffer=SMALL) as sock:
        send_until_blocked(sock, bytes(8 << 20))
        strict.reload("limits.stall_timeout = 0\nlimits.idle_timeout = '300ms'")
        assert about(strict, sock, "connection_closed")["reason"] == "idle"
        with pytest.raises(ConnectionResetError):
            receive_all(sock)


def test_client_that_disappears() -> None:
    """The configured number of keepalive probes without an answer ends a connection, whatever the stall time-out."""
    probes = ("--limits-keepalive", "1s", "--limits-keepalive-interval", "1s", "--limits-keepalive-probes", "2")
    with joined_networks() as (near, far), ExitStack() as stack:
        with inside(far.pid):
            daemon = stack.enter_context(Daemon("--host", far.address, *probes))
        with inside(near.pid), daemon.connect() as sock:
            assert exchange(sock, b"hello", half_close=False) == b"hello"
            near.lose_all()
            closed = daemon.wait_for("connection_closed")
    assert closed["reason"] == "timed_out"


def test_never() -> None:
    """With every time-out off clients are served."""
    with Daemon("--limits-stall-timeout", "0", "--limits-idle-timeout", "0", "--limits-keepalive", "0") as daemon:
        with connect(daemon.addresses[0]) as sock:
            assert exchange(sock, b"hello") == b"hello"
        assert daemon.wait_for("connection_closed")["reason"] == "eof"
        assert daemon.stop() == 0


def send_for_ever(sock: socket.socket) -> NoReturn:
    """Send until that fails."""
    while True:
        sock.sendall(bytes(1 << 16))
