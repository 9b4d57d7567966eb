"""session: every end that a client can come to, by a clock moved by hand."""

import errno
import fcntl
import math
import os
import select
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from echod.handover.queue import Connection
from echod.handover.state import ConnectionState
from echod.shared.terms import Timeouts
from echod.worker.session import TRANSITIONS, Session, State
from tests.unit.events import Told, telling
from tests.unit.hand_loop import DEADLINE, HandLoop

IDLE, STALL, LINGER = 100.0, 40.0, 2.0
TIMEOUTS = Timeouts(IDLE, STALL, LINGER)
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER so that closing resets the connection (socket(7))."""


class Recorded(Session):
    """A session that keeps its changes of state, and fails the test by one that the table of transitions lacks."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_state" and hasattr(self, "_state"):
            assert value in TRANSITIONS[self._state], f"{self._state} is followed by {value}"
            self.changes = [*getattr(self, "changes", []), (self._state, value)]
        super().__setattr__(name, value)


class Served:
    """A session, the client's end of it, and what is told of it."""

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
        self.told: Told = stack.enter_context(telling(level=level))
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
        buffer = memoryview(bytearray(chunk_size))
        connection = Connection(sock, ConnectionState("1.1", sockaddr, self.loop.now, self.loop.now))
        self.session = Recorded(connection, self.loop, self.told.journal, buffer, timeouts, self.on_closed)

    def on_closed(self, session: Session) -> None:
        """Count the ends, of which there is one."""
        assert session is self.session
        self.closed += 1

    def echo(self, data: bytes) -> None:
        """Send `data` and get it back."""
        before = self.session.bytes_echoed
        self.client.sendall(data)
        self.loop.until(lambda: self.session.bytes_echoed == before + len(data))
        received = b""
        while len(received) < len(data):
            received += self.client.recv(len(data))
        assert received == data
        # An acknowledgement may take 40 ms (tcp(7), TCP_QUICKACK); no clock that is moved by hand may overtake it.
        deadline = time.monotonic() + DEADLINE
        while self.unacknowledged():
            assert time.monotonic() < deadline, "the echo is not acknowledged"
            os.sched_yield()

    def unacknowledged(self) -> int:
        """Bytes of the echo that the client's kernel has not acknowledged (SIOCOUTQ)."""
        (count,) = struct.unpack("i", fcntl.ioctl(self.session.fd, termios.TIOCOUTQ, bytes(4)))
        return int(count)

    def stuff(self) -> None:
        """Send without reading until both directions are full and the session is blocked."""
        self.client.setblocking(False)
        quiet = 0
        while quiet < 10:
            try:
                self.client.send(bytes(1 << 16))
            except BlockingIOError:
                quiet = 0 if self.loop.turn(0) else quiet + 1
        self.client.settimeout(DEADLINE)

    def reason(self) -> str:
        """Why the session has ended; that it was told, and told to its owner, exactly once."""
        assert self.closed == 1
        closed = [event for event in self.told.objects() if event["event"] == "connection_closed"]
        assert len(closed) == 1
        assert self.session.sock.fileno() == -1
        assert self.loop.due_in() is None
        return str(closed[0]["reason"])

    def drain_client(self) -> int:
        """How many bytes the client can read before the end, or before the reset, which is raised."""
        count = 0
        while data := self.client.recv(1 << 16):
            count += len(data)
        return count


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is closed at the end of the test."""
    with ExitStack() as stack:
        yield stack


def test_end_of_the_client(stack: ExitStack) -> None:
    """A client that ends its side gets its end once it has everything."""
    served = Served(stack)
    served.client.sendall(b"first and last")
    served.client.shutdown(socket.SHUT_WR)
    served.loop.until(lambda: served.closed > 0)
    assert served.client.recv(100) == b"first and last"
    assert served.client.recv(1) == b""
    assert served.reason() == "eof"


def test_reset_by_the_client(stack: ExitStack) -> None:
    """A client that resets is gone."""
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
    """A connection that fails is over, for the reason that the kernel gives."""
    served = Served(stack)
    served.echo(b"hello")
    served.session.on_broken(OSError(number, os.strerror(number)))
    assert served.reason() == reason


def test_idle(stack: ExitStack) -> None:
    """A client that is quiet for too long sees the end, and is discarded from until it ends its side too."""
    served = Served(stack)
    served.echo(b"hello")
    served.loop.pass_time(IDLE - 1)
    assert served.closed == 0
    served.loop.pass_time(1)
    assert served.client.recv(1) == b""
    served.client.sendall(b"too late")
    served.loop.turn()
    served.client.close()
    served.loop.until(lambda: served.closed > 0)
    assert served.reason() == "idle"


def test_idle_begins_anew_with_each_byte(stack: ExitStack) -> None:
    """A client that says something now and then is never idle."""
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
    """A client that never sends anything is idle as well, and is not told of."""
    served = Served(stack)
    served.loop.pass_time(IDLE)
    assert served.client.recv(1) == b""
    served.client.close()
    served.loop.until(lambda: served.closed > 0)
    assert served.told.objects() == []


def test_client_that_stays_after_the_end(stack: ExitStack) -> None:
    """Who does not end its side in time after our end is left, without a reset."""
    served = Served(stack)
    served.echo(b"hello")
    served.loop.pass_time(IDLE)
    served.loop.pass_time(LINGER - 0.1)
    assert served.closed == 0
    served.loop.pass_time(0.1)
    assert served.reason() == "idle"
    assert served.client.recv(1) == b""


def test_never(stack: ExitStack) -> None:
    """Without time-outs nothing is ever looked at."""
    served = Served(stack, timeouts=Timeouts(math.inf, math.inf, LINGER))
    served.echo(b"hello")
    served.stuff()
    assert served.loop.due_in() is None
    served.session.abort("cut")


def test_stalled(stack: ExitStack) -> None:
    """A client that takes nothing of what it is due is reset when the stall time-out is over, and not before."""
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
    """So is one that left its echo in the kernel's buffer, when the session itself has nothing pending."""
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


