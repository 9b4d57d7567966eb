"""session: every way in which a connection ends, with a clock that the test moves."""

import errno
import fcntl
import gc
import math
import os
import select
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from typing import NoReturn

import pytest

from echod.handover.copies import AGE
from echod.handover.state import Connection, ConnectionState
from echod.log.events import LogOptions
from echod.net import tcpinfo
from echod.shared.counters import WorkerCounters
from echod.shared.terms import Timeouts
from echod.worker import stall
from echod.worker.quiet import SILENCE
from echod.worker.relay import Buffer, Relay
from echod.worker.session import Session
from echod.worker.state import TRANSITIONS, State
from echod.worker.sweep import Sweep
from tests.unit.events import Recorder, recording
from tests.unit.hand_loop import DEADLINE, HandLoop
from tests.unit.worker.terms import TICK, terms

IDLE, STALL, LINGER = 100.0, 40.0, 2.0
TIMEOUTS = Timeouts(IDLE, STALL, LINGER)
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER so that closing resets the connection (socket(7))."""


class Recorded(Session):
    """A session that records its changes of state, and fails the test at one that is not in `TRANSITIONS`."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_state" and hasattr(self, "_state"):
            assert value in TRANSITIONS[self._state], f"{self._state} is followed by {value}"
            self.changes = [*getattr(self, "changes", []), (self._state, value)]
        super().__setattr__(name, value)


class Served:
    """A session that a sweep looks at, the client's end of its connection, and the events logged."""

    def __init__(
        self,
        stack: ExitStack,
        *,
        timeouts: Timeouts = TIMEOUTS,
        unix: bool = False,
        chunk_size: int = 1 << 16,
        level: str = "info",
        time: float = 1000.0,
    ) -> None:
        self.loop = stack.enter_context(closing(HandLoop(time=time)))
        self.told: Recorder = stack.enter_context(recording(level=level))
        self.closed = 0
        if unix:
            self.client, sock = socket.socketpair()
            sockaddr: object = ""
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.client = socket.create_connection(listener.getsockname())
                sock, sockaddr = listener.accept()
        stack.enter_context(self.client)
        stack.enter_context(sock)
        self.client.settimeout(DEADLINE)
        sock.setblocking(False)
        self.buffer = Buffer(chunk_size)
        self.sessions: dict[int, Session] = {}
        self.sweep = Sweep(self.sessions, WorkerCounters(), 1.0, self.loop)
        self.look_by(timeouts)
        self.serve(sock, ConnectionState("1.1", sockaddr, self.loop.now, self.loop.now))

    def serve(self, sock: socket.socket, state: ConnectionState) -> None:
        """Continue a connection in this state."""
        self.session = Recorded(Connection(sock, state), self.loop, self.told.events, self.buffer, self)
        self.sessions[self.session.fd] = self.session

    def look_by(self, timeouts: Timeouts, *, draining: bool = False) -> None:
        """Have the sweep follow these time-outs from now on."""
        self.timeouts = timeouts
        self.sweep.follow(terms(timeouts=timeouts), draining=draining)

    def on_closed(self, session: Session) -> None:
        """Count the calls; there must be exactly one."""
        assert session is self.session
        self.closed += 1
        self.sessions.clear()

    def echo(self, data: bytes) -> None:
        """Send `data`, and receive it back."""
        before = self.session.bytes_echoed
        self.client.sendall(data)
        self.loop.until(lambda: self.session.bytes_echoed == before + len(data))
        received = b""
        while len(received) < len(data):
            received += self.client.recv(len(data))
        assert received == data
        # An acknowledgement may take 40 ms (tcp(7), TCP_QUICKACK); the clock must not be moved before it is here.
        deadline = time.monotonic() + DEADLINE
        while self.unacknowledged():
            assert time.monotonic() < deadline, "the echo is not acknowledged"
            os.sched_yield()

    def unacknowledged(self) -> int:
        """Bytes of the echo that the client's kernel has not acknowledged (SIOCOUTQ)."""
        (count,) = struct.unpack("i", fcntl.ioctl(self.session.fd, termios.TIOCOUTQ, bytes(4)))
        return int(count)

    def stuff(self) -> None:
        """Send without reading, until the buffers of both directions are full and the session waits for room."""
        self.client.setblocking(False)
        quiet = 0
        while quiet < 10:
            try:
                self.client.send(bytes(1 << 16))
            except BlockingIOError:
                quiet = 0 if self.loop.turn(0) else quiet + 1
        self.client.settimeout(DEADLINE)

    def drain(self) -> None:
        """Drain the session until its client is quiet."""
        self.begin_to_drain()
        self.loop.pass_time(SILENCE)

    def begin_to_drain(self) -> None:
        """Drain the session."""
        self.look_by(self.timeouts, draining=True)
        self.session.drain(self.timeouts)

    def reason(self) -> str:
        """The reason logged for the end, which was logged once, and passed to the owner once."""
        assert self.closed == 1
        closed = [event for event in self.told.objects() if event["event"] == "connection_closed"]
        assert len(closed) == 1
        assert self.session.sock.fileno() == -1
        return str(closed[0]["reason"])

    def drain_client(self) -> int:
        """How many bytes the client can read before the end of input; a reset is raised."""
        count = 0
        while data := self.client.recv(1 << 16):
            count += len(data)
        return count


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that reads slowly gets no more time than one that reads nothing; see test_stall."""
    monkeypatch.setattr(stall, "patience", lambda buffered: 0.0)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closed at the end of the test, with everything that was entered."""
    with ExitStack() as stack:
        yield stack


