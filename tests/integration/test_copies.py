"""A worker that dies: its connections go on where nothing of them is missing, and end visibly where something is."""

import os
import random
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration import faults
from tests.integration.daemon import (
    DEADLINE,
    Configured,
    Daemon,
    Event,
    freeze,
    receive_all,
    send_and_get,
    stuff,
)
from tests.integration.faults import COPYING, TICKING_FAST, Fault
from tests.integration.peers import about, connect, descriptors, is_refused, reset, wait_for_descriptors


def daemon(*arguments: str, faults: Sequence[Fault] = (), prefix: tuple[str, ...] = ()) -> Daemon:
    """A daemon that soon has copies, with these faults besides."""
    return Daemon(*arguments, faults=[*COPYING, *faults], environment=TICKING_FAST, prefix=prefix)


@contextmanager
def copied(daemon: Daemon, count: int, address: str = "") -> Iterator[list[socket.socket]]:
    """Connect `count` more clients; each has been served, and the parent has a copy of its connection."""
    before = descriptors(daemon.pid)
    with ExitStack() as stack:
        clients = [stack.enter_context(daemon.connect(address)) for _ in range(count)]
        for client in clients:
            send_and_get(client, b"before")
        wait_for_descriptors(daemon.pid, before + count)
        yield clients


def kill(daemon: Daemon, worker: int = 0) -> Event:
    """Kill a worker, wait for its successor, and return the event of its exit."""
    pid, count = daemon.workers[worker], len(daemon.of("worker_started"))
    os.kill(pid, signal.SIGKILL)
    daemon.wait_for("worker_started", count + 1)
    return daemon.wait_for("worker_exited", where=lambda event: event["worker_pid"] == pid)


@pytest.mark.parametrize("workers", ["1", "3"])
def test_what_owes_nothing_goes_on(workers: str) -> None:
    """A connection continues in the successor with its name, counters and place; only `kept` shows the change."""
    with daemon("--workers", workers, "--limits-max-connections-per-source", "7") as echod, copied(echod, 6) as clients:
        echod.wait_for("connection_opened", 6)
        victim = echod.of("connection_opened")[0]
        share = sum(event["worker"] == victim["worker"] for event in echod.of("connection_opened"))
        exited = kill(echod, victim["worker"])
        assert (exited["clients"], exited["kept"]) == (share, share)
        for client in clients:
            send_and_get(client, b"and after")
        assert echod.of("connection_closed") == []
        with echod.connect() as one:
            send_and_get(one, b"the seventh")  # before another worker can let in the next
            assert is_refused(echod.addresses[0])
        for client in clients:
            client.shutdown(socket.SHUT_WR)
            assert receive_all(client) == b""
        closed = echod.wait_for("connection_closed", where=lambda event: event["connection"] == victim["connection"])
        assert (closed["bytes_received"], closed["bytes_sent"], closed["reason"]) == (15, 15, "eof")
        assert (closed["restarts"], closed["worker"]) == (0, victim["worker"])
        assert echod.stop() == os.EX_OK
        (stopped,) = echod.of("stopped")
        assert (stopped["clients_total"], stopped["clients_refused"]) == (7, 1)


def test_bytes_that_nobody_had_read() -> None:
    """The successor echoes bytes that the dead worker had not read, and answers the end of a client's side."""
    with daemon() as echod, copied(echod, 2) as (client, other):
        freeze(echod.workers[0])
        client.sendall(b"unread")
        other.sendall(b"unread too")
        other.shutdown(socket.SHUT_WR)
        assert kill(echod)["kept"] == 2
        assert client.recv(100) == b"unread"
        assert receive_all(other) == b"unread too"


def test_what_owes_bytes_is_reset() -> None:
    """A connection that is owed bytes is reset; its event has the reason and the bytes, as the kernel counts them."""
    with daemon() as echod, copied(echod, 2) as (client, other):
        stuff(client, echod.workers[0])
        exited = kill(echod)
        assert (exited["clients"], exited["kept"]) == (2, 1)
        closed = about(echod, client, "connection_closed")
        assert (closed["reason"], closed["level"], closed["worker"]) == ("worker_died", "info", None)
        assert closed["bytes_received"] > closed["bytes_sent"] > 6
        with pytest.raises(ConnectionResetError):
            receive_all(client)
        send_and_get(other, b"still there")


