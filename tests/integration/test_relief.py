"""A reload that changes where echod listens, or how many workers it has: connections stay, and nobody is refused."""

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.daemon import (
    DEADLINE,
    SLOW_START,
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
from tests.integration.peers import about, connect, descriptors, exchange
from tests.integration.store import storing
from tests.integration.test_copies import NEVER, OFTEN, PATIENT, SOON, copied

NOTHING_LEFT = """
import errno, os, socket
from echod.parent.supervisor import Supervisor
real, change = {function}, Supervisor._apply
def refusing_change(self, new):
    calls = iter(range(1000))
    def refuse(*words):
        if next(calls) == {number}:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(*words)
    {function} = refuse
    try:
        return change(self, new)
    finally:
        {function} = real
Supervisor._apply = refusing_change
"""
"""One of the descriptors that a reload takes is not to be had."""


DIES_HANDING_OVER = """
import os, signal
from echod.handover import queue as handover
real, parent = handover.hand_over, os.getpid()
def hand_over(queue, batch):
    if os.getpid() == parent:
        return real(queue, batch)
    if {number}:
        real(queue, batch)
    os.kill(os.getpid(), signal.SIGKILL)
handover.hand_over = hand_over
"""
NOT_SENT = """
import errno, os, socket
real = socket.send_fds
def send_fds(sock, buffers, fds):
    if buffers[0].startswith(b"hand over"):
        raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
    return real(sock, buffers, fds)
socket.send_fds = send_fds
"""


NO_UNLINK = """
import errno, os
def unlink(path):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
os.unlink = unlink
"""
LATE = """
from echod.handover import queue as handover
real = handover.take_over
handover.take_over = lambda fds, now, **words: real(fds, now - 1, **words)
"""
"""As if the connections were sent after the moment that the parent takes for now."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the configuration is."""
    return tmp_path / "echod.toml"


def refused(daemon: Daemon, host: str = "127.0.0.1") -> bool:
    """Whether nobody listens there."""
    with socket.socket() as sock:
        return sock.connect_ex((host, daemon.port)) != 0


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (2, 3)])
def test_another_number_of_workers(file: Path, before: int, after: int) -> None:
    """The connections are dealt out to them anew, with their names, counters, pending bytes and places."""
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
            with echod.connect() as third:
                assert third.recv(1) == b""
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


