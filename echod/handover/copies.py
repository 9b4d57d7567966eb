"""The parent's copies of its workers' connections, by which the connections survive the death of a worker.

When a process is killed, the kernel closes its descriptors, but a connection ends only when its last descriptor is
closed.  So each worker sends its parent a copy of each connection that is older than `AGE`.  Short connections, of
which there may be thousands a second, cost nothing this way; the kernel resets connections without a copy.

When a worker dies, the kernel's counters show for each TCP connection whether all bytes that were read from it were
written back (`tcpinfo.passed`).  If so, the worker's successor continues it.  Otherwise it is reset, because an echo
with a gap is worse than an error, and its end is logged.  The kernel has no such counters for unix sockets, so these
connections are closed as well, and their events have the bytes that had been echoed when the copy was made.

While the parent has a copy, closing the socket in the worker does not end the connection (`Session.copied`).  So the
worker shuts the socket down and makes the parent close the copy; to reset the connection, closing the copy is enough.

Copies are sent in the messages of the copy socket (`shared.messages`), in order, so a number may be used again.  A
worker's first connections need no message: the parent had them before the fork, under the same numbers, and keeps them.
Nothing in the parent blocks: it reads a bounded number of bytes, and writes nothing.

A worker may be controlled by an attacker, so the parent checks what each message contains, and has the worker killed if
no worker of echod would send it (`messages.FalseData`).  What such a worker has written about its connections is then
ignored; only the kernel's counters decide.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from echod.handover.state import Connection, ConnectionState, adopt, cookie, pack, unpack
from echod.log.events import WORKER_DIED, EventLog
from echod.log.formatters import utc
from echod.net import address, tcpinfo
from echod.net.loop import NOTHING, READ, Loop
from echod.net.sockopts import reset_on_close
from echod.net.tcpinfo import Ends
from echod.shared import messages
from echod.shared.messages import FalseData

AGE = 1.0
"""Seconds after which a connection gets a copy, and an event `connection_opened`."""
RETRY = 0.1
"""Seconds until the parent repeats a call that failed for lack of memory or descriptors."""

_BACKLOG_MAX = 1 << 20
"""Bytes, far more than a socket's buffer can hold."""


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
        """The state that another process needs to continue this connection."""


class CopySender:
    """The worker's side: sends copies of its sessions through `sock`; `newest_first` returns all sessions.

    If the socket has no room for some copies, a later `look` sends them.
    """

    def __init__(self, sock: socket.socket, newest_first: Callable[[], Iterable[Copied]], loop: Loop) -> None:
        self._sock = sock
        self._newest_first = newest_first
        self._loop = loop
        self._closed: list[int] = []
        """The numbers of closed connections whose copies the parent still has."""

    def look(self) -> None:
        """Send copies of the sessions that have become old enough; call this from time to time."""
        if not self._forget():
            return
        due = list(self._due())
        due.reverse()
        # The oldest first, so that the sessions with a copy are always older than those without.
        for start in range(0, len(due), messages.COPIES_MAX):
            batch = due[start : start + messages.COPIES_MAX]
            lines = [messages.keep_copy(each.fd, pack(_echoed(each.snapshot()))) for each in batch]
            if not self._send(lines, [session.fd for session in batch]):
                return
            for session in batch:
                session.copied = True

    def on_closed(self, session: Copied) -> None:
        """Make the parent close its copy, in one message with all copies to close from this turn of the loop."""
        if session.copied:
            if not self._closed:
                self._loop.call_later(0, self._on_turn)
            self._closed.append(session.fd)

    def finish(self) -> None:
        """Make the parent close the copies of all closed connections.  Blocks until the socket has room."""
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
        """Make the parent close copies; False if the socket had no room for all of these messages.

        Then no copy may be sent before the rest of them, since a new connection may have the number of a closed one.
        """
        while self._closed:
            numbers = self._closed[: messages.FORGOTTEN_MAX]
            if not self._send([messages.forget_copy(number) for number in numbers], []):
                return False
            del self._closed[: len(numbers)]
        return True

    def _send(self, lines: Sequence[bytes], fds: list[int]) -> bool:
        try:
            socket.send_fds(self._sock, [messages.copy_message(lines)], fds)
        except OSError:  # No room, too many descriptors in flight (ETOOMANYREFS, unix(7)), or the parent has died.
            return False
        return True


