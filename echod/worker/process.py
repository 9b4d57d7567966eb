"""A worker: one process, one loop, its acceptor and its sessions.

It takes commands from the parent alone (`shared.messages`), and shows that it is alive by ticking in shared memory.
It ignores signals: a Ctrl-C at the terminal reaches every process of the group, and the parent decides what it means.
"""

import ctypes
import gc
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any

from echod.errors import EX_OK
from echod.handover import queue as handover
from echod.handover.copies import CopySender
from echod.handover.state import Connection, ConnectionState
from echod.log.events import EventLog
from echod.net import address
from echod.net.listeners import Listener
from echod.net.loop import READ, Loop
from echod.net.sockopts import set_options
from echod.shared import messages
from echod.shared.counters import Counters
from echod.shared.limits import Limits
from echod.shared.terms import ServiceTerms
from echod.worker.acceptor import Acceptor
from echod.worker.balance import Balance, on_ring
from echod.worker.session import Session

_TABLES = 2
"""Descriptors that the tables of `limits` take: the memory's, and the copy of it that Python's mmap keeps.

An order may bring such tables while the old ones are in use, or where none were.  So what both would take is kept, for
clients may have all other descriptors, and the remedy for that is an order: fewer clients.
"""
_PR_SET_PDEATHSIG = 1


