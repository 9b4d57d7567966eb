"""echod.client.connect."""

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from echod.client import connect, transport
from echod.client.connect import Attempt, Observer, ShownAttempts, connect_to_any, open_connection, resolve
from echod.client.errors import ConnectError
from echod.client.output import Screen
from echod.client.target import Target
from echod.client.text import endpoint
from echod.client.transport import Origin, SockAddr
from tests.unit.client.peers import (
    DEADLINE,
    deaf,
    faithful,
    seen,
    serving,
    serving_unix,
    standing_in,
    stuck_resolver,
    terminal,
)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost"])
def test_connects(host: str) -> None:
    """An address or a name leads to the server."""
    with serving(faithful()) as port, open_connection(Target(host, port), DEADLINE, Observer()) as connection:
        assert connection.getpeername() == ("127.0.0.1", port)


@pytest.mark.usefixtures("ipv6")
@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_connects_to_ipv6(host: str) -> None:
    """An IPv6 address leads to the server, and so does a name whose first address refuses the connection."""
    with (
        serving(faithful(), socket.AF_INET6) as port,
        open_connection(Target(host, port), DEADLINE, Observer()) as connection,
    ):
        assert connection.getpeername()[:2] == ("::1", port)


@pytest.mark.parametrize("abstract", [False, True])
def test_connects_to_unix(abstract: bool, tmp_path: Path) -> None:
    """A unix socket is named by its path or, after an @, by its abstract name."""
    path = str(tmp_path / "\udcff")  # a path need not be text
    with (
        serving_unix(faithful(), ("\0" if abstract else "") + path),
        open_connection(Target(("unix:@" if abstract else "unix:") + path, 0), DEADLINE, Observer()) as connection,
    ):
        assert os.fsencode(path) in os.fsencode(connection.getpeername())


def test_refused(closed_port: int) -> None:
    """A refused connection is reported with host and port, and these only once."""
    with pytest.raises(ConnectError, match=rf"^cannot connect to 127.0.0.1:{closed_port}: Connection refused$"):
        open_connection(Target("127.0.0.1", closed_port), DEADLINE, Observer())


@pytest.mark.usefixtures("ipv6")
def test_every_address_refused(closed_port: int) -> None:
    """Every address tried is reported with its reason, as an attempt and in the error."""
    observer = Observer()
    with pytest.raises(ConnectError) as caught:
        open_connection(Target("localhost", closed_port), DEADLINE, observer)
    tried = [f"127.0.0.1:{closed_port}", f"[::1]:{closed_port}"]
    assert str(caught.value) == (
        f"cannot connect to localhost:{closed_port}: {tried[0]}: Connection refused, {tried[1]}: Connection refused"
    )
    assert [(attempt.address, attempt.failure) for attempt in observer.attempts] == caught.value.failures
    assert [attempt.address for attempt in observer.attempts] == tried


@pytest.mark.usefixtures("ipv6")
def test_address_that_does_not_answer() -> None:
    """An address that does not answer is not waited for: the next one is tried beside it, and wins."""
    observer = Observer()
    with (
        deaf() as port,
        serving(faithful(), socket.AF_INET6, port=port),
        open_connection(Target("localhost", port), 3600, observer) as connection,
    ):
        assert connection.getpeername()[:2] == ("::1", port)
    assert [(attempt.address, attempt.failure) for attempt in observer.attempts] == [
        (f"127.0.0.1:{port}", "given up, because another address was faster"),
        (f"[::1]:{port}", ""),
    ]
    first, winner = observer.attempts
    assert winner.after == pytest.approx(winner.began - first.began, abs=0.01)
    assert winner.total == winner.after + winner.seconds


@pytest.mark.usefixtures("ipv6")
def test_address_that_answers_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address goes on being tried while the next one is, and a failure of the latter does not end it."""
    monkeypatch.setattr(connect, "_STAGGER", 0.0)
    with (
        socket.socket() as listener,
        socket.socket() as first,
        open_after(listener, first) as (port, open_it),
        open_connection(Target("localhost", port), 3600, open_it) as connection,
    ):
        assert connection.getpeername() == ("127.0.0.1", port)


@contextmanager
def open_after(listener: socket.socket, first: socket.socket) -> Iterator[tuple[int, Observer]]:
    """A port whose accept queue is full until the observer sees that another address has failed."""
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    first.connect(listener.getsockname())
    assert select.select([listener], [], [], DEADLINE)[0]

    class Opening(Observer):
        def on_attempt(self, attempt: Attempt) -> None:
            if attempt.failure:
                listener.accept()[0].close()  # the kernel accepts when it is asked again, after a second

    yield listener.getsockname()[1], Opening()


def test_families_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses of a name are tried in the system's order, but with alternating families."""
    one, two, three = (("2001:db8::1", 7, 0, 0), ("2001:db8::2", 7, 0, 0), ("2001:db8::3", 7, 0, 0))
    four = ("192.0.2.1", 7)
    answers = [(0, 0, 0, "", address) for address in (one, two, three, four)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: answers)
    assert resolve(Target("echo.example", 7), Observer()) == [one, four, two, three]


