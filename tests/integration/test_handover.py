"""A restart drops no client: connections go to the next echod, with what is pending for them and their counters."""

import itertools
import os
import random
import resource
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration import faults
from tests.integration.daemon import (
    DEADLINE,
    Daemon,
    Event,
    freeze,
    receive_all,
    send_and_get,
    stuff,
    until_gone,
    wait_for_state,
)
from tests.integration.faults import COPYING, patient_with_systemd
from tests.integration.peers import about
from tests.integration.store import Store, announced_stop, storing
from tests.integration.test_copies import copied

HANDOVER = "echod-handover"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with room."""
    with storing(tmp_path) as store:
        yield store


def leave(daemon: Daemon) -> Event:
    """Do what systemd does in the first half of a restart; returns the event of the handover."""
    assert daemon.stop() == os.EX_TEMPFAIL
    (event,) = daemon.of("handed_over")
    return event


def taken_over(daemon: Daemon) -> tuple[int, int, int]:
    """How many connections a daemon has taken over, how many of these without their state, and how many are lost."""
    (event,) = daemon.of("taken_over")
    return event["count"], event["forgotten"], event["lost"]


def receive(client: socket.socket, count: int) -> bytes:
    """Receive `count` bytes, or fewer if the connection ends."""
    received = bytearray()
    while len(received) < count and (chunk := client.recv(count - len(received))):
        received += chunk
    return bytes(received)


def closed(daemon: Daemon, client: socket.socket) -> Event:
    """The closing event of this client's connection."""
    host, port = client.getsockname()[:2]
    return daemon.wait_for("connection_closed", where=lambda event: event["peer"] == f"{host}:{port}")


@contextmanager
def pouring(client: socket.socket, data: bytes) -> Iterator[None]:
    """Send `data` in a thread during the block."""
    thread = threading.Thread(target=client.sendall, args=(data,))
    thread.start()
    try:
        yield
    finally:
        thread.join(DEADLINE)
        assert not thread.is_alive()


def test_the_whole_life(store: Store) -> None:
    """A connection keeps its name, its counters and its age, and counts the restarts."""
    with store.daemon() as first, first.connect() as client:
        send_and_get(client, b"before")
        opened = first.wait_for("connection_opened")
        assert leave(first)["count"] == 1
        with store.daemon() as second:
            assert taken_over(second) == (1, 0, 0)
            store.wait_for("echod-listener", "echod-listener")
            send_and_get(client, b"between")
            assert leave(second)["count"] == 1
        with store.daemon() as third:
            send_and_get(client, b"after it")
            client.shutdown(socket.SHUT_WR)
            assert receive_all(client) == b""
            event = closed(third, client)
            assert not third.of("connection_opened")
            assert announced_stop(third) == os.EX_OK
            (stopped,) = third.of("stopped")
    assert event["connection"] == opened["connection"]
    assert (event["bytes_received"], event["bytes_sent"], event["chunks"]) == (21, 21, 3)
    assert (event["restarts"], event["reason"]) == (2, "eof")
    assert event["duration"] > 0
    assert (stopped["clients_total"], stopped["bytes_echoed"]) == (1, 8)
    assert not first.of("connection_closed") + second.of("connection_closed")
    assert not first.of("draining") + second.of("draining")


@pytest.mark.parametrize("workers", [(1, 4), (4, 1), (2, 3)])
def test_another_number_of_workers(store: Store, workers: tuple[int, int], tmp_path: Path) -> None:
    """The new workers share the connections equally, TCP and unix sockets, with any number of bytes on their way."""
    where = ("--host", "127.0.0.1", "--host", f"unix:{tmp_path}/echo")
    pieces = random.Random(workers[0])
    with ExitStack() as stack:
        first = stack.enter_context(store.daemon(*where, "--workers", str(workers[0])))
        clients = [stack.enter_context(first.connect(address)) for address in first.addresses * 8]
        sent = [pieces.randbytes(pieces.choice([1, 2, 1000, 65536, 300_000])) for _ in clients]
        for client, data in zip(clients, sent, strict=True):
            send_and_get(client, b"served")
            stack.enter_context(pouring(client, data))
        event = leave(first)
        assert (event["count"], event["left"], event["level"]) == (len(clients), 0, "info")
        second = stack.enter_context(store.daemon(*where, "--workers", str(workers[1])))
        assert taken_over(second) == (len(clients), 0, 0)
        for client, data in zip(clients, sent, strict=True):
            assert receive(client, len(data)) == data
            client.shutdown(socket.SHUT_WR)
        second.wait_for("connection_closed", len(clients))
        served = Counter(event["worker"] for event in second.of("connection_closed"))
        assert len(served) == workers[1]
        assert max(served.values()) - min(served.values()) <= 1


