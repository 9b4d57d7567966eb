"""queue: connections that are handed over arrive; and whatever else is in a queue, taking it over does not fail."""

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
from echod.handover.queue import hand_over, hand_over_all, quotas, take_over
from echod.handover.state import Connection, ConnectionState, TakenOver, encode
from echod.shared.terms import Timeouts
from echod.worker.session import Session
from tests.unit.events import telling
from tests.unit.hand_loop import DEADLINE, HandLoop

VERSION = 1
NOW = time.monotonic()
HEADER = struct.pack("!HH", VERSION, 1)


class Queue:
    """A queue, and the clients of the connections in it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
        # So that descriptors of one connection can stand for many connections.
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
        """Put a message into the queue."""
        socket.send_fds(self.writes, [data], fds)

    def take_over(self) -> TakenOver:
        """Take over all that is in the queue; the sockets are closed with the queue."""
        taken = take_over([self.reads.detach(), self.writes.detach()], time.monotonic(), restarts=1, room=1000)
        for sock, _ in taken.connections:
            self._stack.enter_context(sock)
        return taken


@pytest.fixture
def queue() -> Iterator[Queue]:
    """An empty queue."""
    with ExitStack() as stack:
        yield Queue(stack)


@contextmanager
def memory(contents: bytes) -> Iterator[int]:
    """A memfd with these contents, as they are in a message."""
    with open(os.memfd_create("test"), "wb", buffering=0) as file:
        file.write(contents)
        yield file.fileno()


def as_json(sockaddr: Any, **changes: Any) -> dict[str, Any]:
    """The JSON object of a connection, with changes."""
    return encode(ConnectionState("1.1", sockaddr, NOW, NOW, 5, 1)) | changes


def contents(objects: Any, pending: bytes = b"") -> bytes:
    """The contents of a memfd."""
    return json.dumps(objects).encode() + b"\n" + pending


def is_reset(client: socket.socket) -> bool:
    """Whether the client's connection ends by a reset."""
    try:
        return client.recv(1) == b"never"
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_what_is_sent_arrives(queue: Queue, family: int) -> None:
    """Connections arrive from several messages, each with its own state and one restart more."""
    sent = []
    for number in range(5):
        client, sock, sockaddr = queue.connection(family)
        state = ConnectionState(f"1.{number}", sockaddr, NOW - 1, NOW, 10 + number, 2, b"x" * number, "", number)
        sent.append((client, sock, state))
    for part in (sent[:3], sent[3:]):
        assert hand_over(queue.writes, [(state, sock.fileno()) for _, sock, state in part])
    taken = queue.take_over()
    assert (taken.forgotten, taken.lost) == (0, 0)
    assert [connection.state for connection in taken.connections] == [
        state._replace(restarts=state.restarts + 1) for _, _, state in sent
    ]
    for (client, _, state), (sock, _) in zip(sent, taken.connections, strict=True):
        sock.send(state.name.encode())
        assert client.recv(100) == state.name.encode()


def test_one_that_lingers(queue: Queue) -> None:
    """The reason why the server has shut its side down arrives with the connection."""
    _, sock, sockaddr = queue.connection()
    state = ConnectionState("1.1", sockaddr, NOW, NOW, 10, 2, lingers="idle")
    assert hand_over(queue.writes, [(state, sock.fileno())])
    assert queue.take_over().connections[0].state == state._replace(restarts=1)


def test_as_many_as_a_message_holds(queue: Queue) -> None:
    """A full message arrives, and so does a pending chunk of the largest size, too large for any socket's buffer."""
    _, sock, sockaddr = queue.connection()
    state = ConnectionState("1.1", sockaddr, NOW, NOW, 1 << 30, 2, bytes(1 << 24))
    assert hand_over(queue.writes, [(state, sock.fileno())])
    small = ConnectionState("1.1", sockaddr, NOW, NOW)
    assert hand_over(queue.writes, [(small, sock.fileno())] * handover.BATCH)
    taken = queue.take_over()
    assert taken.connections[0].state == state._replace(restarts=1)
    assert len(taken.connections) == 1 + handover.BATCH


def test_one_that_comes_twice(queue: Queue) -> None:
    """It is taken once, with its first state: the second is from the copy of a worker that died after sending it."""
    _, sock, sockaddr = queue.connection()
    other = queue.connection()[1]
    queue.monkeypatch.undo()
    for name, each in (("1.1", sock), ("1.2", other), ("1.3", sock)):
        assert hand_over(queue.writes, [(ConnectionState(name, sockaddr, NOW, NOW), each.fileno())])
    taken = queue.take_over()
    assert [state.name for _, state in taken.connections] == ["1.1", "1.2"]
    assert (taken.forgotten, taken.lost) == (0, 0)


