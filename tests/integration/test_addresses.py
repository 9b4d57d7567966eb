"""Where echod listens: each form of `host`, and each reason why it can be impossible."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from echod.errors import EX_UNAVAILABLE
from tests.integration.daemon import FOR_DAEMONS, Configured, Daemon, send_and_get
from tests.integration.network import inside, own_network
from tests.integration.peers import connect, echoes

NO_IPV6 = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"
NO_IPV6_ON_LOOPBACK = "echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6"


def hosts(words: Sequence[str]) -> list[str]:
    """The arguments for these hosts."""
    return [argument for word in words for argument in ("--host", word)]


def test_every_address() -> None:
    """'' is every address of both families, on one port that the kernel chose for both."""
    with Daemon("--host", "") as daemon:
        port = daemon.port
        assert daemon.addresses == [f"0.0.0.0:{port}", f"[::]:{port}"]
        for address in ("127.0.0.1", "127.0.0.2", "[::1]"):
            assert echoes(f"{address}:{port}")
        peers = [daemon.wait_for("connection_closed", count)["local"] for count in (1, 2, 3)]
    assert peers == [f"127.0.0.1:{port}", f"127.0.0.2:{port}", f"[::1]:{port}"]


@pytest.mark.parametrize(
    ("words", "bound", "reached", "refused"),
    [
        (["0.0.0.0"], ["0.0.0.0"], ["127.0.0.1", "127.0.0.2"], ["[::1]"]),
        (["::"], ["[::]"], ["[::1]"], ["127.0.0.1"]),
        (["localhost"], ["127.0.0.1", "[::1]"], ["127.0.0.1", "[::1]"], ["127.0.0.2"]),
        (["127.0.0.2", "::1"], ["127.0.0.2", "[::1]"], ["127.0.0.2", "[::1]"], ["127.0.0.1"]),
    ],
    ids=",".join,
)
def test_hosts(words: list[str], bound: list[str], reached: list[str], refused: list[str]) -> None:
    """Each word is the addresses that it stands for, and no others."""
    with Daemon(*hosts(words)) as daemon:
        assert daemon.addresses == [f"{address}:{daemon.port}" for address in bound]
        for address in reached:
            assert echoes(f"{address}:{daemon.port}")
        for address in refused:
            with pytest.raises(ConnectionRefusedError):
                connect(f"{address}:{daemon.port}")


@pytest.mark.parametrize(
    ("words", "bound"),
    [
        (["127.0.0.1", "localhost", "127.0.0.1"], ["127.0.0.1", "[::1]"]),
        (["127.0.0.1", "", "::1"], ["0.0.0.0", "[::]"]),
        (["127.0.0.1", "0.0.0.0", "::1"], ["0.0.0.0", "[::1]"]),
    ],
    ids=",".join,
)
def test_once_each(words: list[str], bound: list[str]) -> None:
    """An address that is given twice, or is one of those that another word stands for, is bound once."""
    with Daemon(*hosts(words)) as daemon:
        assert daemon.addresses == [f"{address}:{daemon.port}" for address in bound]


def test_name(tmp_path: Path) -> None:
    """A name is every address that it resolves to."""
    table = tmp_path / "hosts"
    table.write_text("127.0.0.2 echo.test\n127.0.0.3 echo.test\n::1 echo.test\n")
    mount = ("unshare", "--mount", "sh", "-c", f'mount --bind "{table}" /etc/hosts && exec "$@"', "sh")
    if subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("this user may not give a process another /etc/hosts")
    with Daemon("--host", "echo.test", prefix=mount) as daemon:
        bound = sorted(daemon.addresses)
        assert bound == [f"{address}:{daemon.port}" for address in ("127.0.0.2", "127.0.0.3", "[::1]")]
        assert all(map(echoes, bound))


@pytest.mark.parametrize("disabled", [NO_IPV6, NO_IPV6_ON_LOOPBACK])
@pytest.mark.parametrize(
    ("words", "bound"), [([""], ["0.0.0.0", "[::]"]), (["localhost"], ["127.0.0.1"]), (["::", "::1"], ["[::]"])]
)
def test_without_ipv6(disabled: str, words: list[str], bound: list[str]) -> None:
    """Where IPv6 is disabled, a word stands for the addresses that can be bound; that needs no warning."""
    with Daemon(*hosts(words), prefix=own_network(disabled)) as daemon, inside(daemon.pid):
        assert daemon.addresses == [f"{address}:{daemon.port}" for address in bound]
        assert not daemon.of("config_warning")
        if "::" not in words:
            assert echoes(f"127.0.0.1:{daemon.port}")


def test_left_out() -> None:
    """An IPv6 address of the configuration is left out where the machine has no IPv6, and a warning says so."""
    with Daemon(*hosts(["localhost", "::1"]), prefix=own_network(NO_IPV6)) as daemon, inside(daemon.pid):
        assert daemon.addresses == [f"127.0.0.1:{daemon.port}"]
        assert [event["problem"] for event in daemon.of("config_warning")] == [
            "nothing listens on ::1: this machine has no IPv6; enable IPv6, or change host"
        ]


def test_ipv6_without_loopback() -> None:
    """An IPv6 address is served where ::1 alone is missing."""
    other = ("ip link add other type veth", "ip link set other up", "ip address add 2001:db8::7/64 dev other nodad")
    words = hosts(["127.0.0.1", "2001:db8::7"])
    with Daemon(*words, prefix=own_network(*other, NO_IPV6_ON_LOOPBACK)) as daemon, inside(daemon.pid):
        assert daemon.addresses == [f"127.0.0.1:{daemon.port}", f"[2001:db8::7]:{daemon.port}"]
        assert not daemon.of("config_warning")


def test_unix_socket_file(tmp_path: Path) -> None:
    """The file of a unix socket is there for everyone as long as the daemon is, and no longer."""
    path = tmp_path / "echo"
    with Daemon("--host", f"unix:{path}") as daemon:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert echoes(f"unix:{path}")
        assert daemon.stop() == 0
    assert not path.exists()


def test_mode_of_a_unix_socket(tmp_path: Path) -> None:
    """A unix socket has the configured mode, which a reload changes without closing the socket."""
    path, host = tmp_path / "echo", f"host = 'unix:{tmp_path}/echo'\n"
    with Configured(tmp_path / "toml", f"{host}unix_mode = '0600'") as daemon:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        before = path.stat().st_ino
        assert daemon.reload(f"{host}unix_mode = '660'")["changed"] == ["unix_mode"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_ino == before
        assert len(daemon.of("worker_started")) == 1


@pytest.mark.parametrize("in_its_place", ["nothing", "directory"])
def test_deleted_unix_socket(tmp_path: Path, in_its_place: str) -> None:
    """A unix socket whose path was deleted is bound again at a reload, and its connections continue; a reload with
    something else in its place fails and changes nothing."""
    path, text = tmp_path / "echo", f"host = ['localhost', 'unix:{tmp_path}/echo']"
    with Configured(tmp_path / "toml", text) as daemon, daemon.connect(f"unix:{path}") as client:
        send_and_get(client, b"before")
        path.unlink()
        if in_its_place == "directory":
            path.mkdir()
            daemon.hang_up_on(text)
            assert "is in use by a file that is not a socket" in daemon.wait_for("reload_refused")["problem"]
            path.rmdir()
        assert daemon.reload(text)["changed"] == []
        assert echoes(f"unix:{path}")
        assert echoes(daemon.addresses[0])
        send_and_get(client, b"after")
        assert daemon.stop() == 0
    assert not path.exists()


def test_stale_unix_socket(tmp_path: Path) -> None:
    """A unix socket that a dead daemon left behind is replaced."""
    path = tmp_path / "echo"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with Daemon("--host", f"unix:{path}") as daemon:
        assert echoes(f"unix:{path}")
        assert daemon.stop() == 0
    assert not path.exists()


def test_live_unix_socket(tmp_path: Path) -> None:
    """The socket of a daemon that is alive is not taken away from it."""
    address = f"unix:{tmp_path}/echo"
    with Daemon("--host", address):
        assert cannot_listen("--host", address).startswith(f"cannot listen on {address}: ")
        assert echoes(address)


def test_unix_path_of_something_else(tmp_path: Path) -> None:
    """A file that is no socket is never touched, and neither is a socket that another program put there since."""
    path = tmp_path / "echo"
    path.write_text("precious")
    assert cannot_listen("--host", f"unix:{path}").startswith(f"cannot listen on unix:{path}: ")
    assert path.read_text() == "precious"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other, Daemon("--host", f"unix:{path}") as daemon:
        path.unlink()
        other.bind(str(path))
        assert daemon.stop() == 0
        assert path.is_socket()


@pytest.mark.parametrize("workers", [1, 4])
def test_port_in_use(workers: int) -> None:
    """A port that another daemon has is an error, with any number of workers, and that daemon is not disturbed."""
    with Daemon("--host", "127.0.0.1", "--workers", str(workers)) as daemon:
        said = cannot_listen("--host", "127.0.0.1", "--port", str(daemon.port), "--workers", str(workers))
        assert said == f"cannot listen on 127.0.0.1:{daemon.port}: the address is in use by another program"
        assert echoes(daemon.addresses[0])


def test_port_in_use_at_one_address() -> None:
    """If one of several addresses can't be had, none is served."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        said = cannot_listen("--port", str(port))
        assert said == f"cannot listen on [::1]:{port}: the address is in use by another program"
        with pytest.raises(ConnectionRefusedError):
            connect(f"127.0.0.1:{port}")


