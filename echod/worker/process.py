"""A worker: one process, one loop, its acceptor and its sessions.

It takes commands from the parent alone (`shared.messages`), and shows that it is alive by ticking in shared memory.
It ignores signals: a Ctrl-C at the terminal reaches every process of the group, and the parent decides what it means.
"""

import ctypes
import gc
import os
import signal
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from echod.errors import EX_OK
from echod.handover import queue as handover
from echod.handover.copies import CopySender
from echod.handover.state import Connection, ConnectionState
from echod.log.events import EventLog
from echod.net.listeners import Listener
from echod.net.loop import READ, Loop
from echod.net.sockopts import set_options
from echod.shared import messages
from echod.shared.memory import PoolMemory
from echod.shared.terms import ServiceTerms
from echod.worker.acceptor import Acceptor
from echod.worker.balance import on_wakeup
from echod.worker.relay import Buffer
from echod.worker.session import Session
from echod.worker.sweep import Sweep

_TABLES = 2
"""Descriptors that the tables of `limits` need: one for the memory, and the copy of it that Python's mmap keeps.

A command may bring new tables while the old ones are in use, or the first ones.  So descriptors for them are kept in
reserve: clients may use all others, and a command that lowers the limit must still be possible then.
"""
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


@dataclass(frozen=True, slots=True)
class Assignment:
    """The task of one worker: its number in the pool, its listeners, and the terms by which it serves.

    It begins with `connections`, which already hold their places.  The parent may have copies of the first `copied` of
    them.
    """

    number: int
    listeners: Sequence[Listener]
    terms: ServiceTerms
    connections: Sequence[Connection]
    copied: int


@dataclass(frozen=True, slots=True)
class Channels:
    """The worker's sockets to the parent: `commands` and their answers, and `copies` of connections."""

    commands: socket.socket
    copies: socket.socket