def test_one_after_the_other() -> None:
    """A worker's inherited connections have copies from the start, before it has sent any."""
    with (
        daemon("--workers", "1", faults=[faults.only_the_first_worker_sends_copies()]) as echod,
        copied(echod, 3) as clients,
    ):
        for _ in range(3):
            assert kill(echod)["kept"] == 3
        for client in clients:
            send_and_get(client, b"after it all")


def test_young_ones_are_reset() -> None:
    """Connections too young for a copy are reset when the worker dies, and counted."""
    with Daemon(faults=[faults.no_copies()]) as echod, echod.connect() as client:
        send_and_get(client, b"before")
        exited = kill(echod)
        assert (exited["clients"], exited["kept"]) == (1, 0)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.parametrize("name", [b"\0no path", b"\0\xff\n"])
def test_a_client_with_a_name_of_its_own(name: bytes) -> None:
    """A client that has bound its end of a unix socket to a name, which may have any bytes, harms no worker."""
    address = f"unix:@{os.getpid()}"
    with daemon("--host", address) as echod, socket.socket(socket.AF_UNIX) as client:
        before = descriptors(echod.pid)
        client.bind(name + b"%d" % os.getpid())
        client.connect("\0" + address.removeprefix("unix:@"))
        send_and_get(client, b"before")
        wait_for_descriptors(echod.pid, before + 1)  # the parent has a copy
        send_and_get(client, b"after")
        client.close()
        assert echod.wait_for("connection_closed")["reason"] == "eof"


def test_unix_sockets_end(tmp_path: Path) -> None:
    """The kernel does not count the bytes of unix sockets, so these connections are closed, and each is logged."""
    with daemon("--host", f"unix:{tmp_path}/echo") as echod, copied(echod, 1) as (client,):
        exited = kill(echod)
        assert (exited["clients"], exited["kept"]) == (1, 0)
        assert client.recv(1) == b""
        assert echod.wait_for("connection_closed")["reason"] == "worker_died"


def test_bytes_of_a_unix_socket(tmp_path: Path) -> None:
    """The event of a unix connection whose worker has died claims no byte that the client has not got."""
    with daemon("--host", f"unix:{tmp_path}/echo") as echod:
        before = descriptors(echod.pid)
        with echod.connect() as client:
            client.sendall(bytes(220_000))  # all of it is read, and about as much as a socket takes is sent
            wait_for_descriptors(echod.pid, before + 1)
            kill(echod)
            closed = echod.wait_for("connection_closed")
            assert closed["bytes_sent"] <= len(receive_all(client))


def test_one_that_lingers(tmp_path: Path) -> None:
    """The successor waits for a client whose connection the server has already closed, and logs the first reason."""
    lingering = [*COPYING, faults.lingers_long()]
    with (
        Configured(tmp_path / "echod.toml", "", faults=lingering, environment=TICKING_FAST) as echod,
        copied(echod, 1) as (client,),
    ):
        echod.reload("limits.idle_timeout = '1ms'")
        assert client.recv(1) == b""
        assert kill(echod)["kept"] == 1
        client.close()
        closed = echod.wait_for("connection_closed")
        assert (closed["reason"], closed["bytes_sent"]) == ("idle", 6)