def test_privileged_port() -> None:
    """A low port that this user may not use leads to a sentence that says what would help."""
    # Without that capability even root is like any other user.
    drop = ("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service")
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 7:
        pytest.skip("here every user may have every port")
    said = cannot_listen("--host", "127.0.0.1", "--port", "7", prefix=() if os.geteuid() else drop)
    assert said == "cannot listen on 127.0.0.1:7: port 7 is privileged"


IMPOSSIBLE = {
    "192.0.2.77": "cannot listen on 192.0.2.77:0: this machine does not have that address",
    "2001:db8::77": "cannot listen on [2001:db8::77]:0: this machine does not have that address",
    "unix:/nonexistent/echo": "cannot listen on unix:/nonexistent/echo: the directory does not exist",
    "unix:relative": "host 'unix:relative' is not a unix socket",
    f"unix:/{'x' * 107}": f"host 'unix:/{'x' * 107}' is too long for a unix socket",
    "::ffff:127.0.0.1": "host '::ffff:127.0.0.1' is an IPv4 address in the form of an IPv6 address",
    "224.0.0.1": "host '224.0.0.1' is a multicast address, to which no client can connect",
    "255.255.255.255": "host '255.255.255.255' is the broadcast address, to which no client can connect",
    "0": "host '0' is an ambiguous form of 0.0.0.0",
    "fe80::1": "cannot listen on [fe80::1]:0: a link-local address needs a zone",
    "127.255.255.255": "cannot listen on 127.255.255.255:0: it is the broadcast address of a network",
}


