"""A worker's place, whoever has it: its process, the way to tell it something, and whether it is alive."""

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
"""Beats without a tick after which a worker is taken for hung.  Counted, not timed: the machine may have slept."""
UNWELL = 3
"""Beats without a tick after which systemd is not told any more that all is well."""

GROWN_UP = 10.0
"""Seconds after which a worker is not to have died young."""
DELAYS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds until a worker is replaced, by how many before it have died young."""
POISONED = 3
"""Workers that died young, one after the other, after which it may be one of their connections that kills them."""


@dataclass(slots=True)
class WorkerSlot:
    """The place of the worker of that `number`; the socket and the descriptor of the process are this place's own."""

    number: int
    pid: int = 0
    """Of the process; 0 while there is none."""
    pidfd: int = -1
    orders: socket.socket | None = None
    started: float = 0.0
    ready: bool = False
    due: bytes = b""
    """What its worker is to say to the last order that has an answer, and has not said yet."""
    restart: Timer | None = field(default=None, repr=False)
    _died_young: int = 0
    _failed: int = 0
    """The same, with those that could not be forked."""
    _ticks: int = 0
    _missed: int = 0
    """Beats since it last ticked."""

    def empty(self, now: float) -> None:
        """Make the place ready for the next worker, which starts `now`."""
        self.started, self.ready, self.restart, self._missed = now, False, None, 0

    def fork(self) -> socket.socket | None:
        """Fork a worker into this place; returns None, and in the worker its end of the socket.

        Raises OSError if the system has no process or no descriptor for it now, and has left nothing behind then.
        """
        orders, its_orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
            pidfd = _open_pidfd(pid) if pid else -1
        except OSError:
            orders.close()
            its_orders.close()
            raise
        if not pid:
            orders.close()
            # One that the parent can't keep must not have begun: it would have taken clients, and a place among those
            # who accept, which nobody gives back.
            if its_orders.recv(len(messages.BEGIN)) != messages.BEGIN:
                os._exit(EX_OK)
            return its_orders
        its_orders.close()
        with contextlib.suppress(BrokenPipeError):  # it is dead already, which its pidfd tells
            orders.send(messages.BEGIN)
        self.pid, self.pidfd, self.orders = pid, pidfd, orders
        return None

    def order(self, order: bytes, fds: Sequence[int] = (), *, answer: bytes = b"") -> None:
        """Send an order, and descriptors with it, to which the worker is to say `answer`.

        Nothing is due from a place where no worker is, or where it has just died.  One that can't be told is ended: it
        would do something else than all others.
        """
        self.due = b""
        if self.orders is not None:
            try:
                socket.send_fds(self.orders, [order], fds)
                self.due = answer
            except OSError:
                self.kill()

    def word(self) -> bytes:
        """What the worker says; nothing when it has hung up, because it ends."""
        if self.orders is not None:
            with contextlib.suppress(ConnectionResetError):  # it died before it read its orders, unix(7)
                return self.orders.recv(messages.REPLY_MAX)
        return b""

    def hang_up(self) -> None:
        """Close the worker's socket: nothing more is heard from it."""
        if self.orders is not None:
            self.orders.close()
            self.orders = None

    def beat(self, ticks: int) -> None:
        """Look whether the worker has ticked since the last beat, and end one that hangs."""
        self._missed = self._missed + 1 if ticks == self._ticks else 0
        self._ticks = ticks
        if self._missed == HUNG:
            self.kill()

    @property
    def well(self) -> bool:
        """Whether there is a worker, and its loop comes round."""
        return bool(self.pid) and self._missed < UNWELL

    def poisoned(self, now: float) -> bool:
        """Whether the worker that is dead is one of so many that the next had better begin without its connections."""
        return self._died_young >= POISONED and now - self.started < GROWN_UP

    def mourn(self, now: float, *, born: bool) -> float:
        """Take note that the worker is dead, or was not even `born`; seconds until there should be another."""
        if now - self.started >= GROWN_UP:
            self._died_young = self._failed = 0
        self._died_young += born
        self._failed += 1
        return DELAYS[min(self._failed, len(DELAYS)) - 1]

    def kill(self) -> None:
        """End the worker, if there is one; what its clients were due is lost."""
        if self.pid:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reason(self, wait_status: int, *, stopping: bool) -> str:
        """Why the worker has ended, for people, by its wait status (wait(2))."""
        code = os.waitstatus_to_exitcode(wait_status)
        if code == EX_OK and stopping:
            return "stopped"
        if self._missed >= HUNG:
            return "it hung, and was killed"
        named = {member.value: member.name for member in signal.Signals}  # not all real-time signals are
        return f"exit status {code}" if code >= 0 else f"killed by {named.get(-code, f'signal {-code}')}"

    def close(self) -> None:
        """Give back what belongs to this place; the process, if there is one, is left as it is."""
        self.hang_up()
        self.due = b""
        if self.pid:
            os.close(self.pidfd)
            self.pid, self.pidfd = 0, -1


def _open_pidfd(pid: int) -> int:
    """A descriptor of a child; one that can't be had one of is ended, for nobody would notice how it fares."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
