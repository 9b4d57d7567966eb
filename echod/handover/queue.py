"""Connections on their way from one echod to the next, through a queue in systemd's descriptor store.

The queue is a pair of sockets (SOCK_SEQPACKET, unix(7)), and the store has both of its ends: one descriptor for each
connection would take systemd time that grows with their square.  Each message is complete in itself, so all workers
may send at once, and whatever becomes of them, what is there is whole.  It is a header, and comes with descriptors:
first a memfd, then the connections.  In the memfd is a line of JSON, a list with an object for each connection
(`state.encode`), and behind it the pending bytes of all of them.  So nothing of a client passes through the socket's
buffer, which would not hold it.

Of a connection whose state can't be read, because another version wrote it or it is damaged, the kernel still knows
whether bytes are due on it.  If none are, it goes on as if it was new; else it is reset, since an echo with a gap is
worse than an error.  That can be known of TCP only (`queues.owes`), so a connection by a unix socket is ended.
"""

import contextlib
import json
import os
import resource
import socket
import stat
import struct
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from echod.handover.state import ConnectionState, decode, encode
from echod.net import tcpinfo as queues
from echod.net.sockopts import reset_on_close
from echod.systemd.fdstore import DescriptorStore

STORED_AS = "echod-handover"
"""The name of the queue's ends in the store."""
BATCH = 252
"""Connections in one message, at most: unix(7) allows 253 descriptors (SCM_MAX_FD)."""

_FDS_PER_WORKER = 6
"""Descriptors that a parent has for each of its workers, and"""
_SPARE_FDS = 128
"""those that it has for whatever else, its listening sockets apart."""
_SO_COOKIE = 57
"""asm-generic/socket.h; `socket` has no name for it."""
_VERSION = 1
_HEADER = struct.Struct("!HH")
"""The version of what follows, and how many connections it is."""
_LINE_MAX = BATCH * 1024
"""Bytes of the line of JSON, and"""
_PENDING_MAX = 16 << 20
"""of what may be pending of one connection, which is a chunk of the largest size that may be set."""
_State = tuple[Mapping[str, Any], bytes]
"""What is written of a connection, and its pending bytes."""
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class Connection(NamedTuple):
    """A connection that a predecessor has served; without a name if nothing else is known of it."""

    sock: socket.socket
    life: ConnectionState


class TakenOver(NamedTuple):
    """What a predecessor has left: connections, of which so many are as new, and how many more could not go on."""

    connections: list[Connection]
    forgotten: int
    lost: int


def open_queue(store: DescriptorStore) -> socket.socket | None:
    """The end of a new queue to send to, which the store keeps for the next echod; None if it does not keep it."""
    try:
        reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        return None
    with reading:
        writing.setblocking(False)
        store.put(STORED_AS, [reading.fileno(), writing.fileno()])
        if store.keeps():
            return writing
    store.remove(STORED_AS)
    writing.close()
    return None


