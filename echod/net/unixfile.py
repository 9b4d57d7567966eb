"""The files of unix sockets, unix(7): creating them, and recognising them later."""

import errno
import os
import socket
import stat

_MODE = 0o666
"""Every user may connect: access to a unix socket is limited by the permissions of its directory."""


def bind(sock: socket.socket, path: str) -> None:
    """Bind to `path`, replacing the socket of a daemon that has died; any other file there is left alone.

    Two daemons that start on one path at the same instant can still race; a service manager starts only one.
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
    """Raise OSError if no socket can be created at `path`; a socket there, in use or not, is no error."""
    if path.startswith("\0"):
        return
    directory = os.path.dirname(path)
    os.stat(os.path.join(directory, ""))
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _answers(path: str) -> bool:
    """Whether a process listens on the unix socket at `path`; EAGAIN means that it does and its queue is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


def identity(sock: socket.socket) -> tuple[int, int] | None:
    """Device and inode of the file at a unix socket's path; None if there is no file."""
    if sock.family != socket.AF_UNIX:
        return None
    try:
        status = os.lstat(sock.getsockname())
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
