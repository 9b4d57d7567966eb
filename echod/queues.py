"""What lies in a connection's two queues in the kernel, tcp(7), unix(7)."""

import fcntl
import struct
import termios

_INT = struct.Struct("i")


def unread(fd: int) -> int:
    """Bytes that have arrived and were not read yet (SIOCINQ, which has the number of FIONREAD)."""
    return _ask(fd, termios.FIONREAD)


def unacknowledged(fd: int) -> int:
    """Bytes that were sent and not acknowledged, or on a unix socket not read, yet (SIOCOUTQ, that of TIOCOUTQ)."""
    return _ask(fd, termios.TIOCOUTQ)


def _ask(fd: int, request: int) -> int:
    (count,) = _INT.unpack(fcntl.ioctl(fd, request, bytes(_INT.size)))
    return int(count)