class Worker:
    """Serves clients until it is told to drain, and then until the last of them is gone.

    `orders` is the socket to the parent, `copies` the one for copies of connections; `bells` are those of all workers;
    listeners, limits and statistics are shared with them.  It begins with the connections that are `inherited`, whose
    places are taken already; of the first, at most so many as `copied`, there are copies.
    """

    def __init__(
        self,
        number: int,
        listeners: Sequence[Listener],
        terms: ServiceTerms,
        events: EventLog,
        counters: Counters,
        limits: Limits,
        bells: list[int],
        orders: socket.socket,
        copies: socket.socket,
        inherited: Sequence[Connection],
        copied: int,
    ) -> None:
        self._number = number
        self._terms = terms
        self._events = events
        self._limits = limits
        self._row = counters.rows[number]
        self._orders = orders
        self._buffer = memoryview(bytearray(terms.chunk_size))
        self._sessions: dict[int, Session] = {}
        self._served = 0
        self._echoed_before = self._row.bytes_echoed
        self._draining = False
        self._loop = Loop(self._on_bug)
        self._copies = CopySender(copies, lambda: reversed(self._sessions.values()), self._loop)
        self._balance = Balance(counters, number, bells)
        self._acceptor = Acceptor(
            number, listeners, self._loop, events, counters, limits, self._balance, self._on_accepted
        )
        self._bell = bells[number]
        self._reserve: list[int] = []
        self._fill_reserve()
        self._inherit(inherited, copied)

    def run(self) -> None:
        """Serve; returns when drained, or when the parent is gone."""
        loop = self._loop
        self._events.queue.attach(loop)
        loop.watch(self._orders.fileno(), READ, self._on_order)
        loop.watch(self._bell, READ, on_ring(self._bell, self._acceptor.look_again))
        self._acceptor.begin()
        self._on_tick(loop.now)
        self._orders.send(messages.READY)
        loop.run()
        self._copies.finish()
        self._count()

    def _inherit(self, connections: Sequence[Connection], copied: int) -> None:
        for index, (sock, life) in enumerate(connections):
            set_options(sock, self._terms.socket_options)
            session = self._serve(sock, life if life.name else life._replace(name=self._new_name()))
            session.copied = index < copied
            self._echoed_before -= session.bytes_echoed  # which the echod before has counted
            self._row.bytes_live += session.counted

    def _on_accepted(self, sock: socket.socket, sockaddr: Any) -> None:
        if self._terms.sets_accepted_options:
            set_options(sock, self._terms.socket_options)
        now = self._loop.now
        session = self._serve(sock, ConnectionState(self._new_name(), sockaddr, now, now))
        if self._events.logs_chunks:
            self._events.connection_accepted(**session.names())

    def _new_name(self) -> str:
        self._served += 1
        return f"{os.getpid()}.{self._served}"

    def _serve(self, sock: socket.socket, life: ConnectionState) -> Session:
        session = Session(life, sock, self._loop, self._events, self._buffer, self._terms.timeouts, self._on_closed)
        self._sessions[session.fd] = session
        return session

    def _on_closed(self, session: Session) -> None:
        del self._sessions[session.fd]
        self._copies.on_closed(session)
        self._echoed_before += session.bytes_echoed
        # At once, so that the parent does not see a connection gone whose last bytes are not counted.
        self._row.bytes_echoed += session.bytes_echoed - session.counted
        self._row.bytes_live -= session.counted
        self._acceptor.on_left(session.sock.family, session.sockaddr)
        if self._draining and not self._sessions:
            self._loop.stop()

    def _on_order(self) -> None:
        self._release_reserve()
        order, fds, _, _ = socket.recv_fds(self._orders, messages.COMMAND_MAX, 1)
        if order in (messages.DRAIN, messages.DRAIN_ONLY_CLIENTS):
            self._acceptor.close(leaves=order == messages.DRAIN_ONLY_CLIENTS)
            self._drain()
        elif (room := messages.hand_over_room(order)) is not None:
            with socket.socket(fileno=fds[0]) as queue:
                self._hand_over(queue, room)
        elif order:
            self._take(ServiceTerms.decode(order), fds)
            self._fill_reserve()
            self._orders.send(messages.ADOPTED)
        else:
            self._loop.stop()

    def _fill_reserve(self) -> None:
        while len(self._reserve) < (_TABLES if self._limits.counts_sources else 2 * _TABLES):
            self._reserve.append(os.dup(self._bell))

    def _release_reserve(self) -> None:
        while self._reserve:
            os.close(self._reserve.pop())

    def _take(self, terms: ServiceTerms, fds: Sequence[int]) -> None:
        """Serve by other terms from now on, whoever is there already included."""
        before, self._terms = self._terms, terms
        sessions = list(self._sessions.values())
        self._events.change(terms.log_options)
        sources = (address.source(session.sock.family, session.sockaddr) for session in sessions)
        self._limits.follow(self._number, terms.max_connections, terms.max_per_source, fds, sources)
        if terms.chunk_size != before.chunk_size:
            self._buffer = memoryview(bytearray(terms.chunk_size))
        for session in sessions:
            session.renew(self._buffer, terms.timeouts)
            if terms.socket_options != before.socket_options:
                # Keepalive could wait for the next client, but TCP_USER_TIMEOUT must not undercut a longer stall.
                set_options(session.sock, terms.socket_options)

    def _hand_over(self, queue: socket.socket, room: int) -> None:
        self._acceptor.close(leaves=True)
        sessions = list(self._sessions.values())[:room]
        for start in range(0, len(sessions), handover.BATCH):
            batch = sessions[start : start + handover.BATCH]
            if not handover.hand_over(queue, [(session.snapshot(), session.fd) for session in batch]):
                break
            for session in batch:
                session.leave()
            self._row.add_handed_over(len(batch))
        self._copies.finish()
        self._orders.send(messages.HANDED_OVER)
        self._drain()

    def _drain(self) -> None:
        self._draining = True
        for session in list(self._sessions.values()):
            session.drain()
        if not self._sessions:
            self._loop.stop()
        self._loop.call_later(self._terms.drain, self._cut)

    def _cut(self, now: float) -> None:
        for session in list(self._sessions.values()):
            session.abort("cut")

    def _on_tick(self, now: float) -> None:
        self._count()
        self._row.tick()
        self._balance.tick()
        self._acceptor.open()
        self._copies.look()
        # At multiples of a tick, since the parent looks at the counters half a tick later; never twice in a row.
        tick = self._terms.tick
        self._loop.call_later(1.5 * tick - (now + tick / 2) % tick, self._on_tick)

    def _count(self) -> None:
        """Add up the bytes of all sessions, which count their own: on the hot path nothing is shared."""
        live = 0
        for session in self._sessions.values():
            session.counted = session.bytes_echoed
            live += session.counted
        self._row.bytes_echoed = self._echoed_before + live
        self._row.bytes_live = live

    def _on_bug(self, fd: int, error: Exception) -> None:
        """One client's bug ends that client; any other ends the worker, whose successor starts afresh."""
        session = self._sessions.get(fd)
        if session is None:
            raise error
        self._events.bug_of(error)
        session.abort("bug")


def enter(parent: int) -> None:
    """Turn a process that was just forked by `parent` into one that can be a worker; signals are blocked until the end
    of it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    # prctl(2): the kernel kills this process when its parent dies, however that dies, and also if this loop hangs
    # then.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EX_OK)
    # What was imported before the fork is here to stay: not to look through it at each collection saves milliseconds
    # at a time, and not to touch it keeps its memory shared with the parent.
    gc.freeze()
