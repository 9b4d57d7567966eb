"""echod under systemd's journal: a daemon in a mount namespace of its own, where journald's socket is the test's."""

import functools
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.daemon import Daemon, receive_all, send_and_get
from tests.journald import Journald

MOUNT = 'mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind "$0" /run/systemd/journal'


@functools.cache
def may_mount() -> bool:
    """Whether this user may give a process other mounts."""
    return (
        subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/run"], capture_output=True).returncode
        == 0
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory that the daemon sees as /run/systemd/journal."""
    if not may_mount():
        pytest.skip("this user may not give a process another /run")
    path = tmp_path / "journal"
    path.mkdir()
    return path


@contextmanager
def under_journal(directory: Path, *arguments: str) -> Iterator[Daemon]:
    """A daemon whose standard error systemd has connected to the journal; what it writes there is read, too."""
    ours, its = socket.socketpair()
    with ours, its:
        status = os.fstat(its.fileno())
        with Daemon(
            *arguments,
            environment={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            prefix=("unshare", "--mount", "sh", "-c", f'{MOUNT} && exec "$@"', str(directory)),
            stderr=its.fileno(),
            stderr_read=ours.fileno(),
            wait=False,
        ) as daemon:
            its.close()
            yield daemon


def wait_until_ready(daemon: Daemon, journald: Journald) -> None:
    """Wait for `ready`; the daemon's addresses and workers are known then."""
    daemon.events += [entry.event for entry in journald.wait_for("ready")]


def exchange(daemon: Daemon) -> None:
    """One whole connection."""
    with daemon.connect() as client:
        client.sendall(b"data")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b"data"


def silent_end(daemon: Daemon) -> int:
    """Wait for the daemon's end and return its exit status; it must write nothing more to standard error."""
    before = len(daemon.events)
    status = daemon.read_to_end()
    assert (daemon.events[before:], daemon.words) == ([], [])
    return status


def test_events_are_entries(directory: Path) -> None:
    """Each event is an entry with its fields, from the process that it names, and none is on standard error."""
    with Journald(directory / "socket") as journald, under_journal(directory) as daemon:
        wait_until_ready(daemon, journald)
        with daemon.connect() as client:
            send_and_get(client, b"12345")
            peer = "{}:{}".format(*client.getsockname()[:2])
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        closed = journald.wait_for("connection_closed")[-1]
        daemon.process.send_signal(signal.SIGTERM)
        stopped = journald.wait_for("stopped")[-1]
        assert silent_end(daemon) == os.EX_OK
    assert closed["ECHOD_PEER"] == closed.event["peer"] == peer
    assert (closed["ECHOD_BYTES_SENT"], closed["ECHOD_REASON"], closed["ECHOD_WORKER"]) == ("5", "eof", "0")
    assert (closed["PRIORITY"], closed["SYSLOG_IDENTIFIER"]) == ("6", "echod")
    assert list(closed.event)[:2] == ["message", "event"]
    assert closed.pid == closed.event["pid"] == daemon.workers[0]
    assert stopped.pid == stopped.event["pid"] == daemon.pid


def test_a_worker_that_is_killed(directory: Path) -> None:
    """A killed worker is logged as an error, and its successor's events reach the journal too."""
    with Journald(directory / "socket") as journald, under_journal(directory) as daemon:
        wait_until_ready(daemon, journald)
        os.kill(daemon.workers[0], signal.SIGKILL)
        assert journald.wait_for("worker_exited")[-1]["PRIORITY"] == "3"
        started = journald.wait_for("worker_started")[-1]
        exchange(daemon)
        closed = journald.wait_for("connection_closed")[-1]
        assert closed.pid == started.event["worker_pid"] == int(started["ECHOD_WORKER_PID"])


def test_journald_is_restarted(directory: Path) -> None:
    """After a restart of journald the next events of every process go to its new socket."""
    with Journald(directory / "socket") as journald, under_journal(directory) as daemon:
        wait_until_ready(daemon, journald)
        journald.restart()
        exchange(daemon)
        assert [entry["ECHOD_EVENT"] for entry in journald.wait_for("connection_closed")] == ["connection_closed"]
        daemon.process.send_signal(signal.SIGTERM)
        assert journald.next()["ECHOD_EVENT"] == "draining"
        journald.wait_for("stopped")
        assert silent_end(daemon) == os.EX_OK


def test_journald_is_gone(directory: Path) -> None:
    """Without journald echod still echoes and stops in order; when journald is back, the lost events are counted."""
    with Journald(directory / "socket") as journald, under_journal(directory) as daemon:
        wait_until_ready(daemon, journald)
        journald.stop()
        exchange(daemon)
        with daemon.connect() as client:
            send_and_get(client, b"the event of the connection before is lost by now")
            journald.restart()
        dropped, closed = journald.wait_for("connection_closed")
        assert (dropped["ECHOD_EVENT"], closed["ECHOD_EVENT"]) == ("log_dropped", "connection_closed")
        assert dropped["ECHOD_COUNT"] == "1"
        journald.stop()
        daemon.process.send_signal(signal.SIGTERM)
        assert silent_end(daemon) == os.EX_OK


def test_journald_does_not_read(directory: Path) -> None:
    """A journald that does not read does not stop the echo; later each event is there or counted."""
    with Journald(directory / "socket") as journald, under_journal(directory, "--log-level", "debug") as daemon:
        wait_until_ready(daemon, journald)
        with daemon.connect() as client:
            for _ in range(4000):
                send_and_get(client, b"x")
            found = journald.entries()
            while all(entry["ECHOD_EVENT"] != "log_dropped" for entry in found):
                send_and_get(client, b"x")
                found += journald.entries()
        found += journald.wait_for("connection_closed")
        (dropped,) = (entry for entry in found if entry["ECHOD_EVENT"] == "log_dropped")
        told = [entry for entry in found if entry["ECHOD_EVENT"] in ("chunk_received", "chunk_sent")]
        assert len(told) + int(dropped["ECHOD_COUNT"]) == 2 * int(found[-1]["ECHOD_CHUNKS"])


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--prot"], os.EX_USAGE, "unknown argument '--prot'"),
        (["--chunk-size", "x"], os.EX_CONFIG, "--chunk-size is 'x'"),
        (["--host", "192.0.2.1"], os.EX_UNAVAILABLE, "cannot listen on 192.0.2.1:0"),
    ],
)
def test_a_start_that_fails(directory: Path, arguments: list[str], code: int, sentence: str) -> None:
    """A start that fails is logged as an event, whose message comes first."""
    with Journald(directory / "socket") as journald, under_journal(directory, *arguments) as daemon:
        entry = journald.wait_for("cannot_start")[-1]
        assert silent_end(daemon) == code
    assert entry["PRIORITY"] == "3"
    assert entry["MESSAGE"].startswith(f'{{"message": "{sentence}')


def test_a_start_that_fails_while_journald_hangs(directory: Path) -> None:
    """A process that exits waits a limited time for its last entry to be written."""
    with Journald(directory / "socket"), under_journal(directory, "--prot") as daemon:
        assert silent_end(daemon) == os.EX_USAGE


def test_without_its_socket(directory: Path) -> None:
    """The journal gets lines on standard error that begin with their priorities, sd-daemon(3)."""
    with under_journal(directory) as daemon:
        os.kill(json.loads(daemon.wait_for_words('"worker_started"')[3:])["worker_pid"], signal.SIGKILL)
        daemon.wait_for_words('"worker_exited"')
        assert daemon.stop() == os.EX_OK
        assert {json.loads(line[3:])["level"]: line[:3] for line in daemon.words} == {"info": "<6>", "error": "<3>"}
        assert all(line[3:].startswith('{"message": ') for line in daemon.words)
