"""The descriptors that systemd passes to a process at its start (sd_listen_fds(3)).

They come from a .socket unit, or from the descriptor store, where an earlier echod has stored them (`fdstore`).
"""

import contextlib
import os
import re
from collections.abc import MutableMapping, Sequence
from typing import NamedTuple

from echod.systemd.fdstore import OURS, PROBE

_FIRST_FD = 3
"""SD_LISTEN_FDS_START."""
_COUNT = re.compile("[0-9]{1,7}")
_MOST = 1 << 20
"""Descriptors that a process can have, unless root has allowed it more (fs.nr_open)."""


class PassedFd(NamedTuple):
    """A descriptor and its name, which comes from its .socket unit or from the store."""

    fd: int
    name: str


class PassedFds:
    """All descriptors that were passed to this process, in their order.

    `warning` is a sentence if LISTEN_FDS is set but cannot be meant for this process, else empty.
    """

    def __init__(self, fds: Sequence[PassedFd], warning: str = "") -> None:
        self.fds = fds
        self.warning = warning

    def named(self, name: str) -> list[int]:
        """The descriptors that an earlier echod has stored under `name`."""
        return [passed.fd for passed in self.fds if passed.name == name]

    def from_socket_unit(self) -> list[int]:
        """The descriptors that no echod has stored: their names do not begin with `OURS`."""
        return [passed.fd for passed in self.fds if not passed.name.startswith(OURS)]


def listen_fds(environ: MutableMapping[str, str]) -> PassedFds:
    """The descriptors that were passed to this process, made non-inheritable.

    The variables are removed from `environ`, so that no child process uses the descriptors.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not _COUNT.fullmatch(count) or int(count) > _MOST:
        return PassedFds([], _why_not(pid, count))
    fds = range(_FIRST_FD, _FIRST_FD + int(count))
    if len(names) != len(fds):
        names = [""] * len(fds)
    passed = []
    for fd, name in zip(fds, names, strict=True):
        with contextlib.suppress(OSError):  # If the descriptor is not open, adopting it raises the error.
            os.set_inheritable(fd, False)
            if name == PROBE:  # A process that tested the store was killed before it had the answer.
                os.close(fd)
        if name != PROBE:
            passed.append(PassedFd(fd, name))
    return PassedFds(passed)


def _why_not(pid: str, count: str) -> str:
    """Why descriptors are not used; empty if none were passed."""
    if count in ("", "0"):
        return ""
    if pid == str(os.getpid()):
        return f"LISTEN_FDS is {count!r}, not a number of descriptors, so no passed socket is used"
    process = f"process {pid}" if pid else "no process"
    return (
        f"LISTEN_FDS is set, but LISTEN_PID names {process}, not {os.getpid()} (echod), so no passed socket is used; "
        "have systemd start echod itself, or the program in between exec it"
    )
