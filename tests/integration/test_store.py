"""The listening sockets in systemd's descriptor store: no client is refused, whatever becomes of the daemon."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import faults
from tests.integration.daemon import DEADLINE, Daemon, receive_all, send_and_get, until_gone
from tests.integration.faults import Fault
from tests.integration.store import Store, announced_stop, storing

LISTENER = "echod-listener"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with room."""
    with storing(tmp_path) as store:
        yield store


def restart(daemon: Daemon) -> None:
    """Do what systemd does in the first half of a restart."""
    daemon.process.send_signal(signal.SIGTERM)


def is_echoed(client: socket.socket) -> bool:
    """Whether a client that has sent something before it is served gets that back, and the end."""
    client.shutdown(socket.SHUT_WR)
    return receive_all(client) == b"early"


def test_stored_at_once(store: Store) -> None:
    """The store has a listening socket for each address before echod is ready."""
    with store.daemon("--host", "127.0.0.1", "--host", "127.0.0.2", wait=False) as daemon:
        daemon.wait_for("listening")
        store.wait_for(LISTENER, LISTENER)
        daemon.wait_for("ready")


def test_killed(store: Store) -> None:
    """kill -9 of the parent: a client that connects before the next echod runs is served by it."""
    with store.daemon() as daemon, until_gone(*daemon.workers.values()):
        address, port = daemon.addresses[0], daemon.port
        daemon.process.kill()
        assert daemon.read_to_end() == -signal.SIGKILL
    with daemon.connect(address) as client:
        client.sendall(b"early")
        with store.daemon("--port", str(port)) as successor:
            assert address in successor.addresses
            assert is_echoed(client)


def test_restarted(store: Store, tmp_path: Path) -> None:
    """A restart keeps listening sockets and files of unix sockets: the successor serves waiting clients."""
    where = ("--host", "127.0.0.1", "--host", f"unix:{tmp_path}/echo")
    with store.daemon(*where) as daemon, daemon.connect() as served:
        send_and_get(served, b"served")
        addresses = daemon.addresses
        restart(daemon)
        served.close()
        assert daemon.read_to_end() == os.EX_TEMPFAIL
    assert store.names().count(LISTENER) == 2
    clients = [daemon.connect(address) for address in addresses]
    for client in clients:
        client.sendall(b"early")
    with store.daemon(*where) as successor:
        assert successor.addresses == addresses
        for client in clients:
            with client:
                assert is_echoed(client)


def test_stopped(store: Store, tmp_path: Path) -> None:
    """A stop leaves nothing in the store and no file, and connections are refused."""
    with store.daemon("--host", "127.0.0.1", "--host", f"unix:{tmp_path}/echo") as daemon:
        assert announced_stop(daemon) == os.EX_OK
    assert store.names() == []
    with pytest.raises(ConnectionRefusedError):
        daemon.connect()
    assert not os.path.lexists(tmp_path / "echo")


def test_refused_while_it_stops(store: Store) -> None:
    """The store is emptied before clients are drained, so none waits in a queue that is never served."""
    with store.daemon() as daemon, daemon.connect() as served:
        send_and_get(served, b"served")
        daemon.process.send_signal(signal.SIGURG)
        daemon.process.send_signal(signal.SIGTERM)
        assert receive_all(served) == b""
        with pytest.raises(ConnectionRefusedError):
            daemon.connect()


def test_another_address(store: Store) -> None:
    """If the configuration has another address, the old socket is closed, and the new one stored."""
    with store.daemon("--host", "127.0.0.1", "--host", "127.0.0.2") as daemon:
        port = daemon.port
        restart(daemon)
        assert daemon.read_to_end() == os.EX_TEMPFAIL
    with store.daemon("--host", "127.0.0.2", "--host", "127.0.0.3", "--port", str(port)) as successor:
        assert successor.of("ready")[0]["addresses"] == [f"127.0.0.2:{port}", f"127.0.0.3:{port}"]
        assert [event["event"] for event in successor.events][-2:] == ["reloaded", "ready"]
        store.wait_for(LISTENER, LISTENER)
        with pytest.raises(ConnectionRefusedError):
            successor.connect(f"127.0.0.1:{port}")


def test_a_narrower_address(store: Store) -> None:
    """The port is free for one address where all of the machine's had it."""
    with store.daemon("--host", "0.0.0.0") as daemon:
        port = daemon.port
        restart(daemon)
        assert daemon.read_to_end() == os.EX_TEMPFAIL
    with store.daemon("--host", "127.0.0.1", "--port", str(port)) as successor:
        assert successor.of("ready")[0]["addresses"] == [f"127.0.0.1:{port}"]


