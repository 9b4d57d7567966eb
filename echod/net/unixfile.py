"""The files by which unix sockets are found, unix(7): made, and known again."""

import errno
import os
import socket
import stat

_MODE = 0o666
"""An echo is for everyone who can reach it; who can reach a unix socket is for the directory it lies in to say."""


def bind(sock: socket.socket, path: str) -> None:
    """Bind to `path`, in place of the socket of a daemon that is dead; nothing else that is there is touched.

    Two daemons that start on one path in the same instant can still race; a service manager starts one.
    """
    if path.startswith("\0"):
        sock.bind(path)
        return
    try:
        sock.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        check(path)
        if _answers(path):
            raise
        os.unlink(path)
        sock.bind(path)
    os.chmod(path, _MODE)


def check(path: str) -> None:
    """Raise OSError if no socket can be made at `path`, whoever may listen there now."""
    if path.startswith("\0"):
        return
    directory = os.path.dirname(path)
    os.stat(os.path.join(directory, ""))
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _answers(path: str) -> bool:
    """Whether somebody listens on the unix socket at `path`; one whose queue is full (EAGAIN) does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


def identity(sock: socket.socket) -> tuple[int, int] | None:
    """Device and inode of the file that a unix socket's name leads to; None where there is none."""
    if sock.family != socket.AF_UNIX:
        return None
    try:
        status = os.lstat(sock.getsockname())
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