class TestEnds:
    """A copy does not keep a connection alive, nor a descriptor."""

    def test_eof(self) -> None:
        """The client sees the end of its connection at once, even if the parent is stopped."""
        with daemon() as echod:
            before = descriptors(echod.pid)
            with copied(echod, 1) as (client,):
                freeze(echod.pid)
                client.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b""
                os.kill(echod.pid, signal.SIGCONT)
                wait_for_descriptors(echod.pid, before)

    def test_reset(self) -> None:
        """A client's reset is noticed, and the copy closed."""
        with daemon() as echod:
            before = descriptors(echod.pid)
            with copied(echod, 1) as (client,):
                reset(client)
                assert echod.wait_for("connection_closed")["reason"] == "reset"
                wait_for_descriptors(echod.pid, before)

    def test_stalled(self, tmp_path: Path) -> None:
        """A reset by the server reaches the client although there is a copy."""
        with (
            Configured(tmp_path / "echod.toml", "", faults=COPYING, environment=TICKING_FAST) as echod,
            # The time in which a client may acknowledge nothing grows with its buffer.
            connect(echod.addresses[0], receive_buffer=2048) as client,
        ):
            before = descriptors(echod.pid)
            send_and_get(client, b"before")
            wait_for_descriptors(echod.pid, before + 1)
            stuff(client, echod.workers[0])
            echod.reload("limits.stall_timeout = '50ms'")
            assert echod.wait_for("connection_closed")["reason"] == "stalled"
            with pytest.raises(ConnectionResetError):
                receive_all(client)

    def test_stop(self) -> None:
        """At a stop each client sees the end of its connection, and each is logged as drained."""
        with daemon("--workers", "2") as echod, copied(echod, 4) as clients:
            echod.process.send_signal(signal.SIGTERM)
            for client in clients:
                assert client.recv(1) == b""
                client.close()
            assert echod.read_to_end() == os.EX_OK
            assert [event["reason"] for event in echod.of("connection_closed")] == ["drained"] * 4

    def test_cut(self) -> None:
        """Connections that are cut as the worker exits are logged once, as cut and not as those of a dead worker."""
        with daemon("--limits-drain-timeout", "0.2s") as echod, copied(echod, 1) as (client,):
            stuff(client, echod.workers[0])
            assert echod.stop() == os.EX_OK
            assert [event["reason"] for event in echod.of("connection_closed")] == ["cut"]


def test_a_number_that_is_used_again() -> None:
    """A worker uses descriptor numbers again; each copy is of the connection that has the number now."""
    with daemon() as echod:
        before = descriptors(echod.pid)
        for _ in range(3):
            with copied(echod, 3):
                pass
            wait_for_descriptors(echod.pid, before)
        with copied(echod, 3) as clients:
            assert kill(echod)["kept"] == 3
            for client in clients:
                send_and_get(client, b"mine")


def test_a_parent_without_descriptors() -> None:
    """A parent keeps as many copies as its descriptors allow; only connections without a copy are lost."""
    with daemon(prefix=("prlimit", "--nofile=145")) as echod:
        before = descriptors(echod.pid)
        with ExitStack() as stack:
            clients = [stack.enter_context(echod.connect()) for _ in range(30)]
            for client in clients:
                send_and_get(client, b"before")
            room = 145 - len(echod.addresses) - 6 - 128
            wait_for_descriptors(echod.pid, before + room)
            exited = kill(echod)
            assert (exited["clients"], exited["kept"]) == (30, room)
            served = 0
            for client in clients:
                try:
                    send_and_get(client, b"after")
                    served += 1
                except ConnectionResetError:
                    pass
            assert served == room


def test_a_connection_that_kills() -> None:
    """A connection that kills a few workers in a row kills no more: then it and the others of the worker are reset."""
    with (
        daemon(faults=[faults.exclamation_mark_kills(), faults.replaced_after(0)]) as echod,
        copied(echod, 2) as (client, other),
    ):
        client.sendall(b"!")
        last = echod.wait_for("worker_exited", 4)
        assert [event["kept"] for event in echod.of("worker_exited")] == [2, 2, 2, 0]
        assert last["clients"] == 2
        for each in (client, other):
            assert about(echod, each, "connection_closed")["reason"] == "worker_died"
            with pytest.raises(ConnectionResetError):
                each.recv(1)
        with echod.connect() as new:
            send_and_get(new, b"after it all")


def test_one_that_has_grown_up() -> None:
    """The connections of a worker that has lived long continue, however many workers have died before."""
    with daemon(faults=[faults.replaced_after(0), faults.no_death_is_early()]) as echod, copied(echod, 2):
        for _ in range(4):
            assert kill(echod)["kept"] == 2


