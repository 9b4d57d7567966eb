"""What systemd says to a service and hears from it, with the test in the place of systemd."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration import faults
from tests.integration.daemon import (
    DEADLINE,
    Daemon,
    Gate,
    freeze,
    is_probed,
    receive_all,
    send_and_get,
    wait_for_state,
)
from tests.integration.passing import prefix as prefix_for

OWN_PID = (
    sys.executable,
    "-c",
    "import os, sys; os.environ['WATCHDOG_PID'] = str(os.getpid()); os.execv(*sys.argv[1:2], sys.argv[1:])",
)
WATCHED = {"WATCHDOG_USEC": "2000000"}


class Systemd:
    """The end of the notification socket that systemd reads."""

    def __init__(self, name: str) -> None:
        self.environment = {"NOTIFY_SOCKET": name}
        self.messages: list[dict[str, str]] = []
        self.last_status = ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(DEADLINE)
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)

    def receive(self) -> dict[str, str]:
        """The next message, by its keys, but for those about the descriptor store, of which this one has none."""
        while True:
            data = self._socket.recv(1 << 16)
            if len(data) > 4096:  # systemd drops such a message as a whole
                continue
            lines = data.decode().split("\n")
            message = dict(line.split("=", 1) for line in lines)
            if not message.keys() & {"FDSTORE", "FDSTOREREMOVE", "BARRIER"}:
                self.messages.append(message)
                return message

    def wait_for(self, key: str, value: str) -> dict[str, str]:
        """Read messages until one has this value for `key`."""
        while (message := self.receive()).get(key) != value:
            pass
        return message

    def ready(self) -> str:
        """Read messages until READY=1, and return the status that came before it."""
        while (message := self.receive()) != {"READY": "1"}:
            self.last_status = message.get("STATUS", self.last_status)
        return self.last_status

    def receive_waiting(self) -> None:
        """Read the messages that have come."""
        self._socket.setblocking(False)
        try:
            while True:
                self.receive()
        except BlockingIOError:
            self._socket.settimeout(DEADLINE)

    def fill(self) -> None:
        """Fill the queue with messages (net.unix.max_dgram_qlen)."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            try:
                while True:
                    sock.sendto(b"OTHER=1", self._socket.getsockname())
            except BlockingIOError:
                pass

    def count(self, key: str) -> int:
        """How many messages have had `key`."""
        return sum(key in message for message in self.messages)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """A socket that receives notifications."""
    listener = Systemd(str(tmp_path / "notify"))
    yield listener
    listener.close()


@contextmanager
def passing(
    *socks: socket.socket,
    pid: str = "",
    environment: dict[str, str] | None = None,
    arguments: tuple[str, ...] = ("--host", "a..b"),
) -> Iterator[Daemon]:
    """A daemon to which these sockets are passed; its configured host is one that cannot resolve."""
    fds = tuple(sock.fileno() for sock in socks)
    prefix = prefix_for(fds, pid)
    with Daemon(*arguments, prefix=prefix, pass_fds=fds, environment=environment, wait=False) as daemon:
        yield daemon


def listening(family: socket.AddressFamily, address: object) -> socket.socket:
    """A listening socket, as a .socket unit makes it."""
    sock = socket.socket(family)
    sock.bind(address)  # type: ignore[arg-type]
    sock.listen()
    sock.settimeout(DEADLINE)
    return sock


def test_ready(systemd: Systemd) -> None:
    """READY=1 comes when every worker accepts, not when the first does, and never again."""
    with (
        Gate() as gate,
        Daemon(
            "--workers",
            "2",
            environment=systemd.environment,
            faults=[faults.worker_start_waits(gate.fd, number=1)],
            pass_fds=(gate.fd,),
            wait=False,
        ) as daemon,
    ):
        daemon.wait_for("worker_started")
        with daemon.connect() as client:
            send_and_get(client, b"the first serves already")
        systemd.receive_waiting()
        assert systemd.messages == []
        gate.open()
        systemd.wait_for("READY", "1")
        assert daemon.wait_for("ready")["workers"] == 2
        assert set(daemon.workers) == {0, 1}
        os.kill(daemon.workers[1], signal.SIGKILL)
        daemon.wait_for("worker_started", 3)
        assert daemon.stop(signal.SIGINT) == os.EX_OK
    systemd.receive_waiting()
    assert systemd.count("READY") == 1


