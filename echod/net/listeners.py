"""Listening sockets: opened for endpoints, or adopted from the process that passed them.

The parent opens them, and all workers accept from the same ones.  Not SO_REUSEPORT: measured, closing one of
two such sockets reset the 25 connections queued on it, and it would hide a second daemon on the port.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Iterator, Sequence

from echod.errors import CannotListen, Explained
from echod.net import address, tcpinfo, unixfile
from echod.net.address import Endpoint
from echod.net.sockopts import SocketOptions, set_options

BACKLOG = 4096
"""Most connections that the kernel may queue; net.core.somaxconn, 4096 by default, may lower it."""

_DISCARD = 9
"""A port to which nothing is sent."""
_ATTEMPTS = 16
"""Ports tried until one is free for every address, when the kernel chooses."""


class Listener:
    """A non-blocking listening socket, owned by this object; `adopted` if systemd or another process has it too."""

    def __init__(self, sock: socket.socket, *, adopted: bool) -> None:
        self.sock = sock
        self.adopted = adopted
        self.retires = False
        """Whether the socket is being retired: its queue is emptied, then it is closed."""
        self.address = address.show(sock.getsockname(), sock)
        """The address to which it is bound, as `address.show` writes it."""
        self.local = address.local_of(sock)
        """The address of our end of its connections, for `address.ends`; empty if it may differ between them."""
        self._file = None if adopted else unixfile.identity(sock)

    def set_options(self, socket_options: SocketOptions) -> None:
        """Set the options that new connections inherit; those already in the kernel's queue keep theirs."""
        set_options(self.sock, socket_options)

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint at which it listens."""
        return _endpoint_of(self.sock)

    def is_lost(self) -> bool:
        """Whether the file of a unix socket was deleted, or another file has replaced it: no client can connect."""
        if self.adopted or not unixfile.has_file(self.sock):
            return False
        return self._file is None or self._file != unixfile.identity(self.sock)

    def set_mode(self, mode: int) -> str:
        """Set the mode of a unix socket's file, unless systemd owns it; returns a problem, or an empty string."""
        if self._file is None or self.retires or self.is_lost():
            return ""
        try:
            unixfile.set_mode(self.sock.getsockname(), self._file, mode)
        except OSError as error:
            return f"cannot set the mode {mode:04o} of {self.address}: {error.strerror}; remove the file, then reload"
        return ""

    def release(self) -> None:
        """Close this process's descriptor, of which other processes have copies, and keep the file."""
        self.sock.close()

    def close(self) -> None:
        """Close the socket, and remove its file unless another socket has replaced it."""
        if self._file is not None and self._file == unixfile.identity(self.sock):
            with contextlib.suppress(OSError):  # a file that is left over does no harm: the next start replaces it
                os.unlink(self.sock.getsockname())
        self.sock.close()


def open_listeners(
    endpoints: Iterable[Endpoint],
    port: int,
    socket_options: SocketOptions,
    kept: Sequence[Listener] = (),
    *,
    unix_mode: int = unixfile.MODE,
) -> list[Listener]:
    """Listen at all `endpoints`, on one port; the files of unix sockets get the mode `unix_mode`.

    With port 0 that is the port of `kept` if it is free at all endpoints, else one that the kernel chooses.  Listeners
    in `kept` that listen at one of the endpoints stay, with their queues; the others retire, and come last in the
    result.  Endpoints that this machine lacks (`may_be_left_out`) are left out if another one remains.  Raises
    `CannotListen` if any other endpoint cannot be bound; then `kept` is unchanged, and all new sockets are closed.
    """
    wanted = list(endpoints)
    found = _found(wanted, port, kept)
    retiring = [listener for listener in kept if listener not in found.values()]
    missing = [endpoint for endpoint in wanted if endpoint not in found]
    fixed = port or _port_of(found.values())
    for attempt in range(_ATTEMPTS):
        chosen = fixed or (0 if attempt else _port_of(kept))
        try:
            with _making_way(retiring) as shares:
                opened = _open_all(missing, chosen, socket_options, unix_mode, shares=shares, required=not found)
        except CannotListen as error:
            taken = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
            if fixed or not taken or attempt == _ATTEMPTS - 1:
                raise
        else:
            for listener in found.values():
                listener.set_options(socket_options)
                listener.retires = False
            for listener in retiring:
                listener.retires = True
            listeners = found | opened
            return [listeners[endpoint] for endpoint in wanted if endpoint in listeners] + retiring
    raise AssertionError("the last attempt returns or raises")


def left_out(endpoints: Iterable[Endpoint], listeners: Iterable[Listener]) -> list[str]:
    """A warning for each of `endpoints` that was configured as an address, and at which none of `listeners` listens."""
    socks = [listener.sock for listener in listeners]
    return [
        nothing_listens(endpoint)
        for endpoint in endpoints
        if not endpoint.optional and not any(_listens_at(sock, endpoint, 0) for sock in socks)
    ]