def test_idle_and_blocked(stack: ExitStack) -> None:
    """Without a stall time-out, a client that takes nothing is reset as an idle one: it is due bytes."""
    served = Served(stack, timeouts=Timeouts(IDLE, math.inf, LINGER))
    served.stuff()
    served.loop.pass_time(IDLE)
    assert served.reason() == "idle"
    with pytest.raises(ConnectionResetError):
        served.drain_client()


def take_all(served: Served) -> None:
    """Have the client read until the session has nothing pending."""
    while served.session._state is State.WRITING:
        served.client.recv(1 << 16)
        served.loop.settle()


def end_client(served: Served) -> None:
    """Have the client end its side."""
    served.client.shutdown(socket.SHUT_WR)
    served.loop.settle()


TO_REACH: dict[State, Callable[[Served], None]] = {
    State.READING: lambda served: None,
    State.WRITING: Served.stuff,
    State.LINGERING: lambda served: served.session.drain(),
    State.CLOSED: lambda served: served.session.abort("cut"),
}
"""How a new session comes to each state, and from there to each next one."""
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
    """Each transition in the table happens; that no other does, every test of this module asserts."""
    served = Served(stack, unix=True)
    TO_REACH[before](served)
    assert served.session._state is before
    TO_CHANGE[before, after](served)
    assert (before, after) in served.session.changes
    served.session.abort("cut")


def test_abort(stack: ExitStack) -> None:
    """An abort is a reset, once, whatever is asked for afterwards."""
    served = Served(stack)
    served.echo(b"hello")
    served.session.abort("bug")
    served.session.abort("cut")
    served.session.drain()
    served.session.renew(memoryview(bytearray(10)), TIMEOUTS)
    assert served.reason() == "bug"
    with pytest.raises(ConnectionResetError):
        served.client.recv(1)


def test_abort_after_the_end(stack: ExitStack) -> None:
    """A client that has its end already is not reset: it has everything that it was due."""
    served = Served(stack)
    served.echo(b"hello")
    served.session.drain()
    served.session.abort("cut")
    assert served.reason() == "cut"
    assert served.client.recv(1) == b""


def test_drain_without_debts(stack: ExitStack) -> None:
    """Drained, a client that is due nothing gets its end at once; being asked twice changes nothing."""
    served = Served(stack)
    served.echo(b"hello")
    served.session.drain()
    served.session.drain()
    assert served.client.recv(1) == b""
    served.client.close()
    served.loop.until(lambda: served.closed > 0)
    assert served.reason() == "drained"


@pytest.mark.parametrize("chunk_size", [1, 7, 1 << 16])
@pytest.mark.parametrize("before", [b"", b"hello"])
def test_drain_with_bytes_unread(stack: ExitStack, chunk_size: int, before: bytes) -> None:
    """Drained, a client gets what had arrived by then, and nothing of what comes later, chunk by chunk."""
    served = Served(stack, unix=True, chunk_size=chunk_size)
    if before:
        served.echo(before)
    served.client.sendall(b"arrived")
    served.session.drain()
    served.loop.until(lambda: served.session.bytes_echoed == len(before + b"arrived"))
    served.client.sendall(b"late")
    served.loop.settle()
    assert served.client.recv(100) == b"arrived"
    assert served.client.recv(100) == b""
    served.client.close()
    served.loop.until(lambda: served.closed > 0)
    assert served.reason() == "drained"