class CopyHolder:
    """The parent's side: holds at most `most` copies of the connections of a worker, and later of its successor.

    `on_false` is called with a description of what the worker has sent that no worker of echod sends; from then on
    nothing is received from it.
    """

    def __init__(self, most: int, loop: Loop, on_false: Callable[[str], None]) -> None:
        self.most = most
        self._loop = loop
        self._on_false = on_false
        self._since, self._lines = loop.now, 0
        """When the present second has begun, and the lines received in it."""
        self._sock: socket.socket | None = None
        self._copies: dict[int, tuple[int, ConnectionState | bytes]] = {}
        """By the descriptor's number in the worker: its number here, and the state, or the line that brought it."""

    def __len__(self) -> int:
        return len(self._copies)

    def open(self) -> socket.socket:
        """Open a copy socket before a fork, and return the worker's end.  Raises OSError if there is no descriptor."""
        self._sock, worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.setblocking(False)  # because send_fds and recv_fds do not pass flags on
        worker_end.setblocking(False)
        self._loop.watch(self._sock.fileno(), READ, self._on_readable)
        self._lines = 0
        return worker_end

    def hang_up(self) -> None:
        """Close the copy socket; the copies stay."""
        if self._sock is not None:
            self._loop.unwatch(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def keep(self, connections: Sequence[Connection]) -> None:
        """Keep the connections that a new worker starts with, the first `most` of them; the others are closed here."""
        for sock, state in connections:
            fd = sock.detach()
            self._keep(fd, fd, _echoed(state))

    def drain(self) -> None:
        """Receive all messages of the worker, but no more than the socket can hold, in case it never stops sending."""
        taken = 0
        while taken < _BACKLOG_MAX and (count := self._receive()):
            taken += count

    def take_over(self, events: EventLog, now: float, *, trusted: bool) -> list[Connection]:
        """After the worker's death: the connections that continue.  The others are closed, and that is logged.

        If the worker is not `trusted`, what it has written about its connections is ignored.
        """
        self.drain()
        self.hang_up()
        copies, self._copies = self._copies, {}
        cookies: set[int] = set()
        connections = []
        for fd, state in copies.values():
            sock = adopt(fd)
            if sock is None:
                continue
            if (number := cookie(sock)) in cookies:  # the worker has sent it under several numbers
                sock.close()
                continue
            cookies.add(number)
            known = state if trusted or isinstance(state, ConnectionState) else b""
            if continuing := _take_over(sock, known, events, now):
                connections.append(continuing)
        return connections

    def close(self) -> None:
        """In a worker: close the parent's descriptors; the parent's loop is closed already."""
        if self._sock is not None:
            self._sock.close()
        for number in list(self._copies):
            self._forget(number)

    def _on_readable(self) -> None:
        self._receive()

    def _on_retry(self, now: float) -> None:
        if self._sock is not None:
            self._loop.rewatch(self._sock.fileno(), READ, self._on_readable)

    def _receive(self) -> int:
        """Receive one message and return its length; 0 if there is none now, or the worker has closed its end."""
        if self._sock is None:
            return 0
        try:
            data, fds, flags, _ = socket.recv_fds(self._sock, messages.COPY_MESSAGE_MAX, messages.COPIES_MAX)
        except BlockingIOError:
            return 0
        except OSError:  # no memory, or no descriptor: the message stays in the queue
            self._loop.rewatch(self._sock.fileno(), NOTHING, self._on_readable)
            self._loop.call_later(RETRY, self._on_retry)
            return 0
        if not data and not fds:
            self.hang_up()
            return 0
        try:
            self._take(data, fds, flags)
        except FalseData as error:
            self.hang_up()
            self._on_false(str(error))
            return 0
        finally:
            for fd in fds:
                os.close(fd)
        return len(data)

    def _take(self, data: bytes, fds: list[int], flags: int) -> None:
        """Do what a message says, and remove the descriptors that are in use now.  Raises `FalseData`."""
        if flags & socket.MSG_TRUNC:
            raise FalseData(f"a message about copies has more than {messages.COPY_MESSAGE_MAX} bytes")
        lines = messages.copy_lines(data)
        if self._loop.now - self._since >= 1:
            self._since, self._lines = self._loop.now, 0
        # The end of a known copy counts for nothing: a worker that drains may end all of its connections at once.
        self._lines += sum(state is not None or number not in self._copies for number, state in lines)
        if self._lines > messages.COPY_LINES_MAX:
            raise FalseData(f"more than {messages.COPY_LINES_MAX} lines about copies in a second")
        kept = sum(state is not None for _, state in lines)
        # MSG_CTRUNC: some descriptors did not arrive, because this process has none left for them.
        if len(fds) > kept or (len(fds) < kept and not flags & socket.MSG_CTRUNC):
            raise FalseData(f"a message with {len(fds)} descriptors has {kept} lines for them")
        for number, state in lines:
            if state is None:
                self._forget(number)
            elif fds:
                sock = adopt(fds.pop(0))
                if sock is None:
                    raise FalseData("a descriptor is not one of a connection")
                self._keep(number, sock.detach(), state)
                _check(state, sock.family)

    def _keep(self, number: int, fd: int, state: ConnectionState | bytes) -> None:
        self._forget(number)
        if len(self._copies) < self.most:
            self._copies[number] = fd, state
        else:
            os.close(fd)

    def _forget(self, number: int) -> None:
        if number in self._copies:
            os.close(self._copies.pop(number)[0])


def _echoed(state: ConnectionState) -> ConnectionState:
    """The state of a copy: it has received only what it has sent back, since nothing else is certain after a death.

    When it was last active is not certain either, so that is 0.
    """
    return state._replace(active=0, received=state.received - len(state.pending), pending=b"")


def close_unowned(connection: Connection, events: EventLog) -> None:
    """Close a connection that has lost its worker and gets no other, and log that.

    It is reset, unless the server had shut its side down: then the echo is complete.
    """
    sock, state = connection
    reset_on_close(sock, resets=not state.lingers)
    _close(sock, state, state.received, events)


def _take_over(sock: socket.socket, known: ConnectionState | bytes, events: EventLog, now: float) -> Connection | None:
    try:
        return _checked(sock, _state(known, sock, now), events)
    except OSError:  # The kernel has no peer or no TCP state for it, so it is not a connection of echod.
        sock.close()
        return None


def _checked(sock: socket.socket, state: ConnectionState, events: EventLog) -> Connection | None:
    """The connection with its state corrected from the kernel's counters; None if it cannot continue and was closed."""
    passed = tcpinfo.passed(sock)
    if passed is None:
        close_unowned(Connection(sock, state), events)
        return None
    if passed.ends is Ends.THEIRS:
        return Connection(sock, state._replace(received=passed.written, lingers=state.lingers or "idle"))
    if passed.ends is Ends.NONE:
        reset_on_close(sock, resets=False)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            sock.close()  # The worker has closed it, and logged that.
            return None
    state = state._replace(received=passed.read)
    if not passed.owes and not state.lingers:
        return Connection(sock, state)
    reset_on_close(sock, resets=True)
    _close(sock, state, passed.written, events)
    return None


def _check(state: bytes, family: int) -> None:
    """Raise `FalseData` unless this is the state of a connection."""
    try:
        unpack(state, family, time.monotonic())
    except (ValueError, RecursionError):
        raise FalseData(f"the state of a connection is {state[:50]!r}") from None


def _state(known: ConnectionState | bytes, sock: socket.socket, now: float) -> ConnectionState:
    if isinstance(known, ConnectionState):
        return known._replace(active=now)
    try:
        return unpack(known, sock.family, now)._replace(active=now)
    except ValueError:
        return ConnectionState("", sock.getpeername(), now, now)


def _close(sock: socket.socket, state: ConnectionState, written: int, events: EventLog) -> None:
    with sock:
        ends = address.ends(sock, state.sockaddr)
    events.connection_closed(
        **ends,
        connection=state.name,
        bytes_received=state.received,
        bytes_sent=written,
        chunks=state.chunks,
        started=utc(time.time() - time.monotonic() + state.started),
        duration=round(state.active - state.started, 6),
        restarts=state.restarts,
        reason=WORKER_DIED,
    )