def test_end_of_the_client(stack: ExitStack) -> None:
    """A client that closes its side gets its whole echo, and then end of file."""
    served = Served(stack)
    served.client.sendall(b"first and last")
    served.client.shutdown(socket.SHUT_WR)
    served.loop.until(lambda: served.closed > 0)
    assert served.client.recv(100) == b"first and last"
    assert served.client.recv(1) == b""
    assert served.reason() == "eof"


def test_reset_by_the_client(stack: ExitStack) -> None:
    """A reset by the client ends the session."""
    served = Served(stack)
    served.echo(b"hello")
    served.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    served.client.close()
    served.loop.until(lambda: served.closed > 0)
    assert served.reason() == "reset"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ECONNRESET, "reset"),
        (errno.EPIPE, "reset"),
        (errno.ETIMEDOUT, "timed_out"),
        (errno.EHOSTUNREACH, "unreachable"),
        (errno.ENETUNREACH, "unreachable"),
        (errno.EIO, "error"),
    ],
)
def test_broken(stack: ExitStack, number: int, reason: str) -> None:
    """A connection that fails is closed, for the reason that the kernel gives."""
    served = Served(stack)
    served.echo(b"hello")
    served.session.on_broken(OSError(number, os.strerror(number)))
    assert served.reason() == reason


def test_idle(stack: ExitStack) -> None:
    """An idle client gets end of file, and the session lingers until the client closes its side too."""
    served = Served(stack)
    served.echo(b"hello")
    served.loop.pass_time(IDLE - 1)
    assert served.closed == 0
    served.loop.pass_time(1)
    assert served.client.recv(1) == b""
    served.client.close()
    served.loop.until(lambda: served.closed > 0)
    assert served.reason() == "idle"


def test_bytes_that_have_just_arrived(stack: ExitStack) -> None:
    """A client whose bytes have arrived, and merely were not read in time, is not idle."""
    served = Served(stack)
    served.echo(b"hello")
    served.client.sendall(b"just in time")
    served.session.check(served.loop.now + IDLE, TIMEOUTS)
    assert served.session._state is State.READING
    served.session.abort("cut")


@pytest.mark.parametrize("noticed", [True, False], ids=["at once", "when the time to linger is over"])
def test_late(stack: ExitStack, noticed: bool) -> None:
    """Bytes that arrive after the server has ended its side lead to a reset; the event counts them as received."""
    served = Served(stack)
    served.echo(b"hello")
    served.loop.pass_time(IDLE)
    served.client.sendall(b"too late")
    if noticed:
        served.loop.until(lambda: served.closed > 0)
    else:
        served.session.check(served.loop.now + LINGER, TIMEOUTS)
    closed = served.told.objects()[-1]
    assert (closed["reason"], closed["bytes_received"], closed["bytes_sent"]) == ("late", 13, 5)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        served.client.sendall(b"more")


