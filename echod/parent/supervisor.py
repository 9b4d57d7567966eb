"""The parent: it owns the listening sockets, the worker pool and the signals, and communicates with systemd.

It never touches a client's bytes, so nothing that a client sends can harm it.  `lifecycle` defines its states, and the
effect of each signal, message and death of a worker; this module carries them out.
"""

import signal
import socket
import time
from collections.abc import Sequence

from echod.errors import CannotListen, ConfigError
from echod.handover import queue as handover
from echod.handover.state import Connection
from echod.log.events import EventLog
from echod.net.listeners import Listener
from echod.net.loop import READ, Loop
from echod.parent import last_good
from echod.parent.lifecycle import Lifecycle, Requests, State, Trigger
from echod.parent.listening import ListeningSockets
from echod.parent.orphans import reap_orphans
from echod.parent.pool import WorkerPool
from echod.parent.reading import Reading
from echod.parent.reload import Change, Configuration, Found
from echod.parent.replacement import Replacement
from echod.parent.signals import HANDLED, Signals
from echod.parent.status import ServiceManager, StatusReporter, failure
from echod.shared import messages
from echod.shared.counters import Totals
from echod.systemd.fdstore import ANSWER_WAIT, Answer

GRACE = 1.0
"""Seconds allowed for the workers to exit after the time for draining, and again to write their last events."""