def nothing_listens(endpoint: Endpoint) -> str:
    """The warning about an endpoint that is left out."""
    family = "IPv6" if endpoint.family == socket.AF_INET6 else "IPv4"
    return f"nothing listens on {endpoint.address}: this machine has no {family}; enable {family}, or change host"


def may_be_left_out(endpoint: Endpoint, error: OSError) -> bool:
    """Whether echod may serve without an endpoint that cannot be bound because of `error`.

    It may if the machine has no address of the family at all, or if the endpoint belongs to a word that stands for
    those addresses that the machine has.  Rejected: asking whether ::1 can be bound, since IPv6 may be disabled on the
    loopback device alone.
    """
    if endpoint.family == socket.AF_UNIX:
        return False
    if error.errno == errno.EADDRNOTAVAIL:
        return endpoint.optional or (endpoint.family == socket.AF_INET6 and not _has_ipv6_address())
    return error.errno == errno.EAFNOSUPPORT


def adopt_kept(fds: Iterable[int]) -> list[Listener]:
    """Adopt a predecessor's listening sockets, as `kept` for `open_listeners`; other descriptors are closed."""
    listeners = []
    for fd in fds:
        try:
            sock = _adopt(fd)
        except CannotListen:
            with contextlib.suppress(OSError):
                os.close(fd)
            continue
        sock.setblocking(False)
        listeners.append(Listener(sock, adopted=False))
    return listeners


def adopt_listeners(fds: Iterable[int], socket_options: SocketOptions) -> list[Listener]:
    """Adopt listening sockets that were passed to this process.

    Raises `CannotListen` if a descriptor is not a listening socket, and then adopts none.
    """
    socks: list[socket.socket] = []
    try:
        for fd in fds:
            socks.append(_adopt(fd))  # noqa: PERF401  an error must leave those adopted before
    except CannotListen:
        for sock in socks:
            sock.detach()
        raise
    for sock in socks:
        sock.setblocking(False)
        set_options(sock, socket_options)
    return [Listener(sock, adopted=True) for sock in socks]


def _found(endpoints: Iterable[Endpoint], port: int, kept: Iterable[Listener]) -> dict[Endpoint, Listener]:
    """The listeners of `kept` that listen at one of `endpoints`, by endpoint."""
    found: dict[Endpoint, Listener] = {}
    for listener in kept:
        if listener.is_lost():
            continue
        for endpoint in endpoints:
            if endpoint not in found and _listens_at(listener.sock, endpoint, port):
                found[endpoint] = listener
                break
    return found


@contextlib.contextmanager
def _making_way(retiring: Iterable[Listener]) -> Iterator[bool]:
    """Let new sockets bind where these listen, such as 0.0.0.0 on the port of 127.0.0.1.

    Yields whether the new sockets need SO_REUSEPORT.  Both the old and the new socket must have that option, but only
    while the new one binds.  Rejected: closing the old one first, which would refuse connections in between.
    """
    internet = [listener.sock for listener in retiring if listener.sock.family != socket.AF_UNIX]
    for sock in internet:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        yield bool(internet)
    finally:
        for sock in internet:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def _listens_at(sock: socket.socket, endpoint: Endpoint, port: int) -> bool:
    """Whether `sock` listens at `endpoint` and at `port`; 0 is any port, and a unix socket has none."""
    is_at_port = sock.family == socket.AF_UNIX or port in (0, sock.getsockname()[1])
    return is_at_port and _endpoint_of(sock) == endpoint


def _endpoint_of(sock: socket.socket) -> Endpoint:
    """The endpoint at which a socket listens; the zone of an address is in its `scope`, and not in its text."""
    family, name = socket.AddressFamily(sock.family), sock.getsockname()
    if family == socket.AF_UNIX:
        return Endpoint(family, os.fsdecode(name))
    return Endpoint(family, name[0].partition("%")[0], name[3] if family == socket.AF_INET6 else 0)


def _port_of(listeners: Iterable[Listener]) -> int:
    """The port of the first listener that has one, else 0."""
    socks = (listener.sock for listener in listeners)
    return next((sock.getsockname()[1] for sock in socks if sock.family != socket.AF_UNIX), 0)


