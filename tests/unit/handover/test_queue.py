"""handover: what is sent arrives, and whatever else may arrive, the daemon that gets it starts and serves."""

import itertools
import json
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echod.handover import queue as handover
from echod.handover import state as life
from echod.handover.queue import Connection, TakenOver, quotas, receive, send
from echod.handover.state import ConnectionState
from echod.shared.terms import Timeouts
from echod.worker.session import Session
from tests.unit.events import telling
from tests.unit.hand_loop import DEADLINE, HandLoop

VERSION = 1
NOW = time.monotonic()
HEADER = struct.pack("!HH", VERSION, 1)


class Queue:
    """A queue, and the clients of the connections that are put into it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
        # So that one connection may stand for many.
        cookies = itertools.count()
        self.monkeypatch.setattr(handover, "_cookie", lambda sock: next(cookies))
        self.reads, self.writes = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.reads, self.writes):
            stack.enter_context(end)
            end.setblocking(False)

    def connection(self, family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket, Any]:
        """A client, the server's end of its connection, and its address as accept(2) gives it."""
        if family == socket.AF_UNIX:
            client, sock = socket.socketpair()
            sockaddr: Any = ""
        else:
            host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
            with socket.create_server((host, 0), family=family) as listener:
                client = socket.create_connection(listener.getsockname()[:2], 20)
                sock, sockaddr = listener.accept()
        return self._stack.enter_context(client), self._stack.enter_context(sock), sockaddr

    def put(self, data: bytes, *fds: int) -> None:
        """Put a message into it."""
        socket.send_fds(self.writes, [data], fds)

    def receive(self) -> TakenOver:
        """What the next echod makes of it; its sockets are closed with the queue."""
        estate = receive([self.reads.detach(), self.writes.detach()], time.monotonic(), restarts=1, room=1000)
        for sock, _ in estate.connections:
            self._stack.enter_context(sock)
        return estate


@pytest.fixture
def queue() -> Iterator[Queue]:
    """An empty one."""
    with ExitStack() as stack:
        yield Queue(stack)


@contextmanager
def memory(contents: bytes) -> Iterator[int]:
    """A memfd with these contents, as they are in a message."""
    with open(os.memfd_create("test"), "wb", buffering=0) as file:
        file.write(contents)
        yield file.fileno()


def state(sockaddr: Any, **changes: Any) -> dict[str, Any]:
    """What is written of a connection, but for the changes."""
    return life.encode(ConnectionState("1.1", sockaddr, NOW, NOW, 5, 1)) | changes


def contents(states: Any, pending: bytes = b"") -> bytes:
    """Of a memfd."""
    return json.dumps(states).encode() + b"\n" + pending


def is_reset(client: socket.socket) -> bool:
    """Whether the client's connection ends by a reset."""
    try:
        return client.recv(1) == b"never"
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_what_is_sent_arrives(queue: Queue, family: int) -> None:
    """Connections and their lives, each with its own and one restart more, from several messages."""
    sent = []
    for number in range(5):
        client, sock, sockaddr = queue.connection(family)
        lives = ConnectionState(f"1.{number}", sockaddr, NOW - 1, NOW, 10 + number, 2, b"x" * number, "", number)
        sent.append((client, sock, lives))
    for part in (sent[:3], sent[3:]):
        assert send(queue.writes, [(lives, sock.fileno()) for _, sock, lives in part])
    estate = queue.receive()
    assert (estate.forgotten, estate.lost) == (0, 0)
    assert [inherited.life for inherited in estate.connections] == [
        lives._replace(restarts=lives.restarts + 1) for _, _, lives in sent
    ]
    for (client, _, lives), (sock, _) in zip(sent, estate.connections, strict=True):
        sock.send(lives.name.encode())
        assert client.recv(100) == lives.name.encode()