def without_memory(served: Served, name: str, number: int, times: int) -> None:
    """Have the socket's method of that name fail that many times, as seen by the relay."""
    sock, failures = served.session.sock, iter(range(times))

    class Failing:
        def __getattr__(self, method: str) -> Callable[[memoryview], int]:
            if method == name and next(failures, None) is not None:
                raise OSError(number, os.strerror(number))
            return getattr(sock, method)  # type: ignore[no-any-return]

    served.session._relay._sock = Failing()


@pytest.mark.parametrize("name", ["recv_into", "send"])
@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM])
def test_no_memory(stack: ExitStack, name: str, number: int) -> None:
    """A call that fails for lack of memory is repeated a little later; the client gets every byte."""
    served = Served(stack)
    without_memory(served, name, number, 3)
    served.client.sendall(b"first and last")
    served.client.shutdown(socket.SHUT_WR)
    waits = 0
    while not served.closed:
        served.loop.settle()
        if not served.closed:
            waits += 1
            served.loop.pass_time(0.1)
    assert (served.reason(), waits) == ("eof", 3)
    assert served.drain_client() == len(b"first and last")


def test_no_memory_for_too_long(stack: ExitStack) -> None:
    """If there is no memory for the whole stall time-out, the client is reset."""
    served = Served(stack)
    without_memory(served, "send", errno.ENOBUFS, 1_000_000)
    served.client.sendall(b"hello")
    served.loop.turn()
    for _ in range(5):
        served.loop.pass_time(STALL / 4)
        served.loop.settle()
    assert served.reason() == "stalled"
    with pytest.raises(ConnectionResetError):
        served.drain_client()


def test_reset_while_there_is_no_memory(stack: ExitStack) -> None:
    """A connection that fails while it waits for memory is closed at once."""
    served = Served(stack)
    served.echo(b"hello")
    served.session.on_broken(OSError(errno.ENOBUFS, "no memory"))
    served.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    served.client.close()
    served.loop.until(lambda: served.closed > 0)
    assert served.reason() == "reset"


def test_linger_while_there_is_no_memory(stack: ExitStack) -> None:
    """Once the server has ended its side, the call that failed is not repeated: bytes are late, and are not echoed."""
    served = Served(stack)
    served.echo(b"hello")
    served.session.on_broken(OSError(errno.ENOBUFS, "no memory"))
    served.session.check(served.loop.now + IDLE, TIMEOUTS)
    served.loop.pass_time(0.1)
    served.client.sendall(b"too late")
    served.loop.until(lambda: served.closed > 0)
    assert served.reason() == "late"


def fail(*_: object) -> NoReturn:
    """A system call for which the kernel has no memory."""
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.mark.parametrize(
    "action", [lambda served: served.loop.pass_time(IDLE), Served.stuff], ids=["timer", "callback"]
)
def test_no_memory_for_epoll(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, action: Callable[[Served], None]
) -> None:
    """If epoll_ctl(2) has no memory, in a timer or in a callback, this connection is reset, and the loop goes on."""
    served = Served(stack)
    served.echo(b"hello")
    monkeypatch.setattr(served.loop, "_on_bug", lambda fd, error: served.session.on_bug(error))
    monkeypatch.setattr(served.loop._poller, "change", fail)
    with suppress(ConnectionResetError):
        action(served)
    assert served.reason() == "error"


def test_each_byte_restarts_the_idle_time_out(stack: ExitStack) -> None:
    """A client that sends a byte before each time-out is never idle."""
    served = Served(stack)
    for _ in range(5):
        served.loop.pass_time(IDLE - 1)
        served.echo(b"still here")
    assert served.closed == 0
    served.loop.pass_time(IDLE - 1)
    assert served.closed == 0
    served.loop.pass_time(1)
    assert served.client.recv(1) == b""


def test_silent_from_the_beginning(stack: ExitStack) -> None:
    """A client that never sends anything is idle as well, and is not logged."""
    served = Served(stack)
    served.loop.pass_time(IDLE)
    assert served.client.recv(1) == b""
    served.client.close()
    served.loop.until(lambda: served.closed > 0)
    assert served.told.objects() == []


def test_client_that_stays_after_the_end(stack: ExitStack) -> None:
    """If the client does not close its side while the session lingers, the session closes without a reset."""
    served = Served(stack)
    served.echo(b"hello")
    served.loop.pass_time(IDLE)
    served.loop.pass_time(LINGER / 2)
    assert served.closed == 0
    served.loop.pass_time(LINGER / 2)
    assert served.reason() == "idle"
    assert served.client.recv(1) == b""


