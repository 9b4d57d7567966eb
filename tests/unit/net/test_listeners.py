"""listeners: real sockets, at every kind of address, and the options that connections inherit from them."""

import errno
import math
import os
import re
import select
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from echod.errors import CannotListen
from echod.net import unixfile
from echod.net.address import endpoints, show
from echod.net.check import check_endpoints
from echod.net.listeners import (
    BACKLOG,
    Listener,
    adopt_listeners,
    open_listeners,
)
from echod.net.sockopts import UNSENT_MAX, SocketOptions
from tests.unit.hand_loop import DEADLINE

TUNING = SocketOptions(keepalive=7200.0, interval=75.0, probes=9)
ABSTRACT = f"unix:@echod-test-{os.getpid()}"
NOWHERE, NOWHERE_ELSE = "198.51.100.1", "203.0.113.1"
"""Addresses that no machine has (RFC 5737)."""


@contextmanager
def listening(*hosts: str, port: int = 0, socket_options: SocketOptions = TUNING) -> Iterator[list[Listener]]:
    """Listeners that are closed again."""
    with ExitStack() as stack:
        listeners = open_listeners(endpoints(hosts), port, socket_options)
        for listener in listeners:
            stack.enter_context(closing(listener))
        yield listeners


def refusal(*hosts: str, port: int = 0) -> str:
    """The sentence of an attempt that must fail."""
    with pytest.raises(CannotListen) as caught, listening(*hosts, port=port):
        pass
    (problem,) = caught.value.problems
    return problem


def port_of(listener: Listener) -> int:
    """The port that it is bound to."""
    return int(listener.sock.getsockname()[1])


@contextmanager
def accepted(listener: Listener) -> Iterator[socket.socket]:
    """The server's end of a connection to `listener`."""
    with socket.socket(listener.sock.family) as client:
        client.connect(listener.sock.getsockname())
        server, _ = accept(listener)
        with server:
            yield server


def accept(listener: Listener) -> tuple[socket.socket, Any]:
    """A connection accepted from a non-blocking listener: connect(2) may return before the connection is queued."""
    assert select.select([listener.sock], [], [], DEADLINE)[0]
    return listener.sock.accept()


@pytest.fixture
def path() -> Iterator[str]:
    """A path for a unix socket; pytest's own directories can be too long for one."""
    with TemporaryDirectory() as directory:
        yield f"{directory}/sock"


@pytest.fixture
def ipv6() -> None:
    """Skip the test where the kernel has no IPv6 on its loopback interface."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error.strerror}")


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Run the test without root's privileges."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


NAMESPACE_PRELUDE = """
import fcntl, os, socket, struct, subprocess
from pathlib import Path
from echod.net.address import endpoints
from echod.errors import CannotListen
from echod.net.check import check_endpoints
from echod.net.listeners import left_out, open_listeners
from echod.net.sockopts import SocketOptions

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket() as sock:
    fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))

def sysctl(name, value):
    Path("/proc/sys/net", name).write_text(value)

def attempt(*hosts, port=0):
    try:
        listeners = open_listeners(endpoints(hosts), port, SocketOptions(7200, 75, 9))
    except CannotListen as error:
        return str(error)
    found = [listener.address for listener in listeners]
    for listener in listeners:
        listener.close()
    return found
"""


def in_namespace(script: str) -> str:
    """The output of `script` in a network namespace of its own, which has a loopback interface only."""
    command = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    try:
        permitted = subprocess.run([*command, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare(1) here")
    if permitted.returncode:
        pytest.skip(f"no network namespace for this user: {permitted.stderr.strip()}")
    done = subprocess.run(
        [*command, sys.executable, "-c", NAMESPACE_PRELUDE + script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class TestPort:
    @pytest.mark.usefixtures("ipv6")
    def test_every_address_shares_the_port_that_the_kernel_chose(self) -> None:
        """IPv4 and IPv6 have a socket each, on one port."""
        with listening("") as listeners:
            assert [listener.sock.family for listener in listeners] == [socket.AF_INET, socket.AF_INET6]
            (port,) = {port_of(listener) for listener in listeners}
            assert [listener.address for listener in listeners] == [f"0.0.0.0:{port}", f"[::]:{port}"]
            for listener, host in zip(listeners, ("127.0.0.1", "::1"), strict=True):
                with socket.create_connection((host, port)):
                    server, (peer, *_) = accept(listener)
                    server.close()
                    assert peer == host

    def test_a_port_that_is_not_free_for_both_families(self) -> None:
        """If the port that the kernel chose for IPv4 is in use for IPv6, other ports are tried until one is free."""
        output = in_namespace("""
