"""Reading the configuration in a child process: name servers and files that do not answer delay no client."""

import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration import faults
from tests.integration.daemon import DEADLINE, Configured, Daemon, send_and_get, until_gone
from tests.integration.network import held_network, inside, own_network
from tests.integration.store import storing
from tests.integration.test_systemd_protocol import Systemd

NAME = "echo.example"
SILENT = ("127.0.0.11", "127.0.0.12")
ANSWERING = "127.0.0.13"
HERE = "host = '127.0.0.1'\n"
THERE = f"host = '{NAME}'\n"
FAST = {"WATCHDOG_USEC": "1000000"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the configuration is."""
    return tmp_path / "echod.toml"


def network(directory: Path, *, patience: int = 30, of: int = 0) -> tuple[str, ...]:
    """A prefix for a daemon: a network of its own, or the network of the process `of`, and its own name servers.

    Its resolver waits for each of them for `patience` seconds.
    """
    resolver = directory / "resolv.conf"
    servers = "".join(f"nameserver {address}\n" for address in (*SILENT, ANSWERING))
    resolver.write_text(f"{servers}options timeout:{patience} attempts:1\n")
    mount = f"mount --bind {resolver} /etc/resolv.conf"
    if of:
        enter = ("nsenter", "--target", str(of), "--net", "unshare", "--mount")
        return (*enter, "sh", "-c", f'{mount} && exec "$@"', "sh")
    return ("unshare", "--mount", *own_network(mount))


@contextmanager
def name_servers(pid: int) -> Iterator[threading.Event]:
    """Name servers in the network of a process: two are silent, and one answers 127.0.0.1 once the event is set."""
    answers = threading.Event()
    with inside(pid):
        socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in (*SILENT, ANSWERING)]
        for sock, address in zip(socks, (*SILENT, ANSWERING), strict=True):
            sock.bind((address, 53))
    answering = socks[-1]
    thread = threading.Thread(target=answer, args=(answering, answers))
    thread.start()
    try:
        yield answers
    finally:
        answers.set()
        answering.sendto(b"", answering.getsockname())
        thread.join(DEADLINE)
        for sock in socks:
            sock.close()


def answer(sock: socket.socket, answers: threading.Event) -> None:
    """Answer 127.0.0.1 to each question about an IPv4 address, and nothing to others, until an empty one (RFC 1035)."""
    while True:
        query, client = sock.recvfrom(2000)
        if not query:
            return
        answers.wait(DEADLINE)
        end = query.index(b"\0", 12) + 5
        is_ipv4 = struct.unpack("!H", query[end - 4 : end - 2])[0] == 1
        record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton("127.0.0.1") if is_ipv4 else b""
        sock.sendto(query[:2] + struct.pack("!5H", 0x8180, 1, is_ipv4, 0, 0) + query[12:end] + record, client)


@contextmanager
def client_of(daemon: Daemon) -> Iterator[socket.socket]:
    """A connection to a daemon in a network of its own."""
    with inside(daemon.pid):
        client = daemon.connect()
    with client:
        send_and_get(client, b"before")
        yield client


def reader(daemon: Daemon) -> int:
    """Wait until the daemon has a child that reads the configuration, and return its process id."""
    while True:
        for pid in Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split():
            if Path(f"/proc/{pid}/comm").read_text() == "echod-reading\n":
                return int(pid)
        os.sched_yield()


def test_silent_name_servers(file: Path, tmp_path: Path) -> None:
    """A reload that gets no answer fails at the deadline, naming host and cause; meanwhile everything goes on."""
    systemd = Systemd(str(tmp_path / "notify"))
    try:
        with (
            Configured(
                file,
                HERE,
                prefix=network(tmp_path),
                environment=systemd.environment | FAST,
                faults=[faults.reading_takes_at_most(2.0)],
            ) as daemon,
            name_servers(daemon.pid),
            client_of(daemon) as client,
        ):
            daemon.hang_up_on(THERE)
            systemd.wait_for("RELOADING", "1")
            child = reader(daemon)
            with until_gone(child):
                send_and_get(client, b"during")
                for _ in range(2):
                    systemd.wait_for("WATCHDOG", "1")
                os.kill(daemon.workers[0], signal.SIGKILL)
                daemon.wait_for("worker_started", 2)
                assert daemon.wait_for("reload_refused")["problem"] == (
                    f"host '{NAME}' does not resolve: the name servers have not answered within 2 s; "
                    "check the name servers in /etc/resolv.conf, or use addresses"
                )
            systemd.wait_for("READY", "1")
            assert daemon.reload(HERE)["changed"] == []
    finally:
        systemd.close()


def test_slow_name_servers(file: Path, tmp_path: Path) -> None:
    """A reload that has to wait for its name servers takes effect, with a warning, and a connection continues."""
    with (
        Configured(file, HERE, prefix=network(tmp_path, patience=1)) as daemon,
        name_servers(daemon.pid) as answers,
        client_of(daemon) as client,
    ):
        answers.set()
        assert daemon.reload(THERE)["changed"] == ["host"]
        (warning,) = daemon.of("config_warning")
        assert warning["problem"].startswith(f"resolving host '{NAME}' took 2")
        send_and_get(client, b"after")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_wins(file: Path, tmp_path: Path, signum: signal.Signals) -> None:
    """A stop while the configuration is being read does not wait for it, and ends the child."""
    with (
        Configured(file, HERE, prefix=network(tmp_path)) as daemon,
        name_servers(daemon.pid),
        client_of(daemon) as client,
    ):
        daemon.hang_up_on(THERE)
        with until_gone(reader(daemon)):
            daemon.process.send_signal(signum)
            assert client.recv(1) == b""
            client.close()
            assert daemon.read_to_end() == os.EX_OK
        assert daemon.of("reloaded") == daemon.of("reload_refused") == []


def test_a_restart_wins(file: Path, tmp_path: Path) -> None:
    """A restart while the configuration is being read hands the connections over at once."""
    file.write_text(HERE)
    with (
        storing(tmp_path) as store,
        store.daemon("--config", str(file), prefix=network(tmp_path)) as daemon,
        name_servers(daemon.pid),
        client_of(daemon),
    ):
        file.write_text(THERE)
        daemon.process.send_signal(signal.SIGHUP)
        with until_gone(reader(daemon)):
            daemon.process.send_signal(signal.SIGTERM)
            daemon.read_to_end()
        (event,) = daemon.of("handed_over")
        assert (event["count"], event["left"]) == (1, 0)
        assert daemon.of("reload_refused") == []


def test_a_killed_parent(file: Path, tmp_path: Path) -> None:
    """kill -9 of the parent ends the child that reads."""
    with Configured(file, HERE, prefix=network(tmp_path)) as daemon, name_servers(daemon.pid):
        daemon.hang_up_on(THERE)
        with until_gone(reader(daemon), *daemon.workers.values()):
            daemon.process.kill()
            daemon.process.wait()


def test_a_file_that_never_ends(tmp_path: Path) -> None:
    """A start whose file is a FIFO without a writer fails at the deadline, naming the file."""
    file = tmp_path / "echod.toml"
    os.mkfifo(file)
    with Daemon("--config", str(file), wait=False, faults=[faults.reading_takes_at_most(1.0)]) as daemon:
        assert daemon.read_to_end() == os.EX_CONFIG
        (problem,) = daemon.words
        assert problem.startswith(f"echod: {file}: could not be read within 1 s; check ")


@pytest.mark.parametrize("again", [THERE, HERE])
def test_restart_with_silent_servers(file: Path, tmp_path: Path, again: str) -> None:
    """No connection waits for a name server at a restart, whether or not the host has changed."""
    with storing(tmp_path) as store, held_network() as pid, name_servers(pid):
        prefix = network(tmp_path, of=pid)
        file.write_text(again)
        start = [faults.every_name_is("127.0.0.1")]
        with store.daemon("--config", str(file), prefix=prefix, faults=start) as daemon, client_of(daemon) as client:
            daemon.process.send_signal(signal.SIGTERM)
            daemon.read_to_end()
            file.write_text(THERE)
            with store.daemon("--config", str(file), prefix=prefix, wait=False) as successor:
                successor.wait_for("taken_over")
                with until_gone(reader(successor)):
                    send_and_get(client, b"handed over")
                    with inside(pid), successor.connect() as another:
                        send_and_get(another, b"new")
                    assert successor.of("ready") == []
                    successor.process.send_signal(signal.SIGTERM)
                    successor.read_to_end()
