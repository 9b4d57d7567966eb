"""Accepting connections: how many at a time, how many in total, and when to pause.

Overload is a state, not an error.  A worker that has reached a limit, or has no descriptor or memory left, stops
watching its listening sockets: the kernel queues the connections, and nothing spins.  It retries when one of its own
connections closes, and after `RETRY` seconds.  One event says that accepting has paused.  Another says that it has
resumed, but only after `CALM` seconds without a pause: under load a worker pauses and resumes a thousand times a
second.
"""

import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from echod.log.events import EventLog
from echod.net import address
from echod.net.listeners import BACKLOG, Listener
from echod.net.loop import Loop, Timer
from echod.net.sockopts import reset_on_close
from echod.shared.memory import PoolMemory
from echod.worker.balance import Balance

BUDGET = 32
"""Connections accepted in one turn, before the connections already accepted are served again."""
RETRY = 0.1
"""Seconds until a pause ends by itself."""
CALM = 2.0
"""Seconds without a pause after which accepting is logged as resumed."""
REFUSALS_EVERY = 10.0
"""Seconds between two events about refused clients."""

EMPTY = {errno.EAGAIN, errno.EINVAL}
"""accept(2): the queue is empty, or another worker that stops has shut it down."""
GONE = {
    errno.ECONNABORTED,
    errno.ENETDOWN,
    errno.EPROTO,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
    errno.EPIPE,
    errno.ECONNRESET,
}
"""accept(2): this connection has ended already, or a firewall rejects it; the next one may succeed."""
BUGS = {errno.EBADF, errno.EFAULT, errno.ENOTSOCK}
"""accept(2): a bug in echod.  After any other error, such as EMFILE, or EPERM in a sandbox, accepting pauses."""


