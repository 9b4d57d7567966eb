"""Status messages to systemd, or to any other service manager that follows its protocol (sd_notify(3)).

Without NOTIFY_SOCKET nothing is sent.  Only the parent process may send messages (NotifyAccess=main).
"""

import contextlib
import errno
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from typing import NamedTuple, Protocol

import sdnotify

MESSAGE_MAX = 4096
"""Bytes in a message.  systemd drops a longer one as a whole (NOTIFY_BUFFER_MAX), with all assignments in it."""
STATUS_MAX = 2048
"""Bytes of a status; a longer one is cut.  A sentence that long is not read to its end anyway."""

_ELLIPSIS = "…"


class Watcher(Protocol):
    """The part of an event loop that a notifier needs."""

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `fd` is ready for `events`."""

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`."""


class _Message(NamedTuple):
    """A message that waits for room, with its own duplicates of the descriptors."""

    topic: str
    data: bytes
    fds: tuple[int, ...]


class Notifier:
    """The notification socket, if there is one.  All messages to systemd go through it, and none of them blocks.

    While systemd's queue is full, messages wait here, in their order, and are sent when the attached loop sees room;
    WATCHDOG=1 and the status, which the next beat repeats, do not wait.  A message that can never be sent must not end
    the service, so `failed` keeps the first error, and `lost` the topics of all such messages.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self.failed: OSError | None = None
        self.lost: set[str] = set()
        self._waiting: deque[_Message] = deque()
        self._loop: Watcher | None = None
        self._watched = False
        self._notifier: sdnotify.SystemdNotifier | None = None
        if environ.get("NOTIFY_SOCKET"):
            try:
                # sdnotify hides errors unless `debug` is set.
                self._notifier = sdnotify.SystemdNotifier(debug=True)
                self._notifier.socket.setblocking(False)
            except OSError as error:
                self.failed = error

    @property
    def connected(self) -> bool:
        """Whether there is a service manager to send messages to."""
        return self._notifier is not None

    def attach(self, loop: Watcher) -> None:
        """Use `loop` to send messages that wait as soon as there is room."""
        self._loop = loop
        self._watch()

    def ready(self, status: str) -> None:
        """Send READY=1: startup or a reload is complete.

        The status is a message of its own, and comes first: `systemctl start` and `systemctl reload` return at READY=1.
        """
        self.send(_status(status))
        self.send("READY=1")

    def reloading(self, status: str) -> None:
        """Send RELOADING=1: a reload has begun; `ready` ends it.

        The time, in microseconds of CLOCK_MONOTONIC, distinguishes this message from those that were sent before
        systemd requested the reload.
        """
        self.send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", outdates=True)
        self.send(_status(status))

    def status(self, status: str) -> bool:
        """Send one sentence for `systemctl status`; False if there is no room for it now."""
        return self._send_now(_status(status))

    def watchdog(self) -> bool:
        """Send WATCHDOG=1: the service is alive; False if there is no room for it now."""
        return self._send_now("WATCHDOG=1")

    def stopping(self, status: str, seconds: float) -> None:
        """Send STOPPING=1, and that the stop may take `seconds` from now, whatever TimeoutStopSec= says."""
        self.send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")
        self.send(_status(status))

    def send(self, message: str, fds: Sequence[int] = (), *, topic: str = "", outdates: bool = False) -> None:
        """Send a message with copies of the descriptors `fds`, or keep both until there is room.

        With `outdates`, messages on the same `topic` that still wait are discarded: this one makes them pointless.
        """
        if self._notifier is None:
            return
        if outdates:
            self._discard(topic)
        message_ = _Message(topic, message.encode(), tuple(fds))
        if self.send_waiting() and self._deliver(message_):
            return
        copies: list[int] = []
        try:
            for fd in fds:
                copies.append(os.dup(fd))  # noqa: PERF401  an error must leave those that exist
        except OSError as error:
            _close(copies)
            self._note(message_, error)
        else:
            self._waiting.append(message_._replace(fds=tuple(copies)))
            self._watch()

    def send_waiting(self) -> bool:
        """Send the messages that wait for room; False if some of them still have to wait."""
        while self._waiting and self._deliver(self._waiting[0]):
            _close(self._waiting.popleft().fds)
        self._watch()
        return not self._waiting

    def close(self) -> None:
        """Close the socket, and send nothing from now on; a worker does this right after the fork.

        The loop is left as it is, because in a worker it is the parent's.
        """
        self._loop = None
        self._discard(*{message.topic for message in self._waiting})
        if self._notifier is not None:
            self._notifier.socket.close()
            self._notifier = None

    def _send_now(self, message: str) -> bool:
        """Send a message that does not wait; False if there is no room for it now, but True if it can never be sent."""
        return self.send_waiting() and self._deliver(_Message("", message.encode(), ()))

    def _deliver(self, message: _Message) -> bool:
        """Send a message; False if there is no room for it now, but True if it can never be sent."""
        if self._notifier is None:
            return True
        try:
            if len(message.data) > MESSAGE_MAX:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            if message.fds:  # which sdnotify cannot send
                socket.send_fds(self._notifier.socket, [message.data], message.fds)
            else:
                self._notifier.notify(message.data.decode("latin-1"))  # which sdnotify encodes as Latin-1 again
        except BlockingIOError:
            return False
        except OSError as error:
            self._note(message, error)
        return True

    def _note(self, message: _Message, error: OSError) -> None:
        self.failed = self.failed or error
        self.lost.add(message.topic)

    def _discard(self, *topics: str) -> None:
        kept = [message for message in self._waiting if message.topic not in topics]
        for message in self._waiting:
            if message.topic in topics:
                _close(message.fds)
        self._waiting = deque(kept)

    def _watch(self) -> None:
        if self._loop is None or self._notifier is None or bool(self._waiting) == self._watched:
            return
        self._watched = not self._watched
        fd = self._notifier.socket.fileno()
        if self._watched:
            self._loop.watch(fd, selectors.EVENT_WRITE, self._on_room)
        else:
            self._loop.unwatch(fd)

    def _on_room(self) -> None:
        self.send_waiting()


def watchdog_seconds(environ: MutableMapping[str, str]) -> float | None:
    """The longest time between two WATCHDOG=1 messages; None if systemd expects none (sd_watchdog_enabled(3))."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    # systemd writes an unsigned number of 64 bits; anything else is not from systemd.
    is_number = microseconds.isdecimal() and len(microseconds) <= len(str(2**64))
    return int(microseconds) / 1e6 if is_number and int(microseconds) else None


def _status(sentence: str) -> str:
    """A STATUS= assignment in one line: text after a line break would be another assignment.

    systemd ignores a status that is not UTF-8, so bytes of a path that are not are escaped.
    """
    line = sentence.replace("\n", " ").replace("\0", " ")
    data = line.encode(errors="backslashreplace")
    if len(data) > STATUS_MAX:
        # errors="ignore" drops what is left of a character that was cut.
        data = data[: STATUS_MAX - len(_ELLIPSIS.encode())]
        return f"STATUS={data.decode(errors='ignore')}{_ELLIPSIS}"
    return f"STATUS={data.decode()}"


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