def test_no_room(queue: Queue) -> None:
    """The last connections are reset and lost, and no others."""
    clients = []
    for number in range(3):
        client, sock, sockaddr = queue.connection()
        clients.append(client)
        assert hand_over(queue.writes, [(ConnectionState(f"1.{number}", sockaddr, NOW, NOW), sock.fileno())])
        sock.close()
    taken = take_over([os.dup(queue.reads.fileno())], NOW, restarts=1, room=2)
    assert ([state.name for _, state in taken.connections], taken.lost) == (["1.0", "1.1"], 1)
    with pytest.raises(ConnectionResetError):
        clients[2].recv(1)
    for sock, _ in taken.connections:
        sock.close()


def test_a_full_queue(queue: Queue) -> None:
    """What has no room is not sent; all that was sent arrives."""
    _, sock, sockaddr = queue.connection()
    one = [(ConnectionState("1.1", sockaddr, NOW, NOW), sock.fileno())]
    count = 0
    while hand_over(queue.writes, one):
        count += 1
    assert len(queue.take_over().connections) == count > 100


def test_a_queue_without_a_reader() -> None:
    """Handing over to a queue whose other end is closed fails."""
    reads, writes = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reads.close()
    with writes:
        assert not hand_over(writes, [(ConnectionState("1.1", "", NOW, NOW), writes.fileno())])


def test_handing_over_all(queue: Queue) -> None:
    """As many as the queue has room for are sent and closed here; the others stay in the list, open."""
    _, sock, sockaddr = queue.connection()
    state = ConnectionState("1.1", sockaddr, NOW, NOW)
    connections = [Connection(sock.dup(), state) for _ in range(handover.BATCH + 1)]
    first, last = connections[0].sock, connections[-1].sock
    assert hand_over_all(queue.writes, connections) == handover.BATCH + 1
    assert (connections, first.fileno(), last.fileno()) == ([], -1, -1)
    assert len(queue.take_over().connections) == handover.BATCH + 1
    left = [Connection(sock, state)]
    assert hand_over_all(queue.writes, left) == 0
    assert left == [Connection(sock, state)]
    assert sock.fileno() != -1


@pytest.mark.parametrize(
    ("clients", "room", "expected"),
    [([3, 5], 10, [4, 6]), ([3, 5], 8, [3, 5]), ([30, 50], 8, [3, 5]), ([0, 0], 10, [5, 5])],
)
def test_quotas(clients: list[int], room: int, expected: list[int]) -> None:
    """Each worker gets its own number and an equal part of the rest, or the same share if there are too many."""
    assert quotas(clients, room) == expected


class TestAnotherVersion:
    """What another version wrote is unknown."""

    def test_nothing_is_due(self, queue: Queue) -> None:
        """If no bytes are due, the connection goes on as a new one."""
        client, sock, sockaddr = queue.connection()
        client.sendall(b"echoed")
        sock.send(sock.recv(100))
        assert client.recv(100) == b"echoed"
        client.sendall(b"unread")
        client.shutdown(socket.SHUT_WR)
        with memory(b"whatever") as memfd:
            queue.put(struct.pack("!HH", VERSION + 1, 1), memfd, sock.fileno())
        taken = queue.take_over()
        assert (taken.forgotten, taken.lost) == (1, 0)
        ((_, state),) = taken.connections
        assert (state.name, state.sockaddr, state.received, state.restarts) == ("", sockaddr, 0, 1)

    @pytest.mark.parametrize(("family", "read"), [(socket.AF_INET, 100), (socket.AF_UNIX, 0)])
    def test_bytes_are_due(self, queue: Queue, family: int, read: int) -> None:
        """A connection that owes bytes is reset, and so is one on a unix socket, where that is unknown."""
        client, sock, _ = queue.connection(family)
        client.sendall(b"never echoed")
        sock.recv(read)
        queue.put(struct.pack("!HH", VERSION + 1, 1), sock.fileno())
        sock.close()
        taken = queue.take_over()
        assert (taken.connections, taken.forgotten, taken.lost) == ([], 0, 1)
        assert is_reset(client)

    def test_one_that_is_gone(self, queue: Queue) -> None:
        """A connection that was reset by its client while in the queue is lost."""
        client, sock, _ = queue.connection()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        poll = select.poll()
        poll.register(sock, 0)
        assert poll.poll(DEADLINE * 1000)  # The reset may still be on its way.
        queue.put(struct.pack("!HH", VERSION + 1, 1), sock.fileno())
        assert queue.take_over() == TakenOver([], 0, 1)


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
"""Those of them that are right values of a field."""


