"""The worker pool: the workers that serve together, each in its slot; commands go to all of them.

A worker that dies is replaced: at once the first time, and with increasing delays if its successors die early too.
New connections wait in the kernel's queues for the successor, because the parent owns the listening sockets.  The
worker's own connections continue in the successor if it is certain that none of their bytes was lost
(`handover.copies`).  A worker whose loop hangs is killed, and replaced in the same way; so is one that keeps the lock
of the limits, and one that sends what no worker of echod sends, since an attacker may control it.
"""

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Sequence
from functools import partial
from typing import NoReturn, Protocol

from echod.errors import EX_OK, EX_SOFTWARE
from echod.handover import copies
from echod.handover import queue as handover
from echod.handover.copies import CopyHolder
from echod.handover.state import Connection
from echod.log.events import EventLog
from echod.net.listeners import Listener
from echod.net.loop import READ, Loop
from echod.parent.pending import PendingConnections
from echod.parent.reload import Change
from echod.parent.signals import HANDLED, held_back
from echod.parent.slot import WorkerSlot
from echod.shared import messages
from echod.shared.counters import Counters, Totals
from echod.shared.limits import Limits
from echod.shared.memory import PoolMemory
from echod.shared.messages import FalseData
from echod.shared.terms import ServiceTerms
from echod.worker.balance import open_wakeup, wake
from echod.worker.process import Assignment, Channels, Worker, enter

FLUSH = 1.0
"""Seconds allowed at exit for a worker to write its last events."""
LOCK_KEPT = 3
"""Consecutive beats at which a process has the lock of the limits, after which the parent kills it.

The parent kills it only if another worker has not ticked meanwhile: normally a worker has the lock for microseconds,
but often.
"""
DRAINED = 2.0
"""Seconds for a worker that has handed over to exit, besides the time for draining what it could not hand over."""
REAPING = 1.0
"""Seconds to wait, when echod ends, for killed workers to exit; the kernel takes a millisecond for it."""


class Owner(Protocol):
    """The object that owns a pool and is notified of its progress."""

    def on_ready(self) -> None:
        """Every worker accepts, for the first time."""

    def on_answered(self) -> None:
        """A worker has answered a command, or has exited."""

    def on_gone(self) -> None:
        """The last worker of a pool that is to end has exited."""

    def drop_parent_resources(self) -> None:
        """In a worker, after the fork: close what belongs to the parent alone."""