sysctl("ipv4/ip_local_port_range", "40000 40015")
with socket.create_server(("::1", 40001), family=socket.AF_INET6):
    for _ in range(20):
        print(*attempt("127.0.0.1", "::1"))
""")
        free = set(range(40000, 40016)) - {40001}
        assert set(output.splitlines()) <= {f"127.0.0.1:{port} [::1]:{port}" for port in free}

    def test_when_no_port_is_free_everywhere_it_gives_up(self) -> None:
        """The sentence names the address that is in use."""
        output = in_namespace("""
sysctl("ipv4/ip_local_port_range", "40000 40001")
taken = [socket.create_server(("::1", port), family=socket.AF_INET6) for port in (40000, 40001)]
print(attempt("127.0.0.1", "::1"))
for sock in taken:
    sock.close()
""")
        assert re.match(r"cannot listen on \[::1\]:4000[01]: the address is in use by another program", output)

    def test_a_port_in_use(self) -> None:
        """The sentence names address and port, and what to do; the sockets opened before are closed again."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            assert refusal(ABSTRACT, "127.0.0.1", port=port) == (
                f"cannot listen on 127.0.0.1:{port}: the address is in use by another program; "
                "stop it (ss -ltnp shows it) or choose another port"
            )
            name = Path("/proc/self/comm").read_text().strip()
            (problem,) = check_endpoints(endpoints(["127.0.0.1"]), port).problems
            assert problem == (
                f"cannot listen on 127.0.0.1:{port}: {name} (process {os.getpid()}) listens there; "
                "stop it, or choose another address or port"
            )

    def test_a_port_that_was_just_closed(self) -> None:
        """A daemon that is restarted gets its port, even with connections in TIME-WAIT."""
        with listening("127.0.0.1") as (listener,):
            port = port_of(listener)
            with accepted(listener) as server:
                server.shutdown(socket.SHUT_WR)
        with listening("127.0.0.1", port=port):
            pass

    @pytest.mark.usefixtures("unprivileged")
    def test_a_privileged_port(self) -> None:
        """The sentence names the ways to allow it."""
        first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
        if first < 8:
            pytest.skip("this kernel keeps no port for root")
        assert refusal("127.0.0.1", port=7) == (
            "cannot listen on 127.0.0.1:7: port 7 is privileged; "
            "choose a port from 1024 up, grant CAP_NET_BIND_SERVICE, or let systemd open the socket"
        )

    def test_the_broadcast_address_of_a_network(self) -> None:
        """A socket could be bound there, but no client can connect to it."""
        assert refusal("127.255.255.255") == (
            "cannot listen on 127.255.255.255:0: it is the broadcast address of a network, to which no client can "
            "connect; use another address"
        )

    def test_an_address_of_another_machine(self) -> None:
        """Listening fails at the first address of another machine; a check reports all of them."""
        expected = "this machine does not have that address; 'ip address' lists its own"
        assert refusal(NOWHERE) == f"cannot listen on {NOWHERE}:0: {expected}"
        assert check_endpoints(endpoints([NOWHERE, "127.0.0.1", NOWHERE_ELSE]), 0).problems == [
            f"cannot listen on {NOWHERE}:0: {expected}",
            f"cannot listen on {NOWHERE_ELSE}:0: {expected}",
        ]