class Supervisor:
    """Serves by the change `start`, and after each reload by what `configuration` has read, until a signal stops it.

    If `start` is what an earlier echod served by (`catches_up`), the configuration is read when the workers accept, and
    echod is ready once it is in effect or has been refused.
    """

    def __init__(
        self,
        start: Change,
        configuration: Configuration,
        sockets: ListeningSockets,
        manager: ServiceManager,
        events: EventLog,
        *,
        catches_up: bool,
    ) -> None:
        self._configuration = configuration
        self._sockets = sockets
        self._manager = manager
        self._events = events
        self._lifecycle = Lifecycle()
        self._requests = Requests()
        self._catches_up = catches_up
        self._change = start
        """The change in effect, or under way."""
        self._refused = ""
        """Why the last reload failed; empty if it did not."""
        self._loop = Loop(self._on_bug)
        self._signals = Signals(HANDLED, self._handle_signal)
        self._status = StatusReporter(
            manager.notifier, self._totals, adopted=sockets.adopted, watchdog=manager.watchdog, tick=start.terms.tick
        )
        self._pool: WorkerPool
        self._replacement: Replacement | None = None
        self._reading: Reading | None = None
        """The child process that reads the configuration, or that has read it last."""
        self._handover_queue: socket.socket | None = None
        """The queue to the next echod, while connections are handed over."""
        self._started = self._loop.now
        self._ready = False

    def run(self, connections: Sequence[Connection]) -> bool:
        """Serve, beginning with these connections of an earlier echod, until echod is stopped and all is closed.

        Returns whether sockets were left to a successor.
        """
        loop, log = self._loop, self._events.queue
        self._pool = self._new_pool(self._change, self._sockets.listeners, clients=len(connections))
        log.attach(loop)
        self._manager.notifier.attach(loop)
        loop.watch(self._signals.fd, READ, self._signals.on_readable)
        try:
            self._pool.start(connections, Totals(0, len(connections), 0, 0))
            loop.call_later(self._change.terms.tick, self._on_beat)
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
        return self._requests.restart

    def on_ready(self) -> None:
        """Every worker of the pool accepts: echod is ready, or a replacement is complete."""
        if self._state is not State.STARTING:  # the pool has already been commanded to end
            return
        self._close_retired()
        self._lifecycle.on(Trigger.POOL_READY)
        if self._reading is not None:
            self._end_reload()
        elif self._catches_up:
            self._reload()
        else:
            self._report_ready()

    def on_answered(self) -> None:
        """A worker has answered a command, or has exited: check whether any answer is still outstanding."""
        if self._pool.awaits_answers:
            return
        if self._state is State.RELOADING:
            self._lifecycle.on(Trigger.TERMS_ADOPTED)
            self._end_reload()
        elif self._state is State.HANDING_OVER:
            self._end_handover()

    def on_gone(self) -> None:
        """The last worker of a pool that ends has exited: another pool starts, or echod ends."""
        self._lifecycle.on(Trigger.POOL_GONE)
        if self._replacement is None:
            self._loop.stop()
            return
        self._pool, self._replacement = self._replacement.complete(), None
        if self._requests.stop is not None:
            self._stop(self._requests.stop)
            self._kill_if_requested()

    def drop_parent_resources(self) -> None:
        """In a worker, after the fork: close the resources that only the parent uses."""
        self._events.queue.reset()
        self._manager.store.close()
        self._manager.notifier.close()
        if self._reading is not None:
            self._reading.forget()
        self._signals.forget()
        self._loop.close()

    @property
    def _state(self) -> State:
        return self._lifecycle.state

    def _handle_signal(self, signum: signal.Signals) -> None:
        """Record what the signal requests, and carry it out if the state allows that now (`lifecycle`)."""
        requests = self._requests
        if signum == signal.SIGHUP and not self._manager.hangup_stops:
            requests.reload = True
            self._reload_if_requested()
        elif signum == signal.SIGQUIT:
            self._log_state()
        elif signum == signal.SIGURG:
            requests.stop_announced = True
        elif requests.stop is None:
            requests.end(signum, managed=self._manager.notifier.connected)
            if self._state is not State.REPLACING:
                self._stop(signum)
        elif signum != signal.SIGTERM or not requests.restart:
            requests.kill = True
            self._kill_if_requested()

    # Reloading

    def _reload_if_requested(self) -> None:
        if self._requests.reload and self._state is State.SERVING:
            self._requests.reload = False
            self._reload()

    def _reload(self) -> None:
        """Begin to read the configuration."""
        self._lifecycle.on(Trigger.RELOAD)
        if self._ready:
            self._status.reloading()
        work, kept = self._configuration.reader()
        try:
            self._reading = Reading(work, kept, self._loop, self._on_read)
        except OSError as error:
            self._refuse([f"cannot start a process that reads the configuration: {error.strerror}; try again later"])

    def _on_read(self) -> None:
        """The configuration has been read: serve by it, or log why not.  No error ends the service."""
        assert self._reading is not None
        try:
            change = self._configuration.change_to(Found.decode(self._reading.result()))
            begun = self._apply(change)
        except (ConfigError, CannotListen) as error:
            self._refuse(error.problems)
        except Exception as error:  # noqa: BLE001  a bug in reading a file must not end the connections
            self._events.bug_of(error)
            self._refuse([])
        else:
            self._configuration.commit()
            self._change, self._refused = change, ""
            for warning in change.warnings:
                self._events.config_warning(problem=warning)
            self._lifecycle.on(begun)
            self.on_answered()

    def _refuse(self, problems: Sequence[str]) -> None:
        """Report that the configuration read last does not take effect; without `problems`, because of a bug."""
        for problem in problems:
            self._events.reload_refused(problem=problem)
        self._refused = failure(problems) if problems else "a bug in echod: see the journal"
        self._lifecycle.on(Trigger.REFUSED)
        self._report_ready()

    def _apply(self, change: Change) -> Trigger:
        """Make the workers serve by this change; another pool replaces them if they cannot change in that way.

        Raises `ConfigError` or `CannotListen`, and then nothing has changed.
        """
        sockets, terms = self._sockets, change.terms
        planned = sockets.plan(change)
        try:
            if change.workers == len(self._pool) and not sockets.moves(planned):
                self._pool.serve_by(terms)
                begun = Trigger.TERMS_SENT
            else:
                self._replace_pool(change, planned)
                begun = Trigger.REPLACEMENT_BEGUN
        except (ConfigError, OSError) as error:
            sockets.abandon(planned, self._change.terms.socket_options)
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"not enough memory or descriptors for the new configuration: {error.strerror}; "
                "free some, then reload again"
            ) from error
        sockets.commit(planned, terms.socket_options, change.unix_mode)
        self._events.change(terms.log_options)
        return begun

    def _replace_pool(self, change: Change, listeners: Sequence[Listener]) -> None:
        """Make another pool take over.  Raises `ConfigError` or OSError if that is not possible now."""
        clients = self._totals().clients_now
        room = handover.room(len(listeners), len(self._pool) + change.workers)
        if clients > room:
            raise ConfigError(
                f"{', '.join(change.changed)} cannot change now: the descriptor limit allows handing over {room} "
                f"of {clients} connections; raise LimitNOFILE= (ulimit -n), or reload again with fewer connections"
            )
        # Until the new pool has counted them, the old one may accept as many clients as its limit allows.
        clients = max(clients, self._pool.terms.max_connections)
        self._replacement = Replacement(self._pool, self._new_pool(change, listeners, clients=clients), self._events)

    def _end_reload(self) -> None:
        """Report that every worker serves by the last change; a start that catches up may change nothing."""
        if self._ready or self._change.changed:
            self._events.reloaded(changed=self._change.changed)
        self._report_ready()

    # Stopping

    def _stop(self, signum: signal.Signals) -> None:
        """Drain the connections; or, if this is a restart, ask systemd first whether it stores them."""
        if self._reading is not None:
            self._reading.abandon()
        self._close_retired()
        if not self._requests.restart:
            self._drain(signum)
            return
        store, terms = self._manager.store, self._pool.terms
        self._lifecycle.on(Trigger.RESTART)
        if terms.handover:
            self._handover_queue = handover.open_queue(store)
        hands_over = self._handover_queue is not None
        self._status.stopping(ANSWER_WAIT + terms.drain + 3 * GRACE, hands_over=hands_over)
        store.ask(self._loop, lambda answer: self._on_answer(signum, answer))

    def _on_answer(self, signum: signal.Signals, answer: Answer) -> None:
        """Hand the connections over unless systemd has refused to store them; then drain them."""
        queue, terms = self._handover_queue, self._pool.terms
        if answer is Answer.REFUSED or queue is None:
            if queue is not None:
                queue.close()
                self._manager.store.remove(handover.STORED_AS)
                self._handover_queue = None
            if terms.handover:
                self._events.handover_impossible(
                    problem="systemd does not store descriptors for this service"
                    if answer is Answer.REFUSED
                    else "not enough memory or descriptors for a queue"
                )
            self._requests.restart = answer is not Answer.REFUSED
            self._drain(signum)
        else:
            self._lifecycle.on(Trigger.KEPT)
            self._end_listening(for_successor=True)
            self._pool.hand_over(queue.fileno())
            self.on_answered()
        self._kill_if_requested()

    def _drain(self, signum: signal.Signals) -> None:
        """Drain the connections; at a restart a successor will accept those that wait in the kernel's queues."""
        pool, drain, restart = self._pool, self._pool.terms.drain, self._requests.restart
        self._status.stopping(drain + 3 * GRACE, hands_over=False)
        if not restart:
            self._manager.store.remove(last_good.STORED_AS)
        self._end_listening(for_successor=restart)
        self._lifecycle.on(Trigger.STOP)
        self._events.draining(signal=signum.name, clients=self._totals().clients_now, timeout=drain)
        pool.drain(messages.DRAIN_ONLY_CLIENTS if restart else messages.DRAIN)

    def _end_listening(self, *, for_successor: bool) -> None:
        """Close the listening sockets, unless systemd keeps them for a successor, and limit the time for the rest."""
        self._sockets.close(for_successor=for_successor)
        self._loop.call_later(self._pool.terms.drain + 2 * GRACE, lambda now: self._pool.kill())

    def _kill_if_requested(self) -> None:
        """Kill the workers if a second signal requests it, but not while systemd's answer is outstanding."""
        if self._requests.kill and self._state is not State.ASKING:
            self._pool.kill()

    def _end_handover(self) -> None:
        """Report that all workers have handed over; connections for which there was no room are drained."""
        assert self._handover_queue is not None
        self._lifecycle.on(Trigger.HANDED_OVER)
        with self._handover_queue as queue:
            self._pool.hand_over_pending(queue)
        self._handover_queue = None
        left = self._totals().clients_now
        count = sum(row.handed_over for row in self._pool.counters.believed)
        self._events.handed_over(count=count, left=left)

    def _close(self) -> None:
        """Close everything, for whatever reason `run` ends."""
        if self._replacement is not None:
            self._replacement.close()
        if self._reading is not None:
            self._reading.close()
        self._pool.close()
        if self._handover_queue is not None:
            self._handover_queue.close()
        self._sockets.release()
        self._events.queue.detach()
        self._signals.close()
        self._manager.store.close()
        self._manager.notifier.close()
        self._loop.close()

    # Used by both

    def _new_pool(self, change: Change, listeners: Sequence[Listener], *, clients: int) -> WorkerPool:
        """A pool with room for the maximum of its terms, and for at least `clients` connections."""
        return WorkerPool(change, listeners, self._loop, self._events, self, clients=clients)

    def _close_retired(self) -> None:
        self._sockets.close_retired()
        self._pool.listeners = self._sockets.listeners

    def _totals(self) -> Totals:
        return self._pool.counters.totals()

    def _report_ready(self) -> None:
        """Report that echod serves, after its start and after each reload; then begin the next reload, if requested."""
        self._status.ready(
            self._loop.now, self._sockets.addresses, overruled=self._change.overruled, refused=self._refused
        )
        if not self._ready:
            self._ready = True
            self._events.ready(addresses=self._sockets.addresses, workers=len(self._pool))
            if (failed := self._manager.notifier.failed) is not None:
                problem = f"cannot notify systemd (NOTIFY_SOCKET): {failed.strerror or failed}"
                self._events.config_warning(problem=problem)
        self._reload_if_requested()

    def _log_state(self) -> None:
        totals = self._totals()
        self._events.state(
            state=self._state.name,
            status=self._status.sentence(),
            uptime=round(time.monotonic() - self._started, 3),
            workers=len(self._pool.pids),
            clients=totals.clients_now,
            clients_total=totals.clients_total,
            clients_refused=totals.clients_refused,
            bytes_echoed=totals.bytes_echoed,
        )

    def _on_beat(self, now: float) -> None:
        """Check that every worker's loop runs, and send systemd what is due."""
        reap_orphans([*self._pool.pids, *([] if self._reading is None else self._reading.pids)])
        well = self._pool.beat() or self._state is State.REPLACING
        self._status.beat(now, well=well)
        # Half a tick after the workers tick, and, unless they have many connections, count what has been echoed.
        tick = self._pool.terms.tick
        self._loop.call_later(1.5 * tick - now % tick, self._on_beat)

    def _on_bug(self, fd: int, error: Exception) -> None:
        raise error