def test_status(systemd: Systemd) -> None:
    """STATUS= says where echod listens, how many connections there are and were, and how many bytes were echoed."""
    with Daemon(environment=systemd.environment) as daemon:
        where = " and ".join(daemon.addresses)
        assert systemd.ready() == f"Echoing on {where}: 0 connections now, 0 in total; 0 bytes echoed."
        with daemon.connect() as client:
            send_and_get(client, bytes(2048))
            systemd.wait_for("STATUS", f"Echoing on {where}: 1 connection now, 1 in total; 2.00 KiB echoed.")
    systemd.receive_waiting()
    assert systemd.count("WATCHDOG") == 0


def test_many_addresses(systemd: Systemd) -> None:
    """With hundreds of addresses echod becomes ready, and its status has the first ones and all of its numbers."""
    hosts = [f"127.0.{third}.{fourth}" for third in (1, 2) for fourth in range(1, 151)]
    with Daemon(environment=systemd.environment | {"ECHOD_HOST": ",".join(hosts)}) as daemon:
        first = ", ".join(daemon.addresses[:8])
        assert systemd.ready() == f"Echoing on {first} and 292 more: 0 connections now, 0 in total; 0 bytes echoed."


def test_the_status_counts_the_bytes_of_a_closed_connection(systemd: Systemd) -> None:
    """The first status in which a connection is closed has all its bytes."""
    with Daemon(environment=systemd.environment) as daemon:
        systemd.wait_for("READY", "1")
        with daemon.connect() as client:
            send_and_get(client, bytes(2048))
        status = ""
        while ": 0 connections now, 1 in total" not in status:
            status = systemd.receive()["STATUS"]
        assert status.endswith("; 2.00 KiB echoed.")


def test_a_start_that_fails_leaves_its_sentence(systemd: Systemd) -> None:
    """The status says what is wrong: systemctl shows it even when it shows no entries of the journal any more."""
    with Daemon("--port", "70000", environment=systemd.environment, wait=False) as daemon:
        assert daemon.read_to_end() == os.EX_CONFIG
        assert [f"echod: {message['STATUS']}" for message in [systemd.receive()]] == daemon.words


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--check-config", "--port=x"], os.EX_CONFIG),
        (["--print-config", "--port=x"], os.EX_CONFIG),
        (["--check-config", "--host=a..b"], os.EX_UNAVAILABLE),
        (["--bogus"], os.EX_USAGE),
    ],
)
def test_who_only_looks_says_nothing(systemd: Systemd, arguments: list[str], code: int) -> None:
    """`--print-config` in ExecReload= must not change the status of the running service."""
    with Daemon(*arguments, environment=systemd.environment, wait=False) as daemon:
        assert daemon.read_to_end() == code
    systemd.receive_waiting()
    assert systemd.messages == []


def test_stopping(systemd: Systemd) -> None:
    """STOPPING=1 comes first when echod stops, and its status says what is drained."""
    with Daemon(environment=systemd.environment) as daemon, daemon.connect() as client:
        send_and_get(client, b"hello")
        daemon.process.send_signal(signal.SIGINT)
        systemd.wait_for("STOPPING", "1")
        assert systemd.receive()["STATUS"] == "Stopping: draining 1 connection."
        client.close()
        assert daemon.read_to_end() == os.EX_OK
    systemd.receive_waiting()
    assert systemd.count("STOPPING") == 1


def test_reload(systemd: Systemd, tmp_path: Path) -> None:
    """RELOADING=1 comes with the time, READY=1 ends the reload, and the status counts it and says whether it failed."""
    file = tmp_path / "echod.toml"
    file.write_text("")
    with Daemon("--config", str(file), environment=systemd.environment) as daemon:
        status = systemd.ready()
        last = 0
        bare = status.removesuffix(".")
        failed = f"; last reload failed: {file}: chunk_size is 0, but must be "
        for text, during, after in (
            ("chunk_size = 2", "; reloading.", "; 1 reload."),
            ("chunk_size = 0", "; 1 reload; reloading.", f"; 2 reloads{failed}"),
            ("chunk_size = 0", f"; 2 reloads; reloading{failed}", f"; 3 reloads{failed}"),
            ("", f"; 3 reloads; reloading{failed}", "; 4 reloads."),
        ):
            file.write_text(text)
            daemon.process.send_signal(signal.SIGHUP)
            reloading = systemd.receive()
            assert list(reloading) == ["RELOADING", "MONOTONIC_USEC"]
            assert reloading["RELOADING"] == "1"
            assert last < int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            last = int(reloading["MONOTONIC_USEC"])
            for expected in (during, after):
                message = systemd.receive()
                assert list(message) == ["STATUS"]
                assert message["STATUS"].startswith(bare + expected)
            assert systemd.receive() == {"READY": "1"}


