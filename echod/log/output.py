"""The output of events: a bounded queue in front of a descriptor, which never waits for the descriptor.

Standard error is shared with every process that inherited it, so it must not be made non-blocking; and a write after
poll(2) may still block, if another process was faster.  So the queue writes to a socket (systemd's journal) with
MSG_DONTWAIT, and opens a pipe or a terminal once more by its name in /proc, as a file description of its own that does
not block.
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
from enum import Enum, auto
from typing import NamedTuple, Protocol

from echod.log import journald

QUEUE_BYTES = 1 << 20
"""Most bytes that may wait in a queue; further events are dropped and counted."""


class Framing(Enum):
    """How an event is separated from the next one."""

    LINE = auto()
    """A line."""
    LINE_WITH_PRIORITY = auto()
    """A line that begins with `<N>`, its priority for the journal (sd-daemon(3))."""
    ENTRY = auto()
    """An entry of the journal, in its native protocol."""


class Watcher(Protocol):
    """The part of an event loop that a queue needs."""

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `fd` is ready for `events`."""

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`."""


class Writer(NamedTuple):
    """A descriptor of this process alone, and how to write to it without waiting (BlockingIOError: no room now).

    `write` may write a part of a line; the next call continues with the rest.  A file and a datagram socket take all or
    nothing, since neither a full disk nor a journal that restarts takes the rest later.
    """

    fd: int
    write: Callable[[bytes], int]
    close: Callable[[], None]


def open_writer(fd: int) -> Writer:
    """A writer to the file, pipe, terminal or socket behind the descriptor `fd`, which remains unchanged."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        sock = socket.socket(fileno=os.dup(fd))
        return Writer(sock.fileno(), lambda data: sock.send(data, socket.MSG_DONTWAIT), sock.close)
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with contextlib.suppress(OSError):
            own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            return Writer(own, lambda data: os.write(own, data), lambda: os.close(own))
    copy = os.dup(fd)
    if stat.S_ISREG(mode):
        return Writer(copy, lambda data: _append(copy, data), lambda: os.close(copy))
    # A pipe of another user cannot be opened again, so there poll(2) must suffice.
    return Writer(copy, lambda data: _write_if_ready(copy, data), lambda: os.close(copy))


def _append(fd: int, line: bytes) -> int:
    """Write a whole line to a file, which never blocks.  If the disk gets full, what it took of the line is removed.

    Nothing can follow that part until it is removed, because it has filled the disk.
    """
    written = 0
    try:
        while written < len(line):
            written += os.write(fd, line[written:])
    except OSError:
        if written:
            os.ftruncate(fd, os.fstat(fd).st_size - written)
            os.lseek(fd, 0, os.SEEK_END)  # a file that was not opened for appending would get a hole
        raise
    return written


def _write_if_ready(fd: int, data: bytes) -> int:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(fd, data[: select.PIPE_BUF])


def goes_to_journal(fd: int) -> bool:
    """Whether `fd` is the descriptor that systemd connected to its journal (JOURNAL_STREAM, systemd.exec(5))."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def open_log_queue(fd: int) -> tuple["LogQueue", Framing]:
    """The queue for the events of a process whose standard error is `fd`, and the framing that its reader expects."""
    if not goes_to_journal(fd):
        return LogQueue(open_writer(fd)), Framing.LINE
    try:
        socket_ = journald.JournaldSocket(journald.SOCKET)
        return LogQueue(Writer(socket_.fd, socket_.write, socket_.close)), Framing.ENTRY
    except OSError:
        # There is no such socket, or its use is forbidden (RestrictAddressFamilies=); standard error still works.
        return LogQueue(open_writer(fd)), Framing.LINE_WITH_PRIORITY


class LogQueue:
    """A queue of events, as lines or as entries of the journal, for one descriptor.

    Events that have to wait are written when the attached loop sees room, or by `finish`.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._loop: Watcher | None = None
        self._watched = False
        self._queue: deque[tuple[bytes, int]] = deque()
        """The lines that wait, and how many events are lost with each."""
        self._queued = 0
        self._dropped = 0

    def attach(self, loop: Watcher) -> None:
        """Use `loop` to watch the descriptor for room."""
        self._loop = loop
        self._watch()

    def detach(self) -> None:
        """Stop using the loop."""
        if self._loop is not None and self._watched:
            self._loop.unwatch(self._writer.fd)
        self._loop, self._watched = None, False

    def put(self, line: bytes, events: int = 1) -> None:
        """Write a line or an entry now if possible, else later; drop it if the queue is full.

        With the line this number of `events` would be lost: if it reports events that were dropped, they are dropped
        again.
        """
        if self._queue or (line := self._write(line, events)):
            if self._queued + len(line) > QUEUE_BYTES:
                self._dropped += events
                return
            self._queue.append((line, events))
            self._queued += len(line)
            self._watch()

    def _flush(self) -> None:
        self._empty()
        self._watch()

    def _watch(self) -> None:
        waiting = bool(self._queue)
        if self._loop is not None and waiting != self._watched:
            self._watched = waiting
            if waiting:
                self._loop.watch(self._writer.fd, selectors.EVENT_WRITE, self._flush)
            else:
                self._loop.unwatch(self._writer.fd)

    def _empty(self) -> None:
        """Write what waits, as far as the descriptor accepts it."""
        while self._queue:
            line, events = self._queue.popleft()
            self._queued -= len(line)
            if rest := self._write(line, events):
                self._queue.appendleft((rest, events))
                self._queued += len(rest)
                return

    def _write(self, line: bytes, events: int) -> bytes:
        """Write what the descriptor accepts of a line, and return the rest; an error drops the line."""
        try:
            # Retry a part at once: the next write shows whether there is no room now, or no reader any more.
            while (count := self._writer.write(line)) < len(line):
                line = line[count:]
        except BlockingIOError:
            return line
        except OSError:
            # The reader has closed the pipe, or the disk is full: this line is lost, but the next one may succeed.
            self._dropped += events
        return b""

    def finish(self, seconds: float) -> None:
        """At the end of a process, wait up to `seconds` until everything is written."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._writer.fd, select.POLLOUT)
        while self._queue and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            self._empty()

    def close(self) -> None:
        """Close the descriptor; events that still wait are lost."""
        self._writer.close()

    def take_dropped(self) -> int:
        """The number of events dropped since the last call; 0 while events wait, so that they are written first."""
        if self._queue:
            return 0
        dropped, self._dropped = self._dropped, 0
        return dropped

    def reset(self) -> None:
        """After a fork: leave the waiting lines, and the loop, to the parent."""
        self._queue.clear()
        self._queued = self._dropped = 0
        self._loop, self._watched = None, False