def _adopt(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise CannotListen(
            f"descriptor {fd} (LISTEN_FDS) is not a socket; pass only listening stream sockets"
        ) from error
    protocols = (0,) if sock.family == socket.AF_UNIX else (socket.IPPROTO_TCP, tcpinfo.IPPROTO_MPTCP)
    if (
        sock.type == socket.SOCK_STREAM
        and sock.proto in protocols
        and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        return sock
    sock.detach()
    raise CannotListen(
        f"descriptor {fd} (LISTEN_FDS) is not a listening TCP or unix stream socket; "
        "use ListenStream= with Accept=no in the .socket unit"
    )


def _open_all(
    endpoints: Iterable[Endpoint],
    port: int,
    socket_options: SocketOptions,
    unix_mode: int,
    *,
    shares: bool,
    required: bool,
) -> dict[Endpoint, Listener]:
    """Listen at these endpoints, except those that may be left out.

    All use `port`; if it is 0, the kernel chooses a port for the first, and the others use the same.

    Raises `CannotListen`, with all sockets closed again; also if every endpoint is left out and one is `required`.
    """
    opened: dict[Endpoint, Listener] = {}
    failed: CannotListen | None = None
    try:
        for endpoint in endpoints:
            try:
                opened[endpoint] = _open_listener(endpoint, port, socket_options, unix_mode, shares=shares)
            except CannotListen as error:
                if not (isinstance(error.__cause__, OSError) and may_be_left_out(endpoint, error.__cause__)):
                    raise
                failed = failed or error
            port = port or _port_of(opened.values())
        if required and failed and not opened:
            raise failed
    except CannotListen:
        for listener in opened.values():
            listener.close()
        raise
    return opened


def _open_listener(
    endpoint: Endpoint, port: int, socket_options: SocketOptions, unix_mode: int, *, shares: bool
) -> Listener:
    try:
        sock = socket.socket(endpoint.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if endpoint.family == socket.AF_UNIX:
                unixfile.bind(sock, endpoint.address, unix_mode)
            else:
                bind(sock, endpoint, port, shares=shares)
            set_options(sock, socket_options)
            sock.listen(BACKLOG)
            if shares and endpoint.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
            return Listener(sock, adopted=False)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise CannotListen(explain(endpoint, port, error)) from error


def bind(sock: socket.socket, endpoint: Endpoint, port: int, *, shares: bool = False) -> None:
    """Bind a TCP socket as a listener is bound; if it `shares` the port, other sockets with SO_REUSEPORT may have it.

    Raises OSError.
    """
    _require_option(sock, socket.SOL_SOCKET, "SO_REUSEADDR")
    if endpoint.family == socket.AF_INET6:
        # IPv4 has a socket of its own: its peers look like IPv4, and the sysctl bindv6only does not matter.
        _require_option(sock, socket.IPPROTO_IPV6, "IPV6_V6ONLY")
    if shares:
        _require_option(sock, socket.SOL_SOCKET, "SO_REUSEPORT")
    sock.bind(endpoint.sockaddr(port))
    if endpoint.family == socket.AF_INET and _is_broadcast(endpoint.address):
        raise Explained("it is the broadcast address of a network, to which no client can connect; use another address")


def _require_option(sock: socket.socket, level: int, name: str) -> None:
    """Switch an option on without which another address than the configured one could be opened, or none."""
    try:
        sock.setsockopt(level, getattr(socket, name), 1)
    except OSError as error:
        raise Explained(
            f"this system refuses the socket option {name}: {error.strerror}; allow it in the sandbox"
        ) from error


def _is_broadcast(host: str) -> bool:
    """Whether the IPv4 address is the broadcast address of one of this machine's networks, to which bind(2) succeeds.

    No client can connect to it.  connect(2) of a datagram socket sends nothing; EACCES means that SO_BROADCAST is
    missing (udp(7)).
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex((host, _DISCARD)) == errno.EACCES
    return False


def _has_ipv6_address() -> bool:
    """Whether any device of this machine has an IPv6 address; also True if /proc does not say."""
    try:
        with open("/proc/self/net/if_inet6", encoding="ascii") as addresses:
            return bool(addresses.read(1))
    except FileNotFoundError:
        return not os.path.exists("/proc/self/net")
    except OSError:
        return True


def explain(endpoint: Endpoint, port: int, error: OSError) -> str:
    """The sentence about an endpoint that cannot be bound because of `error`."""
    where = address.show(endpoint.sockaddr(port))
    return f"cannot listen on {where}: {_explain(error, endpoint, port)}"


def _explain(error: OSError, endpoint: Endpoint, port: int) -> str:
    """The cause of the error, and its remedy."""
    if isinstance(error, Explained):
        return str(error)
    match error.errno:
        case errno.EADDRINUSE:
            return "the address is in use by another program; stop it (ss -ltnp shows it) or choose another port"
        case errno.EACCES if 0 < port < 1024:
            return (
                f"port {port} is privileged; choose a port from 1024 up, grant CAP_NET_BIND_SERVICE, or let systemd "
                "open the socket"
            )
        case errno.EINVAL if endpoint.address.startswith("fe80:") and not endpoint.scope:
            return (
                f"a link-local address needs a zone, the name of its device; write {endpoint.address}%eth0 or similar"
            )
    return _CAUSES.get(error.errno or 0, f"{error.strerror}; choose another address")


_CAUSES = {
    errno.EEXIST: "that path is in use by a file that is not a socket; move the file or choose another path",
    errno.EACCES: "permission denied; choose a directory in which this user may create files",
    errno.EPERM: "permission denied; choose a directory in which this user may create files",
    errno.EADDRNOTAVAIL: "this machine does not have that address; 'ip address' lists its own",
    errno.EAFNOSUPPORT: "this kernel does not support that address family; choose an address of another family",
    errno.ENOENT: "the directory does not exist; create it first",
    errno.ENOTDIR: "the directory does not exist; create it first",
}
"""The causes that an error has for any endpoint, with their remedies."""
