"""The parent: it owns the listening sockets, the workers' lives, the signals, and the talk with systemd.

It never touches a client's bytes, so nothing that a client does can harm it.  A worker that dies is replaced, at once
the first time and ever later if its successors die young; the connections in the kernel's queue wait for the
successor, because the listening sockets are the parent's.  A worker whose loop does not come round is killed, and
replaced like any other.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from echod import lastgood
from echod.balance import open_bell
from echod.errors import EX_OK, EX_SOFTWARE
from echod.handover import HANDED_OVER, Inherited
from echod.journal import Journal
from echod.limits import Limits
from echod.listeners import STORED_AS, Listener
from echod.loop import READ, Loop
from echod.renewal import Renewal
from echod.report import Report
from echod.signals import Signals
from echod.slot import Slot
from echod.stats import Stats
from echod.succession import Succession
from echod.systemd import Notifier
from echod.terms import Change
from echod.worker import DRAIN, LEAVE, READY, TAKEN, Worker, enter

GRACE = 1.0
"""Seconds that a worker may take to end, after those for draining; and once more to have its last events written."""
GROWN_UP = 10.0
"""Seconds after which a worker is not to have died young."""
DELAYS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds until a worker is replaced, by how many before it have died young."""


class Supervisor:
    """Runs `workers` workers on `listeners` until a signal says to stop.

    `start` has the terms to begin with, and `reload` reads others at a SIGHUP, or raises `ConfigError`; `take` is
    called when those are in effect.  With `hangup_stops` that is a signal to stop, too.  `watchdog` is how many seconds
    systemd waits for a sign of life, if it does.  `shares` are the connections that the workers begin with.
    """

    def __init__(
        self,
        listeners: list[Listener],
        workers: int,
        start: Change,
        reload: Callable[[], Change],
        take: Callable[[], None],
        journal: Journal,
        stats: Stats,
        limits: Limits,
        notifier: Notifier,
        watchdog: float | None,
        shares: Sequence[list[Inherited]],
        *,
        hangup_stops: bool,
    ) -> None:
        self._listeners = listeners
        self._addresses = [listener.address for listener in listeners]
        self._adopted = any(listener.adopted for listener in listeners)
        self._journal = journal
        self._stats = stats
        self._limits = limits
        self._notifier = notifier
        self._report = Report(
            notifier, stats, self._addresses, adopted=self._adopted, watchdog=watchdog, tick=start.terms.tick
        )
        self._slots = [Slot(number) for number in range(workers)]
        self._hangup_stops = hangup_stops
        self._renewal = Renewal(
            start,
            reload,
            take,
            self._slots,
            listeners,
            journal,
            limits,
            on_begun=notifier.reloading,
            on_ended=self._tell_ready,
        )
        self._succession = Succession(shares, self._slots, notifier, journal, stats, listeners=len(listeners))
        self._bells = [open_bell() for _ in self._slots]
        self._loop = Loop(self._on_bug)
        signums = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
        self._signals = Signals(signums, self._handle_signal)
        self._started = self._loop.now
        self._ready = False
        self._stopping = False
        self._restarts = False

    def run(self) -> None:
        """Serve until told to stop and everything is closed."""
        loop, sink = self._loop, self._journal.sink
        sink.attach(loop)
        loop.watch(self._signals.fd, READ, self._signals.on_readable)
        try:
            for slot in self._slots:
                self._start(slot)
            loop.call_later(self._renewal.terms.tick, self._on_beat)
            loop.run()
        finally:
            self._close()
        totals = self._stats.totals()
        self._journal.stopped(
            uptime=round(time.monotonic() - self._started, 3),
            clients_total=totals.clients_total,
            clients_refused=totals.clients_refused,
            bytes_echoed=totals.bytes_echoed,
        )

    def _start(self, slot: Slot) -> None:
        """Fork a worker into `slot`, or try again later if the system has no process or no descriptor for it now."""
        slot.empty(self._loop.now)
        parent = os.getpid()
        with self._signals.held_back():
            try:
                its_orders = slot.fork()
            except OSError as error:
                self._replace(slot, 0, f"it could not be forked, {error.strerror}", 0)
                return
            if its_orders is not None:
                enter(parent)
        if its_orders is not None:
            self._become_worker(slot.number, its_orders)
        self._succession.release(slot.number)
        self._loop.watch(slot.pidfd, READ, lambda: self._on_exit(slot))
        if slot.orders is not None:
            self._loop.watch(slot.orders.fileno(), READ, lambda: self._on_word(slot))

    def _become_worker(self, number: int, orders: socket.socket) -> NoReturn:
        """In the child: give back what is the parent's, and work.  Never returns into the parent's code."""
        code = EX_SOFTWARE
        self._journal.worker = number
        try:
            self._give_back()
            listeners, terms, journal, bells = self._listeners, self._renewal.terms, self._journal, self._bells
            share = self._succession.share(number)
            Worker(number, listeners, terms, journal, self._stats, self._limits, bells, orders, share).run()
            code = EX_OK
        except BaseException as error:  # noqa: BLE001  nothing may get out of here, into the parent's code
            self._journal.bug_of(error)
        finally:
            self._journal.sink.finish(GRACE)
            os._exit(code)

    def _give_back(self) -> None:
        self._journal.sink.reset()
        self._notifier.close()
        self._signals.forget()
        self._loop.close()
        for slot in self._slots:
            slot.close()

    def _on_word(self, slot: Slot) -> None:
        """A worker says that it accepts, serves by other terms, or has handed over; or it hangs up, because it ends."""
        word = slot.word()
        if word == READY:
            self._on_ready(slot)
        elif word == TAKEN:
            if not self._stopping:  # then it owes another
                slot.owes_answer = False
            self._renew()
        elif word == HANDED_OVER:
            slot.owes_answer = False
            self._succession.advance()
        else:
            self._hang_up(slot)

    def _on_ready(self, slot: Slot) -> None:
        slot.ready = True
        self._journal.worker_started(worker=slot.number, worker_pid=slot.pid)
        if not self._ready and not self._stopping and all(slot.ready for slot in self._slots):
            self._ready = True
            self._tell_ready()
            self._journal.ready(addresses=self._addresses, workers=len(self._slots))
            if (failed := self._notifier.failed) is not None:
                problem = f"systemd can't be told how things are: NOTIFY_SOCKET: {failed.strerror or failed}"
                self._journal.config_warning(problem=problem)
            self._renew()

    def _tell_ready(self) -> None:
        self._report.ready(self._loop.now, overruled=self._renewal.overruled, refused=self._renewal.refused)

    def _renew(self) -> None:
        """Go on with reloading, but not before systemd may be told READY=1, nor after STOPPING=1."""
        if self._ready and not self._stopping:
            self._renewal.advance()

    def _on_exit(self, slot: Slot) -> None:
        """A worker is gone: see why, and have it replaced."""
        _, wait_status = os.waitpid(slot.pid, 0)
        self._loop.unwatch(slot.pidfd)
        self._hang_up(slot)
        pid = slot.pid
        slot.close()
        clients = self._stats.rows[slot.number].clients_now
        self._limits.vacate(slot.number)
        self._replace(slot, pid, slot.reason(wait_status, stopping=self._stopping), clients)
        self._renew()
        self._succession.advance()

    def _replace(self, slot: Slot, pid: int, reason: str, clients: int) -> None:
        """Tell of a worker that is gone, and have another started, the later the more of them have died young."""
        self._journal.worker_exited(worker=slot.number, worker_pid=pid, reason=reason, clients=clients)
        if self._stopping:
            if not any(slot.pid for slot in self._slots):
                self._loop.stop()
            return
        if self._loop.now - slot.started >= GROWN_UP:
            slot.died_young = 0
        delay = DELAYS[min(slot.died_young, len(DELAYS) - 1)]
        slot.died_young += 1
        slot.restart = self._loop.call_later(delay, lambda now: self._start(slot))

    def _hang_up(self, slot: Slot) -> None:
        if slot.orders is not None:
            self._loop.unwatch(slot.orders.fileno())
            slot.hang_up()

    def _on_beat(self, now: float) -> None:
        """Look whether every worker's loop comes round, and tell systemd what it wants to know."""
        for slot in self._slots:
            slot.beat(self._stats.rows[slot.number].ticks)
        self._report.beat(now, well=all(slot.well for slot in self._slots))
        self._loop.call_later(self._renewal.terms.tick, self._on_beat)

    def _handle_signal(self, signum: signal.Signals) -> None:
        """The first signal to stop drains, the second does not wait for that; SIGHUP may mean something else.

        SIGUSR2 says that the next one is the first half of a restart, which SIGTERM does not tell from a stop.
        """
        if signum == signal.SIGHUP and not self._hangup_stops:
            self._renewal.want()
            self._renew()
        elif signum == signal.SIGUSR2:
            self._restarts = True
        elif self._stopping:
            self._kill(self._loop.now)
        else:
            self._stop(signum)

    def _stop(self, signum: signal.Signals) -> None:
        """Drain, or at a restart hand over; the listening sockets end too, unless systemd has them for a successor."""
        self._stopping = True
        hands_over = self._restarts and self._renewal.terms.handover and self._succession.begin()
        leaves = hands_over or (self._restarts and self._notifier.stores())
        self._report.stopping(hands_over=hands_over)
        if not (leaves or self._adopted):
            self._notifier.discard(STORED_AS)
        if not self._restarts:
            self._notifier.discard(lastgood.STORED_AS)
        if not hands_over:
            clients = self._stats.clients_now()
            self._journal.draining(signal=signum.name, clients=clients, timeout=self._renewal.terms.drain)
        for listener in self._listeners:
            listener.leave() if leaves else listener.close()
        for slot in self._slots:
            if slot.restart is not None:
                slot.restart.cancel()
            if not hands_over:
                slot.order(LEAVE if leaves else DRAIN)
        if not any(slot.pid for slot in self._slots):
            self._loop.stop()
        self._loop.call_later(self._renewal.terms.drain + 2 * GRACE, self._kill)

    def _kill(self, now: float) -> None:
        """End the workers that are left; what their clients were due is lost."""
        for slot in self._slots:
            slot.kill()

    def _close(self) -> None:
        """Leave nothing behind, whatever made `run` end."""
        self._kill(self._loop.now)
        for slot in self._slots:
            if slot.pid:
                os.waitpid(slot.pid, 0)
            slot.close()
        for listener in self._listeners:
            listener.leave()
        for bell in self._bells:
            os.close(bell)
        self._journal.sink.detach()
        self._signals.close()
        self._loop.close()

    def _on_bug(self, fd: int, error: Exception) -> None:
        raise error
