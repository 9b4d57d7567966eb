"""The socket options of a connection.

They are set on the listening socket, from which the kernel copies them to each accepted connection.  One option is set
on single connections: whether closing the connection resets it.
"""

import math
import socket
import struct
from dataclasses import dataclass

UNSENT_MAX = 512 << 10
"""Most bytes of an echo that the kernel may hold unsent (TCP_NOTSENT_LOWAT).

Twice the default chunk, so that the kernel accepts most chunks whole; the rest of a chunk is copied, and costs another
turn.  Measured with chunks of 256 KiB: of the sends to 16 streams 10 % were short with 128 KiB, 3 % with 512 KiB; of
those to a single stream 34 and 22 %.  1 MiB would save another 5 to 15 % of the CPU time of a stream, and cost each
client that does not read 512 KiB more.  Measured without any limit, such a client occupies 2.9 MB.
"""

_RESET, _END = (struct.pack("ii", resets, 0) for resets in (True, False))
"""`struct linger`, socket(7)."""


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """Keepalive: seconds of silence before the first probe (infinity for never), seconds between two, and their number.

    After that number of unanswered probes the kernel ends the connection.
    """

    keepalive: float
    interval: float
    probes: int


class _Lenient:
    """Sets options on `sock`; those that the kernel or a sandbox refuses stay as they are, and get into `refused`.

    Each of the options is an improvement only: without it the connection is served all the same.  A listening socket
    for MPTCP, for instance, has no SO_OOBINLINE.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.refused: list[tuple[int, int, OSError]] = []

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        try:
            self._sock.setsockopt(level, option, value)
        except OSError as error:
            self.refused.append((level, option, error))


def set_options(sock: socket.socket, socket_options: SocketOptions) -> None:
    """Set the options on a connection, or on a listener, from which accepted connections inherit them, tcp(7).

    (The kernel's inet_csk_clone_lock copies them.)  An option that is refused stays as it is (`refused_options`).
    """
    if sock.family != socket.AF_UNIX:
        _set_all(_Lenient(sock), socket_options)


def refused_options(socket_options: SocketOptions) -> list[tuple[str, OSError]]:
    """The names of the options that this system refuses for any connection, with the errors.

    Raises OSError if no socket can be made.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        lenient = _Lenient(sock)
        _set_all(lenient, socket_options)
    prefixes = {socket.SOL_SOCKET: "SO_", socket.IPPROTO_TCP: "TCP_"}
    return [
        (
            next(name for name, value in vars(socket).items() if name.startswith(prefixes[level]) and value == option),
            error,
        )
        for level, option, error in lenient.refused
    ]


def _set_all(sock: _Lenient, socket_options: SocketOptions) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # For the case that the process is killed: the kernel then closes its connections, and an echo without the bytes
    # that the process had read but not sent back must not look complete.  An orderly close takes this option back.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    # An urgent byte is data like any other, and is echoed in its place (RFC 6093 section 6).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_MAX)
    # TCP_USER_TIMEOUT stays 0, which is above every deadline.  With any other value the kernel ignores TCP_KEEPCNT, and
    # resets a client that reads so slowly that its window stays closed for longer.  The session notices a stall by
    # itself; and if the client answers nothing, the kernel ends the connection after tcp_retries2 (15 minutes).
    alive = math.isfinite(socket_options.keepalive)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, alive)
    if alive:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, math.ceil(socket_options.keepalive))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, math.ceil(socket_options.interval))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, socket_options.probes)


def reset_on_close(sock: socket.socket, *, resets: bool) -> None:
    """Choose whether closing the last descriptor resets the connection (SO_LINGER with a time of 0, socket(7)).

    If the system refuses to set the option, nothing changes.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET if resets else _END)
    except OSError:
        pass