class Noting(Observer):
    """Records every call."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def on_trying(self, address: SockAddr) -> None:
        """Note the address."""
        self.notes.append(f"trying {endpoint(address)}")

    def on_attempt(self, attempt: Attempt) -> None:
        """Note the result."""
        self.notes.append(f"{attempt.address}: {attempt.failure}")

    def on_waiting(self, what: str) -> None:
        """Note what it is."""
        self.notes.append(what)


def test_an_address_is_reported_before_it_is_tried(closed_port: int) -> None:
    """An address is reported before it is tried, so that -v shows what echoc is waiting for."""
    noting = Noting()
    with pytest.raises(ConnectError):
        open_connection(Target("127.0.0.1", closed_port), DEADLINE, noting)
    address = f"127.0.0.1:{closed_port}"
    assert noting.notes == [f"trying {address}", f"{address}: Connection refused"]


def test_waiting_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is no connection, the addresses that are being tried are reported again and again."""
    monkeypatch.setattr(connect, "_REPORT", 0.01)
    noting = Noting()
    with deaf() as port, pytest.raises(ConnectError):
        open_connection(Target("127.0.0.1", port), 0.05, noting)
    address = f"127.0.0.1:{port}"
    assert noting.notes[:2] == [f"trying {address}", f"connecting to {address}"]


def test_waiting_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the status line shows what is being tried, and is erased when that is over."""
    monkeypatch.setattr(connect, "_REPORT", 0.01)
    with terminal() as (screen, program), standing_in(2, program):
        observer = ShownAttempts(Screen(), is_verbose=False)
        with deaf() as port, pytest.raises(ConnectError):
            open_connection(Target("127.0.0.1", port), 0.1, observer)
        shown = f"\rconnecting to 127.0.0.1:{port}".encode()
        text = seen(screen, len(shown))
        while not text.endswith(b"\r" + (len(shown) + 1) * b" " + b"\r"):
            text += seen(screen, 1)
    assert text.startswith(shown)


def test_resolving_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the resolver does not answer, the name is reported, with escapes."""
    monkeypatch.setattr(connect, "_REPORT", 0.01)
    noting = Noting()
    with stuck_resolver(monkeypatch), pytest.raises(ConnectError):
        resolve(Target("echo.\x1b", 7), noting, time.monotonic() + 0.05)
    assert noting.notes[0] == "resolving echo.\\x1b"


def test_no_time_left() -> None:
    """After the deadline no address is tried, and the error says so."""
    with serving(faithful()) as port, pytest.raises(ConnectError) as caught:
        connect_to_any([("127.0.0.1", port)], Target("127.0.0.1", port), DEADLINE, Observer(), deadline=0)
    assert str(caught.value) == f"cannot connect to 127.0.0.1:{port}: no time left"


def test_asked(closed_port: int) -> None:
    """A service that refuses is distinguished from this machine's own failure, a --source that it does not have."""
    with pytest.raises(ConnectError) as caught:
        open_connection(Target("127.0.0.1", closed_port), DEADLINE, Observer())
    assert caught.value.asked
    with pytest.raises(ConnectError, match="cannot use --source 192.0.2.1: Cannot assign requested") as caught:
        open_connection(Target("127.0.0.1", closed_port, origin=Origin("192.0.2.1")), DEADLINE, Observer())
    assert not caught.value.asked


def test_source() -> None:
    """A connection comes from the --source address."""
    with (
        serving(faithful()) as port,
        open_connection(Target("127.0.0.1", port, origin=Origin("127.0.0.2")), DEADLINE, Observer()) as connection,
    ):
        assert connection.getsockname()[0] == "127.0.0.2"


@pytest.mark.usefixtures("ipv6")
def test_source_with_a_zone() -> None:
    """A link-local --source keeps its zone; without the zone it would be an invalid argument."""
    with pytest.raises(ConnectError, match=r"cannot use --source fe80::7%lo: Cannot assign requested address$"):
        open_connection(Target("::1", 7, origin=Origin("fe80::7%lo")), DEADLINE, Observer())


def test_timeout() -> None:
    """The wait for a server that does not answer the connection request ends with the time-out."""
    with deaf() as port, pytest.raises(ConnectError, match="timed out"):
        open_connection(Target("127.0.0.1", port), 0.05, Observer())