class Acceptor:
    """Accepts for the worker with this `number`, and passes each client to `on_accepted(sock, sockaddr, local)`.

    `local` is the address of our end, or empty if that is not known (`Listener.local`).

    Both the listening sockets and the accepted ones are non-blocking.  An accepted client takes a place in the limits,
    which `on_left` gives back.
    """

    def __init__(
        self,
        number: int,
        listeners: Sequence[Listener],
        shared: PoolMemory,
        loop: Loop,
        events: EventLog,
        on_accepted: Callable[[socket.socket, Any, str], None],
    ) -> None:
        self._number = number
        self._listeners = [listener for listener in listeners if not listener.retires]
        self._retiring = [listener for listener in listeners if listener.retires]
        self._counters = shared.counters
        self._row = shared.counters.rows[number]
        self._limits = shared.limits
        self._balance = Balance(shared.counters, number, shared.wakeups)
        self._loop = loop
        self._events = events
        self._on_accepted = on_accepted
        self._paused_at: float | None = None
        self._resumed_at = 0.0
        self._retry: Timer | None = None
        self._calm: Timer | None = None
        self._refused = 0
        self._refused_last = ""
        self._refusals: Timer | None = None

    def begin(self) -> None:
        """Accept what is queued on listeners that retire, then wait for clients on the others."""
        self._empty_retiring()
        self.open()

    def open(self) -> None:
        """Wait for clients, except in a pause, after `close`, or when another worker should have the next one."""
        if not self._listeners or self._row.accepting or self._retry is not None:
            return
        self._row.available = True
        if not self._balance.steps_back():
            self._watch()

    def on_tick(self) -> None:
        """About once a second, check which workers still run, and whether this one should accept now."""
        self._balance.tick()
        self.open()

    def look_again(self) -> None:
        """Check for a client that is still queued because the worker that was woken for it could not accept it.

        EPOLLEXCLUSIVE woke no other worker for it, and epoll does not report it for a socket that is watched already.
        """
        if self._row.accepting:
            self._unwatch()
            self._watch()
        else:
            self.open()

    def close(self, *, has_successor: bool) -> None:
        """Stop accepting.  With a successor, the listening sockets stay open, and clients in the queues wait for it.

        Without a successor, this first accepts the clients in the queues of sockets that end with this daemon; clients
        in the queue of an adopted socket wait for its next owner.
        """
        self._row.available = False
        self._unwatch()
        for listener in self._listeners:
            if has_successor or listener.adopted:
                listener.sock.close()
            else:
                self._accept_queued(listener)
                self._shut_down(listener.sock)
        for listener in self._retiring:
            self._shut_down(listener.sock)
        self._listeners = self._retiring = []
        for timer in (self._retry, self._calm, self._refusals):
            if timer is not None:
                timer.cancel()

    def on_left(self, sockaddr: Any) -> None:
        """An accepted client has left: give its place back."""
        # In this order: the next client may have the same source, and must not find the limit of its source reached.
        if self._limits.counts_sources:
            self._limits.dismiss(self._number, self._limits.source(sockaddr))
        self._limits.give_place(self._number)
        if self._retry is not None:
            self._resume(self._loop.now)
        else:
            self.open()

    def _empty_retiring(self) -> None:
        """Empty the queues of the listeners that retire, and shut them down; during a pause this waits as well."""
        while self._retiring and self._retry is None:
            self._accept_queued(self._retiring[-1])
            if self._retry is None:
                self._shut_down(self._retiring.pop().sock)

    def _accept_queued(self, listener: Listener) -> None:
        for _ in range(BACKLOG):
            if not self._accept(listener):
                break

    def _shut_down(self, listener: socket.socket) -> None:
        # Closing alone is not enough: other processes may have copies, and clients would wait in the queue for ever.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()

    def _watch(self) -> None:
        self._row.accepting = True
        for listener in self._listeners:
            self._loop.watch_exclusive(listener.sock.fileno(), partial(self._on_acceptable, listener))

    def _unwatch(self) -> None:
        if self._row.accepting:
            self._row.accepting = False
            for listener in self._listeners:
                self._loop.unwatch(listener.sock.fileno())

    def _on_acceptable(self, listener: Listener) -> None:
        for _ in range(BUDGET):
            if not self._accept(listener):
                return
            if self._balance.steps_back():
                self._unwatch()
                return

    def _accept(self, listener: Listener) -> bool:
        """Accept one client; False if another attempt now would fail."""
        if not self._limits.take_place(self._number):
            self._pause()
            return False
        try:
            sock, sockaddr = listener.sock.accept()
        except OSError as error:
            self._limits.give_place(self._number)
            if error.errno in GONE:
                return True
            if error.errno in BUGS:
                raise
            if error.errno not in EMPTY:
                self._pause(error)
            return False
        try:
            self._admit(sock, sockaddr, listener.local)
        except OSError as error:
            # No memory to make it non-blocking, to count or to watch it: that costs this client, and no other.
            self._turn_away(sock)
            self._pause(error)
            return False
        return True

    def _admit(self, sock: socket.socket, sockaddr: Any, local: str) -> None:
        """Pass an accepted client on, unless its source has reached its limit.  After an OSError it has no place."""
        sock.setblocking(False)
        counts = self._limits.counts_sources
        source = self._limits.source(sockaddr) if counts else None
        if counts and not self._limits.admit(self._number, source):
            peer = address.peer(sock, sockaddr)
            self._turn_away(sock)
            self._refuse(peer)
            return
        try:
            self._on_accepted(sock, sockaddr, local)
        except OSError:
            if counts:
                self._limits.dismiss(self._number, source)
            raise
        self._row.clients_total += 1

    def _turn_away(self, sock: socket.socket) -> None:
        """Close an accepted client and give its place back.  The reset shows that nothing it has sent was echoed."""
        self._limits.give_place(self._number)
        reset_on_close(sock, resets=True)
        sock.close()

    def _pause(self, error: OSError | None = None) -> None:
        """Stop accepting for a while, because of this error or because there are as many clients as may be."""
        self._row.available = False
        self._unwatch()
        self._balance.wake_all()
        if self._calm is not None:
            self._calm.cancel()
        if self._paused_at is None:
            self._paused_at = self._loop.now
            reason = errno.errorcode.get(error.errno or 0, str(error)) if error else "max_connections"
            self._events.accept_paused(reason=reason, clients=self._counters.clients_now())
        self._retry = self._loop.call_later(RETRY, self._resume)

    def _resume(self, now: float) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._resumed_at = now
        self._calm = self._loop.call_later(CALM, self._on_calm)
        self._empty_retiring()
        self.open()

    def _on_calm(self, now: float) -> None:
        if self._paused_at is not None:
            self._events.accept_resumed(duration=round(self._resumed_at - self._paused_at, 3))
            self._paused_at = self._calm = None

    def _refuse(self, peer: str) -> None:
        self._row.clients_refused += 1
        self._refused += 1
        self._refused_last = peer
        if self._refusals is None:
            self._log_refusals(self._loop.now)

    def _log_refusals(self, now: float) -> None:
        """Log the first refusal of a series at once, and later ones in one event every `REFUSALS_EVERY` seconds."""
        self._refusals = None
        if self._refused:
            self._events.client_refused(peer=self._refused_last, count=self._refused)
            self._refused = 0
            self._refusals = self._loop.call_later(REFUSALS_EVERY, self._log_refusals)
