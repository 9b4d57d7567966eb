"""A worker that an attacker controls harms neither the parent nor the other workers, and is killed and logged."""

import os
import random
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration import faults
from tests.integration.daemon import Configured, Daemon, Gate, send_and_get
from tests.integration.faults import COPYING, FALSE_DATA, LOCKS, SHARED, TICKING_FAST
from tests.integration.peers import about, connect, descriptors, echoes, wait_for_descriptors

GROWTH = 16 << 10
"""KiB by which the parent may grow."""
DATA = random.Random(0).randbytes(100_000)


@contextmanager
def clients_of_both(daemon: Daemon) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client of each of two workers; the parent has copies of their connections."""
    before = descriptors(daemon.pid)
    with ExitStack() as stack:
        served: dict[int, socket.socket] = {}
        count = 0
        while len(served) < 2:
            count += 1
            sock = stack.enter_context(connect(daemon.addresses[0]))
            send_and_get(sock, b"before")
            served.setdefault(about(daemon, sock, "connection_opened")["worker"], sock)
        wait_for_descriptors(daemon.pid, before + count)
        yield served[0], served[1]


@contextmanager
def under_attack(group: str, name: str, *arguments: str) -> Iterator[tuple[Daemon, Gate]]:
    """A daemon whose worker 0 begins the attack when the gate opens; at the end it stops in good order."""
    with Gate() as gate:
        broken = [*COPYING, faults.worker_is_false(gate.fd, group, name)]
        with Daemon(
            "--workers", "2", *arguments, faults=broken, environment=TICKING_FAST, pass_fds=(gate.fd,)
        ) as daemon:
            yield daemon, gate
            assert daemon.stop() == os.EX_OK
            assert daemon.of("bug") == []


def memory(pid: int) -> int:
    """KiB of memory that the process has (proc_pid_status(5))."""
    (number,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(number)


@pytest.mark.parametrize("name", FALSE_DATA)
def test_false_data(name: str) -> None:
    """A worker that sends false data is killed, with one event that says what was false; all clients are served."""
    with under_attack("FALSE_DATA", name) as (daemon, gate):
        with clients_of_both(daemon) as clients:
            workers, open_before, memory_before = daemon.workers, descriptors(daemon.pid), memory(daemon.pid)
            gate.open()
            false = daemon.wait_for("false_data")
            assert (false["worker"], false["worker_pid"], false["level"]) == (0, workers[0], "error")
            assert FALSE_DATA[name][1] in false["problem"]
            exited = daemon.wait_for("worker_exited")
            assert exited["worker_pid"] == workers[0]
            assert exited["clients"] >= exited["kept"] > 0
            assert exited["reason"] in ("killed because it sent false data", "exit status 0")
            daemon.wait_for("worker_started", 3)
            for client in clients:
                send_and_get(client, DATA)
            wait_for_descriptors(daemon.pid, open_before)
            assert memory(daemon.pid) < memory_before + GROWTH
            assert daemon.workers[1] == workers[1]
        assert echoes(daemon.addresses[0])
    assert len(daemon.of("false_data")) == 1
    (stopped,) = daemon.of("stopped")
    # Not all of them: the parent believes what it read before the worker became false.
    assert stopped["clients_total"] <= len(daemon.of("connection_closed"))
    assert stopped["bytes_echoed"] <= 2 * sum(event["bytes_sent"] for event in daemon.of("connection_closed"))


@pytest.mark.parametrize("name", LOCKS)
def test_lock_that_is_kept(name: str) -> None:
    """If the lock of the limits is kept, its holder is killed, not a worker that waits for it; clients are served."""
    arguments = ("--limits-max-connections-per-source", "100")
    with under_attack("LOCKS", name, *arguments) as (daemon, gate), clients_of_both(daemon) as clients:
        workers = daemon.workers
        gate.open()
        daemon.wait_for("config_warning")
        for _ in range(3):
            assert echoes(daemon.addresses[0])
        for client in clients:
            send_and_get(client, DATA)
        if "by a worker" in name:
            assert daemon.wait_for("worker_exited")["reason"] == "killed because it kept the lock of the limits"
            daemon.wait_for("worker_started", 3)
        assert daemon.stop() == os.EX_OK
        killed = [event["worker_pid"] for event in daemon.of("worker_exited") if event["reason"] != "stopped"]
        assert killed == ([workers[0]] if "by a worker" in name else [])


@pytest.mark.parametrize("name", SHARED)
def test_what_workers_share(name: str) -> None:
    """Whatever one worker does to what they share, neither the others nor the parent fail, not even at its death."""
    # Small tables: under coverage a search in a large full one takes so much time that the parent kills the worker.
    arguments = ("--limits-max-connections-per-source", "100", "--limits-max-connections", "100")
    with under_attack("SHARED", name, *arguments) as (daemon, gate), clients_of_both(daemon) as (victim, sibling):
        workers = daemon.workers
        gate.open()
        daemon.wait_for("config_warning")
        refusals = (ConnectionResetError, BrokenPipeError) if name == "tables" else ()  # full tables refuse any client
        for _ in range(20):
            send_and_get(sibling, DATA)
            with suppress(*refusals), connect(daemon.addresses[0]) as sock:
                send_and_get(sock, DATA)
        os.kill(workers[0], signal.SIGKILL)
        daemon.wait_for("worker_started", 3)
        for client in (victim, sibling):
            send_and_get(client, DATA)
            client.shutdown(socket.SHUT_WR)
            assert about(daemon, client, "connection_closed")["reason"] == "eof"
        assert [event["worker"] for event in daemon.of("worker_exited")] == [0]


def test_queue_that_is_spoilt(tmp_path: Path) -> None:
    """At a replacement, no message of one worker hides the connections of another, or makes the parent wait."""
    broken = [*COPYING, faults.worker_spoils_queue()]
    file = tmp_path / "echod.toml"
    with (
        Configured(file, "workers = 2", faults=broken, environment=TICKING_FAST) as daemon,
        clients_of_both(daemon) as clients,
    ):
        daemon.reload("workers = 3")
        for client in clients:
            send_and_get(client, DATA)
        assert daemon.of("connection_closed") == []
        assert daemon.stop() == os.EX_OK


def test_deaf_worker(tmp_path: Path) -> None:
    """A worker that ignores the command to hand over is killed; its connections and the others' continue."""
    broken = [*COPYING, faults.worker_does_not_hand_over(10)]
    file = tmp_path / "echod.toml"
    with (
        Configured(file, "workers = 2", faults=broken, environment=TICKING_FAST) as daemon,
        clients_of_both(daemon) as clients,
    ):
        daemon.reload("workers = 3")
        assert "killed because it did not answer" in [event["reason"] for event in daemon.of("worker_exited")]
        for client in clients:
            send_and_get(client, DATA)
        assert daemon.of("connection_closed") == []
        assert daemon.stop() == os.EX_OK
