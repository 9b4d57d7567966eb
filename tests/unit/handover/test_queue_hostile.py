"""queue: no content makes taking it over raise an error, and intact connections continue."""

import fcntl
import os
import select
import socket
import struct
from contextlib import ExitStack, closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echod.handover import queue as handover
from echod.handover.queue import take_over
from echod.handover.state import Connection, ConnectionState, TakenOver
from echod.worker.relay import Buffer
from echod.worker.session import Session
from tests.unit.events import recording
from tests.unit.hand_loop import DEADLINE, HandLoop
from tests.unit.handover.queues import HEADER, NOW, VERSION, Queue, as_json, contents, memory


class Owner:
    """Remembers the sessions that have ended."""

    def __init__(self) -> None:
        self.ended: list[Session] = []

    def on_closed(self, session: Session) -> None:
        """The session has ended."""
        self.ended.append(session)


def is_reset(client: socket.socket) -> bool:
    """Whether the client's connection was reset."""
    try:
        return client.recv(1) == b"never"
    except ConnectionResetError:
        return True


class TestAnotherVersion:
    """The states that another version wrote are unknown."""

    def test_nothing_is_due(self, queue: Queue) -> None:
        """If no bytes are due, the connection continues as a new one."""
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
        """If bytes are due, the connection is reset; so is one on a unix socket, where that is unknown."""
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
        assert poll.poll(DEADLINE * 1000)  # the reset may not have arrived yet
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
"""The values that are valid for a field."""


@pytest.mark.parametrize("key", sorted(set(ConnectionState._fields) - {"pending"}))
def test_hostile_values(queue: Queue, key: str) -> None:
    """An impossible value makes the state of that connection unknown, but no other state in the message."""
    hostile = [value for value in HOSTILE if value not in RIGHT.get(key, [])]
    _, sock, sockaddr = queue.connection()
    objects = [as_json(sockaddr) | {key: value} for value in hostile] + [as_json(sockaddr)]
    with memory(contents(objects)) as memfd:
        queue.put(struct.pack("!HH", VERSION, len(objects)), memfd, *[sock.fileno()] * len(objects))
    taken = queue.take_over()
    assert [after.name for _, after in taken.connections] == [""] * len(hostile) + ["1.1"]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_a_hostile_number_of_pending_bytes(queue: Queue, value: object) -> None:
    """A wrong number of pending bytes makes all states unknown: the bytes of each connection cannot be separated."""
    _, sock, sockaddr = queue.connection()
    with memory(contents([as_json(sockaddr) | {"pending": value}, as_json(sockaddr)])) as memfd:
        queue.put(struct.pack("!HH", VERSION, 2), memfd, sock.fileno(), sock.fileno())
    assert queue.take_over().forgotten == 2


def test_a_field_of_a_later_version(queue: Queue) -> None:
    """A field of a later version is ignored."""
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
    """A damaged memfd is ignored, and the connection continues as a new one."""
    _, sock, _ = queue.connection()
    with memory(damaged) as memfd:
        queue.put(HEADER, memfd, sock.fileno())
    taken = queue.take_over()
    assert (len(taken.connections), taken.forgotten, taken.lost) == (1, 1, 0)


def test_fewer_than_announced(queue: Queue) -> None:
    """If descriptors are missing, all states are unknown, and the missing connections are lost."""
    _, sock, sockaddr = queue.connection()
    with memory(contents([as_json(sockaddr)] * 3)) as memfd:
        queue.put(struct.pack("!HH", VERSION, 3), memfd, sock.fileno(), sock.fileno())
    taken = queue.take_over()
    assert (len(taken.connections), taken.forgotten, taken.lost) == (2, 2, 1)


def test_a_huge_memfd(queue: Queue) -> None:
    """Nothing is read from a memfd that has holes, which may seem to contain more than there is memory."""
    _, sock, sockaddr = queue.connection()
    with memory(contents([as_json(sockaddr, received=1 << 40, pending=16 << 20)]), seals=0) as memfd:
        os.ftruncate(memfd, 1 << 40)
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, handover._SEALS)
        queue.put(HEADER, memfd, sock.fileno())
    assert queue.take_over().forgotten == 1


def test_a_memfd_without_seals(queue: Queue) -> None:
    """Nothing is read from a memfd that can still be changed."""
    _, sock, sockaddr = queue.connection()
    with memory(contents([as_json(sockaddr)]), seals=fcntl.F_SEAL_GROW) as memfd:
        queue.put(HEADER, memfd, sock.fileno())
    assert queue.take_over().forgotten == 1


def test_a_memfd_that_comes_twice(queue: Queue) -> None:
    """A memfd is read once, so the reader needs no more memory than its writer did."""
    _, sock, sockaddr = queue.connection()
    with memory(contents([as_json(sockaddr)])) as memfd:
        for _ in range(2):
            queue.put(HEADER, memfd, sock.fileno())
    taken = queue.take_over()
    assert ([state.name for _, state in taken.connections], taken.forgotten) == (["1.1", ""], 1)


def test_an_empty_message(queue: Queue) -> None:
    """Messages without contents, with or without descriptors, hide none of those after them."""
    _, sock, sockaddr = queue.connection()
    _, other, _ = queue.connection()
    with memory(contents([as_json(sockaddr)])) as memfd:
        for fds in ([], [], [other.fileno()], []):
            queue.put(b"", *fds)
        queue.put(HEADER, memfd, sock.fileno())
    taken = queue.take_over()
    assert [state.name for _, state in taken.connections] == ["", "1.1"]


def test_a_writer_that_does_not_stop(queue: Queue) -> None:
    """While the queue is read, no other process can add to it."""
    _, sock, sockaddr = queue.connection()
    with memory(contents([as_json(sockaddr)])) as memfd, queue.writes.dup() as left:
        queue.put(HEADER, memfd, sock.fileno())
        assert len(queue.take_over().connections) == 1
        with pytest.raises(BrokenPipeError):
            left.send(HEADER)


def test_no_queue_at_all() -> None:
    """Descriptors that have the name of a queue but are not one are closed."""
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
    """A header, a memfd's contents, and the descriptors in the message: almost valid, or arbitrary."""
    objects = [
        as_json(("127.0.0.1", 7)) | draw(st.dictionaries(st.sampled_from(ConnectionState._fields), values, max_size=2))
    ]
    body = draw(st.sampled_from([contents(objects), contents(draw(values))])) + draw(st.binary(max_size=4))
    header = draw(st.sampled_from([HEADER, struct.pack("!HH", VERSION, 2)]) | st.binary(max_size=8))
    return header, body[: draw(st.integers(0, len(body)))], draw(st.lists(parts, max_size=4))


@settings(max_examples=100)
@given(st.lists(messages(), max_size=3))
def test_fuzzed(drawn: list[tuple[bytes, bytes, list[str]]]) -> None:
    """No message raises an error or leaves anything open, and sessions can serve the connections that continue."""
    with ExitStack() as stack:
        queue = Queue(stack)
        loop = stack.enter_context(closing(HandLoop()))
        recorder = stack.enter_context(recording(level="debug"))
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
            owner = Owner()
            one = state._replace(name=state.name or "1.1")
            session = Session(Connection(sock, one), loop, recorder.events, Buffer(9), owner)
            loop.settle()
            session.abort("cut")
            assert owner.ended == [session]
            recorder.objects()