def test_a_file_that_is_gone(store: Store, tmp_path: Path) -> None:
    """A stored unix socket whose file has been removed cannot be reached, so another is made."""
    where = ("--host", f"unix:{tmp_path}/echo")
    with store.daemon(*where) as daemon:
        restart(daemon)
        assert daemon.read_to_end() == os.EX_TEMPFAIL
    (tmp_path / "echo").unlink()
    with store.daemon(*where) as successor, successor.connect() as client:
        send_and_get(client, b"found again")


def test_no_room(tmp_path: Path) -> None:
    """Where systemd keeps nothing, a restart is a stop and a start: the file is removed, and clients are refused."""
    with (
        storing(tmp_path, room=False) as store,
        store.daemon("--host", "127.0.0.1", "--host", f"unix:{tmp_path}/echo") as daemon,
    ):
        restart(daemon)
        assert daemon.read_to_end() == os.EX_OK
        with pytest.raises(ConnectionRefusedError):
            daemon.connect()
        assert not os.path.lexists(tmp_path / "echo")


@pytest.mark.parametrize("signals", [[signal.SIGURG, signal.SIGTERM], [signal.SIGTERM, signal.SIGURG]])
def test_signals_at_once(store: Store, signals: list[signal.Signals]) -> None:
    """A stop is recognised although both signals arrive at once, whichever the kernel delivers first."""
    with store.daemon() as daemon:
        os.kill(daemon.pid, signal.SIGSTOP)
        for signum in signals:
            daemon.process.send_signal(signum)
        os.kill(daemon.pid, signal.SIGCONT)
        assert daemon.read_to_end() == os.EX_OK
    assert store.names() == []


def test_passed_sockets_are_not_stored(store: Store) -> None:
    """Sockets of a .socket unit are not stored: systemd has them already."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        store.kept["echod.socket"] = [os.dup(listener.fileno())]
        with store.daemon() as daemon:
            assert daemon.of("listening")[0]["adopted"]
            restart(daemon)
            assert daemon.read_to_end() == os.EX_TEMPFAIL
        assert LISTENER not in store.names()


def test_passed_sockets_in_place_of_stored_ones(store: Store) -> None:
    """If a .socket unit is used from now on, echod's own stored sockets are closed."""
    with store.daemon() as daemon:
        restart(daemon)
        assert daemon.read_to_end() == os.EX_TEMPFAIL
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store.kept["echod.socket"] = [os.dup(listener.fileno())]
        with store.daemon() as successor:
            assert [event["adopted"] for event in successor.of("listening")] == [True]
            store.wait_for("echod.socket")
            with pytest.raises(ConnectionRefusedError):
                daemon.connect()


def test_nonsense_in_the_store(store: Store) -> None:
    """A stored descriptor that is no listening socket is closed."""
    read, write = os.pipe()
    os.close(write)
    store.kept[LISTENER] = [read]
    with store.daemon() as daemon, daemon.connect() as client:
        send_and_get(client, b"all the same")


def test_restarted_into_a_wrong_configuration(store: Store, tmp_path: Path) -> None:
    """The next echod continues with its clients and the settings that served last, and reports what is wrong."""
    file = tmp_path / "echod.toml"
    file.write_text("chunk_size = 2\n")
    with store.daemon("--config", str(file)) as daemon, daemon.connect() as client:
        send_and_get(client, b"before")
        file.write_text("chunk_size = 0\n")
        restart(daemon)
        assert daemon.read_to_end() == os.EX_TEMPFAIL
        with store.daemon("--config", str(file)) as successor:
            assert successor.addresses == daemon.addresses
            send_and_get(client, b"after")
            (refused,) = successor.of("reload_refused")
            assert refused["problem"].startswith(f"{file}: chunk_size is 0, but must be ")
            assert any("last reload failed" in words for words in store.said())
            file.write_text("chunk_size = 3\n")
            successor.process.send_signal(signal.SIGHUP)
            assert successor.wait_for("reloaded")["changed"] == ["chunk_size"]


def test_restarted_into_a_long_wrong_value(store: Store, tmp_path: Path) -> None:
    """A wrong value of any length does not keep READY=1 from systemd, and the status has its beginning."""
    file = tmp_path / "echod.toml"
    file.write_text("")
    with store.daemon("--config", str(file)) as daemon:
        file.write_text(f"chunk_size = '{'x' * 4200}'\n")
        restart(daemon)
        assert daemon.read_to_end() == os.EX_TEMPFAIL
    with store.daemon("--config", str(file)):
        said = store.said()
        assert "READY=1" in said
        (status,) = (words for words in said if "last reload failed" in words)
        assert "; last reload failed: " in status
        assert status.endswith("…")


