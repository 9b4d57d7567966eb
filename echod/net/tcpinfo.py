"""The bytes in a connection's two kernel queues, and the bytes that have passed through them: tcp(7), unix(7)."""

import errno
import fcntl
import os
import socket
import struct
import termios
from enum import Enum
from typing import NamedTuple

_INT = struct.Struct("i")
_TCP_INFO = struct.Struct("=B5xB113xQQ")
"""The beginning of `struct tcp_info`: the state; the scale of windows, the client's in the low half of the byte;
tcpi_bytes_acked and tcpi_bytes_received (linux/tcp.h)."""
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("I4xI8xI")
"""SK_MEMINFO_RMEM_ALLOC, SK_MEMINFO_WMEM_ALLOC and SK_MEMINFO_WMEM_QUEUED (linux/sock_diag.h)."""
_WINDOW_MAX = 65535
"""Bytes, to be shifted by the scale (RFC 7323 section 2.2)."""
_BUFFER_UNKNOWN = 64 << 20
"""Bytes, more than systems give a connection by default."""
_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT = 1, 4, 5, 8
_LOOKS = 3
IPPROTO_MPTCP = 262
"""`socket` has a name for it from Python 3.12 on."""


class Ends(Enum):
    """The sides of a connection that may still send."""

    BOTH = "established"
    OURS = "the client has ended its side"
    THEIRS = "we have ended our side"
    NONE = "both sides have ended"


class Passed(NamedTuple):
    """Bytes read from an accepted connection, and bytes written to it, since it was accepted."""

    ends: Ends
    read: int
    written: int

    @property
    def owes(self) -> bool:
        """Whether some of the bytes read were not written back; also True, as unknown, once our side has ended."""
        return self.ends in (Ends.THEIRS, Ends.NONE) or self.read != self.written


def unread(fd: int) -> int:
    """Bytes that have arrived and have not been read yet (SIOCINQ, the same request as FIONREAD)."""
    return _ask(fd, termios.FIONREAD)


def unacknowledged(fd: int) -> int:
    """Bytes sent but not yet acknowledged, or on a unix socket not yet read (SIOCOUTQ, the same as TIOCOUTQ)."""
    return _ask(fd, termios.TIOCOUTQ)


def buffered_by_client(sock: socket.socket) -> int:
    """The most bytes that may lie in the client's receive buffer, acknowledged, but not read by it yet.

    They are no more than it has acknowledged, and no more than twice the largest window that it can announce: by
    default Linux announces half of the buffer (tcp_adv_win_scale).  The window announced now is no help, since it is 0
    if the buffer is full, and TCP_INFO does not contain the largest one that was announced.
    """
    if sock.family == socket.AF_UNIX:
        return unacknowledged(sock.fileno())
    try:
        _, scales, acked, _ = _TCP_INFO.unpack(_info(sock))
    except OSError:
        return _BUFFER_UNKNOWN
    if sock.proto == IPPROTO_MPTCP:  # the counters are those of one path only
        return _BUFFER_UNKNOWN
    return int(min(acked, 2 * (_WINDOW_MAX << (scales & 0xF))))


def kernel_memory(sock: socket.socket) -> int:
    """Bytes that the connection's queues occupy in the kernel; on a unix socket, those of its own queue only.

    0 if the kernel does not say (SO_MEMINFO came with Linux 4.12, and a sandbox may lack it).
    """
    try:
        received, sent, unacked = _MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    except OSError:
        return 0
    return int(received + max(sent, unacked))


def passed(sock: socket.socket) -> Passed | None:
    """The bytes that have passed; None for a unix socket, since the kernel counts them for TCP only.

    Also None for a connection by MPTCP, of whose paths the kernel counts only the first.

    The bytes read are those that have arrived minus those unread; the bytes written are those acknowledged plus those
    still in the queue.  The order of the queries is such that bytes which arrive or are acknowledged meanwhile can only
    make bytes look due; so that result is checked again.  Raises OSError if the kernel does not answer.
    """
    if sock.family == socket.AF_UNIX or sock.proto == IPPROTO_MPTCP:
        return None
    found = _look(sock)
    for _ in range(_LOOKS - 1):
        if not found.owes:
            break
        found = _look(sock)
    return found


def owes(sock: socket.socket) -> bool:
    """Whether some bytes read from an accepted connection were not written back to it; also True if that is unknown.

    Raises OSError if the kernel does not answer.
    """
    found = passed(sock)
    return found is None or found.owes


def _look(sock: socket.socket) -> Passed:
    inbound = unread(sock.fileno())
    state, _, acked, arrived = _TCP_INFO.unpack(_info(sock))
    outbound = unacknowledged(sock.fileno())
    ends = _ENDS.get(state, Ends.NONE)
    # The end of a side, received or acknowledged, counts as a byte.
    read = arrived - inbound - (ends is Ends.OURS)
    written = acked + outbound - (ends is Ends.THEIRS)
    return Passed(ends, read, written)


def _info(sock: socket.socket) -> bytes:
    """The part of `struct tcp_info` that has the counters; raises OSError if this kernel's is shorter."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    if len(info) < _TCP_INFO.size:
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
    return info


_ENDS = {
    _ESTABLISHED: Ends.BOTH,
    _CLOSE_WAIT: Ends.OURS,
    _FIN_WAIT1: Ends.THEIRS,
    _FIN_WAIT2: Ends.THEIRS,
}


def _ask(fd: int, request: int) -> int:
    (count,) = _INT.unpack(fcntl.ioctl(fd, request, bytes(_INT.size)))
    return int(count)
