"""What lies in a connection's two queues in the kernel, and what has passed through them, tcp(7), unix(7)."""

import fcntl
import socket
import struct
import termios
from enum import Enum
from typing import NamedTuple

_INT = struct.Struct("i")
_TCP_INFO = struct.Struct("=B119xQQ")
"""The beginning of `struct tcp_info`: the state; tcpi_bytes_acked and tcpi_bytes_received (linux/tcp.h)."""
_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT = 1, 4, 5, 8
_LOOKS = 3


class Ends(Enum):
    """Which sides of a connection may still send."""

    BOTH = "it is established"
    OURS = "the client has ended its side"
    THEIRS = "we have ended our side"
    NONE = "it is over"


class Passed(NamedTuple):
    """Bytes that an accepted connection was read from, and that were written to it, in all its life."""

    ends: Ends
    read: int
    written: int

    @property
    def owes(self) -> bool:
        """Whether not all of what was read was written back.  Nobody can tell where a side of ours has ended."""
        return self.ends in (Ends.THEIRS, Ends.NONE) or self.read != self.written


def unread(fd: int) -> int:
    """Bytes that have arrived and were not read yet (SIOCINQ, which has the number of FIONREAD)."""
    return _ask(fd, termios.FIONREAD)


def unacknowledged(fd: int) -> int:
    """Bytes that were sent and not acknowledged, or on a unix socket not read, yet (SIOCOUTQ, that of TIOCOUTQ)."""
    return _ask(fd, termios.TIOCOUTQ)


def passed(sock: socket.socket) -> Passed | None:
    """What has passed, which the kernel tells of TCP only; None of a unix socket.

    What was read is what has arrived and is not unread, and what was written is what was acknowledged and what is not
    yet.  The queues are asked in the order in which bytes that come or are acknowledged meanwhile can only make it look
    as if some were due; so that is looked at again.  Raises OSError if it can't be asked.
    """
    if sock.family == socket.AF_UNIX:
        return None
    found = _look(sock)
    for _ in range(_LOOKS - 1):
        if not found.owes:
            break
        found = _look(sock)
    return found


def owes(sock: socket.socket) -> bool:
    """Whether an accepted connection was read from without all of that being written back to it; also if unknown.

    Raises OSError if it can't be asked.
    """
    found = passed(sock)
    return found is None or found.owes


def _look(sock: socket.socket) -> Passed:
    inbound = unread(sock.fileno())
    state, acked, arrived = _TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    outbound = unacknowledged(sock.fileno())
    ends = _ENDS.get(state, Ends.NONE)
    # An end that came in, or went out, counts as a byte.
    read = arrived - inbound - (ends is Ends.OURS)
    written = acked + outbound - (ends is Ends.THEIRS)
    return Passed(ends, read, written)


_ENDS = {
    _ESTABLISHED: Ends.BOTH,
    _CLOSE_WAIT: Ends.OURS,
    _FIN_WAIT1: Ends.THEIRS,
    _FIN_WAIT2: Ends.THEIRS,
}


def _ask(fd: int, request: int) -> int:
    (count,) = _INT.unpack(fcntl.ioctl(fd, request, bytes(_INT.size)))
    return int(count)
