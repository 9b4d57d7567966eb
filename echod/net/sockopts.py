"""The socket options of a connection.

They are set on the listening socket, from which the kernel copies them to each accepted connection.  One option is set
on single connections: whether closing the connection resets it.
"""

import math
import socket
import struct
from dataclasses import dataclass

PROBES = 9
"""Unanswered keepalive probes after which the kernel ends a connection, the default of tcp(7)."""
PROBE_INTERVAL = 75
"""Seconds between two probes, the default of tcp(7).  TCP_USER_TIMEOUT must not be shorter than all probes together."""
UNSENT_MAX = 128 << 10
"""Most bytes of an echo that the kernel may hold unsent (TCP_NOTSENT_LOWAT).

Measured without this limit: 2.9 MB for a client that does not read.
"""

_RESET, _END = (struct.pack("ii", resets, 0) for resets in (True, False))
"""`struct linger`, socket(7)."""


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """Seconds, or infinity for never: silence before a keepalive probe, and no acknowledgement before a stall."""

    keepalive: float
    stall: float


def set_options(sock: socket.socket, socket_options: SocketOptions) -> None:
    """Set the options on a connection, or on a listener, from which accepted connections inherit them, tcp(7).

    (The kernel's inet_csk_clone_lock copies them.)
    """
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # For the case that the process is killed: the kernel then closes its connections, and an echo without the bytes
    # that the process had read but not sent back must not look complete.  An orderly close takes this option back.
    reset_on_close(sock, resets=True)
    # An urgent byte is data like any other, and is echoed in its place (RFC 6093 section 6).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_MAX)
    silence = 0.0
    if math.isfinite(socket_options.keepalive):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, math.ceil(socket_options.keepalive))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
        silence = socket_options.keepalive + PROBES * PROBE_INTERVAL
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
    timeout = 0.0
    if math.isfinite(socket_options.stall):
        # A backstop for the session's own stall time-out, so it is longer than that.  It is longer than keepalive too:
        # with this option the first unanswered probe ends a connection that was silent for this time, whatever
        # TCP_KEEPCNT says, and one lost packet must not end it (RFC 1122 section 4.2.3.6).
        timeout = max(2 * socket_options.stall, silence)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, math.ceil(timeout * 1000))


def reset_on_close(sock: socket.socket, *, resets: bool) -> None:
    """Choose whether closing the last descriptor resets the connection (SO_LINGER with a time of 0, socket(7)).

    If the system refuses to set the option, nothing changes.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET if resets else _END)
    except OSError:
        pass
