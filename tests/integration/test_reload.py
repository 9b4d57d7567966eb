"""SIGHUP: what takes effect while clients are served, what does not, and what is logged about it."""

import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration import faults
from tests.integration.daemon import (
    DEADLINE,
    Configured,
    Daemon,
    Gate,
    freeze,
    is_probed,
    receive_all,
    send_and_get,
    stuff,
    wait_for_child,
    wait_for_state,
)
from tests.integration.faults import Fault
from tests.integration.peers import clients, connect, exchange_all, is_refused, send_until_blocked

HERE = ("--host", "127.0.0.1")
WATCHED = {"WATCHDOG_USEC": "2000000"}
"""A hung worker is found in 1 s, not in 5."""


def configured(file: Path, text: str, *arguments: str, **options: object) -> Configured:
    """A daemon with a configuration file, on one address."""
    return Configured(file, text, *HERE, *arguments, **options)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the configuration is."""
    return tmp_path / "echod.toml"


def chunks(daemon: Daemon, sock: socket.socket, data: bytes, count: int) -> list[int]:
    """The sizes of the chunks in which `data` is read from a client; the daemon logs at debug."""
    before = len(daemon.of("chunk_received"))
    send_and_get(sock, data)
    daemon.wait_for("chunk_received", before + count)
    return [event["bytes"] for event in daemon.of("chunk_received")[before:]]


class TestEffect:
    """Each kind of setting, for a connection that was there before."""

    def test_level_connections_and_payload(self, file: Path) -> None:
        """The events of an open connection follow the new level, up and down."""
        with configured(file, "[log]\nconnections = false") as daemon, daemon.connect() as client:
            send_and_get(client, b"not told")
            changed = daemon.reload("[log]\nlevel = 'debug'\npayload = true")["changed"]
            assert changed == ["log.level", "log.connections", "log.payload"]
            send_and_get(client, b"told")
            assert daemon.wait_for("chunk_sent")["payload"] == "told"
            daemon.reload("[log]\nlevel = 'info'")
            send_and_get(client, b"not told either")
            client.close()
            closed = daemon.wait_for("connection_closed")
            assert closed["bytes_sent"] == len(b"not toldtoldnot told either")
            assert len(daemon.of("chunk_sent")) == 1
            assert len(daemon.of("connection_opened")) == 1

    def test_format(self, file: Path) -> None:
        """The next line has the new format."""
        with configured(file, "") as daemon, daemon.connect() as client:
            send_and_get(client, b"hello")
            daemon.wait_for("connection_opened")
            daemon.hang_up_on("log.format = 'console'")
            daemon.wait_for_words("Configuration reloaded; changed: log.format.")
            client.close()
            daemon.wait_for_words(" closed (eof): 5 bytes echoed in ")

    def test_max_connections(self, file: Path) -> None:
        """A higher limit accepts a waiting client; a lower one closes no connection."""
        with configured(file, "limits.max_connections = 1") as daemon, daemon.connect() as client:
            send_and_get(client, b"the only one")
            with daemon.connect() as waiting:
                waiting.sendall(b"me too")
                daemon.wait_for("accept_paused")
                daemon.reload("limits.max_connections = 2")
                assert waiting.recv(10) == b"me too"
                daemon.reload("limits.max_connections = 1")
                for sock in (client, waiting):
                    send_and_get(sock, b"still here")
                client.close()
                with daemon.connect() as late:
                    late.sendall(b"third")
                    waiting.close()
                    assert late.recv(10) == b"third"

    def test_max_connections_per_source(self, file: Path) -> None:
        """Open connections of all workers count for a new limit per source, whichever worker accepts next."""
        with configured(file, "", "--workers", "4") as daemon, ExitStack() as stack:
            there = stack.enter_context(clients(daemon.addresses[0], 8))
            for sock in there:
                send_and_get(sock, b"in")
            daemon.reload("limits.max_connections_per_source = 8")
            for _ in range(8):
                assert is_refused(daemon.addresses[0])
                with connect(daemon.addresses[0], source="127.0.0.2") as sock:
                    send_and_get(sock, b"another source")
            daemon.reload("limits.max_connections_per_source = 9")
            ninth = stack.enter_context(connect(daemon.addresses[0]))
            send_and_get(ninth, b"in")
            assert is_refused(daemon.addresses[0])
            daemon.reload("")
            with connect(daemon.addresses[0]) as sock:
                send_and_get(sock, b"no limit")
            for sock in there:
                send_and_get(sock, b"still here")

    def test_idle_timeout(self, file: Path) -> None:
        """A connection that has been quiet for longer than the new time is closed."""
        with configured(file, "") as daemon, daemon.connect() as client:
            send_and_get(client, b"hello")
            daemon.reload("limits.idle_timeout = '1ms'")
            assert client.recv(1) == b""
            client.close()
            assert daemon.wait_for("connection_closed")["reason"] == "idle"

    def test_stall_timeout(self, file: Path) -> None:
        """A client that takes nothing is reset after the new time."""
        impatient = [faults.slow_is(1 << 30)]
        with configured(file, "limits.stall_timeout = 0", faults=impatient) as daemon, daemon.connect() as client:
            stuff(client, daemon.workers[0])
            daemon.reload("limits.stall_timeout = '50ms'")
            assert daemon.wait_for("connection_closed")["reason"] == "stalled"

    def test_drain_timeout(self, file: Path) -> None:
        """At a stop, parent and worker wait for the new time."""
        with configured(file, "limits.drain_timeout = '1h'") as daemon, daemon.connect() as client:
            stuff(client, daemon.workers[0])
            daemon.reload("limits.drain_timeout = 0")
            assert daemon.stop() == os.EX_OK
            assert daemon.of("draining")[0]["timeout"] == 0
            assert daemon.of("connection_closed")[0]["reason"] == "cut"

    def test_keepalive(self, file: Path) -> None:
        """Keepalive changes for open connections and for new ones."""
        with configured(file, "limits.keepalive = 0") as daemon, daemon.connect() as client:
            send_and_get(client, b"hello")
            assert not is_probed(client)
            daemon.reload("limits.keepalive = '1h'")
            with daemon.connect() as later:
                send_and_get(later, b"hello")
                assert [is_probed(client), is_probed(later)] == [True, True]
                daemon.reload("limits.keepalive = 0")
                assert [is_probed(client), is_probed(later)] == [False, False]

    @pytest.mark.parametrize("dies", [False, True])
    def test_keepalive_of_who_waits(self, file: Path, dies: bool) -> None:
        """A client in the kernel's queue during the reload gets the new setting, from a later worker too."""
        text = "limits.keepalive = 0\nlimits.max_connections = 1"
        with configured(file, text, faults=[faults.no_copies()]) as daemon, ExitStack() as stack:
            first = stack.enter_context(daemon.connect())
            send_and_get(first, b"the only one")
            waiting = stack.enter_context(daemon.connect())
            waiting.sendall(b"me too")
            daemon.wait_for("accept_paused")
            daemon.reload("limits.keepalive = '1h'\nlimits.max_connections = 1")
            os.kill(daemon.workers[0], signal.SIGKILL) if dies else first.close()
            assert waiting.recv(10) == b"me too"
            assert is_probed(waiting)

    def test_chunk_size(self, file: Path) -> None:
        """Longer or shorter than before, from the next chunk on, and then as before: nothing of an old one comes."""
        with configured(file, "chunk_size = 4", "--log-level", "debug") as daemon, daemon.connect() as client:
            assert chunks(daemon, client, b"abcdefgh", 2) == [4, 4]
            for size, expected in ((8, [8]), (16, [8]), (3, [3, 3, 2]), (4, [4, 4])):
                daemon.reload(f"chunk_size = {size}")
                data = os.urandom(8)
                assert chunks(daemon, client, data, len(expected)) == expected

    def test_every_worker(self, file: Path) -> None:
        """Each of four workers serves by the new terms when the reload is complete."""
        with configured(file, "", "--workers", "4", "--log-level", "debug") as daemon, ExitStack() as stack:
            socks = stack.enter_context(clients(daemon.addresses[0], 16))
            for sock in socks:
                send_and_get(sock, b"hello")
            daemon.reload("chunk_size = 1")
            for sock in socks:
                send_and_get(sock, b"ab")
            daemon.wait_for("chunk_received", 16 + 32)
            told = [(event["worker"], event["bytes"]) for event in daemon.of("chunk_received")[16:]]
            assert set(told) == {(worker, 1) for worker in range(4)}

    def test_next_worker(self, file: Path) -> None:
        """A worker that starts later serves by the new terms and limits."""
        with configured(file, "log.level = 'debug'") as daemon:
            daemon.reload("chunk_size = 2\nlog.level = 'debug'\nlimits.max_connections_per_source = 1")
            os.kill(daemon.workers[0], signal.SIGKILL)
            daemon.wait_for("worker_started", 2)
            with daemon.connect() as client:
                assert chunks(daemon, client, b"abcd", 2) == [2, 2]
                assert is_refused(daemon.addresses[0])
                daemon.reload("limits.max_connections_per_source = 2")
                with daemon.connect() as second:
                    send_and_get(second, b"hello")


