"""What lies in a connection's two queues in the kernel, tcp(7), unix(7)."""

import fcntl
import socket
import struct
import termios

_INT = struct.Struct("i")
_TCP_INFO = struct.Struct("=B119xQQ")
"""The beginning of `struct tcp_info`: the state; tcpi_bytes_acked and tcpi_bytes_received (linux/tcp.h)."""
_ESTABLISHED, _CLOSE_WAIT = 1, 8


def unread(fd: int) -> int:
    """Bytes that have arrived and were not read yet (SIOCINQ, which has the number of FIONREAD)."""
    return _ask(fd, termios.FIONREAD)


def unacknowledged(fd: int) -> int:
    """Bytes that were sent and not acknowledged, or on a unix socket not read, yet (SIOCOUTQ, that of TIOCOUTQ)."""
    return _ask(fd, termios.TIOCOUTQ)


def owes(sock: socket.socket) -> bool:
    """Whether an accepted connection was read from without all of that being written back to it; also if unknown.

    What was read is what has arrived and is not unread, and what was written is what was acknowledged and what is not
    yet; only of TCP the kernel says so much.  The queues are asked in the order in which bytes that come or are
    acknowledged meanwhile can only make it look as if some were due.  Raises OSError if it can't be asked.
    """
    if sock.family == socket.AF_UNIX:
        return True
    inbound = unread(sock.fileno())
    state, acked, arrived = _TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    outbound = unacknowledged(sock.fileno())
    if state not in (_ESTABLISHED, _CLOSE_WAIT):
        return True
    end = state == _CLOSE_WAIT  # which counts as a byte that has arrived
    return bool(arrived - end - inbound != acked + outbound)


def _ask(fd: int, request: int) -> int:
    (count,) = _INT.unpack(fcntl.ioctl(fd, request, bytes(_INT.size)))
    return int(count)
