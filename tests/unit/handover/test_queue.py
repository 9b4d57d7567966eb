"""queue: connections that are handed over arrive, each with its state."""

import os
import socket

import pytest

from echod.handover import queue as handover
from echod.handover import state as states
from echod.handover.queue import hand_over, hand_over_all, quotas, take_over
from echod.handover.state import Connection, ConnectionState
from tests.unit.handover.queues import NOW, Queue


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


def test_without_socket_cookies(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not number sockets (SO_COOKIE), the inode identifies a connection."""
    monkeypatch.setattr(states, "_SO_COOKIE", 9999)
    _, first, _ = queue.connection()
    _, second, _ = queue.connection()
    with first.dup() as copy:
        assert states.cookie(copy) == states.cookie(first) != states.cookie(second)


def test_one_that_lingers(queue: Queue) -> None:
    """The reason why the server has closed its side arrives with the connection."""
    _, sock, sockaddr = queue.connection()
    state = ConnectionState("1.1", sockaddr, NOW, NOW, 10, 2, lingers="idle")
    assert hand_over(queue.writes, [(state, sock.fileno())])
    assert queue.take_over().connections[0].state == state._replace(restarts=1)


def test_a_peer_with_a_name(queue: Queue) -> None:
    """The name to which the client of a unix socket has bound its end does not matter, and is left out."""
    _, sock, _ = queue.connection(socket.AF_UNIX)
    state = ConnectionState("1.1", b"\0\xff", NOW, NOW, 10, 2)
    assert hand_over(queue.writes, [(state, sock.fileno())])
    assert queue.take_over().connections[0].state == state._replace(sockaddr="", restarts=1)


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


def test_a_version_that_sends_fewer_at_a_time(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader accepts a full message although its own messages are smaller."""
    _, sock, sockaddr = queue.connection()
    state = ConnectionState("1.1", sockaddr, NOW, NOW)
    assert hand_over(queue.writes, [(state, sock.fileno())] * handover.BATCH)
    monkeypatch.setattr(handover, "BATCH", 7)
    assert len(queue.take_over().connections) == 252


def test_one_that_comes_twice(queue: Queue) -> None:
    """A connection sent twice is taken once, with its first state: the second is from the copy of a dead worker."""
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
    """Messages without room are not sent; all sent messages arrive."""
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
    """Connections are sent while the queue has room, and closed here; the others stay in the list, open."""
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