def test_reload_is_over_when_all_have_taken_it(systemd: Systemd) -> None:
    """READY=1 waits for the last worker; the next reload, wanted meanwhile, comes after it."""
    with Daemon("--workers", "4", environment=systemd.environment) as daemon:
        systemd.wait_for("READY", "1")
        freeze(daemon.workers[2])
        for _ in range(2):
            daemon.process.send_signal(signal.SIGHUP)
            wait_for_state(daemon.pid, "S")
        assert list(systemd.receive()) == ["RELOADING", "MONOTONIC_USEC"]
        with daemon.connect() as client:
            send_and_get(client, b"served meanwhile")
        messages = len(systemd.messages)
        systemd.receive_waiting()
        assert {key for message in systemd.messages[messages:] for key in message} <= {"STATUS"}
        os.kill(daemon.workers[2], signal.SIGCONT)
        systemd.wait_for("READY", "1")
        systemd.wait_for("RELOADING", "1")
        systemd.wait_for("READY", "1")
        assert daemon.stop(signal.SIGINT) == os.EX_OK


def test_reload_before_it_is_ready(systemd: Systemd) -> None:
    """RELOADING=1 comes after the first READY=1, which waits for every worker."""
    with (
        Gate() as gate,
        Daemon(
            "--workers",
            "2",
            environment=systemd.environment,
            faults=[faults.worker_start_waits(gate.fd, number=1)],
            pass_fds=(gate.fd,),
            wait=False,
        ) as daemon,
    ):
        daemon.wait_for("worker_started")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for_state(daemon.pid, "S")
        systemd.receive_waiting()
        assert systemd.messages == []
        gate.open()
        keys = [list(systemd.receive()) for _ in range(6)]
        assert keys == [["STATUS"], ["READY"], ["RELOADING", "MONOTONIC_USEC"], ["STATUS"], ["STATUS"], ["READY"]]


def test_reload_with_a_hung_worker(systemd: Systemd) -> None:
    """READY=1 comes when the worker has been killed, and WATCHDOG=1 again after it."""
    with Daemon("--workers", "2", environment=systemd.environment | WATCHED) as daemon:
        systemd.wait_for("READY", "1")
        freeze(daemon.workers[1])
        daemon.process.send_signal(signal.SIGHUP)
        systemd.wait_for("RELOADING", "1")
        systemd.wait_for("READY", "1")
        systemd.wait_for("WATCHDOG", "1")
        daemon.wait_for("reloaded")
        names = [event["event"] for event in daemon.events]
        assert names.index("worker_exited") < names.index("reloaded")


def test_sockets_override_what_is_reloaded(systemd: Systemd, tmp_path: Path) -> None:
    """A reload that sets where to listen, while echod serves passed sockets, warns that these override it."""
    file = tmp_path / "echod.toml"
    file.write_text("")
    with (
        listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp,
        passing(tcp, arguments=("--config", str(file)), environment=systemd.environment) as daemon,
    ):
        assert "(sockets from systemd, which override port): " in systemd.ready()
        file.write_text("host = '127.0.0.2'")
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.wait_for("config_warning", 2)["problem"] == (
            f"{file}: host and --port are overridden by the sockets that systemd passed"
        )
        assert daemon.wait_for("reloaded")["changed"] == []
        assert "(sockets from systemd, which override host and port): " in systemd.ready()


def test_nobody_reads(systemd: Systemd, tmp_path: Path) -> None:
    """A full queue delays nothing: echod serves, reloads and stops, and notifies again once there is room."""
    file = tmp_path / "echod.toml"
    file.write_text("")
    systemd.fill()
    environment = systemd.environment | WATCHED
    with Daemon("--config", str(file), environment=environment) as daemon, daemon.connect() as client:
        for number in range(3):
            daemon.process.send_signal(signal.SIGHUP)
            daemon.wait_for("reloaded", number + 1)
        send_and_get(client, b"served all the same")
        systemd.wait_for("RELOADING", "1")
        assert {key for message in systemd.messages[:-1] for key in message} == {"OTHER"}
        assert [list(systemd.receive()) for _ in range(3)] == [["STATUS"], ["STATUS"], ["READY"]]
        systemd.wait_for("WATCHDOG", "1")
        systemd.fill()
        client.close()
        assert daemon.stop(signal.SIGINT) == os.EX_OK


