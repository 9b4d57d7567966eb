"""Talking with systemd, or with anything that speaks as it does; without it nothing here does anything.

sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).  Only the parent process may use this (NotifyAccess=main).
"""

import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import MutableMapping, Sequence
from typing import NamedTuple

import sdnotify

_FIRST_FD = 3
"""SD_LISTEN_FDS_START."""
_FDS_MAX = 253
"""Descriptors in one message (SCM_MAX_FD, unix(7))."""
_PATIENCE = 1.0
"""Seconds to wait for room in systemd's queue where something can't be said later."""
_ANSWER = 3.0
"""Seconds to wait for its answer, without which clients are lost; a stop asks thrice at most, in TimeoutStopSec=."""
_PROBE = "echod-probe"
_LATE_MAX = 3
"""Messages that may wait: the beginning and the end of the last reload, and the end of all.  Older ones say no more."""


class Notifier:
    """The notification socket, if there is one.

    sdnotify, told to, raises what else it would swallow; but a message that does not arrive must not end the service,
    so it is `failed` that remembers the first failure.

    Nor is a receiver waited for whose queue is full: what says where the service is in its life is kept for
    `send_late`, and meanwhile nothing else is said.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self.failed: OSError | None = None
        self._late: deque[str] = deque(maxlen=_LATE_MAX)
        self._notifier: sdnotify.SystemdNotifier | None = None
        if environ.get("NOTIFY_SOCKET"):
            try:
                self._notifier = sdnotify.SystemdNotifier(debug=True)
                self._notifier.socket.setblocking(False)
            except OSError as error:
                self.failed = error

    def ready(self, status: str) -> None:
        """Say that the service is up, or that it is done with reloading."""
        self._keep(f"READY=1\n{_status(status)}")

    def reloading(self) -> None:
        """Say that the configuration is read again; `ready` ends that.

        The time, in microseconds of CLOCK_MONOTONIC, tells this from what was said before systemd asked for a reload.
        """
        self._keep(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, status: str) -> bool:
        """Say in one sentence how things are; False if it can't be said now."""
        return self.send_late() and self._notify(_status(status))

    def watchdog(self) -> bool:
        """Say that all is well; False if it can't be said now."""
        return self.send_late() and self._notify("WATCHDOG=1")

    def stopping(self, status: str, seconds: float) -> None:
        """Say that the service is going down, and how long that may take, whatever TimeoutStopSec= says."""
        self._keep(f"STOPPING=1\n{_status(status)}\nEXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def store(self, name: str, fds: Sequence[int]) -> None:
        """Have systemd keep copies of `fds`, which it passes under `name` to the process that it starts after this one.

        For as long as the service is meant to run: it forgets them when that is stopped.  One that it has already is
        not kept twice.  Without a store (FileDescriptorStoreMax=) nothing happens, and nobody says so.
        """
        for start in range(0, len(fds), _FDS_MAX):
            # FDPOLL=0: systemd would drop a connection of which the other end is gone, and then nobody would tell.
            self._pass(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fds[start : start + _FDS_MAX])

    def discard(self, name: str) -> None:
        """Have systemd close its copies of what is stored under `name`."""
        self._pass(f"FDSTOREREMOVE=1\nFDNAME={name}", [])

    def stores(self) -> bool:
        """Whether systemd keeps what it is given; what it was given before, it has then.

        systemd 252 does not answer FDSTORE=1.  But one end of a pipe that it did not keep is closed, and its other end
        says so.
        """
        read, write = os.pipe()
        try:
            self.store(_PROBE, [write])
            os.close(write)
            kept = self._settle() and not _is_ready(read, select.POLLIN, 0)
        finally:
            os.close(read)
        if kept:
            self.discard(_PROBE)
        return kept

    def _settle(self) -> bool:
        """Wait until systemd has done all that it was told to; False if it is not there, or takes too long."""
        read, write = os.pipe()
        try:
            sent = self._pass("BARRIER=1", [write])
            os.close(write)
            return sent and _is_ready(read, select.POLLIN, _ANSWER)
        finally:
            os.close(read)

    def _pass(self, state: str, fds: Sequence[int]) -> bool:
        """Say something that can't be said later, with descriptors; sdnotify has no way to send those."""
        if self._notifier is None:
            return False
        sock = self._notifier.socket
        try:
            _is_ready(sock.fileno(), select.POLLOUT, _PATIENCE)
            socket.send_fds(sock, [state.encode()], fds)
        except OSError as error:
            self.failed = self.failed or error
            return False
        return True

    def send_late(self) -> bool:
        """Say what could not be said in time; False if some of it still can't."""
        while self._late and self._notify(self._late[0]):
            self._late.popleft()
        return not self._late

    def close(self) -> None:
        """Give the socket back; a worker does this first of all."""
        if self._notifier is not None:
            self._notifier.socket.close()
            self._notifier = None

    def _keep(self, state: str) -> None:
        self._late.append(state)
        self.send_late()

    def _notify(self, state: str) -> bool:
        """Whether that has been said, or never can be."""
        if self._notifier is None:
            return True
        try:
            # sdnotify encodes as Latin-1; this makes the bytes that leave UTF-8.
            self._notifier.notify(state.encode(errors="surrogateescape").decode("latin-1"))
        except BlockingIOError:
            return False
        except OSError as error:
            self.failed = self.failed or error
        return True


def _is_ready(fd: int, event: int, seconds: float) -> bool:
    """Wait for `event`, or the other end's end, so long.  By poll(2): select(2) takes no descriptor above 1023."""
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(seconds * 1000))


def _status(sentence: str) -> str:
    """An assignment of one line: what follows a line break would be another, of anybody's choice."""
    return f"STATUS={sentence}".replace("\n", " ")


def watchdog_seconds(environ: MutableMapping[str, str]) -> float | None:
    """Seconds within which systemd wants to hear from us, or None if it does not care."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else None


class Passed(NamedTuple):
    """A descriptor that was passed to this process, and its name: of the .socket unit, or what it was stored under."""

    fd: int
    name: str


def listen_fds(environ: MutableMapping[str, str]) -> list[Passed]:
    """The descriptors that were passed to this process, none of them inheritable any more.

    The variables are removed, so that no child takes them for its own.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    fds = range(_FIRST_FD, _FIRST_FD + int(count))
    if len(names) != len(fds):
        names = [""] * len(fds)
    passed = []
    for fd, name in zip(fds, names, strict=True):
        with contextlib.suppress(OSError):  # One that is not open: whoever adopts it will say so.
            os.set_inheritable(fd, False)
            if name == _PROBE:  # of a process that was killed before it had its answer
                os.close(fd)
        if name != _PROBE:
            passed.append(Passed(fd, name))
    return passed