def test_a_client_that_does_not_read(store: Store) -> None:
    """Bytes that were pending at the restart are sent first, then those that the client sent meanwhile."""
    with store.daemon() as first, first.connect() as client:
        stuff(client, first.workers[0])
        assert leave(first)["count"] == 1
        with store.daemon() as second:
            client.shutdown(socket.SHUT_WR)
            received = receive_all(client)
            event = closed(second, client)
    assert set(received) == {0}
    assert event["bytes_received"] == event["bytes_sent"] == len(received) > 1 << 16
    assert event["reason"] == "eof"


def test_whoever_ended_its_side_meanwhile(store: Store) -> None:
    """A half-close between two daemons is answered like any other."""
    with store.daemon() as first, first.connect() as client:
        send_and_get(client, b"served")
        leave(first)
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        with store.daemon() as second:
            assert receive_all(client) == b"last words"
            assert closed(second, client)["bytes_sent"] == len(b"servedlast words")


def test_whoever_has_gone_meanwhile(store: Store) -> None:
    """A connection that broke between two daemons is logged like any other."""
    with store.daemon() as first, first.connect() as client:
        send_and_get(client, b"served")
        leave(first)
        host, port = client.getsockname()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        with store.daemon() as second:
            event = second.wait_for("connection_closed")
            assert (event["peer"], event["reason"], event["restarts"]) == (f"{host}:{port}", "reset", 1)


def test_one_that_has_sent_nothing(store: Store) -> None:
    """A connection that has sent nothing yet is logged as opened by the daemon to which it sends first."""
    with store.daemon() as first, first.connect() as early, first.connect() as client:
        send_and_get(client, b"accepted after the other")
        leave(first)
        with store.daemon() as second:
            assert taken_over(second)[0] == 2
            send_and_get(early, b"hello")
            assert second.wait_for("connection_opened")["peer"] == "{}:{}".format(*early.getsockname())
            early.close()
            client.close()


def test_one_that_was_ended(store: Store, tmp_path: Path) -> None:
    """The next daemon still waits for a client to close its side, if the server has closed its own."""
    file = tmp_path / "echod.toml"
    file.write_text("")
    with store.daemon("--config", str(file), faults=[faults.lingers_long()]) as first, first.connect() as client:
        send_and_get(client, b"served")
        file.write_text("limits.idle_timeout = '1ms'")
        first.process.send_signal(signal.SIGHUP)
        assert receive_all(client) == b""
        assert leave(first)["count"] == 1
        with store.daemon(faults=[faults.lingers_long()]) as second:
            client.shutdown(socket.SHUT_WR)
            assert closed(second, client)["reason"] == "idle"


def test_another_address(store: Store) -> None:
    """Connections stay even if the next daemon does not listen on their address."""
    with store.daemon("--host", "127.0.0.1") as first, first.connect() as client:
        send_and_get(client, b"before")
        leave(first)
        with store.daemon("--host", "127.0.0.2") as second:
            send_and_get(client, b"after")
            with second.connect(*second.of("ready")[0]["addresses"]) as other:
                send_and_get(other, b"new")
            with pytest.raises(ConnectionRefusedError):
                first.connect()
            client.close()