class TestLocal:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", ABSTRACT], ids=["IPv4", "IPv6", "unix"])
    @pytest.mark.usefixtures("ipv6")
    def test_one_address(self, host: str) -> None:
        """Every connection to a listener that is bound to one address has that address at our end."""
        with listening(host) as (listener,), accepted(listener) as server:
            assert listener.local == listener.address == show(server.getsockname(), server)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "::ffff:0.0.0.0"])
    @pytest.mark.usefixtures("ipv6")
    def test_every_address(self, host: str) -> None:
        """Connections to a wildcard address have different addresses at our end."""
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            sock.bind((host, 0))
            assert Listener(sock, adopted=True).local == ""

    def test_a_zone(self) -> None:
        """A zone has the present name of its interface, which can be renamed."""
        output = in_namespace("""
subprocess.run(["ip", "address", "add", "fe80::7/64", "dev", "lo", "nodad"], check=True)
(listener,) = open_listeners(endpoints(["fe80::7%lo"]), 7007, SocketOptions(7200, 75, 9))
print(listener.address, [listener.local])
""")
        assert output == "[fe80::7%lo]:7007 ['']\n"

    @pytest.mark.skipif(os.geteuid() != 0, reason="IP_TRANSPARENT needs CAP_NET_ADMIN")
    def test_a_transparent_proxy(self) -> None:
        """Connections to a transparent socket have the address to which their clients have sent them."""
        with socket.socket() as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
            sock.bind(("127.0.0.1", 0))
            assert Listener(sock, adopted=True).local == ""


