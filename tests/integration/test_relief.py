"""A reload that changes where echod listens, or how many workers it has: connections stay, and none is refused."""

import itertools
import os
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
    Configured,
    Daemon,
    Gate,
    freeze,
    is_probed,
    receive_all,
    send_and_get,
    stuff,
    wait_for_state,
)
from tests.integration.faults import COPYING, TICKING_FAST
from tests.integration.network import inside, own_network
from tests.integration.peers import about, connect, descriptors, exchange, is_refused
from tests.integration.store import storing
from tests.integration.test_copies import copied


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the configuration is."""
    return tmp_path / "echod.toml"


def refused(daemon: Daemon, host: str = "127.0.0.1") -> bool:
    """Whether a connection to that host is refused."""
    with socket.socket() as sock:
        return sock.connect_ex((host, daemon.port)) != 0


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (2, 3)])
def test_another_number_of_workers(file: Path, before: int, after: int) -> None:
    """The new workers share the connections equally, with their names, counters, pending bytes and places."""
    limits = "limits.max_connections_per_source = 9\n"
    with ExitStack() as stack:
        echod = stack.enter_context(Configured(file, f"host = '127.0.0.1'\nworkers = {before}\n{limits}"))
        clients = [stack.enter_context(echod.connect()) for _ in range(8)]
        for client in clients:
            send_and_get(client, b"before")
        echod.wait_for("connection_opened", 8)
        stuff(clients[0], echod.workers[about(echod, clients[0], "connection_opened")["worker"]])
        assert echod.reload(f"host = '127.0.0.1'\nworkers = {after}\n{limits}")["changed"] == ["workers"]
        assert set(echod.workers) == set(range(max(before, after)))
        clients[0].shutdown(socket.SHUT_WR)
        assert len(receive_all(clients[0])) > 1 << 16
        for client in clients[1:]:
            send_and_get(client, b"after")
        about(echod, clients[0], "connection_closed")
        with echod.connect() as one, echod.connect() as another:
            send_and_get(one, b"the eighth")
            send_and_get(another, b"the ninth")
            assert is_refused(echod.addresses[0])
        for client in clients:
            client.close()
        assert echod.stop() == os.EX_OK
        closed = [event for event in echod.of("connection_closed") if event["bytes_received"] == 11]
        assert (len(closed), {event["reason"] for event in closed}) == (7, {"eof"})
        assert {event["restarts"] for event in closed} == {0}
        opened = {event["connection"] for event in echod.of("connection_opened")}
        assert {event["connection"] for event in closed} <= opened
        served = Counter(event["worker"] for event in closed)
        assert len(served) == after
        (stopped,) = echod.of("stopped")
        assert (stopped["clients_total"], stopped["clients_refused"]) == (10, 1)
        assert echod.of("handed_over") + echod.of("taken_over") == []


def test_another_host(file: Path) -> None:
    """echod listens on each new host, at the same port, and no longer on the old one, whose connections stay."""
    hosts = ("127.0.0.2", "127.0.0.1", "0.0.0.0", "127.0.0.1")
    with ExitStack() as stack:
        echod = stack.enter_context(Configured(file, f"host = '{hosts[0]}'"))
        bound, clients = [f"{hosts[0]}:{echod.port}"], []
        for before, after in itertools.pairwise(hosts):
            clients.append(stack.enter_context(echod.connect(f"{before.replace('0.0.0.0', '127.0.0.1')}:{echod.port}")))
            send_and_get(clients[-1], b"before")
            assert echod.reload(f"host = '{after}'")["changed"] == ["host"]
            bound.append(f"{after}:{echod.port}")
            assert echod.addresses == bound
            for client in clients:
                send_and_get(client, b"after")
            with echod.connect(f"127.0.0.1:{echod.port}") as other:
                send_and_get(other, b"by the new one")
            assert refused(echod, "127.0.0.2") == (after != "0.0.0.0")


def test_one_of_several(file: Path, tmp_path: Path) -> None:
    """Listeners that stay are left alone; the file of a unix socket that is closed is removed."""
    path = tmp_path / "echo"
    with Configured(file, f"host = ['127.0.0.1', 'unix:{path}']") as echod, echod.connect(f"unix:{path}") as client:
        send_and_get(client, b"before")
        echod.reload("host = ['127.0.0.1', '127.0.0.2']")
        assert echod.addresses == [f"127.0.0.1:{echod.port}", f"unix:{path}", f"127.0.0.2:{echod.port}"]
        send_and_get(client, b"after")
        assert not path.exists()
        for host in ("127.0.0.1", "127.0.0.2"):
            with echod.connect(f"{host}:{echod.port}") as other:
                send_and_get(other, b"new")


def test_who_waits_at_an_address_that_goes(file: Path) -> None:
    """Clients in the queue of a listener that is to close are accepted first, and lose no byte; so are all others."""
    with ExitStack() as stack:
        text = "host = ['127.0.0.1', '127.0.0.2']"
        echod = stack.enter_context(Configured(file, text, faults=[faults.never_hung()], environment=TICKING_FAST))
        freeze(echod.workers[0])
        waiting = [stack.enter_context(echod.connect(address)) for address in echod.addresses * 5]
        for client in waiting:
            client.sendall(b"early")
            client.shutdown(socket.SHUT_WR)
        echod.hang_up_on("host = '127.0.0.2'")
        wait_for_state(echod.pid, "S")
        os.kill(echod.workers[0], signal.SIGCONT)
        echod.wait_for("reloaded")
        assert refused(echod, "127.0.0.1")
        for client in waiting:
            assert receive_all(client) == b"early"


def test_the_last_of_several_goes(file: Path) -> None:
    """A listener that is closed accepts no client; when it is configured again it does, even if a worker dies then."""
    with Configured(file, "host = ['127.0.0.1', '127.0.0.2']") as echod:
        echod.reload("host = '127.0.0.1'")
        assert refused(echod, "127.0.0.2")
        echod.reload("host = ['127.0.0.1', '127.0.0.2']")
        os.kill(echod.workers[0], signal.SIGKILL)
        with echod.connect(f"127.0.0.2:{echod.port}") as client:
            send_and_get(client, b"here again")


def test_who_waits_there_when_there_is_no_place(file: Path) -> None:
    """A client that waits at a listener that closes is served once the connection limit allows."""
    text = "limits.max_connections = 1\nhost = "
    with Configured(file, text + "['127.0.0.1', '127.0.0.2']") as echod, echod.connect() as client:
        send_and_get(client, b"before")
        with echod.connect(echod.addresses[1]) as waiting:
            waiting.sendall(b"waits")
            echod.reload(text + "'127.0.0.1'")
            send_and_get(client, b"after")
            client.close()
            assert waiting.recv(10) == b"waits"


def test_a_file_that_cannot_be_removed(file: Path, tmp_path: Path) -> None:
    """If the file of a unix socket that is closed cannot be removed, it stays, and so do all connections."""
    with Configured(file, f"host = ['127.0.0.1', 'unix:{tmp_path}/echo']", faults=[faults.files_stay()]) as echod:
        with echod.connect() as client:
            send_and_get(client, b"before")
            echod.reload("host = '127.0.0.1'")
            send_and_get(client, b"after")
        assert (tmp_path / "echo").is_socket()
        assert echod.stop() == os.EX_OK


def test_together_with_terms(file: Path) -> None:
    """A reload that changes workers and terms together applies all of them, to the log too."""
    with Configured(file, "host = '127.0.0.1'") as echod, echod.connect() as client:
        send_and_get(client, b"before")
        changed = echod.reload("host = '127.0.0.1'\nworkers = 2\nchunk_size = 4\nlog.level = 'debug'")["changed"]
        assert changed == ["chunk_size", "workers", "log.level"]
        send_and_get(client, b"12345678")
        assert [event["bytes"] for event in (echod.wait_for("chunk_received", 2), echod.of("chunk_received")[0])] == (
            [4, 4]
        )


def test_more_clients_than_there_may_be_from_now_on(file: Path) -> None:
    """Connections above new limits stay, and are counted; no other client is accepted until there are fewer."""
    text = "host = '127.0.0.1'\nlimits.max_connections_per_source = 1\n"
    with ExitStack() as stack:
        echod = stack.enter_context(Configured(file, text))
        address = echod.addresses[0]
        clients = [stack.enter_context(connect(address, source=f"127.0.0.{number}")) for number in range(2, 22)]
        for client in clients:
            send_and_get(client, b"before")
        echod.reload(text + "workers = 2\nlimits.max_connections = 2\n")
        for client in clients:
            send_and_get(client, b"after")
        last = stack.enter_context(connect(address, source="127.0.0.50"))
        for client in clients[1:]:
            client.close()
        send_and_get(last, b"at last")


class TestRefused:
    """A reload that fails changes nothing, and clients notice nothing."""

    def test_address_of_nobody(self, file: Path) -> None:
        """Everything that was opened for an address that cannot be had is closed again."""
        with Configured(file, "host = '127.0.0.1'", faults=[faults.no_copies()]) as echod, echod.connect() as client:
            send_and_get(client, b"before")
            before = descriptors(echod.pid)
            echod.hang_up_on("host = ['127.0.0.2', '192.0.2.1']\nworkers = 2")
            assert "192.0.2.1" in echod.wait_for("reload_refused")["problem"]
            assert descriptors(echod.pid) == before
            send_and_get(client, b"after")
            assert refused(echod, "127.0.0.2")
            with echod.connect() as other:
                send_and_get(other, b"as ever")
            assert echod.reload("host = '127.0.0.2'")["changed"] == ["host"]

    def test_address_of_another(self, file: Path) -> None:
        """An address on which another program listens, at the same port, is refused."""
        with Configured(file, "host = '127.0.0.1'") as echod, socket.create_server(("127.0.0.2", echod.port)):
            echod.hang_up_on("host = ['127.0.0.1', '127.0.0.2']")
            assert "in use by another program" in echod.wait_for("reload_refused")["problem"]
            with echod.connect() as client:
                send_and_get(client, b"as ever")

    @pytest.mark.parametrize(("function", "number"), [("socket.socketpair", 0), ("os.eventfd", 0), ("os.eventfd", 2)])
    def test_no_descriptors_for_it(self, file: Path, function: str, number: int) -> None:
        """Without descriptors for the new workers, the old ones continue on the unchanged listeners."""
        broken = [faults.no_copies(), faults.reload_fails_at(function, number)]
        with Configured(file, "host = '127.0.0.1'", faults=broken) as echod, echod.connect() as client:
            before = descriptors(echod.pid)
            echod.hang_up_on("host = '0.0.0.0'\nworkers = 3")
            assert echod.wait_for("reload_refused")["problem"] == (
                "not enough memory or descriptors for the new configuration: Too many open files; "
                "free some, then reload again"
            )
            send_and_get(client, b"still there")
            assert descriptors(echod.pid) == before
            with echod.connect() as other:
                send_and_get(other, b"as ever")
            assert echod.reload("host = '127.0.0.1'\nchunk_size = 4")["changed"] == ["chunk_size"]

    def test_the_sockets_are_as_they_were(self, file: Path) -> None:
        """After a reload that failed, new connections inherit the old options of the listener."""
        broken = [faults.reload_fails_at("socket.socketpair", 0)]
        with Configured(file, "host = '127.0.0.1'\nlimits.keepalive = 0", faults=broken) as echod:
            echod.hang_up_on("host = ['127.0.0.1', '127.0.0.2']\nlimits.keepalive = '10s'")
            echod.wait_for("reload_refused")
            with echod.connect() as client:
                send_and_get(client, b"hello")
                assert not is_probed(client)

    def test_more_than_a_process_can_have(self, file: Path) -> None:
        """A reload is refused if there are too many connections to hand over to the new workers."""
        with ExitStack() as stack:
            echod = stack.enter_context(Configured(file, "host = '127.0.0.1'", prefix=("prlimit", "--nofile=152")))
            clients = [stack.enter_context(echod.connect()) for _ in range(6)]
            for client in clients:
                send_and_get(client, b"before")
            echod.hang_up_on("host = '127.0.0.1'\nworkers = 2")
            assert echod.wait_for("reload_refused")["problem"] == (
                "workers cannot change now: the descriptor limit allows handing over 5 of 6 connections; "
                "raise LimitNOFILE= (ulimit -n), or reload again with fewer connections"
            )
            for client in clients:
                send_and_get(client, b"after")


class TestWhen:
    """Something else happens at the same time."""

    def test_stopping_meanwhile(self, file: Path) -> None:
        """A stop during the reload drains: what a client has sent is echoed."""
        with Configured(file, "host = '127.0.0.1'") as echod, echod.connect() as client:
            send_and_get(client, b"before")
            freeze(echod.workers[0])
            client.sendall(b"unread")
            echod.hang_up_on("host = '127.0.0.1'\nworkers = 2")
            wait_for_state(echod.pid, "S")
            echod.process.send_signal(signal.SIGTERM)
            wait_for_state(echod.pid, "S")
            os.kill(echod.workers[0], signal.SIGCONT)
            assert receive_all(client) == b"unread"
            client.close()
            assert echod.read_to_end() == os.EX_OK
            assert echod.of("connection_closed")[0]["reason"] == "drained"
            assert echod.of("reloaded") == []

    def test_a_worker_that_dies(self, file: Path) -> None:
        """The connections of a worker that dies before it hands over continue from the copies."""
        text = "host = '127.0.0.1'\nworkers = "
        with ExitStack() as stack:
            echod = stack.enter_context(Configured(file, text + "2", faults=COPYING, environment=TICKING_FAST))
            clients = stack.enter_context(copied(echod, 6))
            freeze(echod.workers[1])
            echod.hang_up_on(text + "3")
            wait_for_state(echod.pid, "S")
            os.kill(echod.workers[1], signal.SIGKILL)
            echod.wait_for("reloaded")
            for client in clients:
                send_and_get(client, b"after")
            assert echod.of("connection_closed") == []

    @pytest.mark.parametrize("after", [False, True])
    def test_a_worker_that_dies_handing_over(self, file: Path, *, after: bool) -> None:
        """A connection continues once, whether its worker dies before or after it has sent it."""
        text = "host = '127.0.0.1'\nworkers = "
        broken = [*COPYING, faults.worker_dies_handing_over(after=after)]
        with (
            Configured(file, text + "1", faults=broken, environment=TICKING_FAST) as echod,
            copied(echod, 6) as clients,
        ):
            echod.reload(text + "2")
            for client in clients:
                send_and_get(client, b"12345678" * 50_000)
            for client in clients:
                client.shutdown(socket.SHUT_WR)
                assert receive_all(client) == b""
            assert echod.stop() == os.EX_OK
            assert echod.of("worker_exited")[0]["reason"] == "killed by SIGKILL"
            closed = [event["connection"] for event in echod.of("connection_closed")]
            assert len(closed) == len(set(closed)) == 6
            assert echod.of("stopped")[0]["clients_total"] == 6

    def test_an_order_that_cannot_be_sent(self, file: Path) -> None:
        """A worker that cannot be sent the order is killed, and its connections continue from the copies."""
        text = "host = '127.0.0.1'\nworkers = "
        broken = [*COPYING, faults.orders_to_hand_over_cannot_be_sent()]
        with (
            Configured(file, text + "1", faults=broken, environment=TICKING_FAST) as echod,
            copied(echod, 2) as clients,
        ):
            echod.reload(text + "2")
            for client in clients:
                send_and_get(client, b"after")
            assert echod.of("worker_exited")[0]["kept"] == 2

    def test_while_nobody_is_there(self, file: Path) -> None:
        """The new workers start even if the only old one is dead and its successor has not started yet."""
        text = "host = '127.0.0.1'\nworkers = "
        with Configured(file, text + "1", faults=[faults.replaced_after(3600)]) as echod:
            os.kill(echod.workers[0], signal.SIGKILL)
            echod.wait_for("worker_exited")
            echod.reload(text + "2")
            with echod.connect() as client:
                send_and_get(client, b"served")

    def test_a_second_signal(self, file: Path) -> None:
        """A second signal during the reload kills the old workers and the new ones."""
        text = "host = '127.0.0.1'\nlimits.drain_timeout = '1h'\nworkers = "
        with Configured(file, text + "1") as echod, echod.connect() as client:
            stuff(client, echod.workers[0])
            freeze(echod.workers[0])
            echod.hang_up_on(text + "2")
            for _ in range(2):
                wait_for_state(echod.pid, "S")
                echod.process.send_signal(signal.SIGTERM)
            assert echod.read_to_end() == os.EX_OK

    def test_a_worker_that_hangs(self, file: Path) -> None:
        """A worker that hangs is killed, and does not prevent the reload."""
        with Configured(file, "host = '127.0.0.1'\nworkers = 2", environment=TICKING_FAST) as echod:
            freeze(echod.workers[1])
            assert echod.reload("host = '127.0.0.1'\nworkers = 1")["changed"] == ["workers"]
            with echod.connect() as client:
                send_and_get(client, b"served")

    def test_twice(self, file: Path) -> None:
        """A reload requested during another follows it, and reads the file then."""
        with Configured(file, "host = '127.0.0.1'\nworkers = 2") as echod, echod.connect() as client:
            freeze(echod.workers[1])
            echod.hang_up_on("host = '127.0.0.1'\nworkers = 3")
            echod.wait_for("worker_exited")  # the other worker has handed over, so the first file was read
            for workers in (4, 1):
                echod.hang_up_on(f"host = '127.0.0.1'\nworkers = {workers}")
                wait_for_state(echod.pid, "S")
            os.kill(echod.workers[1], signal.SIGCONT)
            echod.wait_for("reloaded", 2)
            assert len(echod.of("worker_started")) == 2 + 3 + 1
            send_and_get(client, b"after all")


def test_as_many_as_a_process_can_have(file: Path) -> None:
    """A parent with a copy of each connection, and few descriptors besides, hands all of them over."""
    with ExitStack() as stack:
        text = "host = '127.0.0.1'\nworkers = "
        limit = ("prlimit", "--nofile=500")
        echod = stack.enter_context(
            Configured(file, text + "1", faults=COPYING, environment=TICKING_FAST, prefix=limit)
        )
        clients = stack.enter_context(copied(echod, 300))
        echod.reload(text + "2")
        for client in clients:
            send_and_get(client, b"after")
        assert echod.of("taken_over") == []


def test_no_time_has_passed(file: Path) -> None:
    """A connection that was active after the parent read its clock keeps its state."""
    text = "host = '127.0.0.1'\nworkers = "
    with Configured(file, text + "1", faults=[faults.parents_clock_is_late()]) as echod, echod.connect() as client:
        send_and_get(client, b"before")
        opened = echod.wait_for("connection_opened")
        echod.reload(text + "2")
        client.close()
        assert echod.wait_for("connection_closed")["connection"] == opened["connection"]
        assert echod.of("taken_over") == []


@contextmanager
def coming_and_going(echod: Daemon) -> Iterator[Counter[str]]:
    """Connect clients one after the other, each for one exchange; yields how often each result was seen."""
    seen: Counter[str] = Counter()
    over = threading.Event()

    def come_and_go() -> None:
        while True:
            try:
                with echod.connect() as client:
                    seen[str(exchange(client, b"hello"))] += 1
            except OSError as error:
                seen[repr(error)] += 1
            if over.is_set():
                return

    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()


def test_nobody_is_refused(file: Path) -> None:
    """Each client that connects while listeners move on the same port, and workers change, is served."""
    # In a network of its own: if another test has this port on another address, 0.0.0.0 would get another port.
    with (
        Configured(file, "host = '127.0.0.1'", prefix=own_network()) as echod,
        inside(echod.pid),
        coming_and_going(echod) as seen,
    ):
        for host in ("0.0.0.0", "127.0.0.1", "0.0.0.0"):
            for workers in (2, 1):
                echod.reload(f"host = '{host}'\nworkers = {workers}")
    assert set(seen) == {"b'hello'"}


def test_nothing_leaks(file: Path) -> None:
    """After several changes of workers, parent and worker have as many descriptors as before."""
    text = "host = '127.0.0.1'\nlimits.max_connections_per_source = 5\nworkers = "
    with Configured(file, text + "1", faults=COPYING, environment=TICKING_FAST) as echod, copied(echod, 1) as (client,):
        parent, worker = descriptors(echod.pid), descriptors(echod.workers[0])
        for workers in (2, 3, 2, 1):
            echod.reload(text + str(workers))
        send_and_get(client, b"after")
        assert (descriptors(echod.pid), descriptors(echod.workers[0])) == (parent, worker)


def test_a_restart_in_the_middle(tmp_path: Path, file: Path) -> None:
    """After a restart in the middle of a reload no client is refused: the store has the listening sockets."""
    with storing(tmp_path) as store:
        file.write_text("host = '127.0.0.1'")
        with store.daemon("--config", str(file)) as first, first.connect() as client:
            send_and_get(client, b"before")
            freeze(first.workers[0])
            file.write_text("host = '127.0.0.2'\nworkers = 2")
            first.process.send_signal(signal.SIGHUP)
            store.wait_for("echod-listener", "echod-listener")
            first.process.send_signal(signal.SIGTERM)
            wait_for_state(first.pid, "S")
            os.kill(first.workers[0], signal.SIGCONT)
            assert first.read_to_end() == os.EX_TEMPFAIL
            assert store.names().count("echod-listener") == 1
            with store.daemon("--config", str(file)) as second:
                send_and_get(client, b"after")
                for address in second.addresses:
                    with second.connect(address) as other:
                        send_and_get(other, b"new")


def test_a_restart_that_takes_it_back(tmp_path: Path, file: Path) -> None:
    """A unix socket that a reload was closing, and the next echod wants: the one that was shut down is not used."""
    both = f"host = ['127.0.0.1', 'unix:{tmp_path}/echo']"
    with storing(tmp_path) as store:
        file.write_text(both)
        with store.daemon("--config", str(file)) as first:
            store.wait_for("echod-listener", "echod-listener")
            freeze(first.workers[0])
            file.write_text("host = '127.0.0.1'")
            first.process.send_signal(signal.SIGHUP)
            wait_for_state(first.pid, "S")
            first.process.send_signal(signal.SIGTERM)
            wait_for_state(first.pid, "S")
            os.kill(first.workers[0], signal.SIGCONT)
            assert first.read_to_end() == os.EX_TEMPFAIL
        file.write_text(both)
        with store.daemon("--config", str(file)) as second, second.connect(f"unix:{tmp_path}/echo") as client:
            send_and_get(client, b"here again")


def test_a_restart_before_it_is_ready(tmp_path: Path, file: Path) -> None:
    """The same before the new echod is ready: it serves its predecessor's listeners first, and leaves them behind."""
    with storing(tmp_path) as store, Gate() as gate:
        file.write_text("host = '127.0.0.1'")
        with store.daemon("--config", str(file)) as first:
            store.wait_for("echod-listener")
            assert first.stop() == os.EX_TEMPFAIL
        file.write_text("host = '127.0.0.2'")
        broken = [faults.worker_start_waits(gate.fd)]
        with store.daemon("--config", str(file), faults=broken, pass_fds=(gate.fd,), wait=False) as second:
            second.wait_for("listening")
            wait_for_state(second.pid, "S")
            second.process.send_signal(signal.SIGTERM)
            wait_for_state(second.pid, "S")
            gate.open()
            assert second.read_to_end() == os.EX_TEMPFAIL
        assert "echod-listener" in store.names()


def test_the_store_follows(tmp_path: Path, file: Path) -> None:
    """systemd keeps exactly the current listening sockets, and a restart continues with the new settings."""
    with storing(tmp_path) as store:
        file.write_text("host = '127.0.0.1'")
        with store.daemon("--config", str(file)) as first, first.connect() as client:
            send_and_get(client, b"before")
            store.wait_for("echod-listener")
            file.write_text("host = ['127.0.0.1', '127.0.0.2']\nworkers = 2")
            first.process.send_signal(signal.SIGHUP)
            first.wait_for("reloaded")
            store.wait_for("echod-listener", "echod-listener")
            file.write_text("host = '127.0.0.2'")
            first.process.send_signal(signal.SIGHUP)
            first.wait_for("reloaded", 2)
            store.wait_for("echod-listener")
            assert first.stop() == os.EX_TEMPFAIL
            with store.daemon("--config", str(file)) as second:
                assert second.addresses == [f"127.0.0.2:{first.port}"]
                send_and_get(client, b"after")
                client.shutdown(socket.SHUT_WR)
                assert second.wait_for("connection_closed")["restarts"] == 1
