"""Talking with systemd, or with anything that speaks as it does; without it nothing here does anything.

sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).  Only the parent process may use this (NotifyAccess=main).
"""

import contextlib
import os
import time
from collections.abc import MutableMapping

import sdnotify

_FIRST_FD = 3
"""SD_LISTEN_FDS_START."""


class Notifier:
    """The notification socket, if there is one.

    sdnotify, told to, raises what else it would swallow; but a message that does not arrive must not end the service,
    so it is `failed` that remembers the first failure.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self.failed: OSError | None = None
        self._notifier: sdnotify.SystemdNotifier | None = None
        if environ.get("NOTIFY_SOCKET"):
            try:
                self._notifier = sdnotify.SystemdNotifier(debug=True)
            except OSError as error:
                self.failed = error

    def ready(self, status: str) -> None:
        """Say that the service is up, or that it is done with reloading."""
        self._notify(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Say that the configuration is read again; `ready` ends that.

        The time, in microseconds of CLOCK_MONOTONIC, tells this from what was said before systemd asked for a reload.
        """
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, status: str) -> None:
        """Say in one sentence how things are."""
        self._notify(f"STATUS={status}")

    def watchdog(self) -> None:
        """Say that all is well."""
        self._notify("WATCHDOG=1")

    def stopping(self, status: str) -> None:
        """Say that the service is going down."""
        self._notify(f"STOPPING=1\nSTATUS={status}")

    def close(self) -> None:
        """Give the socket back; a worker does this first of all."""
        if self._notifier is not None:
            self._notifier.socket.close()
            self._notifier = None

    def _notify(self, state: str) -> None:
        if self._notifier is None:
            return
        try:
            # sdnotify encodes as Latin-1; this makes the bytes that leave UTF-8.
            self._notifier.notify(state.encode(errors="surrogateescape").decode("latin-1"))
        except OSError as error:
            self.failed = self.failed or error


def watchdog_seconds(environ: MutableMapping[str, str]) -> float | None:
    """Seconds within which systemd wants to hear from us, or None if it does not care."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else None


def listen_fds(environ: MutableMapping[str, str]) -> list[int]:
    """The descriptors that were passed to this process, none of them inheritable any more.

    The variables are removed, so that no child takes them for its own.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    fds = list(range(_FIRST_FD, _FIRST_FD + int(count)))
    for fd in fds:
        with contextlib.suppress(OSError):  # One that is not open: whoever adopts it will say so.
            os.set_inheritable(fd, False)
    return fds