class TestBytes:
    """No byte is lost at a reload."""

    @pytest.mark.parametrize(("before", "after"), [("64KiB", "100"), ("1000", "1MiB"), ("16MiB", "1000")])
    def test_a_client_that_does_not_read(self, file: Path, before: str, after: str) -> None:
        """Bytes that are pending when the chunk size changes are sent in full, and so is the rest."""
        data = random.Random(1).randbytes(16 << 20)
        with configured(file, f"chunk_size = '{before}'") as daemon, daemon.connect() as client:
            sent = 0
            wait_for_state(daemon.workers[0], "S")
            while more := send_until_blocked(client, data[sent:]):
                sent += more
                wait_for_state(daemon.workers[0], "S")
            assert sent < len(data), "there is always room"
            daemon.reload(f"chunk_size = '{after}'")
            rest = data[sent : sent + 100_000]
            assert exchange_all({client: rest})[client] == data[:sent] + rest
            daemon.wait_for("connection_closed")
            assert daemon.of("connection_closed")[0]["reason"] == "eof"

    def test_clients_in_the_middle_of_it(self, file: Path) -> None:
        """Clients of four workers get everything back while everything that can change does, again and again."""
        numbers = random.Random(2)
        talks = 12
        done = threading.Event()
        with configured(file, "", "--workers", "4") as daemon, ExitStack() as stack:
            socks = stack.enter_context(clients(daemon.addresses[0], talks))
            data = {sock: numbers.randbytes(1 << 20) for sock in socks}
            heard: dict[socket.socket, bytes] = {}

            def talk() -> None:
                try:
                    while True:
                        heard.clear()
                        heard.update(exchange_all(data, half_close=False))
                        assert heard == data
                        if done.is_set():
                            return
                finally:
                    done.set()

            thread = threading.Thread(target=talk)
            thread.start()
            try:
                for round_ in range(12):
                    level = ("info", "debug")[round_ % 4 == 3]
                    daemon.reload(
                        f"chunk_size = {numbers.choice([1000, 4096, 65536, 1 << 20])}\n"
                        f"log.level = '{level}'\nlimits.max_connections_per_source = {12 + round_ % 2}\n"
                        f"limits.keepalive = {600 + round_}\nlimits.stall_timeout = {60 + round_}"
                    )
                    assert not done.is_set(), "the talk has failed"
            finally:
                done.set()
                thread.join()
            assert heard == data
            assert daemon.of("worker_exited") == []