def test_nobody_reads_of_a_failure(systemd: Systemd) -> None:
    """A full queue does not delay the end of an echod that cannot start."""
    systemd.fill()
    with Daemon("--port", "70000", environment=systemd.environment, wait=False) as daemon:
        assert daemon.read_to_end() == os.EX_CONFIG
        assert len(daemon.words) == 1


def test_watchdog(systemd: Systemd) -> None:
    """WATCHDOG=1 keeps coming, and while nothing changes nothing else does."""
    with Daemon(environment=systemd.environment | WATCHED, prefix=OWN_PID):
        systemd.wait_for("READY", "1")
        assert [systemd.receive() for _ in range(3)] == [{"WATCHDOG": "1"}] * 3


def test_watchdog_after_a_hang(systemd: Systemd) -> None:
    """A worker that hung and was replaced does not keep WATCHDOG=1 from coming again."""
    with Daemon("--workers", "2", environment=systemd.environment | WATCHED) as daemon:
        freeze(daemon.workers[1])
        daemon.wait_for("worker_exited")
        daemon.wait_for("worker_started", 3)
        systemd.receive_waiting()
        systemd.wait_for("WATCHDOG", "1")


def test_watchdog_of_another_process(systemd: Systemd) -> None:
    """WATCHDOG=1 is sent only if it is this process that systemd asks for it (WATCHDOG_PID)."""
    with Daemon(environment=systemd.environment | WATCHED | {"WATCHDOG_PID": "1"}) as daemon:
        systemd.wait_for("READY", "1")
        with daemon.connect() as client:
            send_and_get(client, b"x")
            assert list(systemd.receive()) == ["STATUS"]
    systemd.receive_waiting()
    assert systemd.count("WATCHDOG") == 0


def test_abstract_notification_socket() -> None:
    """NOTIFY_SOCKET may be an abstract one, with an @ in front."""
    systemd = Systemd(f"@echod-test-{os.getpid()}-{threading.get_ident()}")
    try:
        with Daemon(environment=systemd.environment):
            systemd.wait_for("READY", "1")
    finally:
        systemd.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("/nonexistent/notify", "No such file or directory"), ("/" + 200 * "n", "AF_UNIX path too long")],
)
def test_nobody_at_the_notification_socket(name: str, reason: str) -> None:
    """A notification socket that does not exist leads to a warning, and no more."""
    with Daemon(environment={"NOTIFY_SOCKET": name}) as daemon:
        warning = daemon.wait_for("config_warning")
        assert (warning["level"], daemon.words) == ("warning", [])
        assert warning["message"].startswith("cannot notify systemd (NOTIFY_SOCKET): ")
        assert reason in warning["message"]
        assert "None" not in warning["message"]
        with daemon.connect() as client:
            send_and_get(client, b"all the same")
        assert daemon.stop(signal.SIGINT) == os.EX_OK


def test_notification_socket_goes_away(systemd: Systemd) -> None:
    """If the notification socket is closed later, echod continues, and stops at a signal."""
    with Daemon(environment=systemd.environment | WATCHED) as daemon:
        systemd.wait_for("READY", "1")
        systemd.close()
        with daemon.connect() as client:
            send_and_get(client, b"still here")
        assert daemon.stop(signal.SIGINT) == os.EX_OK


