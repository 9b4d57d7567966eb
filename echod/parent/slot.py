"""A worker slot: its process, its command socket, and whether it is alive."""

import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from echod.errors import EX_OK
from echod.net.loop import Timer
from echod.shared import messages

HUNG = 5
"""Beats without a tick after which a worker counts as hung.  Counted, not timed: the machine may have slept."""
UNWELL = 3
"""Beats without a tick after which systemd's watchdog is no longer fed."""

STABLE_AFTER = 10.0
"""Seconds that a worker must live for its death not to count as an early one."""
DELAYS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds until a worker is replaced, by the number of early deaths in a row."""
CRASH_LOOP = 3
"""Early deaths in a row after which one of the connections may be what kills the workers."""


@dataclass(slots=True)
class WorkerSlot:
    """The slot of the worker with this `number`; it owns the command socket and the pidfd.

    The command socket is non-blocking here: a worker that does not read must not make the parent wait.
    """

    number: int
    pid: int = 0
    """The worker's process; 0 while there is none."""
    pidfd: int = -1
    commands: socket.socket | None = None
    started: float = 0.0
    ready: bool = False
    awaited: bytes = b""
    """The answer that the worker still owes to the last command that has one."""
    restart: Timer | None = field(default=None, repr=False)
    _early_deaths: int = 0
    _failures: int = 0
    """Early deaths, and workers that could not be forked."""
    _ticks: int = 0
    _missed: int = 0
    """Beats since the last tick."""
    _unreaped: list[int] = field(default_factory=list, compare=False)
    """Killed children without a pidfd, to be reaped at the next beat."""

    def reset(self, now: float) -> None:
        """Prepare the slot for the next worker, which starts `now`."""
        self.started, self.ready, self.restart, self._missed = now, False, None, 0

    def fork(self) -> socket.socket | None:
        """Fork a worker into this slot.  Returns None in the parent, and in the worker its end of the command socket.

        Raises OSError if the system has no process or no descriptor left, and has left nothing behind then.
        """
        commands, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
            pidfd = self._open_pidfd(pid) if pid else -1
        except OSError:
            commands.close()
            theirs.close()
            raise
        if not pid:
            commands.close()
            # A worker that the parent cannot watch must not start: it would accept connections, and its row among the
            # counters would never be cleared.
            if theirs.recv(len(messages.BEGIN)) != messages.BEGIN:
                os._exit(EX_OK)
            return theirs
        theirs.close()
        commands.setblocking(False)
        with contextlib.suppress(BrokenPipeError):  # the worker is dead already, as its pidfd will say
            commands.send(messages.BEGIN)
        self.pid, self.pidfd, self.commands = pid, pidfd, commands
        return None

    def send(self, command: bytes, fds: Sequence[int] = (), *, answer: bytes = b"") -> None:
        """Send a command, with descriptors, to which the worker is to reply with `answer`.

        Nothing is sent or awaited while the slot is empty or the worker has just died.  A worker that cannot take the
        command, because its socket is full or the descriptors are too many, is killed: it would act on older commands
        than the others.
        """
        self.awaited = b""
        if self.commands is not None:
            try:
                socket.send_fds(self.commands, [command], fds)
                self.awaited = answer
            except OSError:
                self.kill()

    def receive(self) -> bytes | None:
        """The worker's next message; empty when it has closed its end, and None if there is no message now."""
        if self.commands is None:
            return b""
        try:
            return self.commands.recv(messages.REPLY_MAX)
        except BlockingIOError:
            return None
        except ConnectionResetError:  # it died before it read its commands, unix(7)
            return b""

    def close_commands(self) -> None:
        """Close the command socket: nothing more is heard from the worker."""
        if self.commands is not None:
            self.commands.close()
            self.commands = None

    def beat(self, ticks: int) -> None:
        """Note whether the worker has ticked since the last beat, and kill it if it hangs."""
        self._reap()
        self._missed = self._missed + 1 if ticks == self._ticks else 0
        self._ticks = ticks
        if self._missed == HUNG:
            self.kill()

    @property
    def well(self) -> bool:
        """Whether there is a worker whose loop turns."""
        return bool(self.pid) and self._missed < UNWELL

    def crash_loops(self, now: float) -> bool:
        """Whether so many workers have died early that the next should start without their connections."""
        return self._early_deaths >= CRASH_LOOP and now - self.started < STABLE_AFTER

    def note_exit(self, now: float, *, forked: bool) -> float:
        """Note that the worker has exited, or could not be `forked`; returns the seconds until the next start."""
        if now - self.started >= STABLE_AFTER:
            self._early_deaths = self._failures = 0
        self._early_deaths += forked
        self._failures += 1
        return DELAYS[min(self._failures, len(DELAYS)) - 1]

    def kill(self) -> None:
        """Kill the worker, if there is one."""
        if self.pid:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reason(self, wait_status: int, *, stopping: bool) -> str:
        """Why the worker has exited, in words, by its wait status (wait(2))."""
        code = os.waitstatus_to_exitcode(wait_status)
        if code == EX_OK and stopping:
            return "stopped"
        if self._missed >= HUNG:
            return "killed because its loop hung"
        named = {member.value: member.name for member in signal.Signals}  # not all real-time signals have a name
        return f"exit status {code}" if code >= 0 else f"killed by {named.get(-code, f'signal {-code}')}"

    def close(self) -> None:
        """Close what the slot owns; the process, if there is one, is left as it is."""
        self.close_commands()
        self.awaited = b""
        if self.pid:
            os.close(self.pidfd)
            self.pid, self.pidfd = 0, -1

    def _open_pidfd(self, pid: int) -> int:
        """A pidfd of a child, which is killed if there is none, because its death would go unnoticed."""
        try:
            return os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            self._unreaped.append(pid)
            raise

    def _reap(self) -> None:
        """Reap children that were killed for want of a pidfd, without waiting for them."""
        self._unreaped = [pid for pid in self._unreaped if os.waitpid(pid, os.WNOHANG) == (0, 0)]