def test_one_that_lingers(queue: Queue) -> None:
    """Why the server has ended it is known afterwards."""
    _, sock, sockaddr = queue.connection()
    lives = ConnectionState("1.1", sockaddr, NOW, NOW, 10, 2, lingers="idle")
    assert send(queue.writes, [(lives, sock.fileno())])
    assert queue.receive().connections[0].life == lives._replace(restarts=1)


def test_as_many_as_a_message_holds(queue: Queue) -> None:
    """With a pending chunk of the largest size, which no socket's buffer would take."""
    _, sock, sockaddr = queue.connection()
    lives = ConnectionState("1.1", sockaddr, NOW, NOW, 1 << 30, 2, bytes(1 << 24))
    assert send(queue.writes, [(lives, sock.fileno())])
    small = ConnectionState("1.1", sockaddr, NOW, NOW)
    assert send(queue.writes, [(small, sock.fileno())] * handover.BATCH)
    estate = queue.receive()
    assert estate.connections[0].life == lives._replace(restarts=1)
    assert len(estate.connections) == 1 + handover.BATCH


def test_one_that_comes_twice(queue: Queue) -> None:
    """It is taken once, with what was said of it at first: a worker that had sent it died before it could say so."""
    _, sock, sockaddr = queue.connection()
    other = queue.connection()[1]
    queue.monkeypatch.undo()
    for name, each in (("1.1", sock), ("1.2", other), ("1.3", sock)):
        assert send(queue.writes, [(ConnectionState(name, sockaddr, NOW, NOW), each.fileno())])
    estate = queue.receive()
    assert [life.name for _, life in estate.connections] == ["1.1", "1.2"]
    assert (estate.forgotten, estate.lost) == (0, 0)


def test_no_room(queue: Queue) -> None:
    """Those that come last are lost, with a reset; nothing else is."""
    clients = []
    for number in range(3):
        client, sock, sockaddr = queue.connection()
        clients.append(client)
        assert send(queue.writes, [(ConnectionState(f"1.{number}", sockaddr, NOW, NOW), sock.fileno())])
        sock.close()
    estate = receive([os.dup(queue.reads.fileno())], NOW, restarts=1, room=2)
    assert ([life.name for _, life in estate.connections], estate.lost) == (["1.0", "1.1"], 1)
    with pytest.raises(ConnectionResetError):
        clients[2].recv(1)
    for sock, _ in estate.connections:
        sock.close()


def test_a_full_queue(queue: Queue) -> None:
    """What does not fit is not sent, and what did is there."""
    _, sock, sockaddr = queue.connection()
    one = [(ConnectionState("1.1", sockaddr, NOW, NOW), sock.fileno())]
    count = 0
    while send(queue.writes, one):
        count += 1
    assert len(queue.receive().connections) == count > 100


def test_nobody_there() -> None:
    """Whoever sends to a queue that nobody has learns so."""
    reads, writes = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reads.close()
    with writes:
        assert not send(writes, [(ConnectionState("1.1", "", NOW, NOW), writes.fileno())])


@pytest.mark.parametrize(
    ("clients", "room", "expected"),
    [([3, 5], 10, [4, 6]), ([3, 5], 8, [3, 5]), ([30, 50], 8, [3, 5]), ([0, 0], 10, [5, 5])],
)
def test_quotas(clients: list[int], room: int, expected: list[int]) -> None:
    """Everybody's clients and what is to spare, or of too many the same part."""
    assert quotas(clients, room) == expected


