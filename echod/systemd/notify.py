"""Status messages to systemd, or to any other service manager that follows its protocol (sd_notify(3)).

Without NOTIFY_SOCKET nothing is sent.  Only the parent process may send messages (NotifyAccess=main).
"""

import os
import select
import socket
import time
from collections import deque
from collections.abc import MutableMapping, Sequence

import sdnotify

SEND_WAIT = 1.0
"""Seconds to wait for room in systemd's queue for a message that cannot be sent later."""

_LATE_MAX = 3
"""Messages that may wait for room: the start and end of the last reload, and STOPPING=1.  Older ones are outdated."""


class Notifier:
    """The notification socket, if there is one.  All messages to systemd go through it.

    sdnotify hides errors unless `debug` is set, as it is here.  But a message that cannot be sent must not end the
    service, so `failed` keeps the first error.

    Only `send_fds` may block.  While systemd's queue is full, the messages that announce a state (READY=1, RELOADING=1,
    STOPPING=1) wait for `send_late`, and no other message is sent before them.
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
        """Send READY=1: startup or a reload is complete."""
        self._keep(f"READY=1\n{_status(status)}")

    def reloading(self) -> None:
        """Send RELOADING=1: a reload has begun; `ready` ends it.

        The time, in microseconds of CLOCK_MONOTONIC, distinguishes this message from those that were sent before
        systemd requested the reload.
        """
        self._keep(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, status: str) -> bool:
        """Send one sentence for `systemctl status`; False if there is no room for it now."""
        return self.send_late() and self._notify(_status(status))

    def watchdog(self) -> bool:
        """Send WATCHDOG=1: the service is alive; False if there is no room for it now."""
        return self.send_late() and self._notify("WATCHDOG=1")

    def stopping(self, status: str, seconds: float) -> None:
        """Send STOPPING=1, and that the stop may take `seconds` from now, whatever TimeoutStopSec= says."""
        self._keep(f"STOPPING=1\n{_status(status)}\nEXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def send_late(self) -> bool:
        """Send the messages that wait for room; False if some of them still have to wait."""
        while self._late and self._notify(self._late[0]):
            self._late.popleft()
        return not self._late

    def send_fds(self, message: str, fds: Sequence[int]) -> bool:
        """Send a message with descriptors, which sdnotify cannot send, and which cannot wait for `send_late`.

        Returns False if it was not sent.  Blocks for up to `SEND_WAIT` seconds while systemd's queue is full.
        """
        if self._notifier is None:
            return False
        sock = self._notifier.socket
        try:
            is_ready(sock.fileno(), select.POLLOUT, SEND_WAIT)
            socket.send_fds(sock, [message.encode()], fds)
        except OSError as error:
            self.failed = self.failed or error
            return False
        return True

    def close(self) -> None:
        """Close the socket, and send nothing from now on; a worker does this right after the fork."""
        if self._notifier is not None:
            self._notifier.socket.close()
            self._notifier = None

    def _keep(self, message: str) -> None:
        self._late.append(message)
        self.send_late()

    def _notify(self, message: str) -> bool:
        """Send a message; False if there is no room for it now, but True if it can never be sent."""
        if self._notifier is None:
            return True
        try:
            # sdnotify encodes as Latin-1; this makes it send UTF-8.
            self._notifier.notify(message.encode(errors="surrogateescape").decode("latin-1"))
        except BlockingIOError:
            return False
        except OSError as error:
            self.failed = self.failed or error
        return True


def is_ready(fd: int, event: int, seconds: float) -> bool:
    """Wait up to `seconds` for `event` or a hang-up.  Uses poll(2), as select(2) accepts no descriptor above 1023."""
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(seconds * 1000))


def watchdog_seconds(environ: MutableMapping[str, str]) -> float | None:
    """The longest time between two WATCHDOG=1 messages; None if systemd expects none (sd_watchdog_enabled(3))."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else None


def _status(sentence: str) -> str:
    """A STATUS= assignment in one line: text after a line break would be another assignment."""
    return f"STATUS={sentence}".replace("\n", " ")
