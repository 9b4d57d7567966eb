"""Where the events go: a pipe, a file, a terminal, the journal, or nowhere; none of them ever stops the echo."""

import fcntl
import json
import os
import re
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.integration.daemon import DEADLINE, Daemon, receive_all, send_and_get

COMMON = ["timestamp", "level", "event", "message", "pid", "worker"]
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
CONNECTION = {"connection_accepted", "connection_opened", "connection_closed"}


def exchange(daemon: Daemon, data: bytes = b"data") -> None:
    """One whole connection: what is sent comes back, up to the end."""
    with daemon.connect() as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == data


@contextmanager
def unread(
    tmp_path: Path, *arguments: str, stderr: int | None = None, prefix: tuple[str, ...] = ()
) -> Iterator[Daemon]:
    """A daemon that is ready, and whose events the test does not read."""
    notify = str(tmp_path / "notify")
    address = f"unix:{tmp_path / 'socket'}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(notify)
        listener.settimeout(DEADLINE)
        environment = {"NOTIFY_SOCKET": notify}
        with Daemon(
            "--host", address, *arguments, environment=environment, prefix=prefix, stderr=stderr, wait=False
        ) as daemon:
            while not listener.recv(1 << 16).startswith(b"READY=1"):
                pass  # it has its sockets stored before
            daemon.events.append({"event": "listening", "address": address})
            yield daemon
            assert daemon.stop(signal.SIGINT) == os.EX_OK  # SIGTERM would be a restart, for which there is no store


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: the person's, and the program's."""
    ours, its = os.openpty()
    try:
        yield ours, its
    finally:
        for fd in (ours, its):
            with suppress(OSError):
                os.close(fd)


def test_common_fields() -> None:
    """Each line is one object that begins with the same fields in the same order, from parent and workers."""
    with Daemon("--workers", "2", "--log-level", "debug") as daemon:
        exchange(daemon)
        assert daemon.stop() == os.EX_OK
        assert daemon.words == []
        for event in daemon.events:
            assert list(event)[: len(COMMON)] == COMMON
            assert TIMESTAMP.fullmatch(event["timestamp"])
            assert event["level"] in ("debug", "info", "warning", "error", "critical")
            assert event["message"][-1] in ".:!?" or event["event"] == "config_warning"
        parents = [event for event in daemon.events if event["event"] in ("starting", "listening", "ready", "stopped")]
        assert {(event["pid"], event["worker"]) for event in parents} == {(daemon.pid, None)}
        for event in daemon.events:
            if event["event"] in CONNECTION:
                assert event["pid"] == daemon.workers[event["worker"]]


def test_a_connection() -> None:
    """At info a connection is logged when it is a second old, and at its end with its counters; no chunk is logged."""
    with Daemon() as daemon:
        with daemon.connect() as client:
            send_and_get(client, b"12345")
            send_and_get(client, b"678")
            peer, local = client.getsockname(), client.getpeername()
            daemon.wait_for("connection_opened")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        assert daemon.stop() == os.EX_OK
        opened, closed = [event for event in daemon.events if "connection" in event["event"]]
        assert (opened["event"], closed["event"]) == ("connection_opened", "connection_closed")
        for event in (opened, closed):
            assert (event["peer"], event["local"]) == (f"{peer[0]}:{peer[1]}", f"{local[0]}:{local[1]}")
        assert opened["connection"] == closed["connection"]
        assert (closed["bytes_received"], closed["bytes_sent"], closed["chunks"], closed["reason"]) == (8, 8, 2, "eof")
        assert closed["duration"] >= 1
        assert opened["timestamp"] > closed["started"]


def test_health_check() -> None:
    """A connection that sends nothing is not logged, but counted."""
    with Daemon() as daemon:
        with daemon.connect():
            pass
        exchange(daemon)
        assert daemon.stop() == os.EX_OK
        assert len(daemon.of("connection_closed")) == 1
        assert daemon.of("stopped")[0]["clients_total"] == 2


def test_debug() -> None:
    """At debug each connection is logged when it is accepted, and each chunk with its size."""
    with Daemon("--log-level", "debug", "--chunk-size", "4") as daemon:
        with daemon.connect():
            pass
        exchange(daemon, b"chunked")
        assert daemon.stop() == os.EX_OK
        assert [len(daemon.of(name)) for name in ("connection_accepted", "connection_opened")] == [2, 1]
        assert {event["level"] for event in daemon.of("connection_accepted")} == {"debug"}
        assert sorted((event["level"], event["bytes_received"]) for event in daemon.of("connection_closed")) == (
            [("debug", 0), ("info", 7)]
        )
        for name in ("chunk_received", "chunk_sent"):
            assert [(event["bytes"], event["level"], "payload" in event) for event in daemon.of(name)] == (
                [(4, "debug", False), (3, "debug", False)]
            )


def test_payload() -> None:
    """With `log.payload` the chunks' events hold the bytes themselves, each as the character of its number."""
    data = bytes(range(256))
    with Daemon("--log-level", "debug", "--log-payload") as daemon:
        exchange(daemon, data)
        assert daemon.stop() == os.EX_OK
        assert "".join(event["payload"] for event in daemon.of("chunk_received")).encode("latin-1") == data


