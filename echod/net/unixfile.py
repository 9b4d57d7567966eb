"""The files of unix sockets, unix(7): creating them, and recognising them later."""

import errno
import os
import socket
import stat

from echod.errors import Explained

MODE = 0o666
"""Every user may connect: the default, so access is limited by the permissions of the directory."""


def bind(sock: socket.socket, path: str, mode: int) -> None:
    """Bind to `path`, replacing the socket of a daemon that has died; any other file there is left alone.

    An abstract name has no mode.  Two daemons that start on one path at the same instant can still race; a service
    manager starts only one.  Raises OSError.
    """
    try:
        _bind(sock, path, mode)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        if not path.startswith("\0"):
            check(path)
        _require_dead(path)
        _remove(path)
        _bind(sock, path, mode)


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


def set_mode(path: str, file: tuple[int, int], mode: int) -> None:
    """Set the mode of a socket's file, if `path` is still that file (`identity`); it follows no symbolic link.

    chmod(2) takes no descriptor of a file that cannot be opened for reading or writing, except by its name in /proc.
    """
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) == file and stat.S_IMODE(status.st_mode) != mode:
            os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def has_file(sock: socket.socket) -> bool:
    """Whether the socket was bound to a path."""
    return sock.family == socket.AF_UNIX and isinstance(sock.getsockname(), str)


def identity(sock: socket.socket) -> tuple[int, int] | None:
    """Device and inode of the file at a unix socket's path; None if there is no file."""
    if sock.family != socket.AF_UNIX:
        return None
    try:
        status = os.lstat(sock.getsockname())
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _bind(sock: socket.socket, path: str, mode: int) -> None:
    """bind(2), with the mode from the first moment on: chmod(2) afterwards would follow a link that replaced the file.

    The umask belongs to the whole process, which has one thread.
    """
    before = os.umask(~mode & 0o777)
    try:
        sock.bind(path)
    finally:
        os.umask(before)


def _require_dead(path: str) -> None:
    """Raise an error if a process listens on the unix socket at `path`, or if that cannot be found out."""
    in_use = "another program listens there; stop it (ss -lxp shows it) or choose another name"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
        except PermissionError as error:
            raise Explained(
                "a socket of another user is there, to which this user may not connect; "
                "remove the file if no program listens there, or choose another path"
            ) from error
        except OSError as error:  # EAGAIN: its queue is full; EPROTOTYPE: it is a datagram socket.
            raise Explained(in_use) from error
    raise Explained(in_use)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except PermissionError as error:
        raise Explained(
            "a socket of another user, on which no program listens, is there; remove the file or choose another path"
        ) from error