class TestAnotherVersion:
    """Of what it wrote nothing is known."""

    def test_nothing_is_due(self, queue: Queue) -> None:
        """The connection goes on as a new one."""
        client, sock, sockaddr = queue.connection()
        client.sendall(b"echoed")
        sock.send(sock.recv(100))
        assert client.recv(100) == b"echoed"
        client.sendall(b"unread")
        client.shutdown(socket.SHUT_WR)
        with memory(b"whatever") as memfd:
            queue.put(struct.pack("!HH", VERSION + 1, 1), memfd, sock.fileno())
        estate = queue.receive()
        assert (estate.forgotten, estate.lost) == (1, 0)
        ((_, lives),) = estate.connections
        assert (lives.name, lives.sockaddr, lives.received, lives.restarts) == ("", sockaddr, 0, 1)

    @pytest.mark.parametrize(("family", "read"), [(socket.AF_INET, 100), (socket.AF_UNIX, 0)])
    def test_bytes_are_due(self, queue: Queue, family: int, read: int) -> None:
        """The connection is reset where that is known, and where nothing can be."""
        client, sock, _ = queue.connection(family)
        client.sendall(b"never echoed")
        sock.recv(read)
        queue.put(struct.pack("!HH", VERSION + 1, 1), sock.fileno())
        sock.close()
        estate = queue.receive()
        assert (estate.connections, estate.forgotten, estate.lost) == ([], 0, 1)
        assert is_reset(client)

    def test_one_that_is_gone(self, queue: Queue) -> None:
        """A connection that has broken meanwhile is lost."""
        client, sock, _ = queue.connection()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        poll = select.poll()
        poll.register(sock, 0)
        assert poll.poll(DEADLINE * 1000)  # the reset may be on its way still
        queue.put(struct.pack("!HH", VERSION + 1, 1), sock.fileno())
        assert queue.receive() == TakenOver([], 0, 1)


HOSTILE: list[Any] = [
    None,
    True,
    -1,
    1.5,
    2**63,
    2**64,
    1e400,
    "",
    "x" * 65,
    "\n",
    "\ud800",
    "é",
    [],
    {},
    ["::1", 1],
    [1, 1],
]
RIGHT: dict[str, list[Any]] = {"started": [1.5], "active": [1.5], "lingers": [""]}
"""What of these can be a value of that field."""


@pytest.mark.parametrize("key", sorted(set(ConnectionState._fields) - {"pending"}))
def test_hostile_values(queue: Queue, key: str) -> None:
    """What no connection's state can be is not believed; the rest of the message is."""
    hostile = [value for value in HOSTILE if value not in RIGHT.get(key, [])]
    _, sock, sockaddr = queue.connection()
    states = [state(sockaddr) | {key: value} for value in hostile] + [state(sockaddr)]
    with memory(contents(states)) as memfd:
        queue.put(struct.pack("!HH", VERSION, len(states)), memfd, *[sock.fileno()] * len(states))
    estate = queue.receive()
    assert [lives.name for _, lives in estate.connections] == [""] * len(hostile) + ["1.1"]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_a_hostile_number_of_pending_bytes(queue: Queue, value: object) -> None:
    """Nothing is believed then, since nobody knows where the bytes of one end and the next begin."""
    _, sock, sockaddr = queue.connection()
    with memory(contents([state(sockaddr) | {"pending": value}, state(sockaddr)])) as memfd:
        queue.put(struct.pack("!HH", VERSION, 2), memfd, sock.fileno(), sock.fileno())
    assert queue.receive().forgotten == 2


def test_a_field_of_a_later_version(queue: Queue) -> None:
    """It is passed over."""
    _, sock, sockaddr = queue.connection()
    with memory(contents([state(sockaddr, colour="blue")])) as memfd:
        queue.put(HEADER, memfd, sock.fileno())
    assert queue.receive().forgotten == 0