def test_adopted_sockets(systemd: Systemd, tmp_path: Path) -> None:
    """Sockets that are passed are listened on in place of what is configured, and outlive the daemon."""
    path = str(tmp_path / "socket")
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp, listening(socket.AF_UNIX, path) as unix:
        with passing(tcp, unix, environment=systemd.environment) as daemon:
            ready = daemon.wait_for("ready")
            assert ready["addresses"] == [f"127.0.0.1:{tcp.getsockname()[1]}", f"unix:{path}"]
            assert [(event["address"], event["adopted"]) for event in daemon.of("listening")] == (
                [(address, True) for address in ready["addresses"]]
            )
            assert all(event["message"].endswith(" (socket passed by systemd).") for event in daemon.of("listening"))
            status = systemd.ready()
            where = " and ".join(ready["addresses"])
            assert status.startswith(f"Echoing on {where} (sockets from systemd, which override host and port): ")
            (warning,) = daemon.of("config_warning")
            assert warning["problem"] == "--host and --port are overridden by the sockets that systemd passed"
            for address in daemon.addresses:
                with daemon.connect(address) as client:
                    client.sendall(b"adopted")
                    client.shutdown(socket.SHUT_WR)
                    assert receive_all(client) == b"adopted"
            assert daemon.stop(signal.SIGINT) == os.EX_OK
        for sock, address in zip((tcp, unix), daemon.addresses, strict=True):
            with daemon.connect(address), sock.accept()[0]:
                pass


def test_adopted_queue_is_tuned() -> None:
    """A client that connected before echod had the socket, as the first one does, is served."""
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp, socket.create_connection(tcp.getsockname()) as client:
        client.settimeout(DEADLINE)
        with passing(tcp) as daemon:
            daemon.wait_for("ready")
            send_and_get(client, b"hello")
            assert is_probed(client)


def test_adopted_queue_is_for_the_next() -> None:
    """A client that connects to a passed socket while echod stops stays in its queue, for the next process."""
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp:
        with passing(tcp) as daemon:
            daemon.wait_for("ready")
            freeze(daemon.workers[0])
            daemon.process.send_signal(signal.SIGINT)
            daemon.wait_for("draining")
            wait_for_state(daemon.pid, "S")  # has told the worker, too
            client = daemon.connect()
            client.sendall(b"who?")
            os.kill(daemon.workers[0], signal.SIGCONT)
            assert daemon.read_to_end() == os.EX_OK
        with client, tcp.accept()[0] as sock:
            assert sock.recv(10) == b"who?"


@pytest.mark.parametrize("count", ["0", "-1", "two", ""])
def test_no_sockets_passed(count: str) -> None:
    """A count that is none means that nothing is passed, so echod opens its own sockets."""
    with Daemon(environment={"LISTEN_FDS": count}, prefix=prefix_for(())) as daemon:
        assert not daemon.of("listening")[0]["adopted"]


def test_sockets_for_another_process() -> None:
    """Sockets that are meant for another process (LISTEN_PID) are left alone, and one warning says so."""
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp, passing(tcp, pid="1", arguments=()) as daemon:
        assert daemon.wait_for("ready")["addresses"] != [f"127.0.0.1:{tcp.getsockname()[1]}"]
        (warning,) = daemon.of("config_warning")
        assert "LISTEN_PID names process 1" in warning["problem"]


def datagram() -> socket.socket:
    """A UDP socket."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def unbound() -> socket.socket:
    """A TCP socket that does not listen."""
    return socket.socket()


@pytest.mark.parametrize("make", [datagram, unbound])
def test_wrong_socket(make: Callable[[], socket.socket]) -> None:
    """A socket that does not listen is refused with a sentence that says which, and status 69."""
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as right, make() as wrong, passing(right, wrong) as daemon:
        assert daemon.read_to_end() == os.EX_UNAVAILABLE
        assert len(daemon.words) == 1
        assert daemon.words[0].startswith("echod: descriptor 4 (LISTEN_FDS) is not a listening ")
        assert "ListenStream=" in daemon.words[0]


@pytest.mark.parametrize("count", ["2", "50"])
def test_missing_socket(count: str) -> None:
    """A descriptor that was announced but not passed is refused too, whatever echod has opened under its number."""
    with (
        listening(socket.AF_INET, ("127.0.0.1", 0)) as right,
        passing(right, environment={"LISTEN_FDS": count}) as daemon,
    ):
        assert daemon.read_to_end() == os.EX_UNAVAILABLE
        assert len(daemon.words) == 1
        assert daemon.words[0].startswith("echod: descriptor 4 (LISTEN_FDS) ")


def test_no_socket() -> None:
    """A descriptor that is no socket is refused too."""
    with Daemon(prefix=prefix_for((0,)), pass_fds=(0,), wait=False) as daemon:
        assert daemon.read_to_end() == os.EX_UNAVAILABLE
        assert len(daemon.words) == 1
        assert daemon.words[0].startswith("echod: descriptor 3 (LISTEN_FDS) is not a socket; ")