def test_passed_sockets(store: Store) -> None:
    """Connections by sockets of a .socket unit are handed over too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store.kept["echo"] = [os.dup(listener.fileno())]
        with store.daemon() as first, first.connect() as client:
            send_and_get(client, b"before")
            assert leave(first)["count"] == 1
            with store.daemon() as second:
                send_and_get(client, b"after")
                store.wait_for("echo")
                assert second.of("listening")[0]["adopted"]
                client.close()


def test_limits_that_are_lower_now(store: Store) -> None:
    """Connections above a lower limit stay, and are counted; no new client is accepted until there are fewer."""
    with ExitStack() as stack:
        first = stack.enter_context(store.daemon("--host", "127.0.0.1"))
        clients = [stack.enter_context(first.connect()) for _ in range(3)]
        for client in clients:
            send_and_get(client, b"before")
        leave(first)
        second = stack.enter_context(
            store.daemon(
                "--host",
                "127.0.0.1",
                "--workers",
                "2",
                "--limits-max-connections-per-source",
                "2",
                "--limits-max-connections",
                "2",
            )
        )
        for client in clients:
            send_and_get(client, b"after")
        waiting = stack.enter_context(second.connect())
        waiting.sendall(b"hello")
        assert second.wait_for("accept_paused")["reason"] == "max_connections"
        clients.pop().close()
        second.wait_for("connection_closed")
        waiting.shutdown(socket.SHUT_WR)
        clients.pop().close()
        assert receive_all(waiting) == b"hello"
        clients.pop().close()


def test_a_worker_that_comes_late(store: Store) -> None:
    """The connections of a worker that cannot be forked at first wait for it."""
    with store.daemon() as first, first.connect() as client, first.connect() as other:
        for each in (client, other):
            send_and_get(each, b"before")
        leave(first)
        no_process_at_first = faults.forks_fail_at("os.fork", "EAGAIN", [0])
        with store.daemon("--workers", "2", faults=[no_process_at_first]) as second:
            assert "fork failed" in second.of("worker_exited")[0]["reason"]
            for each in (client, other):
                send_and_get(each, b"after")
                each.close()


def test_reset_if_nobody_comes(store: Store) -> None:
    """If the next daemon never starts, each client gets a reset: bytes may be due to it, or it may be sending some."""
    with store.daemon() as first, first.connect() as client, first.connect() as other:
        send_and_get(other, b"all of it")
        stuff(client, first.workers[0])
        leave(first)
        for fd in store.kept.pop(HANDOVER):
            os.close(fd)
        for each in (client, other):
            with pytest.raises(ConnectionResetError):
                receive_all(each)


def test_an_address_that_cannot_be_bound(store: Store) -> None:
    """A daemon that cannot listen where it should serves the connections all the same, and so does the one after it."""
    with store.daemon("--host", "127.0.0.1") as first, first.connect() as client:
        send_and_get(client, b"before")
        leave(first)
        with store.daemon("--host", "192.0.2.1") as second:
            assert "does not have that address" in second.of("reload_refused")[0]["problem"]
            send_and_get(client, b"meanwhile")
            leave(second)
        with store.daemon("--host", "127.0.0.1"):
            send_and_get(client, b"after")
            client.close()


def test_a_restart_into_a_restart(store: Store) -> None:
    """An echod that ends before it is ready hands over what it took over, to one that does the same, and so on."""
    moments = (faults.parent_stops_as_it_takes_over, faults.parent_stops_as_workers_start)
    with ExitStack() as clients:
        connections = []
        with store.daemon() as first:
            for _ in range(10):
                connections.append(clients.enter_context(first.connect()))
                send_and_get(connections[-1], b"before")
            leave(first)
        for workers, stops in itertools.product(("1", "3"), moments):
            with store.daemon("--workers", workers, wait=False, faults=[stops()]) as hasty:
                assert hasty.read_to_end() == os.EX_TEMPFAIL
                assert taken_over(hasty) == (10, 0, 0)
                assert [event["count"] for event in hasty.of("handed_over")] == [10]
        with store.daemon() as last:
            assert taken_over(last) == (10, 0, 0)
            for client in connections:
                send_and_get(client, b"after it")
                client.close()


@pytest.mark.parametrize("change", ["chunk_size = 1000", "workers = 2"])
def test_a_restart_into_a_reload(store: Store, change: str, tmp_path: Path) -> None:
    """An echod that ends during a reload hands over."""
    configuration = tmp_path / "echod.toml"
    configuration.touch()
    with store.daemon("--config", str(configuration)) as first, first.connect() as client:
        send_and_get(client, b"before")
        configuration.write_text(change)
        worker = first.workers[0]
        freeze(worker)  # so that the reload lasts until it is told to stop
        freeze(first.pid)
        first.process.send_signal(signal.SIGHUP)
        first.process.send_signal(signal.SIGTERM)
        os.kill(first.pid, signal.SIGCONT)
        os.kill(worker, signal.SIGCONT)
        assert first.read_to_end() == os.EX_TEMPFAIL
        assert [event["count"] for event in first.of("handed_over")] == [1]
        with store.daemon() as second:
            assert taken_over(second) == (1, 0, 0)
            send_and_get(client, b"after")
            client.close()


@pytest.mark.parametrize("signals", [[signal.SIGURG, signal.SIGTERM], [signal.SIGINT]])
def test_a_stop_is_no_restart(store: Store, signals: list[signal.Signals]) -> None:
    """An announced stop, and SIGINT, drain silently although systemd stores descriptors."""
    with store.daemon() as daemon, daemon.connect() as client:
        send_and_get(client, b"served")
        for signum in signals:
            daemon.process.send_signal(signum)
        assert receive_all(client) == b""
        client.close()
        assert daemon.read_to_end() == os.EX_OK
        assert daemon.of("draining")
        assert not daemon.of("handed_over") + daemon.of("handover_impossible")
    assert store.names() == []


@pytest.mark.parametrize("change", ["", "workers = 2"])
def test_a_second_sigterm(store: Store, change: str, tmp_path: Path) -> None:
    """Another SIGTERM loses no connection, whether echod hands them over or, first, to new workers of its own."""
    configuration = tmp_path / "echod.toml"
    configuration.touch()
    with store.daemon("--config", str(configuration)) as first, first.connect() as client:
        send_and_get(client, b"before")
        worker = first.workers[0]
        freeze(worker)
        if change:
            configuration.write_text(change)
            first.process.send_signal(signal.SIGHUP)
            wait_for_state(first.pid, "S")
        for _ in range(2):
            first.process.send_signal(signal.SIGTERM)
            wait_for_state(first.pid, "S")
        os.kill(worker, signal.SIGCONT)
        assert first.read_to_end() == os.EX_TEMPFAIL
        assert [event["count"] for event in first.of("handed_over")] == [1]
        with store.daemon() as second:
            send_and_get(client, b"after")
            client.close()
            assert taken_over(second) == (1, 0, 0)


def test_stopped_early_without_a_store() -> None:
    """Without a store, a signal that comes before echod is ready stops it, and no handover is mentioned."""
    with Daemon(wait=False, faults=[faults.parent_stops_as_workers_start()]) as daemon:
        assert daemon.read_to_end() == os.EX_OK
        assert daemon.of("draining")
        assert not daemon.of("handover_impossible")


def test_killed_meanwhile(store: Store) -> None:
    """A parent killed while it handed over leaves what was sent; the next echod takes that and waits for no more."""
    with (
        store.daemon("--workers", "2") as first,
        first.connect() as one,
        first.connect() as other,
        until_gone(*first.workers.values()),
    ):
        for client in (one, other):
            send_and_get(client, b"before")
        first.wait_for("connection_opened", 2)
        hung, *more = (event["worker"] for event in first.of("connection_opened"))
        os.kill(first.workers[hung], signal.SIGSTOP)
        first.process.send_signal(signal.SIGTERM)
        first.wait_for("worker_exited")
        first.process.kill()
        assert first.read_to_end() == -signal.SIGKILL
    with store.daemon() as second:
        assert taken_over(second) == (sum(worker != hung for worker in more), 0, 0)


def test_nonsense_in_the_store(store: Store) -> None:
    """Whatever is in the queue, echod starts and serves; a connection without a state continues as a new one."""
    reads, writes = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.create_server(("127.0.0.1", 0)) as listener, reads, writes:
        client = socket.create_connection(listener.getsockname(), DEADLINE)
        sock, _ = listener.accept()
        for data in (b"x", b"\0\1\0\1", b"\0\2\0\1"):
            socket.send_fds(writes, [data], [writes.fileno(), listener.fileno()])
        socket.send_fds(writes, [b"\0\1\0\1"], [sock.fileno()])
        sock.close()
        store.kept[HANDOVER] = [reads.detach(), writes.detach(), os.open(os.devnull, os.O_RDONLY)]
    with store.daemon() as daemon, client:
        assert taken_over(daemon) == (1, 1, 1)
        store.wait_for("echod-listener", "echod-listener")
        send_and_get(client, b"as if new")
        with daemon.connect() as other:
            send_and_get(other, b"new")


def test_no_room(tmp_path: Path) -> None:
    """If systemd keeps no descriptors, a restart drains instead, and logs that."""
    with storing(tmp_path, room=False) as store, store.daemon() as daemon, daemon.connect() as client:
        send_and_get(client, b"served")
        daemon.process.send_signal(signal.SIGTERM)
        assert receive_all(client) == b""
        client.close()
        assert daemon.read_to_end() == os.EX_OK
        assert daemon.of("handover_impossible")
        assert daemon.of("draining")
        assert daemon.of("connection_closed")[0]["reason"] == "drained"


def test_a_manager_that_answers_late(store: Store) -> None:
    """While systemd has not answered, the daemon serves, accepts and replaces workers; then it hands over."""
    with store.daemon("--workers", "2") as first, first.connect() as client:
        send_and_get(client, b"before")
        worker = about(first, client, "connection_opened")["worker"]
        with store.busy():
            first.process.send_signal(signal.SIGTERM)
            wait_for_state(first.pid, "S")
            os.kill(first.workers[1 - worker], signal.SIGKILL)
            first.wait_for("worker_started", 3)
            send_and_get(client, b"served meanwhile")
            with first.connect() as other:
                send_and_get(other, b"accepted meanwhile")
        assert first.read_to_end() == os.EX_TEMPFAIL
        assert first.of("handed_over")[0]["count"] == 1
        with store.daemon() as second:
            assert taken_over(second) == (1, 0, 0)
            send_and_get(client, b"after")


def test_no_answer_in_time(store: Store) -> None:
    """A missing answer is no refusal: the messages wait in systemd's queue, so the connections are handed over."""
    with store.daemon(faults=[patient_with_systemd(0.1)]) as first, first.connect() as client:
        send_and_get(client, b"before")
        with store.busy():
            assert leave(first)["count"] == 1
        with store.daemon() as second:
            assert taken_over(second) == (1, 0, 0)
            send_and_get(client, b"after")


