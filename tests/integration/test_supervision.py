"""The parent and its workers: how a death is noticed, and what a client sees of it."""

import errno
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from echod.parent.signals import DEFAULT, HANDLED
from tests.integration import faults
from tests.integration.daemon import DEADLINE, Daemon, freeze, send_and_get, until_gone

WATCHED = {"WATCHDOG_USEC": "2000000"}
"""Workers tick ten times as often as systemd asks, so a hung one is found in 1 s, not in 5."""


@contextmanager
def one_client_each(daemon: Daemon) -> Iterator[dict[int, socket.socket]]:
    """A client of each worker, as the events say."""
    with ExitStack() as stack:
        clients: dict[int, socket.socket] = {}
        count = 0
        while len(clients) < len(daemon.workers):
            sock = daemon.connect()
            send_and_get(sock, b"who serves me?")
            count += 1
            assert count <= 100, "one worker gets all the clients"
            worker = daemon.wait_for("connection_opened", count)["worker"]
            if worker in clients:
                sock.close()
            else:
                clients[worker] = stack.enter_context(sock)
        yield clients


def assert_reset(sock: socket.socket) -> None:
    """The connection was reset, so that the echo does not look complete."""
    with pytest.raises(ConnectionResetError):
        sock.recv(1)


def test_killed_worker() -> None:
    """A worker that is killed is logged, with the number of its clients, and replaced by one that serves."""
    with Daemon() as daemon, daemon.connect() as victim:
        send_and_get(victim, b"before")
        victim.sendall(b"never read")
        first = daemon.workers[0]
        freeze(first)
        os.kill(first, signal.SIGKILL)
        exited = daemon.wait_for("worker_exited")
        assert (exited["worker"], exited["worker_pid"], exited["clients"]) == (0, first, 1)
        assert (exited["reason"], exited["level"]) == ("killed by SIGKILL", "error")
        assert daemon.wait_for("worker_started", 2)["worker_pid"] != first
        with daemon.connect() as client:
            send_and_get(client, b"after")
        assert daemon.stop() == 0


def test_queue_outlives_a_worker() -> None:
    """Clients that connect while the only worker hangs are served by its successor, with the bytes sent meanwhile."""
    with Daemon() as daemon, ExitStack() as stack:
        freeze(daemon.workers[0])
        clients = [stack.enter_context(daemon.connect()) for _ in range(20)]
        for number, client in enumerate(clients):
            client.sendall(b"early %d" % number)
            client.shutdown(socket.SHUT_WR)
        os.kill(daemon.workers[0], signal.SIGKILL)
        for number, client in enumerate(clients):
            assert client.makefile("rb").read() == b"early %d" % number


def test_hung_worker() -> None:
    """A worker whose loop hangs is killed and replaced, and its successor serves the queue."""
    with Daemon(environment=WATCHED) as daemon:
        first = daemon.workers[0]
        with until_gone(first):
            freeze(first)
            with daemon.connect() as client:
                send_and_get(client, b"patience")
        assert daemon.wait_for("worker_exited")["reason"] == "killed because its loop hung"
        assert daemon.stop() == 0


def test_parent_killed() -> None:
    """Nothing survives the parent: a worker dies with it, even one that is stopped, and clients are reset."""
    with Daemon("--workers", "2") as daemon, daemon.connect() as client:
        send_and_get(client, b"all of it")
        with until_gone(*daemon.workers.values()):
            freeze(daemon.workers[0])
            daemon.process.kill()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_worker_killed_beside_another() -> None:
    """The clients of one worker do not notice that another is killed; the clients of the dead one no longer count."""
    with Daemon("--workers", "2", faults=[faults.no_copies()]) as daemon, one_client_each(daemon) as clients:
        os.kill(daemon.workers[1], signal.SIGKILL)
        daemon.wait_for("worker_started", 3)
        send_and_get(clients[0], b"still there")
        assert_reset(clients[1])
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.wait_for("draining")["clients"] == 1