def test_workers_that_could_not_be_forked() -> None:
    """Workers that could not be forked do not count as early deaths: no connection can be the cause."""
    without_processes = faults.forks_fail_at("os.fork", "EAGAIN", [1, 2, 3])
    with daemon(faults=[faults.replaced_after(0), without_processes]) as echod, copied(echod, 2):
        for _ in range(2):
            assert kill(echod)["kept"] == 2
        assert len(echod.of("worker_exited")) == 5


def test_sources_are_counted() -> None:
    """Connections that wait for a worker count for their source: another worker accepts no more than the limit."""
    limit = ("--limits-max-connections-per-source", "2")
    with daemon("--workers", "2", *limit, faults=[faults.replaced_after(3600)]) as echod, copied(echod, 2):
        # A busy machine may give both connections to one worker.
        workers = [echod.wait_for("connection_opened", count)["worker"] for count in (1, 2)]
        os.kill(echod.workers[workers[0]], signal.SIGKILL)
        assert echod.wait_for("worker_exited")["kept"] == workers.count(workers[0])
        assert is_refused(echod.addresses[0])


def test_bytes_are_counted() -> None:
    """The bytes that a worker echoed after its last tick are counted, although it died."""
    with Daemon(faults=COPYING) as echod, copied(echod, 1) as (client,):
        for _ in range(20):
            send_and_get(client, bytes(100_000))
        kill(echod)
        send_and_get(client, b"x")
        client.close()
        closed = echod.wait_for("connection_closed")
        assert echod.stop() == os.EX_OK
        assert echod.of("stopped")[0]["bytes_echoed"] == closed["bytes_sent"] == 2_000_007


def test_closed_and_not_forgotten() -> None:
    """A worker dies after it has closed a connection, but not the copy: the client gets all bytes and the end."""
    with daemon(faults=[faults.worker_dies_forgetting()]) as echod, copied(echod, 1) as (client,):
        freeze(echod.workers[0])
        client.sendall(bytes(50_000))
        client.shutdown(socket.SHUT_WR)
        os.kill(echod.workers[0], signal.SIGCONT)
        echod.wait_for("worker_exited")
        assert len(receive_all(client)) == 50_000
        assert echod.stop() == os.EX_OK
        assert [event["reason"] for event in echod.of("connection_closed")] == ["eof"]


def test_a_worker_that_dies_while_others_drain() -> None:
    """The connections of a worker that dies are reset at once, while others still drain."""
    with daemon("--workers", "2", "--limits-drain-timeout", "1h") as echod, copied(echod, 6) as clients:
        echod.wait_for("connection_opened", 6)
        workers = {about(echod, client, "connection_opened")["worker"]: client for client in clients}
        stuff(workers[0], echod.workers[0])
        freeze(echod.workers[1])
        echod.process.send_signal(signal.SIGTERM)
        echod.wait_for("draining")
        os.kill(echod.workers[1], signal.SIGKILL)
        assert echod.wait_for("worker_exited")["kept"] == 0
        with pytest.raises(ConnectionResetError):
            workers[1].recv(1)
        receive_all(workers[0])


def test_a_worker_that_dies_stopping() -> None:
    """A worker that dies at a stop has no successor: its connections are reset, and logged."""
    with daemon("--limits-drain-timeout", "1h") as echod, copied(echod, 1) as (client,):
        freeze(echod.workers[0])
        echod.process.send_signal(signal.SIGTERM)
        echod.wait_for("draining")
        os.kill(echod.workers[0], signal.SIGKILL)
        assert echod.read_to_end() == os.EX_OK
        assert [event["reason"] for event in echod.of("connection_closed")] == ["worker_died"]
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def talk(client: socket.socket, over: threading.Event, seed: int) -> str:
    """Exchange messages of all sizes until `over` is set; returns what went wrong, or an empty string."""
    pieces = random.Random(seed)
    with client:
        while not over.is_set():
            data = pieces.randbytes(int(10 ** pieces.uniform(0, 5.477)))
            broken: list[OSError] = []
            thread = threading.Thread(target=_pour, args=(client, data, broken))
            thread.start()
            try:
                received = bytearray()
                while len(received) < len(data):
                    chunk = client.recv(1 << 18)
                    if not chunk:
                        thread.join(DEADLINE)
                        return "reset" if broken else "cut short"  # of which only one of the two is told
                    received += chunk
                if received != data:
                    return "wrong"
            except ConnectionResetError:
                return "reset"
            finally:
                thread.join(DEADLINE)
    return ""