def test_drain_while_blocked(stack: ExitStack) -> None:
    """Drained while its echo waits for room, a client gets all that was read and had arrived, and then its end."""
    served = Served(stack, unix=True)
    served.stuff()
    served.session.drain()
    served.client.shutdown(socket.SHUT_WR)
    count, ended = 0, False
    while not ended:
        data = served.client.recv(1 << 16)
        count, ended = count + len(data), not data
        served.loop.settle()
    assert count == served.session.bytes_echoed
    assert served.reason() in ("drained", "eof")


def test_drain_after_a_reset(stack: ExitStack) -> None:
    """A client that has just reset the connection is gone for that reason, also if the drain notices it first."""
    served = Served(stack)
    served.echo(b"hello")
    served.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    served.client.close()
    poll = select.poll()
    poll.register(served.session.fd, 0)
    assert poll.poll(DEADLINE * 1000)
    served.session.drain()
    assert served.reason() == "reset"


def test_reset_while_lingering(stack: ExitStack) -> None:
    """A reset that comes after our end changes nothing about why that was."""
    served = Served(stack)
    served.echo(b"hello")
    served.session.drain()
    served.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    served.client.close()
    served.loop.until(lambda: served.closed > 0)
    assert served.reason() == "drained"


def test_names(stack: ExitStack) -> None:
    """The events of a connection name it, and both its ends; on a unix socket the client is its process."""
    served, other = Served(stack), Served(stack, unix=True)
    for each in (served, other):
        each.echo(b"hello")
    opened = served.told.objects()[0]
    host, port = served.client.getsockname()
    local = served.client.getpeername()[1]
    assert (opened["event"], opened["connection"]) == ("connection_opened", "1.1")
    assert (opened["peer"], opened["local"]) == (f"{host}:{port}", f"127.0.0.1:{local}")
    assert other.told.objects()[0]["peer"] == f"unix:pid={os.getpid()},uid={os.getuid()}"
    for each in (served, other):
        each.session.abort("cut")


def test_debug(stack: ExitStack) -> None:
    """At the level debug each chunk is told."""
    served = Served(stack, level="debug")
    served.echo(b"hello")
    served.client.close()
    served.loop.until(lambda: served.closed > 0)
    assert [event["event"] for event in served.told.objects()] == (
        ["connection_opened", "chunk_received", "chunk_sent", "connection_closed"]
    )