def test_worker_that_fails_to_start(tmp_path: Path) -> None:
    """A worker that cannot start for lack of descriptors logs why, and the start is retried; then echod is ready."""
    once = tmp_path / "once"
    once.touch()
    with Daemon(faults=[faults.worker_start_lacks_descriptors(str(once))]) as daemon:
        assert [event["event"] for event in daemon.events if event["event"] != "listening"] == (
            ["starting", "bug", "worker_exited", "worker_started", "ready"]
        )
        bug = daemon.of("bug")[0]
        assert bug["worker"] == 0
        assert "Too many open files" in bug["traceback"]
        assert daemon.of("worker_exited")[0]["reason"] == "exit status 70"


@pytest.mark.parametrize("numbers", [[0], [1, 2]], ids=["at the start", "for a successor"])
@pytest.mark.parametrize(
    ("function", "error"), [("os.fork", "EAGAIN"), ("socket.socketpair", "EMFILE"), ("os.pidfd_open", "ENFILE")]
)
def test_fork_fails(function: str, error: str, numbers: list[int]) -> None:
    """A fork that fails, for lack of processes, memory or descriptors, is retried, and clients are served."""
    with Daemon("--workers", "1", faults=[faults.forks_fail_at(function, error, numbers)]) as daemon:
        reason = f"fork failed: {os.strerror(getattr(errno, error))}"
        os.kill(daemon.workers[0], signal.SIGKILL)
        daemon.wait_for("worker_exited", len(numbers), lambda event: event["reason"] == reason)
        daemon.wait_for("worker_started", 2)
        with daemon.connect() as client:
            send_and_get(client, b"at last")
        assert daemon.stop() == 0


def test_a_worker_that_cannot_be_watched_has_not_begun() -> None:
    """A worker killed because it cannot be watched has accepted nothing; the next one serves."""
    with Daemon("--workers", "1", faults=[faults.second_worker_cannot_be_watched()]) as daemon:
        os.kill(daemon.workers[0], signal.SIGKILL)
        daemon.wait_for("worker_started", 2)
        assert daemon.of("worker_exited")[1]["reason"] == f"fork failed: {os.strerror(errno.ENFILE)}"
        with daemon.connect() as client:
            send_and_get(client, b"at last")


def test_bug_in_a_session() -> None:
    """A bug in one session resets that connection only, and is logged with its traceback."""
    with (
        Daemon(faults=[faults.exclamation_mark_is_a_bug()]) as daemon,
        daemon.connect() as other,
        daemon.connect() as victim,
    ):
        send_and_get(other, b"one")
        victim.sendall(b"!")
        assert_reset(victim)
        bug = daemon.wait_for("bug")
        assert (bug["level"], bug["worker"], bug["error"]) == ("critical", 0, "RuntimeError('the magic byte')")
        assert bug["traceback"].startswith("Traceback (most recent call last):\n")
        send_and_get(other, b"two")
        other.close()
        assert daemon.stop() == 0
        assert [event["reason"] for event in daemon.of("worker_exited")] == ["stopped"]


def test_bug_in_a_session_after_its_first_bytes() -> None:
    """A bug in the middle of a connection resets it, and its closing event has the bytes until then."""
    with Daemon(faults=[faults.exclamation_mark_is_a_bug()]) as daemon, daemon.connect() as victim:
        send_and_get(victim, b"fine")
        victim.sendall(b"!")
        assert_reset(victim)
        closed = daemon.wait_for("connection_closed")
        assert (closed["reason"], closed["bytes_received"], closed["bytes_sent"]) == ("bug", 4, 4)


def test_bug_in_a_worker(tmp_path: Path) -> None:
    """A bug outside a session ends the worker with status 70; its successor serves the waiting clients."""
    once = tmp_path / "once"
    with Daemon(faults=[faults.accepting_is_a_bug(str(once))]) as daemon:
        once.touch()
        with daemon.connect() as client:
            send_and_get(client, b"again")
        assert daemon.wait_for("bug")["error"] == "RuntimeError('accepting is too hard')"
        assert daemon.wait_for("worker_exited")["reason"] == "exit status 70"


def test_client_of_a_worker_that_dies_where_it_accepts(tmp_path: Path) -> None:
    """A client for which the kernel woke a worker that died is served by another worker, at once."""
    once = tmp_path / "once"
    broken = [faults.accepting_is_a_bug(str(once)), faults.replaced_after(3600)]
    with Daemon("--workers", "2", faults=broken) as daemon:
        once.touch()
        with daemon.connect() as client:
            send_and_get(client, b"served by the other")
        assert daemon.wait_for("worker_exited")["reason"] == "exit status 70"


