"""Run a command with descriptors as systemd passes them: from 3 up, and with the process's own number in a variable.

    python -m tests.integration.passing PID COUNT DESCRIPTOR... COMMAND ARGUMENT...

PID is what LISTEN_PID is to be, if it is not empty.  LISTEN_FDS and LISTEN_FDNAMES stay what they are, if they are set.
"""

import fcntl
import os
import sys

FREE = 1000
"""From this number up no descriptor is open."""


def main() -> None:
    """Become the command."""
    pid, count, *words = sys.argv[1:]
    fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, FREE) for fd in words[: int(count)]]
    for number, fd in enumerate(fds, 3):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.setdefault("LISTEN_FDS", count)
    os.environ.setdefault("LISTEN_FDNAMES", ":".join(["echod"] * len(fds)))
    os.environ["LISTEN_PID"] = pid or str(os.getpid())
    command = words[int(count) :]
    os.execv(command[0], command)


def prefix(fds: tuple[int, ...], pid: str = "") -> tuple[str, ...]:
    """What to put before a command that these descriptors are to be passed to."""
    return (sys.executable, "-m", "tests.integration.passing", pid, str(len(fds)), *map(str, fds))


if __name__ == "__main__":
    main()
