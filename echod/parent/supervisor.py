"""The parent: it owns the listening sockets, the crew of workers, the signals, and the talk with systemd.

It never touches a client's bytes, so nothing that a client does can harm it.
"""

import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from echod.errors import ConfigError
from echod.handover import queue as handover
from echod.handover.queue import Connection
from echod.log.events import EventLog
from echod.net.listeners import Listener, open_listeners
from echod.net.loop import READ, Loop
from echod.parent import last_good as lastgood
from echod.parent.listening import STORED_AS, store
from echod.parent.pool import WorkerPool
from echod.parent.reload import Reload
from echod.parent.replacement import Replacement
from echod.parent.report import Report
from echod.parent.signals import Signals
from echod.shared import messages
from echod.shared.counters import Totals
from echod.shared.terms import Change
from echod.systemd.notify import Notifier

GRACE = 1.0
"""Seconds that the workers may take to end, after those for draining; and once more to have their last events
written."""


class Supervisor:
    """Runs a crew on `listeners` until a signal says to stop.

    `start` has the terms to begin with, and `read_again` reads others at a SIGHUP, or raises `ConfigError` or
    `CannotListen`; `take` is called when those are in effect.  With `hangup_stops` that is a signal to stop, too.
    `watchdog` is how many seconds systemd waits for a sign of life, if it does.  `inherited` are the connections to
    begin with.
    """

    def __init__(
        self,
        listeners: list[Listener],
        start: Change,
        read_again: Callable[[], Change],
        take: Callable[[], None],
        events: EventLog,
        notifier: Notifier,
        watchdog: float | None,
        inherited: Sequence[Connection],
        *,
        hangup_stops: bool,
    ) -> None:
        self._listeners = listeners
        self._adopted = any(listener.adopted for listener in listeners)
        self._events = events
        self._notifier = notifier
        self._inherited = inherited
        self._hangup_stops = hangup_stops
        self._report = Report(notifier, self._totals, adopted=self._adopted, watchdog=watchdog, tick=start.terms.tick)
        self._reload = Reload(
            start, read_again, take, self, events, on_begun=notifier.reloading, on_ended=self._tell_ready
        )
        self._loop = Loop(self._on_bug)
        signums = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
        self._signals = Signals(signums, self._handle_signal)
        self._crew = self._hire(start, listeners, len(inherited))
        self._relief: Replacement | None = None
        self._started = self._loop.now
        self._ready = False
        self._restarts = self._hurries = False
        self._queue: socket.socket | None = None
        """While connections go there, to the next echod."""
        self._stopping: signal.Signals | None = None
        """The signal that says so, if one has."""

    def run(self) -> None:
        """Serve until told to stop and everything is closed."""
        loop, sink = self._loop, self._events.sink
        sink.attach(loop)
        loop.watch(self._signals.fd, READ, self._signals.on_readable)
        try:
            self._crew.start(self._inherited, Totals(0, len(self._inherited), 0, 0))
            loop.call_later(self._crew.terms.tick, self._on_beat)
            loop.run()
        finally:
            totals = self._totals()
            self._close()
        self._events.stopped(
            uptime=round(time.monotonic() - self._started, 3),
            clients_total=totals.clients_total,
            clients_refused=totals.clients_refused,
            bytes_echoed=totals.bytes_echoed,
        )

    @property
    def busy(self) -> bool:
        """Whether a worker does not serve by the last change yet, or systemd may not be told of another."""
        return self._relief is not None or not self._crew.ready or self._crew.due or self._stopping is not None

    def change(self, change: Change) -> None:
        """Serve by it: with the workers that are there, if these can.

        Raises `ConfigError` or `CannotListen`, and then nothing has changed.
        """
        before, terms = self._listeners, change.terms
        listeners = before
        if change.endpoints is not None:
            listeners = open_listeners(change.endpoints, change.port, terms.socket_options, before)
        try:
            moves = listeners != before or any(listener.retires for listener in listeners)
            if change.workers == len(self._crew) and not moves:
                self._crew.serve_by(terms)
            else:
                self._relieve(change, listeners)
        except (ConfigError, OSError) as error:
            for listener in listeners:
                listener.retires = False
                if listener in before:
                    listener.set_options(self._crew.terms.socket_options)
                else:
                    listener.close()
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"the new configuration needs memory or descriptors that are not there: {error.strerror}; "
                "free some, and reload again"
            ) from error
        self._listeners = listeners
        store(listeners, self._notifier, afresh=False)
        for listener in listeners:
            listener.set_options(terms.socket_options)
            if listener not in before:
                self._events.listening(address=listener.address, adopted=False)
        self._events.change(**asdict(terms.log_options))

    def on_ready(self) -> None:
        """Every worker of a crew accepts, the first or one that relieved another."""
        if self._stopping is None:
            self._retire()
        if not self._ready and self._stopping is None:
            self._ready = True
            self._tell_ready()
            self._events.ready(addresses=self._addresses(), workers=len(self._crew))
            if (failed := self._notifier.failed) is not None:
                problem = f"systemd can't be told how things are: NOTIFY_SOCKET: {failed.strerror or failed}"
                self._events.config_warning(problem=problem)
        self._reload.advance()

    def on_answered(self) -> None:
        """A worker serves by other terms, has handed over, or is gone."""
        self._reload.advance()
        if self._queue is not None and not self._crew.due:
            with self._queue as queue:
                self._crew.bequeath(queue)
            self._queue = None
            count = sum(row.handed_over for row in self._crew.counters.rows)
            self._events.handed_over(count=count, left=self._crew.counters.clients_now())

    def on_over(self) -> None:
        """The last worker is gone: another crew comes, or this is the end."""
        if self._relief is None:
            self._loop.stop()
            return
        self._crew, self._relief = self._relief.complete(), None
        if self._stopping is not None:
            self._end(self._stopping)
            if self._hurries:
                self._crew.kill()

    def shed(self) -> None:
        """In a worker: give back what is the parent's."""
        self._events.sink.reset()
        self._notifier.close()
        self._signals.forget()
        self._loop.close()

    def _hire(self, change: Change, listeners: Sequence[Listener], inherited: int) -> WorkerPool:
        """A crew for as many clients as there may be by its terms, and as are `inherited`."""
        loop, signals = self._loop, self._signals
        return WorkerPool(
            change.workers, listeners, change.terms, self._events, loop, signals, self, inherited=inherited
        )

    def _relieve(self, change: Change, listeners: Sequence[Listener]) -> None:
        """Have another crew serve; raises `ConfigError` or OSError if that can't be done now."""
        clients = self._crew.counters.clients_now()
        room = handover.room(len(listeners), len(self._crew) + change.workers)
        if clients > room:
            raise ConfigError(
                f"{', '.join(change.changed)} can't change now: {clients} clients can't be passed on by a process that "
                f"may have {room} at a time; raise LimitNOFILE= (ulimit -n), or reload again when they are fewer"
            )
        # Until they are counted, the old crew may let in as many as its limit says.
        new = self._hire(change, listeners, max(clients, self._crew.terms.max_connections))
        self._relief = Replacement(self._crew, new, self._events)

    def _retire(self) -> None:
        """Close the listening sockets where nobody is to come any more, whose queues the workers have emptied."""
        retiring = [listener for listener in self._listeners if listener.retires]
        self._listeners = self._crew.listeners = [listener for listener in self._listeners if not listener.retires]
        for listener in retiring:
            listener.close()
        if retiring:
            store(self._listeners, self._notifier, afresh=True)

    def _addresses(self) -> list[str]:
        return [listener.address for listener in self._listeners]

    def _totals(self) -> Totals:
        return self._crew.counters.totals()

    def _tell_ready(self) -> None:
        overruled, refused = self._reload.overruled, self._reload.refused
        self._report.ready(self._loop.now, self._addresses(), overruled=overruled, refused=refused)

    def _on_beat(self, now: float) -> None:
        """Look whether every worker's loop comes round, and tell systemd what it wants to know."""
        self._report.beat(now, well=self._crew.beat() or self._relief is not None)
        self._loop.call_later(self._crew.terms.tick, self._on_beat)

    def _handle_signal(self, signum: signal.Signals) -> None:
        """The first signal to stop drains, the second does not wait for that; SIGHUP may mean something else.

        SIGUSR2 says that the next one is the first half of a restart, which SIGTERM does not tell from a stop.  Nobody
        says so to an echod that starts or reloads, for which systemd runs no ExecStop=: that is taken for a restart,
        since more often it is one, and if it is not, a reset is what clients get in place of an end in good order.
        """
        if signum == signal.SIGHUP and not self._hangup_stops:
            self._reload.want()
            self._reload.advance()
        elif signum == signal.SIGUSR2:
            self._restarts = True
        elif self._stopping is not None:
            self._hurries = True
            self._crew.kill()
        else:
            self._stopping = signum
            if not self._ready or self._reload.under_way:
                self._restarts = self._restarts or self._notifier.stores()
            if self._relief is None:
                self._end(signum)

    def _end(self, signum: signal.Signals) -> None:
        """Drain, or at a restart hand over; the listening sockets end too, unless systemd has them for a successor."""
        self._retire()
        crew = self._crew
        drain = crew.terms.drain
        queue = self._open_queue() if self._restarts and crew.terms.handover else None
        leaves = queue is not None or (self._restarts and self._notifier.stores())
        self._report.stopping(drain + 3 * GRACE, hands_over=queue is not None)
        if not (leaves or self._adopted):
            self._notifier.discard(STORED_AS)
        if not self._restarts:
            self._notifier.discard(lastgood.STORED_AS)
        for listener in self._listeners:
            listener.release() if leaves else listener.close()
        if queue is not None:
            self._queue = queue
            crew.hand_over(queue.fileno())
            self.on_answered()
        else:
            self._events.draining(signal=signum.name, clients=crew.counters.clients_now(), timeout=drain)
            crew.end(messages.DRAIN_ONLY_CLIENTS if leaves else messages.DRAIN)
        self._loop.call_later(drain + 2 * GRACE, lambda now: self._crew.kill())

    def _open_queue(self) -> socket.socket | None:
        queue = handover.open_queue(self._notifier)
        if queue is None:
            self._events.handover_impossible(problem="systemd keeps no descriptors for this service")
        return queue

    def _close(self) -> None:
        """Leave nothing behind, whatever made `run` end."""
        if self._relief is not None:
            self._relief.close()
        self._crew.close()
        if self._queue is not None:
            self._queue.close()
        for listener in self._listeners:
            listener.release()
        self._events.sink.detach()
        self._signals.close()
        self._loop.close()

    def _on_bug(self, fd: int, error: Exception) -> None:
        raise error