@pytest.mark.parametrize(
    ("before", "after"),
    [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.2", "127.0.0.1")],
)
def test_another_host(file: Path, before: str, after: str) -> None:
    """It is listened on, at the same port, and not where it was; who is connected by the old one stays."""
    with ExitStack() as stack:
        echod = stack.enter_context(Configured(file, f"host = '{before}'"))
        client = stack.enter_context(echod.connect(f"{before.replace('0.0.0.0', '127.0.0.1')}:{echod.port}"))
        send_and_get(client, b"before")
        assert echod.reload(f"host = '{after}'")["changed"] == ["host"]
        assert echod.addresses == [f"{before}:{echod.port}", f"{after}:{echod.port}"]
        send_and_get(client, b"after")
        with echod.connect(f"127.0.0.1:{echod.port}") as other:
            send_and_get(other, b"by the new one")
        assert refused(echod, "127.0.0.2") == (after != "0.0.0.0")


def test_one_of_several(file: Path, tmp_path: Path) -> None:
    """Those that stay are not touched; the file of a unix socket that goes is gone."""
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
    """Is let in before it does, with all bytes, as is whoever waits at one that stays."""
    with ExitStack() as stack:
        text = "host = ['127.0.0.1', '127.0.0.2']"
        echod = stack.enter_context(Configured(file, text, patch=PATIENT, environment=OFTEN))
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
    """Nobody is let in there any more; and if it comes again, whoever dies meanwhile, everybody."""
    with Configured(file, "host = ['127.0.0.1', '127.0.0.2']") as echod:
        echod.reload("host = '127.0.0.1'")
        assert refused(echod, "127.0.0.2")
        echod.reload("host = ['127.0.0.1', '127.0.0.2']")
        os.kill(echod.workers[0], signal.SIGKILL)
        with echod.connect(f"127.0.0.2:{echod.port}") as client:
            send_and_get(client, b"here again")


def test_who_waits_there_when_there_is_no_place(file: Path) -> None:
    """Waits for one."""
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
    """That of a unix socket which goes: it stays, and so does everybody."""
    with Configured(file, f"host = ['127.0.0.1', 'unix:{tmp_path}/echo']", patch=NO_UNLINK) as echod:
        with echod.connect() as client:
            send_and_get(client, b"before")
            echod.reload("host = '127.0.0.1'")
            send_and_get(client, b"after")
        assert echod.stop() == os.EX_OK


def test_together_with_terms(file: Path) -> None:
    """All that changes takes effect, in the journal too."""
    with Configured(file, "host = '127.0.0.1'") as echod, echod.connect() as client:
        send_and_get(client, b"before")
        changed = echod.reload("host = '127.0.0.1'\nworkers = 2\nchunk_size = 4\nlog.level = 'debug'")["changed"]
        assert changed == ["chunk_size", "workers", "log.level"]
        send_and_get(client, b"12345678")
        assert [event["bytes"] for event in (echod.wait_for("chunk_received", 2), echod.of("chunk_received")[0])] == (
            [4, 4]
        )


def test_more_clients_than_there_may_be_from_now_on(file: Path) -> None:
    """They stay, each from a source of its own, and are counted; nobody else is let in until there are fewer."""
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
    """Nothing has changed, and nobody notices."""

    def test_address_of_nobody(self, file: Path) -> None:
        """All is closed again that was opened."""
        with Configured(file, "host = '127.0.0.1'", patch=NEVER) as echod, echod.connect() as client:
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
        """That of another program, on the same port."""
        with Configured(file, "host = '127.0.0.1'") as echod, socket.create_server(("127.0.0.2", echod.port)):
            echod.hang_up_on("host = ['127.0.0.1', '127.0.0.2']")
            assert "in use by another program" in echod.wait_for("reload_refused")["problem"]
            with echod.connect() as client:
                send_and_get(client, b"as ever")

    @pytest.mark.parametrize(("function", "number"), [("socket.socketpair", 0), ("os.eventfd", 0), ("os.eventfd", 2)])
    def test_no_descriptors_for_it(self, file: Path, function: str, number: int) -> None:
        """The old crew goes on where it was, at the sockets that are as they were."""
        patch = NEVER + NOTHING_LEFT.format(function=function, number=number)
        with Configured(file, "host = '127.0.0.1'", patch=patch) as echod, echod.connect() as client:
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
        """Also in what their connections inherit."""
        patch = NOTHING_LEFT.format(function="socket.socketpair", number=0)
        with Configured(file, "host = '127.0.0.1'\nlimits.keepalive = 0", patch=patch) as echod:
            echod.hang_up_on("host = ['127.0.0.1', '127.0.0.2']\nlimits.keepalive = '10s'")
            echod.wait_for("reload_refused")
            with echod.connect() as client:
                send_and_get(client, b"hello")
                assert not is_probed(client)

    def test_more_than_a_process_can_have(self, file: Path) -> None:
        """The connections could not be handed on."""
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
        """The new crew comes, and drains."""
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
        """Before it has handed over: what it had goes on by the copies, beside what the others hand over."""
        text = "host = '127.0.0.1'\nworkers = "
        with ExitStack() as stack:
            echod = stack.enter_context(Configured(file, text + "2", patch=SOON, environment=OFTEN))
            clients = stack.enter_context(copied(echod, 6))
            freeze(echod.workers[1])
            echod.hang_up_on(text + "3")
            wait_for_state(echod.pid, "S")
            os.kill(echod.workers[1], signal.SIGKILL)
            echod.wait_for("reloaded")
            for client in clients:
                send_and_get(client, b"after")
            assert echod.of("connection_closed") == []

    @pytest.mark.parametrize("number", [0, 1])
    def test_a_worker_that_dies_handing_over(self, file: Path, number: int) -> None:
        """Each connection goes on once, whether it was sent already or not."""
        text = "host = '127.0.0.1'\nworkers = "
        patch = SOON + DIES_HANDING_OVER.format(number=number)
        with Configured(file, text + "1", patch=patch, environment=OFTEN) as echod, copied(echod, 6) as clients:
            echod.reload(text + "2")
            for client in clients:
                send_and_get(client, b"12345678" * 50_000)
            for client in clients:
                client.shutdown(socket.SHUT_WR)
                assert receive_all(client) == b""
            assert echod.stop() == os.EX_OK
            closed = [event["connection"] for event in echod.of("connection_closed")]
            assert len(closed) == len(set(closed)) == 6
            assert echod.of("stopped")[0]["clients_total"] == 6

    def test_an_order_that_cannot_be_sent(self, file: Path) -> None:
        """The worker is ended in its place, and its connections go on by the copies."""
        text = "host = '127.0.0.1'\nworkers = "
        with (
            Configured(file, text + "1", patch=SOON + NOT_SENT, environment=OFTEN) as echod,
            copied(echod, 2) as clients,
        ):
            echod.reload(text + "2")
            for client in clients:
                send_and_get(client, b"after")
            assert echod.of("worker_exited")[0]["kept"] == 2

    def test_while_nobody_is_there(self, file: Path) -> None:
        """The only worker is dead, and its successor is not to come yet: the new crew comes."""
        text = "host = '127.0.0.1'\nworkers = "
        patch = "import echod.parent.slot\nechod.parent.slot.DELAYS = (3600.0,)\n"
        with Configured(file, text + "1", patch=patch) as echod:
            os.kill(echod.workers[0], signal.SIGKILL)
            echod.wait_for("worker_exited")
            echod.reload(text + "2")
            with echod.connect() as client:
                send_and_get(client, b"served")

    def test_a_second_signal(self, file: Path) -> None:
        """It ends everything that is there, and what comes then."""
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
        """It is killed in the end, and does not keep the others from coming."""
        with Configured(file, "host = '127.0.0.1'\nworkers = 2", environment=OFTEN) as echod:
            freeze(echod.workers[1])
            assert echod.reload("host = '127.0.0.1'\nworkers = 1")["changed"] == ["workers"]
            with echod.connect() as client:
                send_and_get(client, b"served")

    def test_twice(self, file: Path) -> None:
        """The second is served after the first, by what the file says then."""
        with Configured(file, "host = '127.0.0.1'\nworkers = 2") as echod, echod.connect() as client:
            freeze(echod.workers[1])
            for workers in (3, 4, 1):
                echod.hang_up_on(f"host = '127.0.0.1'\nworkers = {workers}")
                wait_for_state(echod.pid, "S")
            os.kill(echod.workers[1], signal.SIGCONT)
            echod.wait_for("reloaded", 2)
            assert len(echod.of("worker_started")) == 2 + 3 + 1
            send_and_get(client, b"after all")


def test_as_many_as_a_process_can_have(file: Path) -> None:
    """All of them are handed on by a parent that has a copy of each, and room for few more."""
    with ExitStack() as stack:
        text = "host = '127.0.0.1'\nworkers = "
        limit = ("prlimit", "--nofile=500")
        echod = stack.enter_context(Configured(file, text + "1", patch=SOON, environment=OFTEN, prefix=limit))
        clients = stack.enter_context(copied(echod, 300))
        echod.reload(text + "2")
        for client in clients:
            send_and_get(client, b"after")
        assert echod.of("taken_over") == []


def test_no_time_has_passed(file: Path) -> None:
    """What was active after the parent looked at its clock goes on as what it is."""
    text = "host = '127.0.0.1'\nworkers = "
    with Configured(file, text + "1", patch=LATE) as echod, echod.connect() as client:
        send_and_get(client, b"before")
        opened = echod.wait_for("connection_opened")
        echod.reload(text + "2")
        client.close()
        assert echod.wait_for("connection_closed")["connection"] == opened["connection"]
        assert echod.of("taken_over") == []


@contextmanager
def coming_and_going(echod: Daemon) -> Iterator[Counter[str]]:
    """Clients that connect, exchange and leave, one after the other; what they have seen."""
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
    """Whoever connects while listening sockets move on the same port, and crews change, is served."""
    with Configured(file, "host = '127.0.0.1'") as echod, coming_and_going(echod) as seen:
        for host in ("0.0.0.0", "127.0.0.1", "0.0.0.0"):
            for workers in (2, 1):
                echod.reload(f"host = '{host}'\nworkers = {workers}")
    assert set(seen) == {"b'hello'"}


def test_nothing_leaks(file: Path) -> None:
    """However often crews change, the parent holds no more descriptors than before, and a worker none."""
    text = "host = '127.0.0.1'\nlimits.max_connections_per_source = 5\nworkers = "
    with Configured(file, text + "1", patch=SOON, environment=OFTEN) as echod, copied(echod, 1) as (client,):
        parent, worker = descriptors(echod.pid), descriptors(echod.workers[0])
        for workers in (2, 3, 2, 1):
            echod.reload(text + str(workers))
        send_and_get(client, b"after")
        assert (descriptors(echod.pid), descriptors(echod.workers[0])) == (parent, worker)


def test_a_restart_in_the_middle(tmp_path: Path, file: Path) -> None:
    """Nobody is refused after it where echod listens then: the store has the sockets."""
    with storing(tmp_path) as store:
        file.write_text("host = '127.0.0.1'")
        with store.daemon("--config", str(file)) as first, first.connect() as client:
            send_and_get(client, b"before")
            freeze(first.workers[0])
            file.write_text("host = '127.0.0.2'\nworkers = 2")
            first.process.send_signal(signal.SIGHUP)
            store.wait_for("echod-listener", "echod-listener")
            first.process.send_signal(signal.SIGUSR2)
            first.process.send_signal(signal.SIGTERM)
            wait_for_state(first.pid, "S")
            os.kill(first.workers[0], signal.SIGCONT)
            assert first.read_to_end() == os.EX_OK
            assert store.names().count("echod-listener") == 1
            with store.daemon("--config", str(file)) as second:
                send_and_get(client, b"after")
                for address in second.addresses:
                    with second.connect(address) as other:
                        send_and_get(other, b"new")


def test_a_restart_that_takes_it_back(tmp_path: Path, file: Path) -> None:
    """A unix socket that was to go, and is there again: the one that was shut down is not taken for it."""
    both = f"host = ['127.0.0.1', 'unix:{tmp_path}/echo']"
    with storing(tmp_path) as store:
        file.write_text(both)
        with store.daemon("--config", str(file)) as first:
            store.wait_for("echod-listener", "echod-listener")
            freeze(first.workers[0])
            file.write_text("host = '127.0.0.1'")
            first.process.send_signal(signal.SIGHUP)
            wait_for_state(first.pid, "S")
            first.process.send_signal(signal.SIGUSR2)
            first.process.send_signal(signal.SIGTERM)
            wait_for_state(first.pid, "S")
            os.kill(first.workers[0], signal.SIGCONT)
            assert first.read_to_end() == os.EX_OK
        file.write_text(both)
        with store.daemon("--config", str(file)) as second, second.connect(f"unix:{tmp_path}/echo") as client:
            send_and_get(client, b"here again")


def test_a_restart_before_it_is_ready(tmp_path: Path, file: Path) -> None:
    """The same where the sockets of an echod before are not those that are wanted."""
    with storing(tmp_path) as store, Gate() as gate:
        file.write_text("host = '127.0.0.1'")
        with store.daemon("--config", str(file)) as first:
            store.wait_for("echod-listener")
            first.process.send_signal(signal.SIGUSR2)
            assert first.stop() == os.EX_OK
        file.write_text("host = '127.0.0.2'")
        patch = SLOW_START.format(gate=gate.fd)
        with store.daemon("--config", str(file), patch=patch, pass_fds=(gate.fd,), wait=False) as second:
            second.wait_for("listening")
            store.wait_for("echod-listener", "echod-listener")
            wait_for_state(second.pid, "S")
            second.process.send_signal(signal.SIGUSR2)
            second.process.send_signal(signal.SIGTERM)
            wait_for_state(second.pid, "S")
            gate.open()
            assert second.read_to_end() == os.EX_OK
        assert "echod-listener" in store.names()


def test_the_store_follows(tmp_path: Path, file: Path) -> None:
    """systemd keeps the sockets that are listened on now, and no others; a restart goes on by the new settings."""
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
            first.process.send_signal(signal.SIGUSR2)
            assert first.stop() == os.EX_OK
            with store.daemon("--config", str(file)) as second:
                assert second.addresses == [f"127.0.0.2:{first.port}"]
                send_and_get(client, b"after")
                client.shutdown(socket.SHUT_WR)
                assert second.wait_for("connection_closed")["restarts"] == 1