def test_bug_in_the_parent() -> None:
    """A bug in the parent is logged and ends it with status 70, and every worker with it."""
    with (
        Daemon("--workers", "2", faults=[faults.parent_is_at_a_loss()]) as daemon,
        until_gone(*daemon.workers.values()),
    ):
        os.kill(daemon.workers[0], signal.SIGKILL)
        assert daemon.read_to_end() == os.EX_SOFTWARE
        bug = daemon.of("bug")[0]
        assert (bug["worker"], bug["error"]) == (None, "RuntimeError('the parent is at a loss')")


def test_no_signal_ends_a_connection() -> None:
    """The parent and a worker ignore every signal that echod does not use, and a worker those that the parent uses."""
    unused = signal.valid_signals() - set(HANDLED) - DEFAULT
    with Daemon() as daemon, daemon.connect() as client:
        send_and_get(client, b"before")
        for signum in unused:
            os.kill(daemon.process.pid, signum)
        for signum in {*unused, *HANDLED}:
            os.kill(daemon.workers[0], signum)
        send_and_get(client, b"after")
        client.close()
        assert daemon.stop() == 0
        assert [event["reason"] for event in daemon.of("worker_exited")] == ["stopped"]


def test_sigquit() -> None:
    """SIGQUIT logs the state, with the status, and changes nothing."""
    with Daemon("--workers", "2") as daemon, daemon.connect() as client:
        send_and_get(client, b"before")
        os.kill(daemon.process.pid, signal.SIGQUIT)
        event = daemon.wait_for("state")
        assert (event["state"], event["workers"], event["clients"]) == ("SERVING", 2, 1)
        assert event["status"].startswith("Echoing on 127.0.0.1:")
        send_and_get(client, b"after")


def test_inherited_signals() -> None:
    """Started with SIGCHLD ignored and SIGTERM blocked, echod still replaces a worker, and stops."""
    with Daemon(prefix=("env", "--ignore-signal=CHLD", "--block-signal=TERM")) as daemon:
        os.kill(daemon.workers[0], signal.SIGKILL)
        assert daemon.wait_for("worker_exited")["reason"] == "killed by SIGKILL"
        daemon.wait_for("worker_started", 2)
        assert daemon.stop() == 0


def test_no_file_may_grow() -> None:
    """Where no file may grow, not even one in memory, echod serves without storing its settings (RLIMIT_FSIZE)."""
    with Daemon(prefix=("prlimit", "--fsize=0")) as daemon, daemon.connect() as client:
        send_and_get(client, b"served")


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
def test_pid_1_reaps_orphans() -> None:
    """As PID 1, the parent reaps a process that it did not start, and still knows how a worker ended."""
    with Daemon(prefix=("unshare", "--pid", "--fork", "--kill-child"), environment=WATCHED) as daemon:
        (parent,) = children(daemon.pid)
        (worker,) = children(parent)
        # The shell exits before the process that it started, whose new parent is PID 1.
        subprocess.run(["nsenter", f"--target={parent}", "--pid", "sh", "-c", "sleep 1000 &"], check=True)
        (orphan,) = {*children(parent)} - {worker}
        os.kill(orphan, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
        assert daemon.wait_for("worker_exited")["reason"] == "killed by SIGKILL"
        deadline = time.monotonic() + DEADLINE
        while Path(f"/proc/{orphan}").exists():
            assert time.monotonic() < deadline, "the orphan is still a zombie"
        os.kill(parent, signal.SIGTERM)
        assert daemon.read_to_end() == 0


def test_no_descriptor_leaks_into_the_successors() -> None:
    """After several deaths of workers, the next one has as many descriptors as the first."""
    with Daemon("--workers", "2") as daemon:
        before = len(os.listdir(f"/proc/{daemon.workers[1]}/fd"))
        for count in range(1, 4):
            os.kill(daemon.workers[1], signal.SIGKILL)
            daemon.wait_for("worker_started", 2 + count)
        assert len(os.listdir(f"/proc/{daemon.workers[1]}/fd")) == before
        assert len(os.listdir(f"/proc/{daemon.workers[0]}/fd")) == before