def _pour(client: socket.socket, data: bytes, broken: list[OSError]) -> None:
    try:
        client.sendall(data)
    except OSError as error:
        broken.append(error)


def test_killed_at_random() -> None:
    """No byte is wrong and no echo cut short without an error; each connection that is reset is logged."""
    pieces = random.Random(0)
    with daemon("--workers", "2", faults=[faults.replaced_after(0)]) as echod, copied(echod, 20) as clients:
        over = threading.Event()
        names = {client: "{}:{}".format(*client.getsockname()) for client in clients}
        ends: dict[str, str] = {}
        threads = [
            threading.Thread(
                target=lambda client=client, number=number: ends.update({names[client]: talk(client, over, number)})
            )
            for number, client in enumerate(clients)
        ]
        for thread in threads:
            thread.start()
        for _ in range(10):
            kill(echod, pieces.randrange(2))
        over.set()
        for thread in threads:
            thread.join(DEADLINE)
        assert echod.stop() == os.EX_OK
        lost = {event["peer"] for event in echod.of("connection_closed") if event["reason"] == "worker_died"}
        assert set(ends.values()) <= {"", "reset"}
        assert {name for name, end in ends.items() if end == "reset"} == lost & set(names.values())
        assert sum(event["kept"] for event in echod.of("worker_exited")) > 0


def test_nothing_leaks() -> None:
    """After several deaths of a worker with clients, parent and worker have as many descriptors as before."""
    with daemon() as echod:
        parent = descriptors(echod.pid)
        with copied(echod, 5):
            worker = descriptors(echod.workers[0])
            for _ in range(3):
                kill(echod)
                wait_for_descriptors(echod.pid, parent + 5)
                assert descriptors(echod.workers[0]) == worker
        echod.wait_for("connection_closed", 5)
        wait_for_descriptors(echod.pid, parent)


class TestHostile:
    """A worker that an attacker controls can harm neither the parent nor its successors."""

    def test_it_hangs_up(self) -> None:
        """A worker that shuts its copy socket down does not make the parent spin; its successor has copies again."""
        broken = [faults.first_worker_hangs_up(), faults.parent_asks_no_more_than(1000)]
        with daemon(faults=broken) as echod, echod.connect() as client:
            send_and_get(client, b"before")
            assert kill(echod)["kept"] == 0
            with copied(echod, 2):
                assert kill(echod)["kept"] == 2

    def test_it_never_ends_to_talk(self) -> None:
        """A worker is replaced when it dies, even if a process that it has left behind goes on sending."""
        with daemon(faults=[faults.first_worker_leaves_a_chatterer()]) as echod:
            kill(echod)
            with echod.connect() as client:
                send_and_get(client, b"served")

    @pytest.mark.parametrize("what", faults.NO_CONNECTIONS)
    def test_it_gives_something_else(self, what: str) -> None:
        """A descriptor that is no connection is closed, and the worker is killed because of the nonsense beside it."""
        with daemon(faults=[faults.first_worker_gives(what)]) as echod:
            assert echod.wait_for("worker_exited")["kept"] == 0
            assert echod.of("connection_closed") == echod.of("bug") == []
            with echod.connect() as client:
                send_and_get(client, b"served")

    def test_it_says_nonsense_of_a_connection(self) -> None:
        """A worker that sends a state which makes no sense is killed; the connection continues as a new one."""
        with daemon(faults=[faults.copies_come_with_nonsense()]) as echod, echod.connect() as client:
            send_and_get(client, b"before")
            assert "the state of a connection is" in echod.wait_for("false_data")["problem"]
            assert echod.wait_for("worker_exited")["kept"] == 1
            echod.wait_for("worker_started", 2)
            client.close()
            closed = echod.wait_for("connection_closed")
            assert (closed["bytes_received"], closed["connection"]) == (6, f"{echod.workers[0]}.1")
