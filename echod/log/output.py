"""Where lines of log go: a bounded queue before a descriptor that is never waited for.

Standard error belongs to everyone who inherited it, so it can't be made non-blocking, and a line that poll(2) allowed
may block all the same when another process was quicker.  So a socket (systemd's journal) is sent to with MSG_DONTWAIT,
and a pipe or terminal is opened once more, by its name in /proc, as a file description of our own that does not block.
"""

import contextlib
import os
import select
import selectors
import socket
import stat
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

QUEUE_BYTES = 1 << 20
"""What may wait; beyond it lines are dropped, and counted."""


class Watcher(Protocol):
    """The part of a loop that a sink needs."""

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call back whenever `fd` is ready for `events`."""

    def unwatch(self, fd: int) -> None:
        """Call back no more."""


class Writer(NamedTuple):
    """A descriptor of our own, and how to write to it without waiting (BlockingIOError: no room now).

    What does not take all of a line gets the rest of it the next time; what keeps messages apart takes all or nothing.
    """

    fd: int
    write: Callable[[bytes], int]
    close: Callable[[], None]


def open_writer(fd: int) -> Writer:
    """A writer to whatever the descriptor `fd` writes to; `fd` itself is left as it is."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        sock = socket.socket(fileno=os.dup(fd))
        return Writer(sock.fileno(), lambda data: sock.send(data, socket.MSG_DONTWAIT), sock.close)
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with contextlib.suppress(OSError):
            own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            return Writer(own, lambda data: os.write(own, data), lambda: os.close(own))
    # A plain file never blocks.  A pipe that another user made can't be opened again: there is still poll(2).
    copy = os.dup(fd)
    return Writer(copy, lambda data: _write_if_ready(copy, data), lambda: os.close(copy))


def _write_if_ready(fd: int, data: bytes) -> int:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(fd, data[: select.PIPE_BUF])


class LogQueue:
    """Lines, or entries of the journal, on their way to a descriptor.

    Lines that have to wait go out when the loop that the sink is attached to says so, or else at `finish`.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._loop: Watcher | None = None
        self._watched = False
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._dropped = 0

    def attach(self, loop: Watcher) -> None:
        """Let `loop` tell when the descriptor takes more."""
        self._loop = loop
        self._watch()

    def detach(self) -> None:
        """Go without a loop again."""
        if self._loop is not None and self._watched:
            self._loop.unwatch(self._writer.fd)
        self._loop, self._watched = None, False

    def put(self, line: bytes) -> None:
        """Write `line`, or an entry, now if possible, else later, else not at all."""
        if self._queued + len(line) > QUEUE_BYTES:
            self._dropped += 1
            return
        self._queue.append(line)
        self._queued += len(line)
        if len(self._queue) == 1:
            self._flush()

    def _flush(self) -> None:
        """Write what the descriptor takes, and wait for it to take the rest."""
        self._write()
        self._watch()

    def _watch(self) -> None:
        waiting = bool(self._queue)
        if self._loop is not None and waiting != self._watched:
            self._watched = waiting
            if waiting:
                self._loop.watch(self._writer.fd, selectors.EVENT_WRITE, self._flush)
            else:
                self._loop.unwatch(self._writer.fd)

    def _write(self) -> None:
        while self._queue:
            line = self._queue[0]
            try:
                count = self._writer.write(line)
            except BlockingIOError:
                return
            except OSError:
                # Nobody reads any more, or the disk is full: this line is lost, and the next may not be.
                count = len(line)
                self._dropped += 1
            self._queued -= count
            if count < len(line):
                # Then go on: the next attempt tells whether there is no room now, or none any more (a full disk).
                self._queue[0] = line[count:]
            else:
                self._queue.popleft()

    def finish(self, seconds: float) -> None:
        """Wait up to `seconds` for all lines to go out, at the end of a process."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._writer.fd, select.POLLOUT)
        while self._queue and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            self._write()

    def close(self) -> None:
        """Give the descriptor back; what still waits is lost."""
        self._writer.close()

    def take_dropped(self) -> int:
        """How many lines were dropped since this was last asked; 0 while the queue is still full of others."""
        if self._queue:
            return 0
        dropped, self._dropped = self._dropped, 0
        return dropped

    def reset(self) -> None:
        """After a fork: leave the lines that wait, and the loop, to the parent."""
        self._queue.clear()
        self._queued = self._dropped = 0
        self._loop, self._watched = None, False