def room(listeners: int, workers: int) -> int:
    """Connections of which a parent with so many listening sockets and workers can have a descriptor."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, descriptors - listeners - _FDS_PER_WORKER * workers - _SPARE_FDS)


def quotas(clients: Sequence[int], room: int) -> list[int]:
    """How many connections each worker may send, by how many it has; together as many as there is room for.

    As many may also be on their way, whoever sends them (ETOOMANYREFS, unix(7)).  Some are to spare, if there are any,
    for whoever is being accepted.
    """
    total = sum(clients)
    if total > room:
        return [room * count // total for count in clients]
    return [count + (room - total) // len(clients) for count in clients]


def send(queue: socket.socket, connections: Sequence[tuple[ConnectionState, int]]) -> bool:
    """Send connections, at most `BATCH`, each with its descriptor; False if there is no room for them.

    Then nothing of them was sent.
    """
    states = json.dumps([encode(life) for life, _ in connections]).encode()
    try:
        with os.fdopen(os.memfd_create(STORED_AS, os.MFD_CLOEXEC), "wb") as memory:
            memory.write(states + b"\n")
            memory.writelines(life.pending for life, _ in connections)
            memory.flush()
            header = _HEADER.pack(_VERSION, len(connections))
            socket.send_fds(queue, [header], [memory.fileno(), *(fd for _, fd in connections)])
    except OSError:
        return False
    return True


def pass_on(queue: socket.socket, connections: list[Connection]) -> int:
    """Send as many of these as there is room for, take them out of the list, and close them here; how many."""
    count = len(connections)
    while batch := connections[-BATCH:]:
        if not send(queue, [(life, sock.fileno()) for sock, life in batch]):
            break
        del connections[-BATCH:]
        for sock, _ in batch:
            sock.close()
    return count - len(connections)


def receive(fds: Iterable[int], now: float, *, restarts: int, room: int) -> TakenOver:
    """Empty the queue whose ends these are.  Whatever comes out of it, this raises nothing and waits for nobody.

    On their way through it the connections have lived through so many more `restarts`; those for which there is no
    `room` are lost.  One that comes again is passed over, since of a worker that died when it had sent it there is a
    copy.
    """
    connections: list[Connection] = []
    forgotten = lost = 0
    known: set[int] = set()
    for data, received in _messages(fds):
        now = max(now, time.monotonic())  # it may have been sent just now
        count, states = _read(data, received)
        lost += max(0, count - len(received) + 1)
        for fd, state in zip(received, states, strict=True):
            if (sock := adopt(fd)) is None:
                continue
            if (cookie := _cookie(sock)) in known:
                sock.close()
                continue
            known.add(cookie)
            life = None
            if len(connections) < room:
                life = _life(sock, state, now) or _as_new(sock, now)
            if life is None:
                lost += 1
                reset_on_close(sock, resets=True)
                sock.close()
                continue
            forgotten += not life.name
            connections.append(Connection(sock, life._replace(restarts=life.restarts + restarts)))
    return TakenOver(connections, forgotten, lost)


def _cookie(sock: socket.socket) -> int:
    """What tells a socket from all others, whoever has descriptors of it."""
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)


def _messages(fds: Iterable[int]) -> Iterator[tuple[bytes, list[int]]]:
    for fd in fds:
        try:
            queue = socket.socket(fileno=fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.close(fd)
            continue
        with queue:
            queue.setblocking(False)
            while queue.type == socket.SOCK_SEQPACKET:
                try:
                    data, received, _, _ = socket.recv_fds(queue, _HEADER.size, BATCH + 1)
                except OSError:
                    break
                if not data and not received:
                    break
                yield data, received


def _read(data: bytes, fds: Sequence[int]) -> tuple[int, Sequence[_State | None]]:
    """How many connections a message is said to have, and the state that belongs to each descriptor, where it has one.

    Which state belongs to which is known by their order alone, so nothing is believed of a message that lacks some.
    """
    unknown: Sequence[None] = [None] * len(fds)
    if len(data) != _HEADER.size or not fds:
        return 0, unknown
    version, count = _HEADER.unpack(data)
    if version != _VERSION:
        return 0, unknown
    try:
        states = _states(fds[0])
    except Exception:  # noqa: BLE001  whatever somebody wrote there, a start must not fail for it
        return count, unknown
    return count, [None, *states] if len(states) == count == len(fds) - 1 else unknown


def _states(fd: int) -> list[_State]:
    """What is in a memfd.  Raises whatever it likes if that can't be ours."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise ValueError(fd)  # reading from a pipe would wait
    with os.fdopen(os.dup(fd), "rb") as memory:
        memory.seek(0)
        states = json.loads(memory.readline(_LINE_MAX))
        lengths = [state["pending"] for state in states]
        if not all(0 <= length <= _PENDING_MAX for length in lengths):
            raise ValueError(lengths)
        parts = [memory.read(length) for length in lengths]
        if [len(part) for part in parts] != lengths or memory.read(1):
            raise ValueError(lengths)
    return list(zip(states, parts, strict=True))


def adopt(fd: int) -> socket.socket | None:
    """A connection, non-blocking; whatever else it is is closed."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return None
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM or listens:
        sock.close()
        return None
    sock.setblocking(False)
    return sock


def _life(sock: socket.socket, state: _State | None, now: float) -> ConnectionState | None:
    if state is None:
        return None
    try:
        return decode(*state, sock.family, now)
    except ValueError:
        return None


def _as_new(sock: socket.socket, now: float) -> ConnectionState | None:
    """The life of a connection of which nothing is known, if it is provably right to begin a new one."""
    try:
        return None if queues.owes(sock) else ConnectionState("", sock.getpeername(), now, now)
    except OSError:
        return None
