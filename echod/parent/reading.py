"""A child process of the parent that reads what may block: files, which may be on a network, and host names.

The parent's loop continues meanwhile.  It watches the child by a pidfd, and kills it at the deadline.  The child closes
all descriptors but its pipe and those with which echod was started (`--config <(...)` is one), and dies with the
parent.  Rejected: a thread, because the parent forks workers, and a fork copies locks that a thread holds; and another
program, because a forked child knows the settings in effect and starts in milliseconds.

Through the pipe the child sends lines, and each is an outcome as JSON; the last one counts.  Before each step that may
block, the child sends the problem that it will be if the step does not end in time.  JSON and not pickle, because the
child handles answers of name servers: a pickle could make the parent run code.
"""

import contextlib
import json
import os
import select
import signal
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from echod.errors import EX_OK, CannotListen, ConfigError, EchodError
from echod.net.loop import READ, Loop, Timer
from echod.parent.signals import HANDLED, held_back
from echod.worker.process import enter

DEADLINE = 20.0
"""Seconds allowed for reading all files and resolving all names.  It is less than TimeoutStartSec=, 30 s, and more
than a lookup takes where two of three name servers are silent (resolv.conf(5): 5 s for each)."""
OUTCOMES_MAX = 4 << 20
"""Bytes that the child may send; a file of the greatest size needs a quarter of it."""

_STANDARD = (0, 1, 2)
_CHUNK = 64 << 10
_REAPING = 1.0
"""Seconds to wait for a killed child; the kernel takes a millisecond, unless the child waits for a disk."""
_ERRORS: dict[int, type[EchodError]] = {error.exit_code: error for error in (ConfigError, CannotListen)}

Report = Callable[[EchodError], None]
"""Called before a step that may block, with the problem that it is if the step does not end in time."""
Work = Callable[[Report], dict[str, Any]]
"""What the child does.  The result must be what JSON can hold."""


class ReadingBug(Exception):
    """An exception in the child that nothing expected; `repr` and the traceback are those of the child."""

    def __init__(self, error: str, trace: str) -> None:
        super().__init__(error)
        self.add_note(trace)

    def __repr__(self) -> str:
        return str(self)


