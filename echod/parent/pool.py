"""The workers that serve together: each in its place, replaced when it dies, and told things all at once.

A worker that dies is replaced, at once the first time and ever later if its successors die young.  The connections in
the kernel's queue wait for the successor, because the listening sockets are the parent's; and those that it had go on
there, where it is certain that nothing of them is lost (`copies`).  A worker whose loop does not come round is killed,
and replaced like any other.
"""

import os
import socket
import time
from collections.abc import Sequence
from typing import NoReturn, Protocol

from echod.errors import EX_OK, EX_SOFTWARE
from echod.handover import copies
from echod.handover import queue as handover
from echod.handover.copies import CopyHolder
from echod.handover.queue import Connection
from echod.log.events import EventLog
from echod.net.listeners import Listener
from echod.net.loop import READ, Loop
from echod.parent.pending import PendingConnections
from echod.parent.signals import Signals
from echod.parent.slot import WorkerSlot
from echod.shared import messages
from echod.shared.counters import Counters, Totals
from echod.shared.limits import Limits
from echod.shared.memory import PoolMemory
from echod.shared.terms import ServiceTerms
from echod.worker.balance import open_wakeup
from echod.worker.process import Assignment, Channels, Worker, enter

FLUSH = 1.0
"""Seconds that a worker may take to have its last events written."""


class Owner(Protocol):
    """Whose crew it is."""

    def on_ready(self) -> None:
        """Every worker accepts, for the first time."""

    def on_answered(self) -> None:
        """A worker has answered an order, or is gone."""

    def on_over(self) -> None:
        """The last worker is gone, and none comes any more."""

    def shed(self) -> None:
        """In a worker: give back what is the parent's."""