class TestRenew:
    """Other terms for a connection that is there."""

    @pytest.mark.parametrize("size", [1, 3, 1 << 20])
    def test_pending_bytes(self, stack: ExitStack, size: int) -> None:
        """A client whose echo waits for room gets it whole, and goes on by the new buffer."""
        served = Served(stack, unix=True, chunk_size=1000)
        data = os.urandom(1 << 20)
        sent, heard = 0, bytearray()
        served.client.setblocking(False)
        while not (served.session._relay.pending and sent % 1000):
            sent += served.client.send(data[sent : sent + 7])
            served.loop.settle()
        served.session.renew(memoryview(bytearray(size)), TIMEOUTS)
        served.client.setblocking(True)
        served.client.settimeout(DEADLINE)
        while len(heard) < sent:
            heard += served.client.recv(1 << 16)
            served.loop.settle()
        assert heard == data[:sent]
        served.echo(b"and on")
        served.session.abort("cut")

    def test_a_shorter_idle_time_out(self, stack: ExitStack) -> None:
        """Counts from when the client was last heard of, not from now."""
        served = Served(stack)
        served.echo(b"hello")
        served.loop.pass_time(50)
        served.session.renew(memoryview(bytearray(10)), Timeouts(60, STALL, LINGER))
        served.loop.pass_time(9)
        assert served.session._state.name == "READING"
        served.loop.pass_time(1)
        assert served.client.recv(1) == b""
        served.session.abort("cut")

    def test_a_longer_idle_time_out(self, stack: ExitStack) -> None:
        """The old one is over without consequences."""
        served = Served(stack)
        served.session.renew(memoryview(bytearray(10)), Timeouts(math.inf, math.inf, LINGER))
        assert served.loop.due_in() is None
        served.session.abort("cut")

    def test_a_stall_time_out_where_none_was(self, stack: ExitStack) -> None:
        """Begins with the first look: what happened before was not looked at."""
        served = Served(stack, timeouts=Timeouts(math.inf, math.inf, LINGER))
        served.stuff()
        served.loop.pass_time(10 * STALL)
        served.session.renew(memoryview(bytearray(10)), Timeouts(math.inf, STALL, LINGER))
        served.loop.pass_time(STALL / 4)
        for _ in range(3):
            served.loop.pass_time(STALL / 4)
            assert served.closed == 0
        served.loop.pass_time(STALL / 4)
        assert served.reason() == "stalled"

    def test_the_same_again_and_again(self, stack: ExitStack) -> None:
        """Puts nothing off: who takes nothing stalls when it would have."""
        served = Served(stack)
        served.stuff()
        for _ in range(10):
            served.loop.pass_time(STALL / 8)
            served.session.renew(memoryview(bytearray(10)), TIMEOUTS)
        assert served.reason() == "stalled"

    def test_while_lingering(self, stack: ExitStack) -> None:
        """An end that has begun goes its way."""
        served = Served(stack)
        served.echo(b"hello")
        served.session.drain()
        served.session.renew(memoryview(bytearray(10)), Timeouts(math.inf, math.inf, LINGER))
        served.loop.pass_time(LINGER)
        assert served.reason() == "drained"

    def test_while_draining(self, stack: ExitStack) -> None:
        """What had arrived is still all that is echoed, in whatever chunks."""
        served = Served(stack, unix=True, chunk_size=2)
        served.client.sendall(b"arrived")
        served.session.drain()
        served.loop.turn()
        served.session.renew(memoryview(bytearray(3)), TIMEOUTS)
        served.loop.settle()
        assert served.client.recv(100) == b"arrived"
        assert served.client.recv(100) == b""
        served.session.abort("cut")

    def test_chunks_are_told_or_not(self, stack: ExitStack) -> None:
        """As the journal wants it now, for a connection that was there before."""
        served = Served(stack, level="info")
        options = {"form": "json", "connections": True, "payload": False}
        for level, told in (("debug", ["chunk_received", "chunk_sent"]), ("info", [])):
            served.echo(b"hello")
            served.told.objects()
            served.told.journal.change(level=level, **options)  # type: ignore[arg-type]
            served.session.renew(memoryview(bytearray(10)), TIMEOUTS)
            served.echo(b"again")
            assert [event["event"] for event in served.told.objects()] == told
        served.session.abort("cut")


class TestHandedOver:
    """A session in one process ends without a word, and one in another goes on with its connection."""

    def follow(self, served: Served, stack: ExitStack, timeouts: Timeouts = TIMEOUTS) -> Served:
        """Hand the connection over to another session, by a loop of its own."""
        sock = stack.enter_context(served.session.sock.dup())
        state = served.session.snapshot()
        served.session.hand_over()
        assert served.closed == 1
        assert served.session.sock.fileno() == -1
        assert served.loop.due_in() is None
        assert "connection_closed" not in [event["event"] for event in served.told.objects()]
        successor = Served(stack, timeouts=timeouts, time=served.loop.now)
        successor.session.abort("cut")
        successor.told.written()
        successor.client.close()
        successor.client, successor.closed = served.client, 0
        loop, buffer = successor.loop, memoryview(bytearray(1 << 16))
        connection = Connection(sock, state)
        successor.session = Recorded(connection, loop, successor.told.journal, buffer, timeouts, successor.on_closed)
        return successor

    def test_counters(self, stack: ExitStack) -> None:
        """They go on, as its name does, and its beginning is not told again."""
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
        """It is sent before anything is read."""
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
        """The time that it was quiet before counts."""
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
        """It stalls when it has taken nothing from its new session for as long."""
        served = Served(stack)
        served.stuff()
        successor = self.follow(served, stack)
        for _ in range(5):
            assert not successor.closed
            successor.loop.pass_time(STALL / 4)
        assert successor.reason() == "stalled"

    def test_while_lingering(self, stack: ExitStack) -> None:
        """The client's end is waited for, for as long as ever, and the reason stays."""
        served = Served(stack)
        served.echo(b"hello")
        served.loop.pass_time(IDLE)
        successor = self.follow(served, stack)
        successor.client.sendall(b"ignored")
        successor.loop.settle()
        assert not successor.closed
        successor.loop.pass_time(LINGER)
        assert successor.reason() == "idle"