def test_without_connections() -> None:
    """With `log.connections` off, connections are logged at debug only."""
    with Daemon("--log-connections", "false") as daemon:
        exchange(daemon)
        assert daemon.stop() == os.EX_OK
        assert CONNECTION.isdisjoint(event["event"] for event in daemon.events)
        assert daemon.of("stopped")[0]["clients_total"] == 1


def test_level(tmp_path: Path) -> None:
    """Events below `log.level` are not logged."""
    with (tmp_path / "log").open("w") as log, unread(tmp_path, "--log-level", "warning", stderr=log.fileno()) as daemon:
        exchange(daemon)
    assert (tmp_path / "log").read_text() == ""


def test_file(tmp_path: Path) -> None:
    """Events go into a file line by line, at its end, with all workers writing."""
    path = tmp_path / "log"
    path.write_text("before\n")
    with path.open("a") as log, unread(tmp_path, "--workers", "2", stderr=log.fileno()) as daemon:
        for _ in range(20):
            exchange(daemon)
    first, *lines = path.read_text().splitlines()
    assert first == "before"
    events = [json.loads(line)["event"] for line in lines]
    assert (events[0], events[-1], events.count("connection_closed")) == ("starting", "stopped", 20)


def test_file_with_long_lines(tmp_path: Path) -> None:
    """An event about very many addresses goes into a file as well, one line, and does no harm."""
    hosts = [word for number in range(70) for word in ("--host", f"unix:@{os.getpid()}-{number}-{'x' * 70}")]
    path = tmp_path / "log"
    with path.open("a") as log, unread(tmp_path, *hosts, stderr=log.fileno()) as daemon:
        exchange(daemon)
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert events.count("listening") == 71
    assert "ready" in events
    assert events[-1] == "stopped"


def test_full_disk(tmp_path: Path) -> None:
    """A device that takes nothing does not stop the echo, nor an orderly end."""
    with open("/dev/full", "w") as full, unread(tmp_path, stderr=full.fileno()) as daemon:
        exchange(daemon)


def test_disk_that_fills_up(tmp_path: Path) -> None:
    """Each line of a file on a full disk is complete or absent, and all absent ones are counted once there is room."""
    with (
        (tmp_path / "log").open("a") as log,
        unread(tmp_path, "--log-level", "debug", stderr=log.fileno()) as daemon,
        daemon.connect() as client,
    ):
        send_and_get(client, b"x")
        (worker,) = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
        enough = resource.prlimit(int(worker), resource.RLIMIT_FSIZE)
        resource.prlimit(int(worker), resource.RLIMIT_FSIZE, ((tmp_path / "log").stat().st_size + 1100, enough[1]))
        for _ in range(200):
            send_and_get(client, b"x")
        resource.prlimit(int(worker), resource.RLIMIT_FSIZE, enough)
        send_and_get(client, b"x")
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (dropped,) = (event for event in events if event["event"] == "log_dropped")
    assert dropped["count"] > 300
    assert sum(event["event"].startswith("chunk_") for event in events) + dropped["count"] == 2 * 202