class TestFamilies:
    def test_where_the_kernel_has_no_ipv6(self) -> None:
        """localhost is 127.0.0.1, and ::1 is left out with a warning, or is an error by itself.

        The socket for every IPv6 address serves as soon as IPv6 is enabled.
        """
        output = in_namespace("""
for interface in ("all", "default", "lo"):
    sysctl(f"ipv6/conf/{interface}/disable_ipv6", "1")
print(attempt("", port=7007))
print(attempt("localhost", port=7007))
print(attempt("::", port=7007))
print(attempt("::1", port=7007))
print(attempt("127.0.0.1", "::1", port=7007))
print(*left_out(endpoints(["127.0.0.1", "::1"]), []), *left_out(endpoints(["localhost"]), []), sep="\\n")
for hosts in ([""], ["localhost"], ["127.0.0.1", "::1"], ["::1"]):
    found = check_endpoints(endpoints(hosts), 7007)
    print(len(found.problems), len(found.warnings))
""")
        assert output.splitlines() == [
            "['0.0.0.0:7007', '[::]:7007']",
            "['127.0.0.1:7007']",
            "['[::]:7007']",
            "cannot listen on [::1]:7007: this machine does not have that address; 'ip address' lists its own",
            "['127.0.0.1:7007']",
            "nothing listens on 127.0.0.1: this machine has no IPv4; enable IPv4, or change host",
            "nothing listens on ::1: this machine has no IPv6; enable IPv6, or change host",
            "0 0",
            "0 0",
            "0 1",
            "1 0",
        ]

    def test_where_only_the_loopback_device_has_no_ipv6(self) -> None:
        """Every other IPv6 address is served; ::1 is missing as any address of another machine would be."""
        output = in_namespace("""
for command in ("link add other type veth", "link set other up", "address add 2001:db8::7/64 dev other nodad"):
    subprocess.run(["ip", *command.split()], check=True)
sysctl("ipv6/conf/lo/disable_ipv6", "1")
print(attempt("", port=7007))
print(attempt("localhost", port=7007))
print(attempt("127.0.0.1", "2001:db8::7", port=7007))
print(attempt("127.0.0.1", "::1", port=7007))
""")
        assert output.splitlines() == [
            "['0.0.0.0:7007', '[::]:7007']",
            "['127.0.0.1:7007']",
            "['127.0.0.1:7007', '[2001:db8::7]:7007']",
            "cannot listen on [::1]:7007: this machine does not have that address; 'ip address' lists its own",
        ]

    def test_where_ipv6_is_not_even_compiled_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kernel without IPv6 refuses to create the socket; the test imitates it."""

        class WithoutIPv6(socket.socket):
            def __init__(self, family: int = -1, *args: int, **kwargs: int) -> None:
                if family == socket.AF_INET6:
                    raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
                super().__init__(family, *args, **kwargs)

        monkeypatch.setattr(socket, "socket", WithoutIPv6)
        with listening("localhost") as listeners:
            assert [listener.sock.family for listener in listeners] == [socket.AF_INET]
        assert refusal("::1") == (
            "cannot listen on [::1]:0: this kernel does not support that address family; "
            "choose an address of another family"
        )


class TestUnix:
    def test_a_socket_that_everyone_may_use(self, path: str) -> None:
        """The file exists while the daemon listens; the permissions of its directory limit access."""
        with listening(f"unix:{path}") as (listener,):
            assert listener.address == f"unix:{path}"
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
            with accepted(listener):
                pass
        assert not os.path.lexists(path)

    @pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
    def test_the_mode_from_the_first_moment(self, path: str, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
        """The file has its mode as soon as it exists, whatever the umask; no chmod(2) could hit a link in its place."""
        monkeypatch.delattr(os, "chmod")
        before = os.umask(0o077)
        try:
            (listener,) = open_listeners(endpoints([f"unix:{path}"]), 0, TUNING, unix_mode=mode)
            with closing(listener):
                assert stat.S_IMODE(os.stat(path).st_mode) == mode
            assert os.umask(0o077) == 0o077
        finally:
            os.umask(before)

    def test_a_link_in_place_of_the_file(self, path: str) -> None:
        """A change of the mode follows no link that has replaced the file."""
        victim = Path(f"{path}-victim")
        victim.touch(0o600)
        with listening(f"unix:{path}") as (listener,):
            assert listener.set_mode(0o640) == ""
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
            os.rename(path, f"{path}-moved")
            os.symlink(victim, path)
            assert listener.set_mode(0o666) == ""
            unixfile.set_mode(path, (victim.stat().st_dev, victim.stat().st_ino), 0o666)
        assert stat.S_IMODE(victim.stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        ("mode", "problem"),
        [
            (0o600, "a socket of another user is there, to which this user may not connect; remove the file if no "),
            (0o666, "a socket of another user, on which no program listens, is there; remove the file or choose "),
        ],
    )
    @pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
    def test_a_socket_that_another_user_left(self, path: str, mode: int, problem: str) -> None:
        """The sentence does not claim that a program listens there, and the file stays."""
        os.chmod(os.path.dirname(path), 0o1777)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        os.chmod(path, mode)
        os.seteuid(65534)
        try:
            assert refusal(f"unix:{path}").startswith(f"cannot listen on unix:{path}: {problem}")
        finally:
            os.seteuid(0)
        assert os.path.lexists(path)

    def test_an_abstract_name_leaves_nothing(self) -> None:
        """It has no file, so nothing is checked beforehand and nothing is removed."""
        assert check_endpoints(endpoints([ABSTRACT]), 0).problems == []
        for _ in range(2):
            with listening(ABSTRACT) as (listener,), accepted(listener):
                assert listener.address == ABSTRACT

    def test_the_file_of_a_dead_daemon_is_replaced(self, path: str) -> None:
        """A file on which no process listens is replaced."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
            dead.listen()
        assert check_endpoints(endpoints([f"unix:{path}"]), 0).problems == []
        with listening(f"unix:{path}") as (listener,), accepted(listener):
            pass

    def test_the_file_of_a_live_daemon_is_kept(self, path: str) -> None:
        """A live daemon continues to listen, and the sentence says that another program listens there."""
        with listening(f"unix:{path}") as (listener,):
            expected = "another program listens there; stop it (ss -lxp shows it) or choose another name"
            assert refusal(f"unix:{path}") == f"cannot listen on unix:{path}: {expected}"
            (problem,) = check_endpoints(endpoints([f"unix:{path}"]), 0).problems
            assert f"(process {os.getpid()}) listens there; stop it" in problem
            with accepted(listener):
                pass

    def test_a_daemon_whose_queue_is_full_is_alive(self, path: str) -> None:
        """A busy daemon keeps its file."""
        with ExitStack() as stack:
            busy = stack.enter_context(socket.socket(socket.AF_UNIX))
            busy.bind(path)
            busy.listen(0)
            first = stack.enter_context(socket.socket(socket.AF_UNIX))
            first.connect(path)
            assert "another program listens there" in refusal(f"unix:{path}")

    def test_another_kind_of_socket_is_not_touched(self, path: str) -> None:
        """A datagram socket cannot be asked whether a process still has it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(path)
            assert "another program listens there" in refusal(f"unix:{path}")
            os.stat(path)

    @pytest.mark.parametrize("kind", ["file", "directory", "link to nothing", "link to a socket", "fifo"])
    def test_a_file_that_is_not_a_socket_is_not_touched(self, path: str, kind: str) -> None:
        """A file that is not a socket stays, and both listening and a check report it."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(f"{path}-dead")
        match kind:
            case "file":
                Path(path).write_text("precious")
            case "directory":
                Path(path).mkdir()
            case "fifo":
                os.mkfifo(path)
            case _:
                Path(path).symlink_to(f"{path}-dead" if kind == "link to a socket" else "nothing")
        before = os.lstat(path)
        expected = (
            f"cannot listen on unix:{path}: that path is in use by a file that is not a socket; "
            "move the file or choose another path"
        )
        assert refusal(f"unix:{path}") == expected
        assert check_endpoints(endpoints([f"unix:{path}"]), 0).problems == [expected]
        after = os.lstat(path)
        assert (before.st_ino, before.st_mode, before.st_size) == (after.st_ino, after.st_mode, after.st_size)

    @pytest.mark.parametrize("beneath", ["", "/deeper"])
    def test_a_missing_directory(self, path: str, beneath: str) -> None:
        """The sentence says that the directory does not exist, or is no directory; a check reports the same."""
        if beneath:
            Path(path).write_text("")
        where = f"unix:{path}{beneath or '-missing'}/sock"
        expected = f"cannot listen on {where}: the directory does not exist; create it first"
        assert refusal(where) == expected
        assert check_endpoints(endpoints([where]), 0).problems == [expected]

    @pytest.mark.usefixtures("unprivileged")
    def test_a_directory_without_write_permission(self) -> None:
        """The sentence says that permission is denied; a check reports the same."""
        expected = (
            "cannot listen on unix:/usr/sock: permission denied; choose a directory in which this user may create files"
        )
        assert refusal("unix:/usr/sock") == expected
        assert check_endpoints(endpoints(["unix:/usr/sock"]), 0).problems == [expected]

    def test_any_other_error(self, path: str) -> None:
        """The sentence has the system's words."""
        Path(path).symlink_to(path)
        where = f"unix:{path}/sock"
        expected = f"cannot listen on {where}: Too many levels of symbolic links; choose another address"
        assert refusal(where) == expected
        assert check_endpoints(endpoints([where]), 0).problems == [expected]

    def test_the_file_of_a_successor_is_kept(self, path: str) -> None:
        """At its end a daemon removes its own socket only, not one that has replaced it."""
        with listening(f"unix:{path}"):
            os.unlink(path)
            with socket.socket(socket.AF_UNIX) as successor:
                successor.bind(path)
        assert stat.S_ISSOCK(os.lstat(path).st_mode)

    def test_closing_without_the_file(self, path: str) -> None:
        """Closing does not fail if the file is gone."""
        with listening(f"unix:{path}"):
            os.unlink(path)

    def test_the_file_is_removed_when_a_later_address_fails(self, path: str) -> None:
        """A failed attempt leaves nothing behind."""
        assert "this machine does not have that address" in refusal(f"unix:{path}", NOWHERE)
        assert not os.path.lexists(path)