class Reading:
    """A child process that does `work` with the descriptors `kept`; `on_end` is called once, when `result` is known.

    Raises OSError if the system has no process or no descriptor left, and then leaves nothing behind.
    """

    def __init__(self, work: Work, kept: Iterable[int], loop: Loop, on_end: Callable[[], None]) -> None:
        self._loop = loop
        self._on_end: Callable[[], None] | None = on_end
        self._received = bytearray()
        self._failure: EchodError | None = None
        self._fd, writes = os.pipe()
        parent = os.getpid()
        try:
            os.set_blocking(self._fd, False)
            with held_back(HANDLED):
                self._pid = os.fork()
                if not self._pid:
                    _become_child(parent, work, writes, kept)
            self._pidfd = _open_pidfd(self._pid)
        except OSError:
            os.close(self._fd)
            raise
        finally:
            os.close(writes)
        loop.watch(self._fd, READ, self._on_readable)
        loop.watch(self._pidfd, READ, self._on_exit)
        self._timer: Timer = loop.call_later(DEADLINE, self._on_deadline)

    def result(self) -> dict[str, Any]:
        """What the child has found.  Raises `ConfigError` or `CannotListen`, or `ReadingBug` for any other error."""
        if self._failure is not None:
            raise self._failure
        match self._last_outcome():
            case {"found": dict() as found}:
                return found
            case {"problems": [*problems], "status": int() as status}:
                raise _ERRORS[status](*problems)
            case {"bug": [str() as error, str() as trace]}:
                raise ReadingBug(error, trace)
            case outcome:
                raise ReadingBug(f"no outcome: {str(outcome)[:100]}", "")

    @property
    def pids(self) -> list[int]:
        """The process id of the child, if it was not reaped yet."""
        return [self._pid] if self._pid else []

    def abandon(self) -> None:
        """Kill the child, and never call `on_end`; the loop reaps the child."""
        self._on_end = None
        self._finish()

    def close(self) -> None:
        """Kill and reap the child; call this when the loop has ended."""
        self.abandon()
        if self._pid:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(_REAPING * 1000)
            self._reap()
            self.forget()

    def forget(self) -> None:
        """After a fork, in the other process: close the descriptors, which belong to the parent."""
        if self._fd >= 0:
            os.close(self._fd)
        if self._pid:
            os.close(self._pidfd)
        self._fd, self._pid = -1, 0

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:  # the child has exited, but a process that it has forked keeps the pipe open
            data = b""
        self._received += data
        if not data:
            self._close_pipe()
        elif len(self._received) > OUTCOMES_MAX:
            self._end(ConfigError(f"the configuration and its problems have over {OUTCOMES_MAX} bytes; shorten it"))

    def _on_exit(self) -> None:
        """The child has exited; what it has sent is still in the pipe."""
        status = self._reap()
        while status is not None and self._fd >= 0:
            self._on_readable()
        if status is not None and self._on_end is not None:
            self._end(_failure(os.waitstatus_to_exitcode(status)))

    def _on_deadline(self, now: float) -> None:
        """The outcome that was sent last is what the child has not finished in time."""
        self._end()

    def _end(self, failure: EchodError | None = None) -> None:
        on_end, self._on_end, self._failure = self._on_end, None, failure
        self._finish()
        if on_end is not None:
            on_end()

    def _finish(self) -> None:
        self._timer.cancel()
        self._close_pipe()
        if self._pid:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _close_pipe(self) -> None:
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _reap(self) -> int | None:
        """The wait status of the child, or None if it still runs."""
        pid, status = self._pid, int(signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # as process 1, the parent has reaped an abandoned one already
            pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            return None
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        self._pid = 0
        return status

    def _last_outcome(self) -> Any:
        """The outcome that was sent last; the end of the pipe may have cut another one."""
        *lines, _ = self._received.split(b"\n")
        return json.loads(lines[-1]) if lines else None


def inherited() -> list[int]:
    """The descriptors above standard error with which this process was started: those that an exec would pass on.

    Call this after `listen_fds`, before any descriptor is received from another process.
    """
    found = []
    with contextlib.suppress(OSError):
        for fd in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):  # the one that listdir() itself had open
                if fd not in _STANDARD and os.get_inheritable(fd):
                    found.append(fd)
    return found


def wait_for(work: Work, kept: Iterable[int]) -> dict[str, Any]:
    """Do `work` in a child, and wait for its result, for a process that has no loop yet.

    Raises OSError as `Reading` does, and what `Reading.result` raises.
    """
    with contextlib.closing(Loop(_on_bug)) as loop:
        reading = Reading(work, kept, loop, loop.stop)
        try:
            loop.run()
        finally:
            reading.close()
    return reading.result()


def _become_child(parent: int, work: Work, writes: int, kept: Iterable[int]) -> NoReturn:
    """In the child: do the work, and never return to the parent's code."""
    try:
        enter(parent, b"echod-reading", HANDLED)
        _close_all_but([writes, *kept])

        def send(outcome: dict[str, Any]) -> None:
            data = json.dumps(outcome).encode() + b"\n"
            while data:
                data = data[os.write(writes, data) :]

        try:
            send({"found": work(lambda error: send(_problems(error)))})
        except EchodError as error:
            send(_problems(error))
        except Exception as error:  # noqa: BLE001  the parent logs any bug
            send({"bug": [repr(error), "".join(traceback.format_exception(error))]})
    finally:
        os._exit(EX_OK)


def _problems(error: EchodError) -> dict[str, Any]:
    return {"problems": error.problems, "status": error.exit_code}


def _close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor above standard error but these.

    Not from 0 on: `os.closerange(0, 0)` closes all.
    """
    first = max(_STANDARD) + 1
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def _open_pidfd(pid: int) -> int:
    """A pidfd of the child, which is killed if there is none."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # it was forked a moment ago, and does not wait for a disk yet
        raise


def _failure(code: int) -> EchodError | None:
    if code == EX_OK:
        return None
    ended = f"was killed by signal {-code}" if code < 0 else f"exited with status {code}"
    return ConfigError(f"the process that reads the configuration {ended}; try again")


def _on_bug(fd: int, error: Exception) -> None:
    raise error
