"""How a daemon stops: transfers are finished, no new connection is accepted, and nothing is left."""

import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration import faults
from tests.integration.daemon import (
    DEADLINE,
    Daemon,
    Gate,
    freeze,
    receive_all,
    send_and_get,
    stuff,
    until_gone,
)


def wait_until_arrived(sock: socket.socket) -> None:
    """Wait until the other side's kernel has acknowledged everything that was sent (SIOCOUTQ, tcp(7))."""
    deadline = time.monotonic() + DEADLINE
    while struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]:
        assert time.monotonic() < deadline, "what was sent is not acknowledged"
        os.sched_yield()


def fill(fd: int) -> None:
    """Fill a non-blocking pipe with empty lines until there is not room for one byte."""
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(fd, size * b"\n")


def children(pid: int) -> str:
    """The processes that a process has started (proc_pid_task(5))."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def send_and_get_for_ever(sock: socket.socket) -> None:
    """Send message after message; an end of file fails the test."""
    while True:
        send_and_get(sock, b"and on and on")


def assert_cut(sock: socket.socket) -> None:
    """The connection ends with a reset, so that the echo does not look complete."""
    with pytest.raises(ConnectionResetError):
        receive_all(sock)


def names(daemon: Daemon) -> list[str]:
    """The events from `draining` on, without those of connections."""
    events = [event["event"] for event in daemon.events if not event["event"].startswith("connection_")]
    return events[events.index("draining") :]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stop(signum: signal.Signals) -> None:
    """A signal to stop ends the daemon with status 0, and the events say so; the port is free again."""
    with Daemon() as daemon:
        with until_gone(*daemon.workers.values()), daemon.connect() as client:
            send_and_get(client, b"seven..")
            daemon.process.send_signal(signum)
            assert client.recv(1) == b""
        assert daemon.read_to_end() == os.EX_OK
        assert names(daemon) == ["draining", "worker_exited", "stopped"]
        draining, stopped = daemon.of("draining")[0], daemon.of("stopped")[0]
        assert (draining["signal"], draining["clients"], draining["timeout"]) == (signum.name, 1, 5)
        assert (stopped["clients_total"], stopped["clients_refused"], stopped["bytes_echoed"]) == (1, 0, 7)
        assert daemon.of("worker_exited")[0]["reason"] == "stopped"
        with pytest.raises(ConnectionRefusedError):
            daemon.connect()
        with Daemon("--port", str(daemon.port)) as next_daemon, next_daemon.connect() as client:
            send_and_get(client, b"the next one")


def test_unix_socket_is_removed(tmp_path: Path) -> None:
    """The file of a unix socket is gone after the end; an abstract socket leaves none anyway."""
    path = tmp_path / "socket"
    with Daemon("--host", f"unix:{path}", "--host", f"unix:@{path}") as daemon:
        assert path.is_socket()
        assert daemon.stop() == os.EX_OK
        assert not path.exists()


@pytest.mark.parametrize("chunk_size", ["1000", "64KiB"])
def test_what_has_arrived_is_echoed(chunk_size: str) -> None:
    """Bytes that had arrived when the order to stop came are echoed, all of them, and then comes the end."""
    data = os.urandom(30_000)
    with Daemon("--chunk-size", chunk_size) as daemon, daemon.connect() as client:
        send_and_get(client, b"hello")
        freeze(daemon.workers[0])
        client.sendall(data)
        wait_until_arrived(client)
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("draining")
        os.kill(daemon.workers[0], signal.SIGCONT)
        assert receive_all(client) == data
        client.close()
        assert daemon.read_to_end() == os.EX_OK
        assert [event["reason"] for event in daemon.of("connection_closed")] == ["drained"]


def test_pending_echo_is_finished() -> None:
    """A client that has not read for a while and does so now still gets its echo up to where echod had read."""
    with Daemon() as daemon, daemon.connect() as client:
        stuff(client, daemon.workers[0])
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("draining")
        received = len(receive_all(client))
        client.close()
        assert daemon.read_to_end() == os.EX_OK
        closed = daemon.of("connection_closed")[0]
        assert (closed["reason"], closed["bytes_sent"]) == ("drained", received)


def test_accept_queue_is_served() -> None:
    """Clients in the accept queue are accepted, and what they had sent is echoed."""
    with Daemon() as daemon, ExitStack() as stack:
        freeze(daemon.workers[0])
        clients = [stack.enter_context(daemon.connect(address)) for address in daemon.addresses for _ in range(50)]
        for number, client in enumerate(clients):
            client.sendall(b"early %d" % number)
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("draining")
        os.kill(daemon.workers[0], signal.SIGCONT)
        for number, client in enumerate(clients):
            assert receive_all(client) == b"early %d" % number
            client.close()
        assert daemon.read_to_end() == os.EX_OK
        assert daemon.of("stopped")[0]["clients_total"] == len(clients)


@pytest.mark.parametrize("address", [0, 1], ids=["tcp", "unix"])
def test_transfer_is_finished(tmp_path: Path, address: int) -> None:
    """A client whose bytes keep arriving is served until it ends its side; no new connection is accepted meanwhile."""
    hosts = ("--host", "127.0.0.1", "--host", f"unix:{tmp_path}/s")
    with Daemon(*hosts, "--limits-drain-timeout", "1h") as daemon, daemon.connect(daemon.addresses[address]) as client:
        send_and_get(client, b"before")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("draining")
        for _ in range(100):
            send_and_get(client, os.urandom(30_000))
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            daemon.connect(daemon.addresses[address])
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert daemon.read_to_end() == os.EX_OK
        closed = daemon.of("connection_closed")[0]
        assert (closed["reason"], closed["bytes_received"], closed["bytes_sent"]) == ("eof", 3_000_006, 3_000_006)


def test_transfer_that_takes_too_long() -> None:
    """A client whose bytes still arrive at the end of `drain_timeout` is reset, and sees no end of file before that."""
    with Daemon("--limits-drain-timeout", "300ms") as daemon, daemon.connect() as client:
        daemon.process.send_signal(signal.SIGTERM)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_and_get_for_ever(client)
        assert daemon.read_to_end() == os.EX_OK
        assert daemon.of("connection_closed")[0]["reason"] == "cut"


def test_client_that_sends_after_the_end() -> None:
    """Bytes that arrive after a quiet client was sent the end are not echoed: the connection is reset, and logged."""
    with Daemon(faults=[faults.lingers_long()]) as daemon, daemon.connect() as client:
        send_and_get(client, b"all of it")
        daemon.process.send_signal(signal.SIGTERM)
        assert client.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            daemon.connect()
        client.sendall(b"too late")
        assert daemon.read_to_end() == os.EX_OK
        closed = daemon.of("connection_closed")[0]
        assert (closed["reason"], closed["bytes_received"], closed["bytes_sent"]) == ("late", 17, 9)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sendall(b"more")


def test_client_that_stays_after_the_end() -> None:
    """echod does not wait the whole `drain_timeout` for a client to close its side."""
    with Daemon("--limits-drain-timeout", "1h") as daemon, daemon.connect() as client:
        send_and_get(client, b"I will stay")
        assert daemon.stop() == os.EX_OK
        assert client.recv(1) == b""


@pytest.mark.parametrize("timeout", ["0", "100ms"])
def test_client_that_does_not_read(timeout: str) -> None:
    """A client that takes nothing is cut off after `drain_timeout`, by a reset; 0 is at once."""
    with Daemon("--limits-drain-timeout", timeout) as daemon, daemon.connect() as client:
        stuff(client, daemon.workers[0])
        assert daemon.stop() == os.EX_OK
        assert daemon.of("connection_closed")[0]["reason"] == "cut"
        assert daemon.of("worker_exited")[0]["reason"] == "stopped"
        assert_cut(client)


def test_all_workers_drain() -> None:
    """With several workers each echoes what its own clients have sent."""
    with Daemon("--workers", "3") as daemon, ExitStack() as stack:
        clients = [stack.enter_context(daemon.connect()) for _ in range(12)]
        for client in clients:
            send_and_get(client, b"hello")
        for worker in daemon.workers.values():
            freeze(worker)
        for client in clients:
            client.sendall(b"goodbye")
            wait_until_arrived(client)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.wait_for("draining")["clients"] == 12
        for worker in daemon.workers.values():
            os.kill(worker, signal.SIGCONT)
        for client in clients:
            assert receive_all(client) == b"goodbye"
            client.close()
        assert daemon.read_to_end() == os.EX_OK
        assert [event["reason"] for event in daemon.of("worker_exited")] == ["stopped"] * 3


def test_second_signal() -> None:
    """A second signal ends the daemon at once, with status 0, even if clients still wait for bytes."""
    with Daemon("--limits-drain-timeout", "1h") as daemon, daemon.connect() as client:
        stuff(client, daemon.workers[0])
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("draining")
        with until_gone(*daemon.workers.values()):
            assert daemon.stop(signal.SIGINT) == os.EX_OK
        assert names(daemon) == ["draining", "worker_exited", "stopped"]
        assert_cut(client)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_after_the_last_event(signum: signal.Signals) -> None:
    """A signal while the last events wait to be written loses none of them, and the status stays 0."""
    with Gate() as gate, Daemon(faults=[faults.last_events_wait(gate.fd)], pass_fds=(gate.fd,)) as daemon:
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("stopped")
        daemon.process.send_signal(signum)
        gate.open()
        assert daemon.read_to_end() == os.EX_OK


def test_worker_whose_events_are_not_read() -> None:
    """A worker whose events are not read exits by itself: there is time for that, and for writing them."""
    reads, writes = os.pipe2(os.O_NONBLOCK)
    patient = faults.patient_with_stopping_workers(DEADLINE)
    with (
        open(reads, "rb"),
        open(writes, "wb"),
        Daemon("--limits-drain-timeout", "0", stderr=writes, stderr_read=reads, faults=[patient]) as daemon,
        daemon.connect() as client,
    ):
        worker = daemon.workers[0]
        stuff(client, worker)
        fill(writes)
        with until_gone(worker):
            daemon.process.send_signal(signal.SIGTERM)
        assert daemon.wait_for("worker_exited")["reason"] == "stopped"
        daemon.wait_for("stopped")
        assert daemon.process.wait(DEADLINE) == os.EX_OK


def test_second_signal_while_a_worker_hangs() -> None:
    """A second signal kills a worker that hangs and never read the order to drain."""
    with Daemon("--limits-drain-timeout", "1h") as daemon:
        freeze(daemon.workers[0])
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("draining")
        assert daemon.stop(signal.SIGTERM) == os.EX_OK
        assert names(daemon) == ["draining", "worker_exited", "stopped"]


def test_worker_that_hangs_while_draining() -> None:
    """A worker that hangs while draining is killed soon after `drain_timeout`."""
    with Daemon("--limits-drain-timeout", "0") as daemon:
        freeze(daemon.workers[0])
        assert daemon.stop() == os.EX_OK
        assert daemon.of("worker_exited")[0]["reason"] == "killed by SIGKILL"


def test_worker_that_dies_while_draining() -> None:
    """A worker that dies while stopping, its commands unread, is logged and not replaced."""
    with Daemon("--workers", "2", "--limits-drain-timeout", "1h") as daemon:
        freeze(daemon.workers[1])
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("draining")
        os.kill(daemon.workers[1], signal.SIGKILL)
        assert daemon.read_to_end() == os.EX_OK
        reasons = {event["worker"]: (event["reason"], event["level"]) for event in daemon.of("worker_exited")}
        assert reasons == {0: ("stopped", "info"), 1: ("killed by SIGKILL", "error")}


def test_worker_that_dies_at_the_signal() -> None:
    """Workers that die just before the parent sends them the command to stop do not disturb it."""
    with Daemon("--workers", "2", faults=[faults.workers_die_at_a_signal()]) as daemon:
        assert daemon.stop() == os.EX_OK
        assert names(daemon) == ["draining", "worker_exited", "worker_exited", "stopped"]
        assert {event["reason"] for event in daemon.of("worker_exited")} == {"killed by SIGKILL"}


def test_signal_to_the_group() -> None:
    """Ctrl-C at a terminal reaches every process of the group, and counts as one signal: it drains."""
    with Daemon("--workers", "2", group=True) as daemon, daemon.connect() as client:
        send_and_get(client, b"hello")
        os.killpg(daemon.pid, signal.SIGINT)
        assert client.recv(1) == b""
        client.close()
        assert daemon.read_to_end() == os.EX_OK
        assert names(daemon) == ["draining", "worker_exited", "worker_exited", "stopped"]
        assert [event["reason"] for event in daemon.of("worker_exited")] == ["stopped"] * 2


def test_signal_while_starting() -> None:
    """A signal before the workers have started stops the daemon, which is never ready."""
    with (
        Gate() as gate,
        Daemon(faults=[faults.worker_start_waits(gate.fd)], pass_fds=(gate.fd,), wait=False) as daemon,
    ):
        daemon.wait_for("listening", 2)
        while not children(daemon.pid):
            os.sched_yield()
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("draining")
        gate.open()
        daemon.read_to_end()
    assert daemon.process.returncode == os.EX_OK
    assert daemon.of("ready") == []
    assert names(daemon)[-2:] == ["worker_exited", "stopped"]


def test_signal_while_no_worker_lives() -> None:
    """A signal during the delay before the next start of a worker stops the daemon."""
    with Daemon(faults=[faults.worker_start_is_a_bug()], wait=False) as daemon:
        daemon.wait_for("worker_exited", 3)
        assert daemon.stop() == os.EX_OK
        assert daemon.of("ready") == []
        assert len(daemon.of("stopped")) == 1