@pytest.mark.parametrize("reloaded", [False, True])
def test_turned_off(store: Store, tmp_path: Path, *, reloaded: bool) -> None:
    """With `handover = false`, by a reload too, a restart drains; new connections wait for the successor."""
    file = tmp_path / "echod.toml"
    file.write_text("" if reloaded else "handover = false\n")
    with store.daemon("--config", str(file)) as daemon, daemon.connect() as client:
        if reloaded:
            file.write_text("handover = false\n")
            daemon.process.send_signal(signal.SIGHUP)
            assert daemon.wait_for("reloaded")["changed"] == ["handover"]
        send_and_get(client, b"served")
        daemon.process.send_signal(signal.SIGTERM)
        assert receive_all(client) == b""
        client.close()
        assert daemon.read_to_end() == os.EX_TEMPFAIL
        assert not daemon.of("handed_over") + daemon.of("handover_impossible")
        assert set(store.names()) == {"echod-listener"}


def test_a_worker_that_dies_first(store: Store) -> None:
    """The connections of a worker that dies before it hands over continue in the next echod, if no byte is missing."""
    with store.daemon("--workers", "2", faults=COPYING) as first, ExitStack() as stack:
        clients = stack.enter_context(copied(first, 6))
        first.wait_for("connection_opened", 6)
        of_worker = {about(first, client, "connection_opened")["worker"]: client for client in clients}
        stuff(of_worker[1], first.workers[1])
        freeze(first.workers[1])
        first.process.send_signal(signal.SIGTERM)
        first.wait_for("worker_exited", where=lambda event: event["worker"] == 0)
        os.kill(first.workers[1], signal.SIGKILL)
        assert first.read_to_end() == os.EX_TEMPFAIL
        (event,) = first.of("handed_over")
        assert (event["count"], event["left"]) == (5, 0)
        assert about(first, of_worker[1], "connection_closed")["reason"] == "worker_died"
        with store.daemon() as second:
            assert taken_over(second) == (5, 0, 0)
            for client in clients:
                if client is not of_worker[1]:
                    send_and_get(client, b"after")


def test_more_than_a_process_can_have(store: Store) -> None:
    """As many connections are handed over as the next parent has descriptors for; the others are drained."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        first = stack.enter_context(store.daemon("--workers", "2", "--host", "127.0.0.1"))
        for pid in (first.pid, *first.workers.values()):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (150, hard))
        clients = [stack.enter_context(first.connect()) for _ in range(20)]
        for client in clients:
            send_and_get(client, b"before")
        first.process.send_signal(signal.SIGTERM)
        event = first.wait_for("handed_over")
        assert (event["count"], event["left"], event["level"]) == (8, 12, "warning")
        for client in clients:
            client.shutdown(socket.SHUT_WR)
        assert first.read_to_end() == os.EX_TEMPFAIL
        with store.daemon("--host", "127.0.0.1") as second:
            second.wait_for("connection_closed", 8)