class TestOpened:
    def test_the_queue_is_as_long_as_the_kernel_allows(self) -> None:
        """The limit of a listening socket's queue is its tcpi_sacked (tcp_diag)."""
        somaxconn = int(Path("/proc/sys/net/core/somaxconn").read_text())
        with listening("127.0.0.1") as (listener,):
            info = listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            assert int.from_bytes(info[28:32], sys.byteorder) == min(BACKLOG, somaxconn)

    def test_a_listener_never_waits(self) -> None:
        """A listener does not wait for a connection that another worker has accepted."""
        with listening("127.0.0.1", ABSTRACT) as listeners:
            for listener in listeners:
                with pytest.raises(BlockingIOError):
                    listener.sock.accept()

    def test_no_program_inherits_it(self) -> None:
        """Forked workers get the listening sockets, executed programs do not."""
        with listening("127.0.0.1") as (listener,):
            assert not listener.sock.get_inheritable()


@contextmanager
def passed(make: Callable[[], socket.socket]) -> Iterator[int]:
    """A descriptor as another process would pass it: a number that the test's subject must close."""
    with make() as sock:
        yield os.dup(sock.fileno())


def listening_tcp() -> socket.socket:
    """A socket as systemd makes it for ListenStream=."""
    return socket.create_server(("127.0.0.1", 0))


