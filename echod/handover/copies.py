"""Copies of the workers' connections, which their parent keeps for the time when a worker dies.

A process that is killed takes its descriptors with it, but a connection ends only with the last of them.  So each
worker gives its parent a copy of each connection that has lived for `AGE` seconds: short ones, of which there may be
thousands a second, cost nothing.  When the worker dies, the kernel knows of each whether all that was read was written
back (`queues.passed`).  Where it was, the connection goes on in the successor as if nothing had happened; where it was
not, or where nobody knows, which is so of unix sockets, it is reset and told, since an echo with a gap is worse than
an error.  What was too young for a copy is reset by the kernel.

While there is a copy, closing does not end a connection (`Session.copied`): the worker shuts it down, and says to
forget it; one that is to be reset is so when the copy is closed.

What goes from worker to parent is lines: `+`, the worker's number of a descriptor, and JSON (`state.encode`), each with
the descriptor itself; or `-` and the number.  They are read in their order, so a number may be used again.  What a
worker begins with needs no word: the parent has had it, under the numbers that the fork has copied, and keeps it.
"""

import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from echod.handover.queue import Connection, adopt
from echod.handover.state import ConnectionState, decode, encode
from echod.log.events import WORKER_DIED, EventLog
from echod.net import address
from echod.net import tcpinfo as queues
from echod.net.loop import READ, Loop
from echod.net.sockopts import reset_on_close
from echod.net.tcpinfo import Ends

AGE = 1.0
"""Seconds."""

_BATCH = 128
"""Copies in a message: 253 at most (SCM_MAX_FD, unix(7)), and as many as their lines fit into"""
_MESSAGE_MAX = 64 << 10
"""bytes."""
_FORGOTTEN_MAX = 4096
"""Numbers in a message."""
_BACKLOG_MAX = 1 << 20
"""Bytes that a socket can hold, by far."""


class Copied(Protocol):
    """The part of a session that a sender of copies needs."""

    copied: bool
    """Whether the parent has a copy."""

    @property
    def fd(self) -> int:
        """The connection's descriptor."""

    @property
    def started(self) -> float:
        """When the connection was accepted, by the monotonic clock."""

    def snapshot(self) -> ConnectionState:
        """What another process has to know to go on with this connection."""


class CopySender:
    """A worker's side: sends copies of its sessions, of which `newest_first` returns all, through `sock`.

    What the socket does not take now is given at the next look.
    """

    def __init__(self, sock: socket.socket, newest_first: Callable[[], Iterable[Copied]], loop: Loop) -> None:
        self._sock = sock
        self._newest_first = newest_first
        self._loop = loop
        self._forgotten: list[int] = []

    def look(self) -> None:
        """Give copies of those that are old enough now; from time to time."""
        if not self._forget():
            return
        due = list(self._due())
        due.reverse()
        # The eldest first: so those that have a copy always come before those that have none.
        for start in range(0, len(due), _BATCH):
            batch = due[start : start + _BATCH]
            lines = "\n".join(f"+{session.fd} {json.dumps(encode(session.snapshot()))}" for session in batch)
            if not self._send(lines, [session.fd for session in batch]):
                return
            for session in batch:
                session.copied = True

    def on_closed(self, session: Copied) -> None:
        """Have its copy forgotten, with those of whatever else is closed in this turn of the loop."""
        if session.copied:
            if not self._forgotten:
                self._loop.call_later(0, self._on_turn)
            self._forgotten.append(session.fd)

    def finish(self) -> None:
        """Have nothing left that is to be forgotten, however long the parent takes."""
        self._sock.setblocking(True)
        self._forget()
        self._sock.setblocking(False)

    def _on_turn(self, now: float) -> None:
        self._forget()

    def _due(self) -> Iterator[Copied]:
        for session in self._newest_first():
            if session.copied:
                return
            if self._loop.now - session.started >= AGE:
                yield session

    def _forget(self) -> bool:
        """Say what is to be forgotten; False if that can't be said now, and then nothing else may be."""
        while self._forgotten:
            numbers = self._forgotten[:_FORGOTTEN_MAX]
            if not self._send("\n".join(f"-{number}" for number in numbers), []):
                return False
            del self._forgotten[: len(numbers)]
        return True

    def _send(self, lines: str, fds: list[int]) -> bool:
        try:
            socket.send_fds(self._sock, [lines.encode()], fds)
        except OSError:  # no room, or too many on their way (ETOOMANYREFS, unix(7)); or the parent is gone
            return False
        return True