def test_never(stack: ExitStack) -> None:
    """Without time-outs no time ends a session, not even one whose client takes nothing."""
    served = Served(stack, timeouts=Timeouts(math.inf, math.inf, LINGER))
    served.echo(b"hello")
    served.stuff()
    served.loop.pass_time(1e9)
    assert not served.closed
    served.session.abort("cut")


def test_stalled(stack: ExitStack) -> None:
    """A client that acknowledges nothing of its echo is reset when the stall time-out is over, and not before."""
    served = Served(stack)
    served.stuff()
    served.loop.pass_time(STALL / 4)  # the first look, from which on nothing moves
    for _ in range(3):
        served.loop.pass_time(STALL / 4)
        assert served.closed == 0
    served.loop.pass_time(STALL / 4)
    assert served.reason() == "stalled"
    with pytest.raises(ConnectionResetError):
        served.drain_client()


def test_stalled_with_everything_in_the_kernel(stack: ExitStack) -> None:
    """A client stalls even if its whole echo is in the kernel's buffers and the session has nothing pending."""
    served = Served(stack)
    sent = 0
    while served.unacknowledged() < 1 << 16:
        served.client.sendall(bytes(1 << 12))
        sent += 1 << 12
        served.loop.until(lambda sent=sent: served.session.bytes_echoed == sent)  # type: ignore[misc]
    looks = 0
    while not served.closed:
        served.loop.pass_time(STALL / 4)
        looks += 1
        assert looks <= 100, "it never stalls"
    assert looks >= 5
    assert served.reason() == "stalled"


def test_asking_about_a_stall_changes_nothing(stack: ExitStack) -> None:
    """The answer depends on what was observed and on the time, not on earlier questions."""
    served = Served(stack)
    served.stuff()
    served.loop.pass_time(STALL / 4)
    now, watched, sock = served.loop.now, served.session._stall, served.session.sock
    assert watched is not None
    assert [watched.is_over(sock, STALL, when) for when in (now + STALL, now, now + STALL)] == [True, False, True]
    assert not watched.is_over(sock, math.inf, now + STALL)
    served.session.abort("cut")


def test_idle_and_blocked(stack: ExitStack) -> None:
    """Without a stall time-out, a client that acknowledges nothing is idle, and is reset, since bytes are due."""
    served = Served(stack, timeouts=Timeouts(IDLE, math.inf, LINGER))
    served.stuff()
    served.loop.pass_time(IDLE)
    assert served.reason() == "idle"
    with pytest.raises(ConnectionResetError):
        served.drain_client()