class TestRefused:
    """A configuration that is wrong."""

    def test_everything_stays(self, file: Path) -> None:
        """The old configuration stays in effect as a whole, and each problem is logged with its place."""
        with configured(file, "chunk_size = 4\nlog.level = 'debug'") as daemon, daemon.connect() as client:
            send_and_get(client, b"before")
            daemon.hang_up_on("chunk_size = 2\nprot = 7\n[limits]\nidle_timeout = 'soon'\nmax_connections = 1")
            daemon.wait_for("reload_refused", 2)
            refused = sorted(event["problem"] for event in daemon.of("reload_refused"))
            assert {event["level"] for event in daemon.of("reload_refused")} == {"error"}
            assert refused[0].startswith(f"{file}: limits.idle_timeout is 'soon', but must be a duration ")
            assert refused[1] == f"{file}: unknown key 'prot'; did you mean 'port'?"
            assert chunks(daemon, client, b"abcd", 1) == [4]
            with daemon.connect() as second:
                send_and_get(second, b"let in")
            assert daemon.reload("chunk_size = 2\nlog.level = 'debug'")["changed"] == ["chunk_size"]

    def test_no_memory_for_the_limits(self, file: Path) -> None:
        """A reload without memory for the limits is refused with the system's error, and changes nothing."""
        with configured(file, "", faults=[faults.no_memory_files()]) as daemon, daemon.connect() as client:
            send_and_get(client, b"before")
            daemon.hang_up_on("chunk_size = 4\nlimits.max_connections_per_source = 1")
            assert "Cannot allocate memory" in daemon.wait_for("reload_refused")["problem"]
            with daemon.connect() as second:
                send_and_get(second, b"let in")
            send_and_get(client, b"still here")
            assert daemon.reload("chunk_size = 4")["changed"] == ["chunk_size"]

    def test_bug(self, file: Path) -> None:
        """An unexpected exception while reloading is logged as a bug, and clients notice nothing."""
        with configured(file, "", faults=[faults.reload_is_a_bug()]) as daemon, daemon.connect() as client:
            send_and_get(client, b"before")
            daemon.hang_up_on("chunk_size = 4")
            assert daemon.wait_for("bug")["error"] == "RuntimeError('this can not be')"
            send_and_get(client, b"still here")
            assert daemon.stop() == os.EX_OK

    def test_file_that_is_gone(self, file: Path) -> None:
        """A named file must exist: a reload without it fails and does not fall back to defaults."""
        with configured(file, "") as daemon:
            file.unlink()
            daemon.process.send_signal(signal.SIGHUP)
            assert daemon.wait_for("reload_refused")["problem"].startswith(f"{file}: cannot be read: No such file")
            with daemon.connect() as client:
                send_and_get(client, b"all the same")

    def test_pipe(self, file: Path) -> None:
        """A configuration from a pipe cannot be read again, so the reload is refused."""
        reads, writes = os.pipe()
        os.write(writes, b"chunk_size = 2")
        os.close(writes)
        with Daemon("--config", f"/dev/fd/{reads}", pass_fds=(reads,)) as daemon:
            os.close(reads)
            daemon.process.send_signal(signal.SIGHUP)
            assert "cannot be read again" in daemon.wait_for("reload_refused")["problem"]