@pytest.mark.parametrize(
    ("flags", "fault", "problem"),
    [
        (["--port=7"], [faults.ports_are_forbidden()], "port 7 is privileged"),
        (["--port={taken}"], [], "the address is in use by another program"),
        (["--host=a..b"], [], "host 'a..b' does not resolve"),
    ],
)
def test_restarted_where_it_cannot_listen(store: Store, flags: list[str], fault: list[Fault], problem: str) -> None:
    """The next echod continues with its clients, sockets and settings, and reports what is wrong until a reload."""
    with store.daemon("--host=127.0.0.1") as daemon, daemon.connect() as client:
        send_and_get(client, b"before")
        restart(daemon)
        assert daemon.read_to_end() == os.EX_TEMPFAIL
        with socket.create_server(("127.0.0.1", 0)) as taken:
            flags = [flag.format(taken=taken.getsockname()[1]) for flag in flags]
            with store.daemon("--host=127.0.0.1", *flags, faults=fault) as successor:
                assert successor.of("ready")[0]["addresses"] == daemon.addresses
                (refused,) = successor.of("reload_refused")
                assert problem in refused["problem"]
                assert any("last reload failed" in words for words in store.said())
                send_and_get(client, b"after")
                with successor.connect() as another:
                    send_and_get(another, b"new")


def test_name_no_longer_resolves(store: Store) -> None:
    """The sockets that were opened while the name resolved still serve, and a reload resolves it again."""
    with store.daemon("--host=a..b", faults=[faults.every_name_is("127.0.0.1")]) as daemon, daemon.connect() as client:
        send_and_get(client, b"before")
        restart(daemon)
        assert daemon.read_to_end() == os.EX_TEMPFAIL
        with store.daemon("--host=a..b") as successor:
            assert successor.of("ready")[0]["addresses"] == daemon.addresses
            send_and_get(client, b"after")
            assert "'a..b' does not resolve" in successor.of("reload_refused")[0]["problem"]
            successor.process.send_signal(signal.SIGHUP)
            successor.wait_for("reload_refused", 2)


def test_what_a_reload_changed_is_what_served_last(store: Store, tmp_path: Path) -> None:
    """The stored settings follow a reload."""
    file = tmp_path / "echod.toml"
    file.write_text("")
    with store.daemon("--config", str(file)) as daemon:
        file.write_text("log.level = 'debug'\n")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("reloaded")
        file.write_text("nonsense")
        restart(daemon)
        assert daemon.read_to_end() == os.EX_TEMPFAIL
    with store.daemon("--config", str(file)) as successor, successor.connect() as client:
        send_and_get(client, b"hello")
        successor.wait_for("chunk_received")


def test_stopped_and_started_with_a_wrong_configuration(store: Store, tmp_path: Path) -> None:
    """After a stop no settings are stored, so a start with a wrong configuration fails."""
    file = tmp_path / "echod.toml"
    file.write_text("")
    with store.daemon("--config", str(file)) as daemon:
        assert announced_stop(daemon) == os.EX_OK
    file.write_text("chunk_size = 0\n")
    with store.daemon("--config", str(file), wait=False) as successor:
        assert successor.read_to_end() == os.EX_CONFIG


def test_settings_of_another_version(store: Store, tmp_path: Path) -> None:
    """Stored settings that are invalid in this version are not used, and the file's problem is reported."""
    with open(tmp_path / "kept", "w+b") as kept:
        kept.write(b"no_such_key = 1\n")
        kept.flush()
        store.kept["echod-settings"] = [os.dup(kept.fileno())]
    file = tmp_path / "echod.toml"
    file.write_text("chunk_size = 0\n")
    with store.daemon("--config", str(file), wait=False) as daemon:
        assert daemon.read_to_end() == os.EX_CONFIG
        assert [words for words in daemon.words if "chunk_size is 0" in words] == daemon.words


def test_what_another_version_stored(store: Store) -> None:
    """A stored descriptor with an unknown name that begins like echod's is not listened on."""
    read, write = os.pipe()
    os.close(write)
    store.kept["echod-something"] = [read]
    with store.daemon() as daemon, daemon.connect() as client:
        send_and_get(client, b"all the same")