class Worker:
    """Serves clients until it is commanded to drain, and then until the last of them has left."""

    def __init__(self, assignment: Assignment, shared: PoolMemory, channels: Channels, events: EventLog) -> None:
        self._number = number = assignment.number
        self._terms = assignment.terms
        self._events = events
        self._limits = shared.limits
        self._row = shared.counters.rows[number]
        self._commands = channels.commands
        self._buffer = Buffer(assignment.terms.chunk_size)
        self._sessions: dict[int, Session] = {}
        self._pid = os.getpid()
        self._served = 0
        self._draining = False
        self._loop = Loop(self._on_bug)
        self._sweep = Sweep(self._sessions, self._row, 1 / len(shared.counters.rows), self._loop)
        self._copies = CopySender(channels.copies, lambda: reversed(self._sessions.values()), self._loop)
        self._acceptor = Acceptor(number, assignment.listeners, shared, self._loop, events, self._on_accepted)
        self._wakeup = shared.wakeups[number]
        self._reserve: list[int] = []
        self._fill_reserve()
        self._adopt(assignment.connections, assignment.copied)

    def run(self) -> None:
        """Serve; returns when drained, or when the parent has died."""
        loop = self._loop
        self._events.queue.attach(loop)
        loop.watch(self._commands.fileno(), READ, self._on_command)
        loop.watch(self._wakeup, READ, on_wakeup(self._wakeup, self._acceptor.look_again))
        self._acceptor.begin()
        self._on_tick(loop.now)
        self._sweep.follow(self._terms, draining=False)
        self._commands.send(messages.READY)
        loop.run()
        self._copies.finish()

    def _adopt(self, connections: Sequence[Connection], copied: int) -> None:
        for index, (sock, state) in enumerate(connections):
            set_options(sock, self._terms.socket_options)
            session = self._serve(sock, state if state.name else state._replace(name=self._new_name()))
            session.copied = index < copied
            # The previous owner has counted them in bytes_echoed; bytes_live are those of connections still open.
            self._row.bytes_live += session.counted

    def _on_accepted(self, sock: socket.socket, sockaddr: Any, local: str) -> None:
        if self._terms.sets_accepted_options:
            set_options(sock, self._terms.socket_options)
        now = self._loop.now
        session = self._serve(sock, ConnectionState(self._new_name(), sockaddr, now, now), local)
        if self._events.logs_chunks:
            self._events.connection_accepted(**session.names())

    def _new_name(self) -> str:
        self._served += 1
        return f"{self._pid}.{self._served}"

    def _serve(self, sock: socket.socket, state: ConnectionState, local: str = "") -> Session:
        session = Session(Connection(sock, state), self._loop, self._events, self._buffer, self, local)
        self._sessions[session.fd] = session
        return session

    def on_closed(self, session: Session) -> None:
        """A session has ended."""
        del self._sessions[session.fd]
        self._copies.on_closed(session)
        # At once, so that the parent never sees a closed connection whose last bytes are not counted yet.
        self._sweep.count(session)
        self._row.bytes_live -= session.counted
        self._acceptor.on_left(session.sockaddr)
        if self._draining and not self._sessions:
            self._loop.stop()

    def _on_command(self) -> None:
        self._release_reserve()
        command, fds, _, _ = socket.recv_fds(self._commands, messages.COMMAND_MAX, 1)
        if command in (messages.DRAIN, messages.DRAIN_ONLY_CLIENTS):
            self._acceptor.close(has_successor=command == messages.DRAIN_ONLY_CLIENTS)
            self._drain()
        elif (room := messages.hand_over_room(command)) is not None:
            with socket.socket(fileno=fds[0]) as queue:
                self._hand_over(queue, room)
        elif command:
            self._serve_by(ServiceTerms.decode(command), fds)
            self._fill_reserve()
            self._commands.send(messages.ADOPTED)
        else:
            self._loop.stop()

    def _fill_reserve(self) -> None:
        while len(self._reserve) < (_TABLES if self._limits.counts_sources else 2 * _TABLES):
            self._reserve.append(os.dup(self._wakeup))

    def _release_reserve(self) -> None:
        while self._reserve:
            os.close(self._reserve.pop())

    def _serve_by(self, terms: ServiceTerms, fds: Sequence[int]) -> None:
        """Serve by new terms from now on, including the connections already accepted."""
        before, self._terms = self._terms, terms
        sessions = list(self._sessions.values())
        self._events.change(terms.log_options)
        sources = (self._limits.source(session.sockaddr) for session in sessions)
        quota = (terms.max_connections, terms.max_per_source)
        self._limits.follow(self._number, *quota, fds, sources, terms.ipv6_prefix)
        if terms.chunk_size != before.chunk_size:
            self._buffer.resize(terms.chunk_size)
        self._sweep.follow(terms, draining=self._draining)
        for session in sessions:
            session.trace()
            if terms.socket_options != before.socket_options:
                try:
                    set_options(session.sock, terms.socket_options)
                except OSError as error:
                    session.on_bug(error)

    def _hand_over(self, queue: socket.socket, room: int) -> None:
        self._acceptor.close(has_successor=True)
        sessions = list(self._sessions.values())[:room]
        for start in range(0, len(sessions), handover.BATCH):
            batch = sessions[start : start + handover.BATCH]
            if not handover.hand_over(queue, [(session.snapshot(), session.fd) for session in batch]):
                break
            for session in batch:
                session.hand_over()
            self._row.handed_over += len(batch)
        self._copies.finish()
        self._commands.send(messages.HANDED_OVER)
        self._drain()

    def _drain(self) -> None:
        self._draining = True
        self._sweep.follow(self._terms, draining=True)
        for session in list(self._sessions.values()):
            session.drain(self._terms.timeouts)
        if not self._sessions:
            self._loop.stop()
        self._loop.call_later(self._terms.drain, self._cut)

    def _cut(self, now: float) -> None:
        for session in list(self._sessions.values()):
            try:
                session.cut()
            except OSError as error:
                session.on_bug(error)

    def _on_tick(self, now: float) -> None:
        self._row.ticks += 1
        self._acceptor.on_tick()
        self._copies.look()
        # The parent reads the counters half a tick later.
        self._loop.call_at_multiple(self._terms.tick, self._on_tick)

    def _on_bug(self, fd: int, error: Exception) -> None:
        """An error in a session ends that connection; any other ends the worker, which the parent replaces."""
        session = self._sessions.get(fd)
        if session is None:
            raise error
        session.on_bug(error)


def enter(parent: int, name: bytes, ignored: Iterable[signal.Signals]) -> None:
    """Give a process that `parent` has just forked this `name`, make it ignore these signals, and die with `parent`.

    Call this with signals blocked.
    """
    for signum in ignored:
        signal.signal(signum, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    # The name that ps(1) and top(1) show, at most 15 bytes: "echod-worker255" is the longest.
    prctl(_PR_SET_NAME, name)
    # prctl(2): the kernel kills this process when its parent dies, for whatever reason, and even if this loop hangs.
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EX_OK)
    # What was imported before the fork stays in memory: excluding it from each collection saves milliseconds at a time,
    # and not touching it keeps its pages shared with the parent.
    gc.freeze()