def listening_unix(kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket with an abstract name, or for ListenSequentialPacket=."""
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(f"\0echod-test-{os.getpid()}-passed")
    sock.listen()
    return sock


class TestAdopting:
    @pytest.mark.parametrize("make", [listening_tcp, listening_unix])
    def test_a_listening_socket(self, make: Callable[[], socket.socket]) -> None:
        """Its options are set, it is made non-blocking, and closing the listener closes it."""
        with passed(make) as fd:
            (listener,) = adopt_listeners([fd], TUNING)
            assert listener.adopted
            with accepted(listener) as server:
                if server.family != socket.AF_UNIX:
                    assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_MAX
            with pytest.raises(BlockingIOError):
                listener.sock.accept()
            listener.close()

    def test_its_file_is_kept(self, path: str) -> None:
        """Closing keeps the file: the process that created it, usually systemd, continues to listen there."""
        with socket.socket(socket.AF_UNIX) as original:
            original.bind(path)
            original.listen()
            (listener,) = adopt_listeners([os.dup(original.fileno())], TUNING)
            listener.close()
            assert os.path.lexists(path)

    def test_its_keepalive_can_be_switched_off(self) -> None:
        """The configuration applies to passed sockets too."""
        with passed(listening_tcp) as fd:
            with socket.socket(fileno=os.dup(fd)) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            (listener,) = adopt_listeners([fd], SocketOptions(math.inf, 75, 9))
            with accepted(listener) as server:
                assert not server.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            listener.close()

    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(socket.socket, id="not listening"),
            pytest.param(lambda: socket.socket(type=socket.SOCK_DGRAM), id="datagrams"),
            pytest.param(lambda: listening_unix(socket.SOCK_SEQPACKET), id="packets"),
            pytest.param(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), id="netlink"),
        ],
    )
    def test_another_socket(self, make: Callable[[], socket.socket]) -> None:
        """The sentence names the descriptor and the correct setting of the unit, and no descriptor is adopted."""
        with passed(listening_tcp) as good, passed(make) as bad:
            with pytest.raises(CannotListen) as caught:
                adopt_listeners([good, bad], TUNING)
            assert str(caught.value) == (
                f"descriptor {bad} (LISTEN_FDS) is not a listening TCP or unix stream socket; "
                "use ListenStream= with Accept=no in the .socket unit"
            )
            for fd in (good, bad):
                os.close(fd)

    def test_a_descriptor_that_is_no_socket(self) -> None:
        """A file and a closed descriptor are refused."""
        reads, writes = os.pipe()
        os.close(writes)
        for fd in (reads, writes):
            with pytest.raises(
                CannotListen, match=f"descriptor {fd} .* is not a socket; pass only listening stream sockets"
            ):
                adopt_listeners([fd], TUNING)
        os.close(reads)

    def test_none(self) -> None:
        """Without passed descriptors there are no listeners."""
        assert adopt_listeners([], TUNING) == []