@pytest.mark.parametrize("word", IMPOSSIBLE)
def test_impossible(word: str) -> None:
    """An address that cannot be listened on leads to one sentence with the address and the reason."""
    assert cannot_listen("--host", word).startswith(IMPOSSIBLE[word])


def test_check_of_impossible_addresses() -> None:
    """`--check-config` reports each address that cannot be listened on by the same sentence as a start."""
    code, lines = check("--port", "0", *hosts([*IMPOSSIBLE]))
    assert code == EX_UNAVAILABLE
    assert len(lines) == len(IMPOSSIBLE)
    for problem in IMPOSSIBLE.values():
        assert sum(line.startswith(f"echod: {problem}") for line in lines) == 1, (problem, lines)


def test_check_beside_echod(tmp_path: Path) -> None:
    """The addresses of a running echod are no problem for a check of its configuration."""
    with Daemon(*hosts(["localhost", f"unix:{tmp_path}/echo"])) as daemon:
        assert check("--port", str(daemon.port), *hosts(["localhost", f"unix:{tmp_path}/echo"])) == (0, [])
        assert check("--port", str(daemon.port), "--host", "") == (0, [])


@pytest.mark.parametrize("word", ["127.0.0.1", "0.0.0.0", "unix"])
def test_check_beside_another(tmp_path: Path, word: str) -> None:
    """A program that is not echod has the address, and a check names it."""
    host = f"unix:{tmp_path}/s p a c e" if word == "unix" else word
    with socket.socket(socket.AF_UNIX if word == "unix" else socket.AF_INET) as other:
        other.bind(host.removeprefix("unix:") if word == "unix" else ("127.0.0.1", 0))
        other.listen()
        port = 7 if word == "unix" else other.getsockname()[1]
        code, lines = check("--host", host, "--port", str(port))
        assert code == EX_UNAVAILABLE
        assert len(lines) == 1
        assert f"(process {os.getpid()}) listens there; stop it, or choose another address or port" in lines[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="is about root")
def test_check_as_root() -> None:
    """Root may open any port, so a check says that the service may not be able to."""
    in_its_network = own_network("echo 1024 > /proc/sys/net/ipv4/ip_unprivileged_port_start")
    code, (line,) = check("--port", "7", prefix=in_its_network)
    assert code == 0
    assert line.startswith("echod: warning: port 7 is privileged: root may open it, but the service may do so only ")


def check(*arguments: str, prefix: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """The exit status of a check of the configuration, and its lines on standard error."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(FOR_DAEMONS)}
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "echod", "--check-config", *arguments],
        env=environ | {"ECHOD_CONFIG": os.devnull},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == ("" if done.returncode else "OK\n")
    return done.returncode, done.stderr.splitlines()


def test_unknown_name() -> None:
    """A name that does not resolve leads to a sentence with the reason."""
    # In a network of its own, so that nobody outside is asked.
    said = cannot_listen("--host", "no-such-host.invalid", prefix=own_network())
    assert said.startswith("host 'no-such-host.invalid' does not resolve: ")


def cannot_listen(*arguments: str, prefix: tuple[str, ...] = ()) -> str:
    """Start a daemon that cannot listen, and return its sentence without the advice."""
    with Daemon(*arguments, prefix=prefix, wait=False) as daemon:
        assert daemon.read_to_end() == EX_UNAVAILABLE
        assert {event["event"] for event in daemon.events} <= {"starting"}
        (sentence,) = daemon.words
    program, _, problem = sentence.partition(": ")
    what, _, remedy = problem.partition(";")
    assert program == "echod"
    assert remedy, f"no word about what to do: {sentence}"
    return what
