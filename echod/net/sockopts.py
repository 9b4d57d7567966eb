"""What every connection needs of its socket.

It is set on the listening socket, from which the kernel copies it into each connection that is accepted.  And how a
connection ends, which is set on it alone.
"""

import math
import socket
import struct
from dataclasses import dataclass

PROBES = 9
"""Keepalive probes without an answer that end a connection, and"""
PROBE_INTERVAL = 75
"""seconds between two of them: the defaults of tcp(7).  TCP_USER_TIMEOUT must not undercut the two together."""
UNSENT_MAX = 128 << 10
"""Bytes of a client that may lie in the kernel unsent (TCP_NOTSENT_LOWAT).

Measured without: 2.9 MB for a client that does not read.
"""

_RESET, _END = (struct.pack("ii", resets, 0) for resets in (True, False))
"""`struct linger`, socket(7)."""


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """What is set on every connection, in seconds or infinity: quiet before a keepalive probe, and before a stall."""

    keepalive: float
    stall: float


def set_options(sock: socket.socket, socket_options: SocketOptions) -> None:
    """Set what every accepted connection is to inherit (the kernel's inet_csk_clone_lock copies it), tcp(7).

    Or set it on a connection that is there already.
    """
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Whoever ends a connection in good order takes this back. For the others: the kernel closes what a process had that
    # was killed, and what that had read and not sent back yet must not be missing from an echo that looks whole.
    reset_on_close(sock, resets=True)
    # A byte sent as urgent is data like any other, to be echoed in its place (RFC 6093 section 6).
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
        # The backstop for a session's own judgement, so longer than that takes.  Longer than keepalive too: with this
        # option the first probe without an answer ends a connection that was quiet for as long, whatever TCP_KEEPCNT
        # says, and one lost packet must not do that (RFC 1122 section 4.2.3.6).
        timeout = max(2 * socket_options.stall, silence)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, math.ceil(timeout * 1000))


def reset_on_close(sock: socket.socket, *, resets: bool) -> None:
    """Have the connection reset when the last descriptor of it is closed, or not (SO_LINGER with no time, socket(7)).

    Nothing happens to one that the system forbids to change.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET if resets else _END)
    except OSError:
        pass
