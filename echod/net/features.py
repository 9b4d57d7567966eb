"""What echod needs of the kernel, and what a kernel or a sandbox may lack.

A sandbox that does not know a system call refuses it with EPERM or ENOSYS for as long as it exists.  So each feature is
tried once, at the start, by the parent: without an indispensable one echod does not start, and for any other one a
single event says what does not work.  Otherwise each worker, or each connection, would find out by itself.
"""

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

from echod.errors import MissingFeature
from echod.net import tcpinfo
from echod.net.sockopts import SocketOptions, refused_options


class Lack(NamedTuple):
    """A feature that this system lacks: its name, the system's words, and what does not work without it."""

    feature: str
    error: str
    effect: str


def require() -> None:
    """Raise `MissingFeature` if echod cannot serve on this system: it would accept connections and never answer."""
    problems = [
        f"this system refuses {feature}: {error.strerror}; echod needs it to {purpose}; allow it in the sandbox "
        "(SystemCallFilter=, a container's seccomp profile), or use Linux 5.3 or newer"
        for feature, try_it, purpose in (
            ("pidfd_open(2)", _try_pidfd, "notice the death of a worker"),
            ("pidfd_send_signal(2)", _try_pidfd_signal, "end a worker that hangs"),
            ("eventfd(2)", _try_eventfd, "wake a worker"),
        )
        if (error := _error_of(try_it)) is not None
    ]
    if problems:
        raise MissingFeature(*problems)


def lacks(socket_options: SocketOptions, *, limits_sources: bool) -> Iterator[Lack]:
    """The improvements that this system lacks; `socket_options` are those that connections get.

    Raises `MissingFeature` if sources are to be limited and cannot be.
    """
    for feature, try_it, effect in (
        ("memfd_create(2)", _try_memfd, "a restart drains connections, and sources cannot be limited"),
        ("EPOLLEXCLUSIVE", _try_exclusive, "each new connection wakes all workers"),
    ):
        if (error := _error_of(try_it)) is not None:
            yield Lack(feature, error.strerror or str(error), effect)
            if try_it is _try_memfd and limits_sources:
                raise MissingFeature(
                    f"limits.max_connections_per_source needs memfd_create(2), which this system refuses: "
                    f"{error.strerror}; allow it in the sandbox, or set the limit to 0"
                )
    try:
        socket.socket().close()
    except OSError:
        return  # RestrictAddressFamilies= forbids it where systemd passes the sockets.  Nothing can be tried then.
    if (error := _error_of(_try_tcp_info)) is not None:
        yield Lack("TCP_INFO", error.strerror or str(error), "the connections of a worker that dies are reset")
    for option, error in refused_options(socket_options):
        yield Lack(option, error.strerror or str(error), "connections do not have this option")


def _error_of(try_it: Callable[[], None]) -> OSError | None:
    try:
        try_it()
    except OSError as error:
        return error
    return None


def _try_pidfd() -> None:
    with _closing(os.pidfd_open(os.getpid())):
        pass


def _try_pidfd_signal() -> None:
    try:
        pidfd = os.pidfd_open(os.getpid())
    except OSError:
        return  # That is a problem by itself.
    with _closing(pidfd):
        signal.pidfd_send_signal(pidfd, 0)


def _try_eventfd() -> None:
    with _closing(os.eventfd(0, os.EFD_CLOEXEC)):
        pass


def _try_memfd() -> None:
    with _closing(os.memfd_create("echod-test", os.MFD_CLOEXEC)):
        pass


def _try_exclusive() -> None:
    with select.epoll() as epoll, socket.socket(socket.AF_UNIX) as sock:
        epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)


def _try_tcp_info() -> None:
    with socket.socket() as sock:
        tcpinfo.passed(sock)


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