class WorkerPool:
    """As many workers on `listeners` as `change` says, with room for `clients` even above the limit of its terms.

    Raises OSError if there is no descriptor or no memory for what the workers share.
    """

    def __init__(
        self,
        change: Change,
        listeners: Sequence[Listener],
        loop: Loop,
        events: EventLog,
        owner: Owner,
        *,
        clients: int,
    ) -> None:
        self.listeners = listeners
        self.terms = change.terms
        """The terms for a worker that starts now."""
        self.counters = Counters(change.workers)
        self.limits = Limits(
            self.counters, self.terms.max_connections, self.terms.max_per_source, clients, self.terms.ipv6_prefix
        )
        self._loop = loop
        self._events = events
        self._owner = owner
        self._slots = [WorkerSlot(number) for number in range(change.workers)]
        self._pending = PendingConnections(self.counters, self.limits)
        self._wakeups: list[int] = []
        self._holders: list[CopyHolder] = []
        self._lock_holder = self._lock_kept = 0
        """The process that had the lock of the limits at the last beat, and for how many beats."""
        self._ready = False
        """Whether every worker accepts, or has accepted once."""
        self._ending = False
        """Whether workers that exit are no longer replaced."""
        self._has_successor = True
        """Whether the connections of a dead worker continue: in its replacement, another pool or another echod."""
        try:
            for slot in self._slots:
                self._wakeups.append(open_wakeup())
                on_false = partial(self._on_false, slot)
                self._holders.append(CopyHolder(self.room // change.workers, self._loop, on_false))
        except OSError:
            self._free()
            raise

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers, also of those that have exited but were not reaped yet."""
        return [pid for slot in self._slots for pid in slot.pids]

    @property
    def room(self) -> int:
        """Number of connections for which this process has descriptors."""
        return handover.room(len(self.listeners), len(self))

    @property
    def awaits_answers(self) -> bool:
        """Whether the answer of a worker to a command is still outstanding."""
        return any(slot.owes_answer for slot in self._slots)

    def start(self, connections: Sequence[Connection], before: Totals) -> None:
        """Start the workers, each with an equal share of these connections, even above the limit.

        `before` are the totals of earlier pools; they include these connections.
        """
        self.counters.before = before
        for slot in self._slots:
            self._pending.add(slot.number, connections[slot.number :: len(self)])
        for slot in self._slots:
            self._start(slot)

    def serve_by(self, terms: ServiceTerms) -> None:
        """Send the workers new terms, and expect an answer from each that has adopted them.

        Raises OSError if there is no memory or no descriptor for the limits, and then nothing has changed.
        """
        fds = self.limits.change(terms.max_connections, terms.max_per_source, terms.ipv6_prefix)
        self.terms = terms
        if fds:
            self._pending.count_again()
        self._drain_copies()
        for slot in self._slots:
            slot.send(terms.encode(), fds, answer=messages.ADOPTED)

    def hand_over(self, queue_fd: int) -> None:
        """Command the workers to send all connections to the queue and exit, and expect an answer from each."""
        self._end()
        self._drain_copies()
        self._check_counters()
        quotas = handover.quotas([row.clients_now for row in self.counters.believed], self.room)
        for slot, quota in zip(self._slots, quotas, strict=True):
            slot.send(messages.hand_over(quota), [queue_fd], answer=messages.HANDED_OVER)
        self._loop.call_later(self.terms.drain + DRAINED, lambda now: self.kill())
        self._check_gone()

    def hand_over_pending(self, queue: socket.socket) -> None:
        """Send the connections that wait for a worker to the queue, as far as it has room."""
        self._pending.hand_over(queue)
        self._has_successor = False

    def drain(self, command: bytes) -> None:
        """Send the workers this command to drain and exit."""
        self._has_successor = False
        self._end()
        for slot in self._slots:
            slot.send(command)
        self._check_gone()

    def beat(self) -> bool:
        """Kill the workers whose loops hang, or that harm the others; returns whether every loop turns."""
        for slot in self._slots:
            slot.beat(self.counters.rows[slot.number].ticks)
        self._check_counters()
        self._check_lock()
        return all(slot.well for slot in self._slots)

    def kill(self) -> None:
        """Kill the remaining workers; bytes still due on their connections are lost."""
        for slot in self._slots:
            slot.kill()

    def close(self) -> None:
        """Kill the remaining workers, and close everything but the listening sockets."""
        self.kill()
        self._reap(REAPING)
        self._pending.close_all(self._events)
        for slot in self._slots:
            slot.close()
        for holder in self._holders:
            holder.hang_up()
        self._free()

    def _reap(self, seconds: float) -> None:
        """Reap workers that were killed.  If one takes longer, process 1 reaps it once this process has exited."""
        deadline = time.monotonic() + seconds
        for slot in self._slots:
            if slot.pid:
                poll = select.poll()
                poll.register(slot.pidfd, select.POLLIN)
                poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(slot.pid, os.WNOHANG)

    def _free(self) -> None:
        for holder in self._holders:
            holder.close()
        for wakeup in self._wakeups:
            os.close(wakeup)
        self.limits.close()

    def _drain_copies(self) -> None:
        """Receive all copies under way, since the kernel limits the descriptors in flight (ETOOMANYREFS, unix(7))."""
        for holder in self._holders:
            holder.drain()

    def _start(self, slot: WorkerSlot) -> None:
        """Fork a worker into `slot`, or retry later if the system has no process or no descriptor left."""
        slot.reset(self._loop.now)
        parent, holder = os.getpid(), self._holders[slot.number]
        try:
            with holder.open() as copy_socket, held_back(HANDLED):
                commands = slot.fork()
                if commands is not None:
                    enter(parent, b"echod-worker%d" % slot.number, HANDLED)
                    self._become_worker(slot.number, commands, copy_socket)
        except OSError as error:
            holder.hang_up()
            reason = f"fork failed: {error.strerror}"
            self._events.worker_exited(worker=slot.number, worker_pid=0, reason=reason, clients=0, kept=0, young=0)
            self._replace(slot, forked=False)
            return
        holder.keep(self._pending.take(slot.number))
        self._loop.watch(slot.pidfd, READ, lambda: self._on_exit(slot))
        if slot.commands is not None:
            self._loop.watch(slot.commands.fileno(), READ, lambda: self._on_message(slot))

    def _become_worker(self, number: int, commands: socket.socket, copy_socket: socket.socket) -> NoReturn:
        """In the child: close the parent's descriptors, and run the worker.  Never returns to the parent's code."""
        code = EX_SOFTWARE
        events = self._events
        events.worker = number
        try:
            connections, copied = self._pending.take(number), self._holders[number].most
            self._drop_parent_resources()
            assignment = Assignment(number, self.listeners, self.terms, connections, copied)
            shared = PoolMemory(self.counters, self.limits, self._wakeups)
            Worker(assignment, shared, Channels(commands, copy_socket), events).run()
            code = EX_OK
        except BaseException as error:  # noqa: BLE001  no exception may reach the parent's code
            events.bug_of(error)
        finally:
            events.finish(FLUSH)
            os._exit(code)

    def _drop_parent_resources(self) -> None:
        self._owner.drop_parent_resources()
        for slot in self._slots:
            slot.close()
        for holder in self._holders:
            holder.close()
        self._pending.close()

    def _check_counters(self) -> None:
        for slot in self._slots:
            if slot.pid:
                self._check_row(slot)

    def _check_row(self, slot: WorkerSlot) -> None:
        try:
            self.counters.check(slot.number)
        except FalseData as error:
            self._on_false(slot, str(error))

    def _check_lock(self) -> None:
        """Kill a process that keeps the lock of the limits, for which others wait."""
        holder = self.limits.lock_holder()
        self._lock_kept = self._lock_kept + 1 if holder and holder == self._lock_holder else int(holder != 0)
        self._lock_holder = holder
        waits = any(slot.missed >= LOCK_KEPT - 1 for slot in self._slots if slot.pid != holder)
        if self._lock_kept >= LOCK_KEPT and waits:
            for slot in self._slots:
                if slot.pid == holder:
                    slot.kill("it kept the lock of the limits")
                    return
            if holder > 0:  # a process that a worker has left behind
                with contextlib.suppress(ProcessLookupError):
                    os.kill(holder, signal.SIGKILL)
            else:
                self.limits.unlock()

    def _on_false(self, slot: WorkerSlot, problem: str) -> None:
        """Kill a worker that has sent false data, and receive nothing more from it."""
        if not slot.distrusted:
            slot.distrusted = True
            self._events.false_data(worker=slot.number, worker_pid=slot.pid, problem=problem)
            # Killed first: the worker would take a closed command socket for a bug, and log it.
            slot.kill("it sent false data")
            self._close_commands(slot)

    def _on_message(self, slot: WorkerSlot) -> None:
        """Handle a worker's message: it accepts for the first time, answers a command, or has closed its socket."""
        try:
            message = slot.receive()
        except FalseData as error:
            self._on_false(slot, str(error))
            return
        if message is None:
            return
        if message == messages.READY:
            slot.ready = True
            self._events.worker_started(worker=slot.number, worker_pid=slot.pid)
            if not self._ready and all(slot.ready for slot in self._slots):
                self._ready = True
                self._owner.on_ready()
        elif not message:
            self._close_commands(slot)
        else:
            self._owner.on_answered()

    def _on_exit(self, slot: WorkerSlot) -> None:
        """Handle a worker's exit: find the reason, save the connections that can continue, and replace the worker."""
        pid, wait_status = os.waitpid(slot.pid, os.WNOHANG)
        if not pid:
            return
        self._loop.unwatch(slot.pidfd)
        self._close_commands(slot)
        # The last messages, and the last numbers, before the worker's pid is forgotten.
        self._holders[slot.number].drain()
        self._check_row(slot)
        slot.close()
        holder, trusted = self._holders[slot.number], not slot.distrusted
        copied = len(holder)
        survivors = holder.take_over(self._events, time.monotonic(), trusted=trusted)
        clients = max(self.counters.believed[slot.number].clients_now, len(survivors))
        self.counters.end(slot.number, sum(state.received for _, state in survivors))
        self.limits.vacate(slot.number)
        if slot.crash_loops(self._loop.now) or not self._has_successor:
            while survivors:
                copies.close_unowned(survivors.pop(), self._events)
        self._pending.add(slot.number, survivors)
        self._events.worker_exited(
            worker=slot.number,
            worker_pid=pid,
            reason=slot.reason(wait_status, stopping=self._ending),
            clients=clients,
            kept=len(survivors),
            young=max(0, clients - copied),
        )
        # The kernel may have woken only the dead worker for a client that is still queued (EPOLLEXCLUSIVE).
        for wakeup in self._wakeups:
            wake(wakeup)
        self._replace(slot, forked=True)
        self._owner.on_answered()

    def _replace(self, slot: WorkerSlot, *, forked: bool) -> None:
        """Start another worker in place of one that has exited, or could not be forked, unless the pool ends."""
        if self._ending:
            self._check_gone()
            return
        delay = slot.note_exit(self._loop.now, forked=forked)
        slot.restart = self._loop.call_later(delay, lambda now: self._start(slot))

    def _check_gone(self) -> None:
        """Notify the owner once no worker is left; in the next turn, because this turn may still have their events."""
        if not any(slot.pid for slot in self._slots):
            self._loop.call_later(0, lambda now: self._owner.on_gone())

    def _close_commands(self, slot: WorkerSlot) -> None:
        if slot.commands is not None:
            self._loop.unwatch(slot.commands.fileno())
            slot.close_commands()

    def _end(self) -> None:
        self._ending = True
        for slot in self._slots:
            if slot.restart is not None:
                slot.restart.cancel()
