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
from echod.shared.messages import FalseData

HUNG = 5
"""Beats without a tick after which a worker counts as hung.  Counted, not timed: the machine may have slept."""
UNWELL = 3
"""Beats without a tick after which the parent sends no more WATCHDOG=1 to systemd."""

UNANSWERED = 10
"""Beats after which a worker that ticks is killed, if it owes an answer or has closed its command socket."""

STABLE_AFTER = 10.0
"""Seconds after its start from which a worker's death no longer counts as early."""
DELAYS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds until a worker is replaced, by the number of early deaths in a row."""
CRASH_LOOP = 3
"""Early deaths in a row after which one of the connections is suspected of killing the workers."""


@dataclass(slots=True)
class WorkerSlot:
    """The slot of the worker with this `number`; it owns the command socket and the pidfd.

    The command socket is non-blocking on this side: a worker that does not read must not make the parent wait.
    """

    number: int
    pid: int = 0
    """The worker's process; 0 while there is none."""
    pidfd: int = -1
    commands: socket.socket | None = None
    started: float = 0.0
    ready: bool = False
    distrusted: bool = False
    """Whether the worker has sent false data."""
    due: list[bytes] = field(default_factory=list)
    """The messages that the worker still has to send, in this order: READY, then an answer to each command with one."""
    restart: Timer | None = field(default=None, repr=False)
    _early_deaths: int = 0
    _failures: int = 0
    """Early deaths, and workers that could not be forked."""
    _ticks: int = 0
    _missed: int = 0
    """Beats since the last tick."""
    _unanswered: int = 0
    """Beats since the worker owed nothing."""
    _killed_for: str = ""
    """Why the parent has killed the worker; empty if it has not."""
    _unreaped: list[int] = field(default_factory=list, compare=False)
    """Killed children without a pidfd, to be reaped at the next beat."""

    def reset(self, now: float) -> None:
        """Prepare the slot for the next worker, which starts `now`."""
        self.started, self.ready, self.restart, self._missed, self._unanswered = now, False, None, 0, 0
        self.distrusted, self._killed_for = False, ""

    def fork(self) -> socket.socket | None:
        """Fork a worker into this slot.  Returns None in the parent, and in the worker its end of the command socket.

        Raises OSError if the system has no process or no descriptor left, and then leaves nothing behind.
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
        with contextlib.suppress(BrokenPipeError):  # the worker is dead already, and its pidfd will show that
            commands.send(messages.BEGIN)
        self.pid, self.pidfd, self.commands = pid, pidfd, commands
        self.due = [messages.READY]
        return None

    def send(self, command: bytes, fds: Sequence[int] = (), *, answer: bytes = b"") -> None:
        """Send a command, with descriptors, to which the worker is to reply with `answer`.

        While the slot is empty, or after the worker has died, nothing is sent or awaited.  A worker that cannot receive
        the command, because its socket is full or there are too many descriptors, is killed: it would act on older
        commands than the other workers.
        """
        if self.commands is not None:
            try:
                socket.send_fds(self.commands, [command], fds)
            except OSError:
                self.kill()
                return
            if answer:
                self.due.append(answer)

    @property
    def owes_answer(self) -> bool:
        """Whether the worker still has to answer a command."""
        return any(message != messages.READY for message in self.due)

    def receive(self) -> bytes | None:
        """The worker's next message; empty if it has closed its end, and None if there is no message now.

        Raises `FalseData` for any message but the next one due: so a worker can send only as many as it has to.
        """
        if self.commands is None:
            return b""
        try:
            message = self.commands.recv(messages.REPLY_MAX)
        except ConnectionResetError:  # it died before it read its commands, unix(7)
            return b""
        except OSError:  # there is none, or no memory to receive it now
            return None
        if message:
            if message not in self.due[:1]:
                raise FalseData(f"it sent {message[:50]!r} when {b''.join(self.due[:1]) or b'nothing'!r} was due")
            self.due.pop(0)
        return message

    def close_commands(self) -> None:
        """Close the command socket: no more messages arrive from the worker."""
        if self.commands is not None:
            self.commands.close()
            self.commands = None

    def beat(self, ticks: int) -> None:
        """Check whether the worker has ticked since the last beat, and kill it if it hangs."""
        self._reap()
        self._missed = self._missed + 1 if ticks == self._ticks else 0
        self._ticks = ticks
        if self._missed == HUNG:
            self.kill("its loop hung")
        owes = self.due or self.commands is None
        self._unanswered = self._unanswered + 1 if self.pid and owes else 0
        if self._unanswered == UNANSWERED:
            self.kill("it did not answer")

    @property
    def missed(self) -> int:
        """Beats since the last tick."""
        return self._missed

    @property
    def pids(self) -> list[int]:
        """The worker's process id, if there is a worker, and those of children that were killed, but not reaped yet."""
        return [self.pid, *self._unreaped] if self.pid else list(self._unreaped)

    @property
    def well(self) -> bool:
        """Whether there is a worker and its loop runs."""
        return bool(self.pid) and self._missed < UNWELL

    def crash_loops(self, now: float) -> bool:
        """Whether workers have died early too often for the next one to start with their connections."""
        return self._early_deaths >= CRASH_LOOP and now - self.started < STABLE_AFTER

    def note_exit(self, now: float, *, forked: bool) -> float:
        """Count an exit, or a failed fork if not `forked`, and return the seconds until the next start."""
        if now - self.started >= STABLE_AFTER:
            self._early_deaths = self._failures = 0
        self._early_deaths += forked
        self._failures += 1
        return DELAYS[min(self._failures, len(DELAYS)) - 1]

    def kill(self, reason: str = "") -> None:
        """Kill the worker, if there is one; the first `reason` for it will be the reason for its exit."""
        if self.pid:
            self._killed_for = self._killed_for or reason
            with contextlib.suppress(ProcessLookupError):  # it has exited meanwhile
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reason(self, wait_status: int, *, stopping: bool) -> str:
        """The reason for the worker's exit, in words, from its wait status (wait(2))."""
        code = os.waitstatus_to_exitcode(wait_status)
        if code == EX_OK and stopping:
            return "stopped"
        if self._killed_for and code == -signal.SIGKILL:
            return f"killed because {self._killed_for}"
        named = {member.value: member.name for member in signal.Signals}  # not all real-time signals have a name
        return f"exit status {code}" if code >= 0 else f"killed by {named.get(-code, f'signal {-code}')}"

    def close(self) -> None:
        """Close the command socket and the pidfd; a process that still runs is left alone."""
        self.close_commands()
        self.due = []
        if self.pid:
            os.close(self.pidfd)
            self.pid, self.pidfd = 0, -1

    def _open_pidfd(self, pid: int) -> int:
        """A pidfd of a child.  If none can be opened, the child is killed, because its death would go unnoticed."""
        try:
            return os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            self._unreaped.append(pid)
            raise

    def _reap(self) -> None:
        """Reap children that were killed because they had no pidfd, without waiting for them."""
        self._unreaped = [pid for pid in self._unreaped if os.waitpid(pid, os.WNOHANG) == (0, 0)]