WHOLE = contents([state(("127.0.0.1", 1), pending=5)], b"12345")
DAMAGE = {
    "a byte short": WHOLE[:-1],
    "a byte long": WHOLE + b"x",
    "half": WHOLE[: len(WHOLE) // 2],
    "empty": b"",
    "deep": b"[" * 100_000,
    "a number of many digits": b"9" * 10_000,
    "no UTF-8": b"\xff" + WHOLE,
    "no states": b"[]\n",
    "an object": b"{}\n",
    "a number": b"7\n",
    "more pending than there is": contents([state(("127.0.0.1", 1), pending=10**30)]),
    "less than nothing pending": contents([state(("127.0.0.1", 1), pending=-5)]),
}


@pytest.mark.parametrize("damaged", DAMAGE.values(), ids=DAMAGE)
def test_damage(queue: Queue, damaged: bytes) -> None:
    """A memfd that is not as it was written is not believed."""
    _, sock, _ = queue.connection()
    with memory(damaged) as memfd:
        queue.put(HEADER, memfd, sock.fileno())
    estate = queue.receive()
    assert (len(estate.connections), estate.forgotten, estate.lost) == (1, 1, 0)


def test_fewer_than_said(queue: Queue) -> None:
    """Which state belongs to which connection is not known then, and those that are missing are lost."""
    _, sock, sockaddr = queue.connection()
    with memory(contents([state(sockaddr)] * 3)) as memfd:
        queue.put(struct.pack("!HH", VERSION, 3), memfd, sock.fileno(), sock.fileno())
    estate = queue.receive()
    assert (len(estate.connections), estate.forgotten, estate.lost) == (2, 2, 1)


def test_a_huge_memfd(queue: Queue) -> None:
    """No more of it is read than may be right."""
    _, sock, _ = queue.connection()
    with memory(b"[]\n") as memfd:
        os.ftruncate(memfd, 1 << 40)
        queue.put(HEADER, memfd, sock.fileno())
    assert queue.receive().forgotten == 1


def test_no_queue_at_all() -> None:
    """What is passed under its name and is none is closed."""
    reads, writes = os.pipe()
    one, other = socket.socketpair()
    other.send(b"endless")
    with other, socket.create_server(("127.0.0.1", 0)) as listener:
        assert receive(
            [reads, writes, one.detach(), listener.detach(), 10_000], NOW, restarts=1, room=1000
        ) == TakenOver([], 0, 0)


CONNECTIONS = {"tcp": socket.AF_INET, "unix": socket.AF_UNIX}
parts = st.sampled_from(["memory", *CONNECTIONS, "listener", "pipe", "queue"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(ConnectionState._fields), inner, max_size=9)
    ),
    max_leaves=20,
)


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, bytes, list[str]]:
    """A header, what is in the memfd, and which descriptors come along: nearly right, or nothing like it."""
    states = [
        state(("127.0.0.1", 7)) | draw(st.dictionaries(st.sampled_from(ConnectionState._fields), values, max_size=2))
    ]
    body = draw(st.sampled_from([contents(states), contents(draw(values))])) + draw(st.binary(max_size=4))
    header = draw(st.sampled_from([HEADER, struct.pack("!HH", VERSION, 2)]) | st.binary(max_size=8))
    return header, body[: draw(st.integers(0, len(body)))], draw(st.lists(parts, max_size=4))


@settings(max_examples=100)
@given(st.lists(messages(), max_size=3))
def test_fuzzed(drawn: list[tuple[bytes, bytes, list[str]]]) -> None:
    """Whatever comes, it raises nothing and leaves nothing open; and of what is left, sessions can be made."""
    with ExitStack() as stack:
        queue = Queue(stack)
        loop = stack.enter_context(closing(HandLoop()))
        told = stack.enter_context(telling(level="debug"))
        for header, body, kinds in drawn:
            memfd = stack.enter_context(memory(body))
            pipe = stack.enter_context(open(os.devnull, "rb"))
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            fds = {"memory": memfd, "pipe": pipe.fileno(), "listener": listener.fileno()}
            fds["queue"] = queue.reads.fileno()
            for kind in kinds:
                if kind in CONNECTIONS:
                    fds[kind] = queue.connection(CONNECTIONS[kind])[1].fileno()
            if header or kinds:
                queue.put(header, *(fds[kind] for kind in ["memory", *kinds]))
        estate = queue.receive()
        for sock, lives in estate.connections:
            ended: list[Session] = []
            timeouts = Timeouts(1.0, 1.0, 1.0)
            one = lives._replace(name=lives.name or "1.1")
            connection = Connection(sock, one)
            session = Session(connection, loop, told.journal, memoryview(bytearray(9)), timeouts, ended.append)
            loop.settle()
            session.abort("cut")
            assert ended == [session]
            told.objects()