def test_not_idle_while_bytes_are_due(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is due bytes is not idle: only the deadline of a stall counts, however short the idle time-out."""
    monkeypatch.setattr(stall, "patience", lambda buffered: 8 * STALL)
    served = Served(stack, timeouts=Timeouts(STALL, STALL, LINGER))
    served.stuff()
    for _ in range(4 * 9):
        served.loop.pass_time(STALL / 4)
        assert served.closed == 0
    served.loop.pass_time(STALL / 4)
    assert served.reason() == "stalled"


def take_all(served: Served) -> None:
    """Make the client read until the session has nothing pending."""
    while served.session._state is State.WRITING:
        served.client.recv(1 << 16)
        served.loop.settle()


def end_client(served: Served) -> None:
    """Make the client close its side."""
    served.client.shutdown(socket.SHUT_WR)
    served.loop.settle()


TO_REACH: dict[State, Callable[[Served], None]] = {
    State.READING: lambda served: None,
    State.WRITING: Served.stuff,
    State.LINGERING: Served.drain,
    State.CLOSED: lambda served: served.session.abort("cut"),
}
"""The steps that bring a new session to each state, and from there to each next one."""
TO_CHANGE: dict[tuple[State, State], Callable[[Served], None]] = {
    (State.READING, State.WRITING): Served.stuff,
    (State.READING, State.LINGERING): lambda served: served.loop.pass_time(IDLE),
    (State.READING, State.CLOSED): end_client,
    (State.WRITING, State.READING): take_all,
    (State.WRITING, State.CLOSED): lambda served: served.session.hand_over(),
    (State.LINGERING, State.CLOSED): lambda served: served.loop.pass_time(LINGER),
}


@pytest.mark.parametrize(
    ("before", "after"), [(before, after) for before in TRANSITIONS for after in TRANSITIONS[before]]
)
def test_transitions(stack: ExitStack, before: State, after: State) -> None:
    """Each transition of the table happens; every test of this module asserts that no other does."""
    served = Served(stack, unix=True)
    TO_REACH[before](served)
    assert served.session._state is before
    TO_CHANGE[before, after](served)
    assert (before, after) in served.session.changes
    served.session.abort("cut")


def test_abort(stack: ExitStack) -> None:
    """An abort is one reset; later commands change nothing."""
    served = Served(stack)
    served.echo(b"hello")
    served.session.abort("bug")
    served.session.abort("cut")
    served.begin_to_drain()
    served.session.trace()
    served.session.check(served.loop.now + IDLE, TIMEOUTS)
    assert served.reason() == "bug"
    with pytest.raises(ConnectionResetError):
        served.client.recv(1)


def test_cut_after_the_end(stack: ExitStack) -> None:
    """After the server has closed its side the time for draining changes nothing, because the echo is complete."""
    served = Served(stack)
    served.echo(b"hello")
    served.drain()
    served.session.cut()
    assert served.reason() == "drained"
    assert served.client.recv(1) == b""


def test_drain_a_quiet_client(stack: ExitStack) -> None:
    """A drained client that is quiet already gets end of file at once; a second drain changes nothing."""
    served = Served(stack)
    served.echo(b"hello")
    served.loop.pass_time(SILENCE)
    served.begin_to_drain()
    served.begin_to_drain()
    assert served.client.recv(1) == b""
    served.client.close()
    served.loop.until(lambda: served.closed > 0)
    assert served.reason() == "drained"


def test_drain_a_busy_client(stack: ExitStack) -> None:
    """A drained client is served while its bytes keep arriving, and gets end of file `SILENCE` after the last."""
    served = Served(stack)
    served.begin_to_drain()
    for _ in range(5):
        served.echo(b"not yet finished")
        served.loop.pass_time(SILENCE * 0.9)
    assert served.session._state is State.READING
    served.loop.pass_time(SILENCE / 4)
    assert served.client.recv(1) == b""
    served.session.cut()
    assert served.reason() == "drained"


def test_drain_a_client_that_has_not_acknowledged(stack: ExitStack) -> None:
    """A client is not quiet while its kernel has not acknowledged the echo, however long that takes."""
    served = Served(stack, unix=True)
    served.client.sendall(b"hello")
    served.loop.turn()
    served.begin_to_drain()
    for _ in range(5):
        served.loop.pass_time(SILENCE)
        assert served.session._state is State.READING
    assert served.client.recv(5) == b"hello"
    served.loop.pass_time(SILENCE * 0.9)
    served.loop.pass_time(SILENCE / 2)
    assert served.client.recv(1) == b""
    served.session.cut()
    assert served.reason() == "drained"


def test_cut_a_busy_client(stack: ExitStack) -> None:
    """If the time for draining ends before the client is quiet, it gets a reset, and no end of file before that."""
    served = Served(stack)
    served.begin_to_drain()
    served.echo(b"not yet finished")
    served.session.cut()
    assert served.reason() == "cut"
    with pytest.raises(ConnectionResetError):
        served.client.recv(1)


def test_cut_a_client_that_has_not_acknowledged(stack: ExitStack) -> None:
    """A client that only has not acknowledged its echo when the time for draining ends gets all of it, and the end."""
    served = Served(stack, unix=True)
    served.client.sendall(b"hello")
    served.loop.turn()
    served.begin_to_drain()
    served.loop.pass_time(SILENCE)
    served.session.cut()
    assert served.reason() == "drained"
    assert served.client.recv(100) == b"hello"
    assert served.client.recv(1) == b""


def test_the_hot_path(stack: ExitStack) -> None:
    """Nothing stands between the loop and the relay of a connection."""
    served = Served(stack)
    assert served.loop.callback(served.session.fd) == served.session._relay.on_readable


def test_drain_while_blocked(stack: ExitStack) -> None:
    """A client drained while its echo waits for room gets all of it, and then end of file."""
    served = Served(stack, unix=True)
    served.stuff()
    served.begin_to_drain()
    served.client.shutdown(socket.SHUT_WR)
    count, ended = 0, False
    while not ended:
        data = served.client.recv(1 << 16)
        count, ended = count + len(data), not data
        served.loop.settle()
    assert count == served.session.bytes_echoed
    assert served.reason() == "eof"


def test_drain_after_a_reset(stack: ExitStack) -> None:
    """The reason is the client's reset, even if the drain is the first to notice it."""
    served = Served(stack)
    served.echo(b"hello")
    served.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    served.client.close()
    poll = select.poll()
    poll.register(served.session.fd, 0)
    assert poll.poll(DEADLINE * 1000)
    served.loop.pass_time(0)  # the timer below must not be the first to move the clock
    served.begin_to_drain()
    served.session._linger("drained")
    assert served.reason() == "reset"


def test_reset_while_lingering(stack: ExitStack) -> None:
    """A reset after the server has closed its side does not change the reason."""
    served = Served(stack)
    served.echo(b"hello")
    served.drain()
    served.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    served.client.close()
    served.loop.until(lambda: served.closed > 0)
    assert served.reason() == "drained"


def test_names(stack: ExitStack) -> None:
    """Events name the connection and both its addresses; the client of a unix socket is named by its process."""
    served, other = Served(stack), Served(stack, unix=True)
    for each in (served, other):
        each.echo(b"hello")
        each.loop.pass_time(AGE)
    opened = served.told.objects()[0]
    host, port = served.client.getsockname()
    local = served.client.getpeername()[1]
    assert (opened["event"], opened["connection"]) == ("connection_opened", "1.1")
    assert (opened["peer"], opened["local"]) == (f"{host}:{port}", f"127.0.0.1:{local}")
    assert other.told.objects()[0]["peer"] == f"unix:pid={os.getpid()},uid={os.getuid()}"
    for each in (served, other):
        each.session.abort("cut")


class TestOpened:
    """When `connection_opened` is logged: a short connection, of which there may be many, does not need it."""

    def logged(self, served: Served) -> list[str]:
        """The names of the events since the last call."""
        return [event["event"] for event in served.told.objects()]

    def test_short(self, stack: ExitStack) -> None:
        """A connection that ends within a second is described by its end alone, which has the time of its start."""
        served = Served(stack)
        served.session.started = time.monotonic() - AGE / 2
        served.echo(b"hello")
        served.session.abort("cut")
        (closed,) = served.told.objects()
        started = datetime.fromisoformat(closed["started"]).timestamp()
        logged = datetime.fromisoformat(closed["timestamp"]).timestamp()
        assert started + closed["duration"] == pytest.approx(logged, abs=0.01)

    def test_a_second_old(self, stack: ExitStack) -> None:
        """It is logged once, when a connection on which bytes have come is a second old."""
        served = Served(stack)
        served.echo(b"hello")
        served.loop.pass_time(AGE * 0.9)
        assert self.logged(served) == []
        served.loop.pass_time(AGE)
        served.loop.pass_time(AGE)
        assert self.logged(served) == ["connection_opened"]
        served.session.abort("cut")

    def test_late_first_bytes(self, stack: ExitStack) -> None:
        """If the first bytes come later, it is logged then."""
        served = Served(stack)
        served.loop.pass_time(10 * AGE)
        assert self.logged(served) == []
        served.echo(b"hello")
        served.loop.pass_time(TICK)
        assert self.logged(served) == ["connection_opened"]
        served.session.abort("cut")

    def test_before_the_end(self, stack: ExitStack) -> None:
        """The end of a connection older than a second is never the first event."""
        served = Served(stack)
        served.session.started = time.monotonic() - AGE
        served.echo(b"hello")
        served.session.abort("cut")
        assert self.logged(served) == ["connection_opened", "connection_closed"]

    def test_before_another_process_knows_it(self, stack: ExitStack) -> None:
        """A process that gets a connection need not know whether the event was logged: it was, if bytes have come."""
        served = Served(stack)
        served.session.snapshot()
        assert self.logged(served) == []
        served.echo(b"hello")
        served.session.snapshot()
        served.session.snapshot()
        assert self.logged(served) == ["connection_opened"]
        served.session.abort("cut")


def test_nothing_is_left_for_the_garbage_collector(stack: ExitStack) -> None:
    """A session and its relay are freed when the connection ends, without a run of the garbage collector."""
    for level in ("info", "debug"):
        served = Served(stack, level=level)
        served.echo(b"hello")
        gc.collect()
        gc.disable()
        try:
            served.session.abort("cut")
            served.loop.pass_time(TICK)
            del served.session
            assert not [found for found in gc.get_objects() if isinstance(found, (Session, Relay))]
        finally:
            gc.enable()


def test_at_rest_costs_no_system_call(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is not asked again about a connection on which nothing was due, until bytes move or it is idle."""
    served = Served(stack)
    asked: list[int] = []

    def unacknowledged(fd: int) -> int:
        asked.append(fd)
        return 0

    monkeypatch.setattr(tcpinfo, "unacknowledged", unacknowledged)
    served.echo(b"hello")
    for _ in range(5):
        served.loop.pass_time(TICK)
    assert len(asked) <= 2
    before = len(asked)
    served.echo(b"again")
    served.loop.pass_time(TICK)
    assert len(asked) == before + 1
    served.session.abort("cut")


def test_debug(stack: ExitStack) -> None:
    """At the level debug each chunk is logged."""
    served = Served(stack, level="debug")
    served.echo(b"hello")
    served.client.close()
    served.loop.until(lambda: served.closed > 0)
    assert [event["event"] for event in served.told.objects()] == (
        ["connection_opened", "chunk_received", "chunk_sent", "connection_closed"]
    )


class TestRenew:
    """New terms apply to a connection that was accepted before."""

    @pytest.mark.parametrize("size", [1, 3, 1 << 20])
    def test_pending_bytes(self, stack: ExitStack, size: int) -> None:
        """A client whose echo waits for room gets it whole, and is served through the new buffer afterwards."""
        served = Served(stack, unix=True, chunk_size=1000)
        data = os.urandom(1 << 20)
        sent, heard = 0, bytearray()
        served.client.setblocking(False)
        while not (served.session._relay.pending and sent % 1000):
            sent += served.client.send(data[sent : sent + 7])
            served.loop.settle()
        served.buffer.resize(size)
        served.client.setblocking(True)
        served.client.settimeout(DEADLINE)
        while len(heard) < sent:
            heard += served.client.recv(1 << 16)
            served.loop.settle()
        assert heard == data[:sent]
        served.echo(b"and on")
        served.session.abort("cut")

    def test_a_shorter_idle_time_out(self, stack: ExitStack) -> None:
        """A shorter idle time-out counts from the client's last byte, not from the change."""
        served = Served(stack)
        served.echo(b"hello")
        served.loop.pass_time(50)
        served.look_by(Timeouts(60, STALL, LINGER))
        served.loop.pass_time(9)
        assert served.session._state.name == "READING"
        served.loop.pass_time(1)
        assert served.client.recv(1) == b""
        served.session.abort("cut")

    def test_a_longer_idle_time_out(self, stack: ExitStack) -> None:
        """The old time-out no longer ends the connection."""
        served = Served(stack)
        served.look_by(Timeouts(math.inf, math.inf, LINGER))
        served.loop.pass_time(10 * IDLE)
        assert served.session._state is State.READING
        served.session.abort("cut")

    def test_a_stall_time_out_where_none_was(self, stack: ExitStack) -> None:
        """A new stall time-out counts from the last acknowledgement that was observed, not from the change."""
        served = Served(stack, timeouts=Timeouts(math.inf, math.inf, LINGER))
        served.stuff()
        served.loop.pass_time(STALL / 4)
        served.look_by(Timeouts(math.inf, STALL, LINGER))
        for _ in range(3):
            served.loop.pass_time(STALL / 4)
            assert served.closed == 0
        served.loop.pass_time(STALL / 4)
        assert served.reason() == "stalled"

    def test_the_same_again_and_again(self, stack: ExitStack) -> None:
        """Equal terms postpone nothing: a client that acknowledges nothing stalls at the same time."""
        served = Served(stack)
        served.stuff()
        for _ in range(10):
            served.loop.pass_time(STALL / 8)
            served.look_by(TIMEOUTS)
        assert served.reason() == "stalled"

    def test_while_lingering(self, stack: ExitStack) -> None:
        """New terms do not change the time to linger."""
        served = Served(stack)
        served.echo(b"hello")
        served.drain()
        served.look_by(Timeouts(math.inf, math.inf, LINGER))
        served.loop.pass_time(LINGER)
        assert served.reason() == "drained"

    def test_while_draining(self, stack: ExitStack) -> None:
        """New terms do not change when a drained client is quiet."""
        served = Served(stack, unix=True)
        served.echo(b"hello")
        served.begin_to_drain()
        served.look_by(Timeouts(math.inf, math.inf, LINGER), draining=True)
        served.echo(b"and on")
        served.loop.pass_time(SILENCE)
        assert served.client.recv(1) == b""
        served.session.cut()

    def test_chunks_are_logged_or_not(self, stack: ExitStack) -> None:
        """The new level applies, also to a connection that was accepted before."""
        served = Served(stack, level="info")
        for level, expected in (("debug", ["connection_opened", "chunk_received", "chunk_sent"]), ("info", [])):
            served.echo(b"hello")
            served.told.objects()
            served.told.events.change(LogOptions(level, "json", connections=True, payload=False))
            served.session.trace()
            served.echo(b"again")
            assert [event["event"] for event in served.told.objects()] == expected
        served.session.abort("cut")


class TestHandedOver:
    """A session in one process ends and logs nothing; one in another process continues its connection."""

    def follow(self, served: Served, stack: ExitStack, timeouts: Timeouts = TIMEOUTS) -> Served:
        """Hand the connection over to another session, on a loop of its own."""
        sock = stack.enter_context(served.session.sock.dup())
        state = served.session.snapshot()
        served.session.hand_over()
        assert served.closed == 1
        assert served.session.sock.fileno() == -1
        assert "connection_closed" not in [event["event"] for event in served.told.objects()]
        successor = Served(stack, timeouts=timeouts, time=served.loop.now)
        successor.session.abort("cut")
        successor.told.written()
        successor.client.close()
        successor.client, successor.closed = served.client, 0
        successor.serve(sock, state)
        return successor

    def test_counters(self, stack: ExitStack) -> None:
        """The counters continue, the name stays, and the connection is not logged as opened again."""
        served = Served(stack)
        served.echo(b"before")
        successor = self.follow(self.follow(served, stack), stack)
        successor.echo(b"and after")
        successor.client.shutdown(socket.SHUT_WR)
        successor.loop.until(lambda: successor.closed > 0)
        (event,) = successor.told.objects()
        assert (event["event"], event["connection"], event["reason"]) == ("connection_closed", "1.1", "eof")
        assert (event["bytes_received"], event["chunks"], event["restarts"]) == (15, 2, 0)

    def test_what_is_pending(self, stack: ExitStack) -> None:
        """Pending bytes are sent before anything is read."""
        served = Served(stack)
        served.stuff()
        successor = self.follow(served, stack)
        received = 0
        successor.client.shutdown(socket.SHUT_WR)
        while not successor.closed:
            received += len(successor.client.recv(1 << 16))
            successor.loop.settle()
        received += successor.drain_client()
        closed = successor.told.objects()[-1]
        assert closed["bytes_received"] == closed["bytes_sent"] == received
        assert closed["reason"] == "eof"

    def test_quiet_for_long(self, stack: ExitStack) -> None:
        """The idle time before the hand-over counts."""
        served = Served(stack)
        served.echo(b"hello")
        served.loop.pass_time(IDLE - 1)
        successor = self.follow(served, stack)
        successor.loop.pass_time(1)
        assert successor.client.recv(1) == b""
        successor.client.close()
        successor.loop.until(lambda: successor.closed > 0)
        assert successor.reason() == "idle"

    def test_a_client_that_takes_nothing(self, stack: ExitStack) -> None:
        """After a hand-over, a client stalls when it has acknowledged nothing to the new session for the time-out."""
        served = Served(stack)
        served.stuff()
        successor = self.follow(served, stack)
        for _ in range(5):
            assert not successor.closed
            successor.loop.pass_time(STALL / 4)
        assert successor.reason() == "stalled"

    def test_while_lingering(self, stack: ExitStack) -> None:
        """A lingering session lingers for the usual time after a hand-over, and the reason stays."""
        served = Served(stack)
        served.echo(b"hello")
        served.loop.pass_time(IDLE)
        successor = self.follow(served, stack)
        successor.loop.pass_time(LINGER / 2)
        assert not successor.closed
        successor.loop.pass_time(LINGER / 2)
        assert successor.reason() == "idle"