@pytest.mark.parametrize("key", sorted(set(ConnectionState._fields) - {"pending"}))
def test_hostile_values(queue: Queue, key: str) -> None:
    """A value that no connection's state can have makes that state unknown, and no other in the message."""
    hostile = [value for value in HOSTILE if value not in RIGHT.get(key, [])]
    _, sock, sockaddr = queue.connection()
    objects = [as_json(sockaddr) | {key: value} for value in hostile] + [as_json(sockaddr)]
    with memory(contents(objects)) as memfd:
        queue.put(struct.pack("!HH", VERSION, len(objects)), memfd, *[sock.fileno()] * len(objects))
    taken = queue.take_over()
    assert [after.name for _, after in taken.connections] == [""] * len(hostile) + ["1.1"]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_a_hostile_number_of_pending_bytes(queue: Queue, value: object) -> None:
    """All states are unknown then, because it is unknown where the bytes of each connection begin."""
    _, sock, sockaddr = queue.connection()
    with memory(contents([as_json(sockaddr) | {"pending": value}, as_json(sockaddr)])) as memfd:
        queue.put(struct.pack("!HH", VERSION, 2), memfd, sock.fileno(), sock.fileno())
    assert queue.take_over().forgotten == 2


def test_a_field_of_a_later_version(queue: Queue) -> None:
    """It is ignored."""
    _, sock, sockaddr = queue.connection()
    with memory(contents([as_json(sockaddr, colour="blue")])) as memfd:
        queue.put(HEADER, memfd, sock.fileno())
    assert queue.take_over().forgotten == 0


WHOLE = contents([as_json(("127.0.0.1", 1), pending=5)], b"12345")
DAMAGE = {
    "a byte short": WHOLE[:-1],
    "a byte long": WHOLE + b"x",
    "half": WHOLE[: len(WHOLE) // 2],
    "empty": b"",
    "deep": b"[" * 100_000,
    "a number of many digits": b"9" * 10_000,
    "no UTF-8": b"\xff" + WHOLE,
    "no objects": b"[]\n",
    "an object": b"{}\n",
    "a number": b"7\n",
    "more pending than there is": contents([as_json(("127.0.0.1", 1), pending=10**30)]),
    "less than nothing pending": contents([as_json(("127.0.0.1", 1), pending=-5)]),
}


@pytest.mark.parametrize("damaged", DAMAGE.values(), ids=DAMAGE)
def test_damage(queue: Queue, damaged: bytes) -> None:
    """A damaged memfd is not used; the connection goes on as a new one."""
    _, sock, _ = queue.connection()
    with memory(damaged) as memfd:
        queue.put(HEADER, memfd, sock.fileno())
    taken = queue.take_over()
    assert (len(taken.connections), taken.forgotten, taken.lost) == (1, 1, 0)


def test_fewer_than_announced(queue: Queue) -> None:
    """It is unknown then which state belongs to which connection, and the missing connections are lost."""
    _, sock, sockaddr = queue.connection()
    with memory(contents([as_json(sockaddr)] * 3)) as memfd:
        queue.put(struct.pack("!HH", VERSION, 3), memfd, sock.fileno(), sock.fileno())
    taken = queue.take_over()
    assert (len(taken.connections), taken.forgotten, taken.lost) == (2, 2, 1)


def test_a_huge_memfd(queue: Queue) -> None:
    """No more of it is read than a right one can hold."""
    _, sock, _ = queue.connection()
    with memory(b"[]\n") as memfd:
        os.ftruncate(memfd, 1 << 40)
        queue.put(HEADER, memfd, sock.fileno())
    assert queue.take_over().forgotten == 1


def test_no_queue_at_all() -> None:
    """Descriptors that have a queue's name and are none are closed."""
    reads, writes = os.pipe()
    one, other = socket.socketpair()
    other.send(b"endless")
    with other, socket.create_server(("127.0.0.1", 0)) as listener:
        assert take_over(
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
    """A header, a memfd's contents, and the descriptors in the message: nearly right, or not at all."""
    objects = [
        as_json(("127.0.0.1", 7)) | draw(st.dictionaries(st.sampled_from(ConnectionState._fields), values, max_size=2))
    ]
    body = draw(st.sampled_from([contents(objects), contents(draw(values))])) + draw(st.binary(max_size=4))
    header = draw(st.sampled_from([HEADER, struct.pack("!HH", VERSION, 2)]) | st.binary(max_size=8))
    return header, body[: draw(st.integers(0, len(body)))], draw(st.lists(parts, max_size=4))


@settings(max_examples=100)
@given(st.lists(messages(), max_size=3))
def test_fuzzed(drawn: list[tuple[bytes, bytes, list[str]]]) -> None:
    """Any message raises nothing and leaves nothing open, and sessions can serve the connections that go on."""
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
        taken = queue.take_over()
        for sock, state in taken.connections:
            ended: list[Session] = []
            timeouts = Timeouts(1.0, 1.0, 1.0)
            one = state._replace(name=state.name or "1.1")
            session = Session(one, sock, loop, told.journal, memoryview(bytearray(9)), timeouts, ended.append)
            loop.settle()
            session.abort("cut")
            assert ended == [session]
            told.objects()