class CopyHolder:
    """The parent's side: keeps the copies of one worker after the other, at most so many."""

    def __init__(self, most: int, loop: Loop) -> None:
        self.most = most
        self._loop = loop
        self._sock: socket.socket | None = None
        self._copies: dict[bytes, tuple[int, ConnectionState | bytes]] = {}

    def open(self) -> socket.socket:
        """Before a worker is forked: its end of a socket, which is its own.  Raises OSError if there is none."""
        self._sock, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.setblocking(False)  # since send_fds and recv_fds don't pass flags on
        its.setblocking(False)
        self._loop.watch(self._sock.fileno(), READ, self._on_readable)
        return its

    def hang_up(self) -> None:
        """Hear no more from the worker."""
        if self._sock is not None:
            self._loop.unwatch(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def keep(self, connections: Sequence[Connection]) -> None:
        """Keep the first of those that a new worker begins with, as many as there may be; the others are closed."""
        for sock, life in connections:
            fd = sock.detach()
            self._keep(b"%d" % fd, fd, life._replace(pending=b""))

    def drain(self) -> None:
        """Take all that the worker has to say; no more than it can have to, since it may not be what it was."""
        taken = 0
        while taken < _BACKLOG_MAX and (count := self._receive()):
            taken += count

    def take_over(self, events: EventLog, now: float) -> list[Connection]:
        """After the worker's death: what goes on.  The others are ended, and told."""
        self.drain()
        self.hang_up()
        copies, self._copies = self._copies, {}
        return [inherited for fd, life in copies.values() if (inherited := _take_over(fd, life, events, now))]

    def close(self) -> None:
        """In a worker: give back what is the parent's, whose loop is closed already."""
        if self._sock is not None:
            self._sock.close()
        for number in list(self._copies):
            self._forget(number)

    def _on_readable(self) -> None:
        self._receive()

    def _receive(self) -> int:
        """Take one message; its bytes, 0 if there is none, or none will come."""
        if self._sock is None:
            return 0
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, _MESSAGE_MAX, _BATCH)
        except BlockingIOError:
            return 0
        if not data:
            self.hang_up()
            return 0
        unused = iter(fds)
        for line in data.split(b"\n"):
            number, _, life = line[1:].partition(b" ")
            if line.startswith(b"-"):
                self._forget(number)
            elif (fd := next(unused, None)) is not None:  # if not, this process has as many as it may
                self._keep(number, fd, life)
        for fd in unused:
            os.close(fd)
        return len(data)

    def _keep(self, number: bytes, fd: int, life: ConnectionState | bytes) -> None:
        self._forget(number)
        if len(self._copies) < self.most:
            self._copies[number] = fd, life
        else:
            os.close(fd)

    def _forget(self, number: bytes) -> None:
        if number in self._copies:
            os.close(self._copies.pop(number)[0])


def end(inherited: Connection, events: EventLog) -> None:
    """End a connection that nobody can go on with after all."""
    sock, life = inherited
    reset_on_close(sock, resets=not life.lingers)
    _close(sock, life, life.received, events)


def _take_over(fd: int, known: ConnectionState | bytes, events: EventLog, now: float) -> Connection | None:
    # Nothing that comes from a worker, which talks to the whole world, may harm its parent.
    if (sock := adopt(fd)) is None:
        return None
    try:
        return _judged(sock, _life(known, sock, now), events)
    except OSError:  # what can't be asked is no connection of ours
        sock.close()
        return None


def _judged(sock: socket.socket, life: ConnectionState, events: EventLog) -> Connection | None:
    passed = queues.passed(sock)
    if passed is None:
        end(Connection(sock, life), events)
        return None
    if passed.ends is Ends.THEIRS:
        return Connection(sock, life._replace(received=passed.written, lingers=life.lingers or "idle"))
    if passed.ends is Ends.NONE:
        reset_on_close(sock, resets=False)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            sock.close()  # as the worker has done, and told
            return None
    life = life._replace(received=passed.read)
    if not passed.owes and not life.lingers:
        return Connection(sock, life)
    reset_on_close(sock, resets=True)
    _close(sock, life, passed.written, events)
    return None


def _life(known: ConnectionState | bytes, sock: socket.socket, now: float) -> ConnectionState:
    if isinstance(known, ConnectionState):
        return known._replace(active=now)
    try:
        return decode(json.loads(known), b"", sock.family, now)._replace(active=now)
    except Exception:  # noqa: BLE001  whatever a worker wrote
        return ConnectionState("", sock.getpeername(), now, now)


def _close(sock: socket.socket, life: ConnectionState, written: int, events: EventLog) -> None:
    with sock:
        peer = address.peer(sock, life.sockaddr)
        local = address.show(sock.family, sock.getsockname())
    events.connection_closed(
        connection=life.name,
        peer=peer,
        local=local,
        bytes_received=life.received,
        bytes_sent=written,
        chunks=life.chunks,
        duration=round(life.active - life.started, 6),
        restarts=life.restarts,
        reason=WORKER_DIED,
    )