def test_unix_refused(tmp_path: Path) -> None:
    """A unix socket that does not exist, and a path that is too long, are reported with the whole HOST."""
    path = f"unix:{tmp_path}/missing"
    with pytest.raises(ConnectError, match=f"^cannot connect to {path}: No such file or directory$"):
        open_connection(Target(path, 0), DEADLINE, Observer())
    with pytest.raises(ConnectError, match=r"AF_UNIX path too long$"):
        open_connection(Target("unix:" + "x" * 200, 0), DEADLINE, Observer())


def test_unix_socket_with_odd_bytes(tmp_path: Path) -> None:
    """A path that is not text, or would clear the screen, is reported once, with escapes."""
    with pytest.raises(ConnectError) as caught:
        open_connection(Target("unix:/\udcff\x1b[2J\n\u00e9", 0), DEADLINE, Observer())
    assert str(caught.value) == "cannot connect to unix:/\\xff\\x1b[2J\\n\u00e9: No such file or directory"


def test_unix_socket_with_a_full_queue(tmp_path: Path) -> None:
    """A unix socket with a full accept queue is tried until the time-out, and connects as soon as there is room."""
    path = f"{tmp_path}/echo"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)  # fills the queue of length 0
        with pytest.raises(ConnectError, match=f"^cannot connect to unix:{path}: timed out$"):
            open_connection(Target(f"unix:{path}", 0), 0.05, Observer())

        def accept() -> None:
            waiting.wait(DEADLINE)
            listener.accept()[0].close()

        class Waiting(Observer):
            def on_trying(self, address: SockAddr) -> None:
                waiting.set()

        waiting = threading.Event()
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            open_connection(Target(f"unix:{path}", 0), DEADLINE, Waiting()).close()
        finally:
            acceptor.join()


def test_refuses_a_connection_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to itself is closed, and reported as a port without a server."""
    loop = socket.socket()
    loop.bind(("127.0.0.1", 0))
    # The kernel chooses that port about once in 28,000 times; here it has.
    monkeypatch.setattr(transport, "_open", lambda address: loop)
    with pytest.raises(ConnectError, match="no server listens there"):
        open_connection(Target("127.0.0.1", loop.getsockname()[1]), DEADLINE, Observer())
    assert loop.fileno() == -1


@pytest.mark.usefixtures("ipv6")
@pytest.mark.parametrize(
    ("family", "addresses"),
    [
        (socket.AF_UNSPEC, ["127.0.0.1:7", "[::1]:7"]),
        (socket.AF_INET, ["127.0.0.1:7"]),
        (socket.AF_INET6, ["[::1]:7"]),
    ],
)
def test_addresses_of_a_family(family: socket.AddressFamily, addresses: list[str]) -> None:
    """Only addresses of the required family are tried."""
    assert [endpoint(address) for address in resolve(Target("localhost", 7, family), Observer())] == addresses


def test_address_of_another_family() -> None:
    """An address of another family is an error."""
    with pytest.raises(ConnectError, match=r"^cannot connect to 127.0.0.1:7: .*[Aa]ddress family"):
        resolve(Target("127.0.0.1", 7, socket.AF_INET6), Observer())


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("fe80::1%nosuch0", "Name or service not known"),
        ("a..b", "not a valid host name"),
        ("a" * 64, "not a valid host name"),
        ("\udcff", "not a valid host name"),
    ],
)
def test_name_that_can_not_be_resolved(host: str, why: str) -> None:
    """An invalid host name is reported with the reason, without a query to a name server."""
    with pytest.raises(ConnectError, match=rf"^cannot connect to .*:7: {why}$"):
        resolve(Target(host, 7), Observer())


def test_resolver_that_does_not_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline also limits resolving, which cannot be interrupted."""
    with (
        stuck_resolver(monkeypatch),
        pytest.raises(ConnectError, match=r"^cannot connect to echo.example:7: the name was not resolved in time$"),
    ):
        resolve(Target("echo.example", 7), Observer(), time.monotonic() + 0.01)


def test_resolver_that_does_not_answer_and_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for the resolver can be interrupted."""
    with stuck_resolver(monkeypatch) as asked:

        def interrupt() -> None:
            asked.wait()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            resolve(Target("echo.example", 7), Observer())
        thread.join()


def test_address_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is an address is not resolved, and starts no thread."""
    monkeypatch.setattr("_thread.start_new_thread", lambda *arguments: pytest.fail("a thread was started"))
    for host in ("127.0.0.1", "::1", "fe80::1%1", "localhost", "unix:/run/echod"):
        assert resolve(Target(host, 7), Observer())
