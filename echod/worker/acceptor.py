"""Letting clients in: how many at a time, how many at all, and when not.

Overload is a state, not an error.  A worker that has reached a limit, or has no descriptor or memory left, stops
watching its listening sockets: the kernel queues the clients, and nothing spins.  It looks again when a client of its
own leaves, and after `RETRY` seconds.  One event tells that accepting pauses, and one that it goes on, once it has
gone on for a while: under pressure the door opens and closes a thousand times a second, and nobody wants to read that.
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
from echod.shared.counters import Counters
from echod.shared.limits import Limits
from echod.worker.balance import Balance

BUDGET = 32
"""Connections accepted in one go, before those that are already here get their turn."""
RETRY = 0.1
"""Seconds until a pause ends by itself."""
CALM = 2.0
"""Seconds without a pause after which accepting is said to go on."""
REFUSALS_EVERY = 10.0
"""Seconds between two events about refused clients."""

NO_CAPACITY = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""accept(2): no descriptor or no memory.  Trying again at once would fail again at once."""
NOBODY = {errno.EAGAIN, errno.EINVAL}
"""accept(2): the queue is empty, or was shut down, by another worker that stops too."""
GONE = {
    errno.ECONNABORTED,
    errno.EPERM,
    errno.ENETDOWN,
    errno.EPROTO,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
}
"""accept(2): this client is gone already, or a firewall forbids it; the next may be there."""


class Acceptor:
    """Accepts for the worker of number `worker`, and hands each client to `on_accepted(sock, sockaddr)`.

    Both the listening sockets and the accepted ones are non-blocking.  A client handed over has taken a place, which
    `on_left` gives back.
    """

    def __init__(
        self,
        worker: int,
        listeners: Sequence[Listener],
        loop: Loop,
        events: EventLog,
        counters: Counters,
        limits: Limits,
        balance: Balance,
        on_accepted: Callable[[socket.socket, Any], None],
    ) -> None:
        self._worker = worker
        self._listeners = [listener for listener in listeners if not listener.retires]
        self._retiring = [listener for listener in listeners if listener.retires]
        self._loop = loop
        self._events = events
        self._counters = counters
        self._row = counters.rows[worker]
        self._limits = limits
        self._balance = balance
        self._on_accepted = on_accepted
        self._paused_at: float | None = None
        self._resumed_at = 0.0
        self._retry: Timer | None = None
        self._calm: Timer | None = None
        self._refused = 0
        self._refused_last = ""
        self._refusals: Timer | None = None

    def begin(self) -> None:
        """Let in who is waiting where nobody is to come any more, then wait for others."""
        self._let_in_the_last()
        self.open()

    def open(self) -> None:
        """Wait for clients, unless this is a pause, or the end, or another worker should have the next one."""
        if not self._listeners or self._row.accepting or self._retry is not None:
            return
        self._row.available = True
        if not self._balance.steps_back():
            self._watch()

    def look_again(self) -> None:
        """See whether a client is there for whom another worker was woken, and which that could not take.

        EPOLLEXCLUSIVE woke nobody else for it, and a socket that is watched already is not looked at again.
        """
        if self._row.accepting:
            self._shut()
            self._watch()
        else:
            self.open()

    def close(self, *, leaves: bool) -> None:
        """Accept no more.  Who is in the queue of a socket that ends with us is still let in; the others can wait.

        With `leaves` no socket ends with us.
        """
        self._row.available = False
        self._shut()
        for listener in self._listeners:
            if leaves or listener.adopted:
                listener.sock.close()
            else:
                self._let_in(listener.sock)
                self._end(listener.sock)
        for listener in self._retiring:
            self._end(listener.sock)
        self._listeners = self._retiring = []
        for timer in (self._retry, self._calm, self._refusals):
            if timer is not None:
                timer.cancel()

    def on_left(self, family: int, sockaddr: Any) -> None:
        """A client that was handed over has left."""
        # In this order: whoever gets the place may come from there, and must not find all of them taken.
        if self._limits.counts_sources:
            self._limits.dismiss(self._worker, address.source(family, sockaddr))
        self._limits.give_place(self._worker)
        if self._retry is not None:
            self._resume(self._loop.now)
        else:
            self.open()

    def _let_in_the_last(self) -> None:
        """Empty the queues of those who retire, and end them; in a pause they wait, too."""
        while self._retiring and self._retry is None:
            self._let_in(self._retiring[-1].sock)
            if self._retry is None:
                self._end(self._retiring.pop().sock)

    def _let_in(self, listener: socket.socket) -> None:
        for _ in range(BACKLOG):
            if not self._accept(listener):
                break

    def _end(self, listener: socket.socket) -> None:
        # Not by closing alone: others may have copies, in whose queue clients would wait for nobody.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()

    def _watch(self) -> None:
        self._row.accepting = True
        for listener in self._listeners:
            self._loop.watch_exclusive(listener.sock.fileno(), partial(self._on_acceptable, listener.sock))

    def _shut(self) -> None:
        if self._row.accepting:
            self._row.accepting = False
            for listener in self._listeners:
                self._loop.unwatch(listener.sock.fileno())

    def _on_acceptable(self, listener: socket.socket) -> None:
        for _ in range(BUDGET):
            if not self._accept(listener):
                return
            if self._balance.steps_back():
                self._shut()
                return

    def _accept(self, listener: socket.socket) -> bool:
        """Accept one client; False when it is no use to try again now."""
        if not self._limits.take_place(self._worker):
            self._pause("max_connections")
            return False
        try:
            sock, sockaddr = listener.accept()
        except OSError as error:
            self._limits.give_place(self._worker)
            if error.errno in NO_CAPACITY:
                self._pause(errno.errorcode[error.errno])
            elif error.errno in GONE:
                return True
            elif error.errno not in NOBODY:
                raise
            return False
        sock.setblocking(False)
        if self._limits.counts_sources and not self._limits.admit(self._worker, address.source(sock.family, sockaddr)):
            self._limits.give_place(self._worker)
            reset_on_close(sock, resets=False)
            sock.close()
            self._refuse(address.show(sock.family, sockaddr))
            return True
        self._row.add_client()
        self._on_accepted(sock, sockaddr)
        return True

    def _pause(self, reason: str) -> None:
        self._row.available = False
        self._shut()
        self._balance.call_all()
        if self._calm is not None:
            self._calm.cancel()
        if self._paused_at is None:
            self._paused_at = self._loop.now
            self._events.accept_paused(reason=reason, clients=self._counters.clients_now())
        self._retry = self._loop.call_later(RETRY, self._resume)

    def _resume(self, now: float) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._resumed_at = now
        self._calm = self._loop.call_later(CALM, self._on_calm)
        self._let_in_the_last()
        self.open()

    def _on_calm(self, now: float) -> None:
        if self._paused_at is not None:
            self._events.accept_resumed(duration=round(self._resumed_at - self._paused_at, 3))
            self._paused_at = self._calm = None

    def _refuse(self, peer: str) -> None:
        self._row.add_refused()
        self._refused += 1
        self._refused_last = peer
        if self._refusals is None:
            self._tell_refusals(self._loop.now)

    def _tell_refusals(self, now: float) -> None:
        """Tell those of the last ten seconds in one event, and the first of a series at once."""
        self._refusals = None
        if self._refused:
            self._events.client_refused(peer=self._refused_last, count=self._refused)
            self._refused = 0
            self._refusals = self._loop.call_later(REFUSALS_EVERY, self._tell_refusals)
