"""echod and the clients that people have: netcat in its variants, socat, and a load balancer's health checks."""

import contextlib
import hashlib
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon import DEADLINE, Daemon
from tests.integration.peers import echoes

CLIENTS = {
    "nc": ["nc", "-N"],
    "ncat": ["ncat"],
    "socat": ["socat", "-t10", "-"],
}
"""Each sends what it reads, ends its side at the end of that, and writes what it receives to its standard output."""

LOADS = [(1, 64 << 10), (16, 1 << 20), (64 << 10, 64 << 20), (1 << 20, 64 << 20)]
"""Chunk size, and how many bytes are sent: fewer where each chunk costs as much as a large one, and otherwise more than
the buffers between a client and echod hold."""


@pytest.fixture(scope="module", params=LOADS, ids=lambda load: f"chunks-of-{load[0]}")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Path]]:
    """A daemon of some chunk size, and a file to send to it."""
    chunk_size, size = request.param
    file = tmp_path_factory.mktemp("real") / "data"
    file.write_bytes(random.Random(size).randbytes(size))
    with Daemon("--host", "127.0.0.1", "--chunk-size", str(chunk_size)) as daemon:
        yield daemon, file
    file.unlink()


@pytest.mark.parametrize("client", CLIENTS)
def test_byte_for_byte(served: tuple[Daemon, Path], client: str) -> None:
    """A file sent by this client, which then ends its side, comes back whole."""
    daemon, file = served
    command = have(*CLIENTS[client])
    target = [f"tcp:127.0.0.1:{daemon.port}"] if client == "socat" else ["127.0.0.1", str(daemon.port)]
    with file.open("rb") as data:
        sent = hashlib.file_digest(data, "sha256").digest()
        data.seek(0)
        process = subprocess.Popen(["timeout", "60", *command, *target], stdin=data, stdout=subprocess.PIPE)
    received = hashlib.sha256()
    with process:
        assert process.stdout is not None
        while block := process.stdout.read(1 << 18):
            received.update(block)
    assert (process.returncode, received.digest()) == (0, sent)


@pytest.mark.parametrize("client", CLIENTS)
def test_stop_cuts_no_transfer(tmp_path: Path, client: str) -> None:
    """If echod is stopped during ten transfers of 3 MB, each of them comes back whole."""
    data = random.Random(1).randbytes(3_000_000)
    (tmp_path / "data").write_bytes(data)
    command = have(*CLIENTS[client])
    options = ["--host", "127.0.0.1", "--limits-drain-timeout", "1h", "--log-level", "debug"]
    with Daemon(*options) as daemon, contextlib.ExitStack() as stack:
        target = [f"tcp:127.0.0.1:{daemon.port}"] if client == "socat" else ["127.0.0.1", str(daemon.port)]
        processes = []
        for number in range(10):
            source = stack.enter_context((tmp_path / "data").open("rb"))
            output = stack.enter_context((tmp_path / str(number)).open("wb"))
            processes.append(subprocess.Popen(["timeout", "60", *command, *target], stdin=source, stdout=output))
        daemon.wait_for("connection_opened", 10)
        daemon.process.send_signal(signal.SIGTERM)
        assert [process.wait() for process in processes] == [0] * 10
        assert daemon.read_to_end() == 0
        assert {event["reason"] for event in daemon.of("connection_closed")} == {"eof"}
    assert all((tmp_path / str(number)).read_bytes() == data for number in range(10))


def test_health_checks_leave_no_trace(tmp_path: Path) -> None:
    """haproxy's health checks are logged at debug only; the connections of its clients are logged, and served."""
    command = have("haproxy")
    with socket.create_server(("127.0.0.1", 0)) as front, Daemon("--log-level", "debug") as daemon:
        configuration = tmp_path / "haproxy.cfg"
        configuration.write_text(
            f"""
            defaults
                mode tcp
                timeout connect 10s
                timeout check 10s
                timeout client 60s
                timeout server 60s
            listen echo
                bind fd@{front.fileno()}
                option tcp-check
                # Closed by a reset, as without `linger`, a check never gets as far as to be accepted.
                tcp-check connect linger
                server echod {daemon.addresses[0]} check inter 10ms
            """.replace(" " * 12, "")
        )
        proxy = subprocess.Popen([*command, "-db", "-q", "-f", configuration], pass_fds=[front.fileno()])
        try:
            daemon.wait_for("connection_closed", 5)
            assert {event["level"] for event in daemon.events if "connection" in event} == {"debug"}
            assert echoes(f"127.0.0.1:{front.getsockname()[1]}", b"through the proxy")
            closed = daemon.wait_for("connection_closed", where=lambda event: event["bytes_received"] != 0)
        finally:
            proxy.kill()
            proxy.wait(DEADLINE)
        daemon.stop()
    told = [event["event"] for event in daemon.events if "connection" in event and event["level"] != "debug"]
    assert told == ["connection_opened", "connection_closed"]
    assert (closed["level"], closed["bytes_sent"]) == ("info", len(b"through the proxy"))


def have(program: str, *arguments: str) -> list[str]:
    """The command, if that program is there; else the test is skipped."""
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    return [program, *arguments]