class TestWhen:
    """A signal at an awkward moment."""

    @pytest.mark.parametrize(
        ("waits", "event"),
        [(faults.name_resolution_waits, ""), (faults.worker_start_waits, "listening")],
    )
    def test_before_it_is_ready(self, file: Path, waits: Callable[[int], Fault], event: str) -> None:
        """A reload during the start follows it, and reads what has changed."""
        with (
            Gate() as gate,
            configured(file, "", faults=[waits(gate.fd)], pass_fds=(gate.fd,), wait=False) as daemon,
        ):
            if event:
                daemon.wait_for(event)
            else:
                # It has read the file when it waits for the name.
                wait_for_state(wait_for_child(daemon.pid), "S")
            daemon.hang_up_on("chunk_size = 2")
            wait_for_state(daemon.pid, "S")
            gate.open()
            assert daemon.wait_for("reloaded")["changed"] == ["chunk_size"]
            names = [event["event"] for event in daemon.events]
            assert names == ["starting", "listening", "worker_started", "ready", "reloaded"]

    def test_while_stopping(self, file: Path) -> None:
        """SIGHUP while stopping changes nothing, and does not cut the clients that are drained."""
        with configured(file, "limits.drain_timeout = '1h'") as daemon, daemon.connect() as client:
            stuff(client, daemon.workers[0])
            daemon.process.send_signal(signal.SIGTERM)
            daemon.wait_for("draining")
            daemon.hang_up_on("nonsense")
            wait_for_state(daemon.pid, "S")
            received = len(receive_all(client))
            client.close()
            assert daemon.read_to_end() == os.EX_OK
            closed = daemon.of("connection_closed")[0]
            assert (closed["reason"], closed["bytes_sent"]) == ("drained", received)
            assert daemon.of("reload_refused") == []

    def test_twice(self, file: Path) -> None:
        """A reload requested during another follows it, and reads the file then."""
        with configured(file, "", "--workers", "2") as daemon:
            freeze(daemon.workers[1])
            daemon.hang_up_on("chunk_size = 2\nlimits.max_connections = 1_000_000")
            daemon.wait_for("config_warning")  # that the descriptors do not suffice: it has been read
            daemon.hang_up_on("chunk_size = 3\nlimits.max_connections = 1_000_000\nlog.payload = true")
            wait_for_state(daemon.pid, "S")
            os.kill(daemon.workers[1], signal.SIGCONT)
            daemon.wait_for("reloaded", 2)
            assert [event["changed"] for event in daemon.of("reloaded")] == [
                ["chunk_size", "limits.max_connections"],
                ["chunk_size", "log.payload"],
            ]

    def test_in_quick_succession(self, file: Path) -> None:
        """After many reloads in quick succession the last configuration is in effect."""
        with configured(file, "", "--log-level", "debug", "--workers", "2") as daemon, daemon.connect() as client:
            for size in range(1, 21):
                daemon.hang_up_on(f"chunk_size = {size}")
            daemon.hang_up_on("chunk_size = 100\nlog.payload = true")
            daemon.wait_for("reloaded", where=lambda event: "log.payload" in event["changed"])
            assert chunks(daemon, client, bytes(100), 1) == [100]

    def test_hung_worker(self, file: Path) -> None:
        """A worker that hangs is replaced; then the reload is complete, and the successor serves by the new terms."""
        options = {"environment": WATCHED}
        with configured(file, "", "--log-level", "debug", "--workers", "2", **options) as daemon:
            freeze(daemon.workers[1])
            daemon.reload("chunk_size = 2")
            names = [event["event"] for event in daemon.events]
            assert names.index("worker_exited") < names.index("reloaded")
            os.kill(daemon.workers[0], signal.SIGKILL)
            daemon.wait_for("worker_started", 4)
            with clients(daemon.addresses[0], 4) as socks:
                for sock in socks:
                    assert chunks(daemon, sock, b"abcd", 2) == [2, 2]
            assert {event["worker"] for event in daemon.of("chunk_received")} == {0, 1}

    def test_worker_that_dies(self, file: Path) -> None:
        """A reload is complete too if a worker dies before it has answered."""
        with configured(file, "", "--workers", "2") as daemon:
            freeze(daemon.workers[1])
            daemon.hang_up_on("chunk_size = 2")
            wait_for_state(daemon.pid, "S")
            os.kill(daemon.workers[1], signal.SIGKILL)
            daemon.wait_for("reloaded")
            daemon.wait_for("worker_started", 3)
            assert daemon.stop() == os.EX_OK

    def test_stopping_meanwhile(self, file: Path) -> None:
        """A stop during a reload ends it: it is never logged as complete."""
        with configured(file, "") as daemon:
            freeze(daemon.workers[0])
            daemon.hang_up_on("chunk_size = 2")
            wait_for_state(daemon.pid, "S")
            daemon.process.send_signal(signal.SIGTERM)
            daemon.wait_for("draining")
            os.kill(daemon.workers[0], signal.SIGCONT)
            assert daemon.read_to_end() == os.EX_OK
            assert daemon.of("reloaded") == []
            assert daemon.of("worker_exited")[0]["reason"] == "stopped"

    def test_without_descriptors(self, file: Path) -> None:
        """A worker that has no descriptor left for clients can still receive those that come with a command."""
        with (
            configured(file, "", prefix=("prlimit", "--nofile=40")) as daemon,
            clients(daemon.addresses[0], 40) as socks,
        ):
            assert daemon.wait_for("accept_paused")["reason"] == "EMFILE"
            for number in range(2):
                daemon.reload(f"limits.max_connections_per_source = {number + 1}")
            socks.pop(0).close()
            with pytest.raises(ConnectionResetError):
                socks[-1].recv(1)
            send_and_get(socks[0], b"still here")
            assert daemon.of("worker_exited") == daemon.of("bug") == []


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: the person's, and the program's."""
    ends = os.openpty()
    try:
        yield ends
    finally:
        for fd in ends:
            os.close(fd)


def test_at_a_terminal() -> None:
    """At a terminal SIGHUP means that the terminal has closed, and stops echod."""
    with terminal() as (ours, its), Daemon(stderr=its, stderr_read=ours) as daemon:
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.wait_for("draining")["signal"] == "SIGHUP"
        daemon.wait_for("stopped")
        assert daemon.process.wait(DEADLINE) == os.EX_OK


def test_nothing_leaks(file: Path) -> None:
    """After several reloads parent and worker have as many descriptors as before."""
    with configured(file, "limits.max_connections_per_source = 1") as daemon:
        pids = (daemon.pid, daemon.workers[0])
        before = [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]
        for number in range(10):
            daemon.reload(f"chunk_size = {number + 1}\nlimits.max_connections_per_source = {number + 2}")
        assert [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids] == before
        daemon.reload("")
        assert len(os.listdir(f"/proc/{daemon.pid}/fd")) < before[0]
        assert len(os.listdir(f"/proc/{daemon.workers[0]}/fd")) == before[1]