def test_no_standard_error(tmp_path: Path) -> None:
    """Closed standard descriptors do not stop the echo either: each is /dev/null."""
    prefix = ("sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh")
    with unread(tmp_path, prefix=prefix) as daemon:
        exchange(daemon)
        assert [os.readlink(f"/proc/{daemon.pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3


def test_nobody_reads() -> None:
    """A pipe that is not read does not stop the echo; once it is read again, the lost events are counted."""
    with Daemon("--log-level", "debug") as daemon, daemon.connect() as client:
        assert daemon.process.stderr is not None
        fcntl.fcntl(daemon.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        for _ in range(4000):
            send_and_get(client, b"x")
        daemon.read_until_quiet(daemon.workers[0])
        assert daemon.of("log_dropped") == []
        send_and_get(client, b"x")
        dropped = daemon.wait_for("log_dropped")
        assert (dropped["worker"], dropped["level"]) == (0, "warning")
        client.close()
        assert daemon.stop() == os.EX_OK
        chunks = daemon.of("connection_closed")[0]["chunks"]
        assert len(daemon.of("chunk_received") + daemon.of("chunk_sent")) + dropped["count"] == 2 * chunks


def test_nobody_reads_until_the_end() -> None:
    """A pipe that is not read does not prevent a stop."""
    with Daemon("--log-level", "debug") as daemon:
        assert daemon.process.stderr is not None
        fcntl.fcntl(daemon.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        with daemon.connect() as client:
            for _ in range(100):
                send_and_get(client, b"x")
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(DEADLINE) == os.EX_OK


def test_reader_goes_away() -> None:
    """A pipe whose reader is gone does not stop the echo either, nor an orderly end."""
    with Daemon() as daemon:
        daemon.hang_up()
        exchange(daemon)
        exchange(daemon)
        assert daemon.stop() == os.EX_OK


def test_terminal() -> None:
    """For a person at a terminal: the time of day, the level, the sentence, and the fields."""
    with (
        terminal() as (ours, its),
        Daemon("--log-format", "console", stderr=its, stderr_read=ours, wait=False) as daemon,
    ):
        daemon.wait_for_words("  (ready worker=null ")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for_words("  (stopped worker=null ")
        assert daemon.process.wait(DEADLINE) == os.EX_OK
        for line in daemon.words:
            assert re.match(r"\d\d:\d\d:\d\d\.\d{3} (info|warning) +\S.*  \([a-z_]+ worker=(null|0).*\)", line)


def test_terminal_goes_away() -> None:
    """A terminal that is closed does not stop the echo."""
    with terminal() as (ours, its), Daemon(stderr=its, stderr_read=ours) as daemon:
        os.close(ours)
        daemon._stderr = None
        exchange(daemon)
        assert daemon.stop() == os.EX_OK


def test_name_that_is_no_text(tmp_path: Path) -> None:
    """The path of a unix socket may hold any bytes; it is logged in both formats, without a raw escape sequence."""
    path = os.fsencode(tmp_path) + b"/\xff\x1b[2J"
    for form in ("console", "json"):
        with Daemon("--log-format", form, "--host", "unix:" + os.fsdecode(path), wait=False) as daemon:
            daemon.wait_for_words("  (ready ") if form == "console" else daemon.wait_for("ready")
            assert daemon.stop() == os.EX_OK
            assert not any("\x1b" in line for line in daemon.words)


def test_another_socket_than_the_journals() -> None:
    """Where JOURNAL_STREAM names what is not standard error, that gets lines without priorities (systemd.exec(5))."""
    ours, its = socket.socketpair()
    with ours, its:
        status = os.fstat(its.fileno())
        environment = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"}
        with Daemon(environment=environment, stderr=its.fileno(), stderr_read=ours.fileno()) as daemon:
            its.close()
            assert daemon.stop() == os.EX_OK
            assert daemon.words == []


def test_socket_that_nobody_reads() -> None:
    """A socket that is not read does not stop the echo, nor an orderly end."""
    ours, its = socket.socketpair()
    with ours, its, Daemon("--log-level", "debug", stderr=its.fileno(), stderr_read=ours.fileno()) as daemon:
        its.close()
        with daemon.connect() as client:
            for _ in range(2000):
                send_and_get(client, b"x")
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(DEADLINE) == os.EX_OK