class WorkerPool:
    """So many `workers` on `listeners`, serving by `terms`, and at first so many clients as are `inherited`.

    Raises OSError if there is no descriptor or no memory for what they share.
    """

    def __init__(
        self,
        workers: int,
        listeners: Sequence[Listener],
        terms: ServiceTerms,
        events: EventLog,
        loop: Loop,
        signals: Signals,
        owner: Owner,
        *,
        inherited: int,
    ) -> None:
        self.listeners = listeners
        self.terms = terms
        """What each worker that is made now is to serve by."""
        self.counters = Counters(workers)
        self.limits = Limits(self.counters, terms.max_connections, terms.max_per_source, inherited)
        self._events = events
        self._loop = loop
        self._signals = signals
        self._owner = owner
        self._slots = [WorkerSlot(number) for number in range(workers)]
        self._shares = PendingConnections(self.counters, self.limits)
        self._wakeups: list[int] = []
        self._keepers: list[CopyHolder] = []
        self.ready = False
        """Whether each worker accepts, or has."""
        self._ends = False
        self._has_heirs = True
        """Whether what a worker that is dead has left goes on somewhere."""
        try:
            for _ in self._slots:
                self._wakeups.append(open_wakeup())
                self._keepers.append(CopyHolder(self.room // workers, loop))
        except OSError:
            self._free()
            raise

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def room(self) -> int:
        """Connections of which this process can have a descriptor."""
        return handover.room(len(self.listeners), len(self))

    @property
    def due(self) -> bool:
        """Whether a worker is to answer an order yet."""
        return any(slot.due for slot in self._slots)

    def start(self, connections: Sequence[Connection], before: Totals) -> None:
        """Have the workers begin, each with as many of these connections as any other, whether there is room or not.

        `before` is what was done before them, of which these connections are a part.
        """
        self.counters.before = before
        for slot in self._slots:
            self._shares.add(slot.number, connections[slot.number :: len(self)])
        for slot in self._slots:
            self._start(slot)

    def serve_by(self, terms: ServiceTerms) -> None:
        """Serve by other terms; `due` until the last worker does.

        Raises OSError, and has changed nothing, if there is no memory or no descriptor for the limits.
        """
        fds = self.limits.change(terms.max_connections, terms.max_per_source)
        self.terms = terms
        if fds:
            self._shares.count_again()
        self._make_room()
        for slot in self._slots:
            slot.order(terms.encode(), fds, answer=messages.ADOPTED)

    def hand_over(self, queue_fd: int) -> None:
        """Send all connections to the queue, and end; `due` until the last worker has."""
        self._end()
        self._make_room()
        quotas = handover.quotas([row.clients_now for row in self.counters.rows], self.room)
        for slot, quota in zip(self._slots, quotas, strict=True):
            slot.order(messages.hand_over(quota), [queue_fd], answer=messages.HANDED_OVER)
        self._see_whether_over()

    def end(self, order: bytes) -> None:
        """Give the workers an order to end, after which none is replaced."""
        self._has_heirs = False
        self._end()
        for slot in self._slots:
            slot.order(order)
        self._see_whether_over()

    def beat(self) -> bool:
        """Look whether every worker's loop comes round, and end those that hang; whether all is well."""
        for slot in self._slots:
            slot.beat(self.counters.rows[slot.number].ticks)
        return all(slot.well for slot in self._slots)

    def kill(self) -> None:
        """End the workers that are left; what their clients were due is lost."""
        for slot in self._slots:
            slot.kill()

    def bequeath(self, queue: socket.socket) -> None:
        """Send those that wait for a worker to the queue, as far as they fit."""
        self._shares.pass_on(queue)
        self._has_heirs = False

    def close(self) -> None:
        """Leave nothing behind; the listening sockets are others' to close."""
        self.kill()
        for slot in self._slots:
            if slot.pid:
                os.waitpid(slot.pid, 0)
        self._shares.end(self._events)
        for slot in self._slots:
            slot.close()
        for keeper in self._keepers:
            keeper.hang_up()
        self._free()

    def _free(self) -> None:
        for keeper in self._keepers:
            keeper.close()
        for wakeup in self._wakeups:
            os.close(wakeup)
        self.limits.close()

    def _make_room(self) -> None:
        """Before sending descriptors: only so many may be on their way, whoever sends them (ETOOMANYREFS, unix(7))."""
        for keeper in self._keepers:
            keeper.drain()

    def _start(self, slot: WorkerSlot) -> None:
        """Fork a worker into `slot`, or try again later if the system has no process or no descriptor for it now."""
        slot.empty(self._loop.now)
        parent, keeper = os.getpid(), self._keepers[slot.number]
        try:
            with keeper.open() as its_copies, self._signals.held_back():
                its_orders = slot.fork()
                if its_orders is not None:
                    enter(parent, slot.number)
                    self._become_worker(slot.number, its_orders, its_copies)
        except OSError as error:
            keeper.hang_up()
            self._replace(slot, 0, f"it could not be forked, {error.strerror}", clients=0, kept=0)
            return
        keeper.keep(self._shares.take(slot.number))
        self._loop.watch(slot.pidfd, READ, lambda: self._on_exit(slot))
        if slot.orders is not None:
            self._loop.watch(slot.orders.fileno(), READ, lambda: self._on_word(slot))

    def _become_worker(self, number: int, orders: socket.socket, copies_: socket.socket) -> NoReturn:
        """In the child: give back what is the parent's, and work.  Never returns into the parent's code."""
        code = EX_SOFTWARE
        events = self._events
        events.worker = number
        try:
            share, copied = self._shares.take(number), self._keepers[number].most
            self._shed()
            assignment = Assignment(number, self.listeners, self.terms, share, copied)
            shared = PoolMemory(self.counters, self.limits, self._wakeups)
            Worker(assignment, shared, Channels(orders, copies_), events).run()
            code = EX_OK
        except BaseException as error:  # noqa: BLE001  nothing may get out of here, into the parent's code
            events.bug_of(error)
        finally:
            events.sink.finish(FLUSH)
            os._exit(code)

    def _shed(self) -> None:
        self._owner.shed()
        for slot in self._slots:
            slot.close()
        for keeper in self._keepers:
            keeper.close()
        self._shares.close()

    def _on_word(self, slot: WorkerSlot) -> None:
        """A worker says that it accepts or has done what it was told to; or it hangs up, because it ends."""
        word = slot.word()
        if word == messages.READY:
            slot.ready = True
            self._events.worker_started(worker=slot.number, worker_pid=slot.pid)
            if not self.ready and all(slot.ready for slot in self._slots):
                self.ready = True
                self._owner.on_ready()
        elif not word:
            self._hang_up(slot)
        elif word == slot.due:  # not so the answer to an order before the last one
            slot.due = b""
            self._owner.on_answered()

    def _on_exit(self, slot: WorkerSlot) -> None:
        """A worker is gone: see why, and have it replaced."""
        _, wait_status = os.waitpid(slot.pid, 0)
        self._loop.unwatch(slot.pidfd)
        self._hang_up(slot)
        row = self.counters.rows[slot.number]
        pid, clients, counted = slot.pid, row.clients_now, row.bytes_live
        slot.close()
        self.limits.vacate(slot.number)
        survivors = self._keepers[slot.number].take_over(self._events, time.monotonic())
        row.bytes_echoed += max(0, sum(life.received for _, life in survivors) - counted)
        if slot.poisoned(self._loop.now) or not self._has_heirs:
            while survivors:
                copies.end(survivors.pop(), self._events)
        self._shares.add(slot.number, survivors)
        self._replace(slot, pid, slot.reason(wait_status, stopping=self._ends), clients=clients, kept=len(survivors))
        self._owner.on_answered()

    def _replace(self, slot: WorkerSlot, pid: int, reason: str, *, clients: int, kept: int) -> None:
        """Tell of a worker that is gone, and have another started, the later the more of them have died young."""
        self._events.worker_exited(worker=slot.number, worker_pid=pid, reason=reason, clients=clients, kept=kept)
        if self._ends:
            self._see_whether_over()
            return
        delay = slot.mourn(self._loop.now, born=pid > 0)
        slot.restart = self._loop.call_later(delay, lambda now: self._start(slot))

    def _see_whether_over(self) -> None:
        """Not at once: what the workers' descriptors were may still be called back in this turn."""
        if not any(slot.pid for slot in self._slots):
            self._loop.call_later(0, lambda now: self._owner.on_over())

    def _hang_up(self, slot: WorkerSlot) -> None:
        if slot.orders is not None:
            self._loop.unwatch(slot.orders.fileno())
            slot.hang_up()

    def _end(self) -> None:
        self._ends = True
        for slot in self._slots:
            if slot.restart is not None:
                slot.restart.cancel()
