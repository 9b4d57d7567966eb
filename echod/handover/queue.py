"""The queue in which connections wait for the next process: the next echod at a restart, the next pool at a reload.

The queue is a pair of sockets (SOCK_SEQPACKET, unix(7)).  At a restart systemd's descriptor store keeps both ends; one
stored descriptor per connection was rejected, because systemd's time for it grows with the square of their number.

A message is sent whole or not at all.  So all workers may send at the same time, and the messages in the queue are
intact even if a worker dies while it sends.  A message is a header with descriptors: a memfd, then the connections.
The memfd holds a line of JSON, a list with an object for each connection (`state.encode`), and then the pending bytes
of all connections, for which the socket's buffer would have no room.

The memfd is sealed when it is sent, and only a sealed one without holes is read, once: so it cannot change after it was
checked, and the reader needs no more memory for it than its writer did.

The state of a connection may be unreadable, because it is damaged or another version wrote it.  The kernel's counters
still show whether bytes of the echo are missing.  If none are, the connection continues as a new one; otherwise it is
reset, because an echo with a gap is worse than an error.  The kernel has these counters for TCP only (`tcpinfo.owes`),
so such a connection on a unix socket is always closed.

Nothing here blocks.
"""

import contextlib
import fcntl
import json
import os
import resource
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from echod.handover.state import Connection, ConnectionState, TakenOver, adopt, cookie, decode, encode
from echod.net import tcpinfo
from echod.net.sockopts import reset_on_close
from echod.systemd.fdstore import DescriptorStore

STORED_AS = "echod-handover"
"""The name of the queue's ends in the descriptor store."""
_FDS_MAX = 253
"""Descriptors in one message at most (SCM_MAX_FD, unix(7)).  A reader accepts that many from any version."""
BATCH = _FDS_MAX - 1
"""Connections in one message at most, besides the memfd."""

_FDS_PER_WORKER = 6
"""Descriptors that a parent needs for each worker."""
_SPARE_FDS = 128
"""Descriptors that a parent needs besides those of workers, listening sockets and connections."""
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_BLOCK = 512
"""Bytes in the unit of st_blocks, inode(7)."""
_VERSION = 1
_HEADER = struct.Struct("!HH")
"""The version of the format, and the number of connections."""
_LINE_MAX = _FDS_MAX * 1024
"""Bytes of the line of JSON."""
_PENDING_MAX = 16 << 20
"""Pending bytes of one connection: a chunk of the largest size that can be configured."""

_Written = tuple[Mapping[str, Any], bytes]
"""The JSON object of a connection, and its pending bytes."""


def open_queue(store: DescriptorStore) -> socket.socket | None:
    """The sending end of a new queue for the next echod; None if there is no descriptor or no memory left for it.

    Whether systemd stores the queue is not known before it has answered (`DescriptorStore.ask`).
    """
    try:
        reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        return None
    with reading:
        writing.setblocking(False)
        store.put(STORED_AS, [reading.fileno(), writing.fileno()])
    return writing


def room(listeners: int, workers: int) -> int:
    """The number of connections for which a parent with these listening sockets and workers has descriptors."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, descriptors - listeners - _FDS_PER_WORKER * workers - _SPARE_FDS)


def quotas(clients: Sequence[int], room: int) -> list[int]:
    """How many connections each worker may hand over, given how many each has; together at most `room`.

    The number of descriptors in the queue has the same limit, whichever process sends them (ETOOMANYREFS, unix(7)).  If
    there is more room than needed, each worker gets a part of it, for connections that it is still accepting.
    """
    total = sum(clients)
    if total > room:
        return [room * count // total for count in clients]
    return [count + (room - total) // len(clients) for count in clients]


def hand_over(queue: socket.socket, batch: Sequence[tuple[ConnectionState, int]]) -> bool:
    """Send at most `BATCH` connections, each as its state and its descriptor; the caller closes the descriptors.

    False if the queue has no room for them; then none of them was sent.
    """
    objects = json.dumps([encode(state) for state, _ in batch]).encode()
    try:
        with os.fdopen(os.memfd_create(STORED_AS, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb") as memory:
            memory.write(objects + b"\n")
            memory.writelines(state.pending for state, _ in batch)
            memory.flush()
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
            header = _HEADER.pack(_VERSION, len(batch))
            socket.send_fds(queue, [header], [memory.fileno(), *(fd for _, fd in batch)])
    except OSError:
        return False
    return True


def hand_over_all(queue: socket.socket, connections: list[Connection]) -> int:
    """Send these connections, the last ones first, while the queue has room; return how many were sent.

    The sent connections are closed here and removed from the list.
    """
    count = len(connections)
    while batch := connections[-BATCH:]:
        if not hand_over(queue, [(state, sock.fileno()) for sock, state in batch]):
            break
        del connections[-BATCH:]
        for sock, _ in batch:
            sock.close()
    return count - len(connections)


def take_over(fds: Iterable[int], now: float, *, restarts: int, room: int) -> TakenOver:
    """Take all connections from the queue whose ends are `fds`, and close the ends.  Raises no error for any content.

    Each connection counts `restarts` more.  Connections above `room` are reset, and count as lost.  A connection that
    is in the queue twice is taken once: if a worker dies right after it has sent a connection, the parent sends its
    copy of the connection too.
    """
    connections: list[Connection] = []
    forgotten = lost = 0
    cookies: set[int] = set()
    memories: set[int] = set()
    for data, received in _messages(fds):
        now = max(now, time.monotonic())  # The message may have been sent after `now`.
        count, written = _read(data, received, memories)
        lost += max(0, count - len(received) + 1)
        for fd, each in zip(received, written, strict=True):
            if (sock := adopt(fd)) is None:
                continue
            if (number := cookie(sock)) in cookies:
                sock.close()
                continue
            cookies.add(number)
            state = None
            if len(connections) < room:
                state = _decoded(sock, each, now) or _as_new(sock, now)
            if state is None:
                lost += 1
                reset_on_close(sock, resets=True)
                sock.close()
                continue
            forgotten += not state.name
            connections.append(Connection(sock, state._replace(restarts=state.restarts + restarts)))
    return TakenOver(connections, forgotten, lost)


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
            if queue.type != socket.SOCK_SEQPACKET:
                continue
            with contextlib.suppress(OSError):
                queue.shutdown(socket.SHUT_RD)  # A process that still has the other end cannot send without end.
            while True:
                left = tcpinfo.unread(queue.fileno())
                try:
                    data, received, _, _ = socket.recv_fds(queue, _HEADER.size, _FDS_MAX)
                except OSError:
                    break
                if not data and not received and not left:
                    break  # It is empty; an empty message looks the same, but others may follow that one.
                yield data, received


def _read(data: bytes, fds: Sequence[int], memories: set[int]) -> tuple[int, Sequence[_Written | None]]:
    """The number of connections according to a message's header, and for each descriptor its state, if known.

    States and descriptors are matched by their order alone, so if one is missing, none of the states is used.
    `memories` are the memfds of earlier messages, by their inodes.
    """
    unknown: Sequence[None] = [None] * len(fds)
    if len(data) != _HEADER.size or not fds:
        return 0, unknown
    version, count = _HEADER.unpack(data)
    if version != _VERSION:
        return 0, unknown
    try:
        written = _read_memfd(fds[0], memories)
    except (OSError, ValueError, RecursionError):  # another process may have written anything
        return count, unknown
    return count, [None, *written] if len(written) == count == len(fds) - 1 else unknown


def _read_memfd(fd: int, memories: set[int]) -> list[_Written]:
    """The contents of a memfd.  Raises OSError, ValueError or RecursionError if `hand_over` did not write it."""
    seals, status = fcntl.fcntl(fd, fcntl.F_GET_SEALS), os.fstat(fd)  # OSError: it is no memfd
    if seals & _SEALS != _SEALS or status.st_blocks * _BLOCK < status.st_size or status.st_ino in memories:
        raise ValueError(status)
    memories.add(status.st_ino)
    with os.fdopen(os.dup(fd), "rb") as memory:
        memory.seek(0)
        objects = json.loads(memory.readline(_LINE_MAX))
        if not isinstance(objects, list) or not all(isinstance(values, dict) for values in objects):
            raise ValueError(objects)
        lengths = [values.get("pending") for values in objects]
        if not all(isinstance(length, int) and 0 <= length <= _PENDING_MAX for length in lengths):
            raise ValueError(lengths)
        parts = [memory.read(length) for length in lengths]
        if [len(part) for part in parts] != lengths or memory.read(1):
            raise ValueError(lengths)
    return list(zip(objects, parts, strict=True))


def _decoded(sock: socket.socket, written: _Written | None, now: float) -> ConnectionState | None:
    if written is None:
        return None
    try:
        return decode(*written, sock.family, now)
    except ValueError:
        return None


def _as_new(sock: socket.socket, now: float) -> ConnectionState | None:
    """A new state for a connection whose state is lost; None unless the kernel's counters show that nothing is due."""
    try:
        return None if tcpinfo.owes(sock) else ConnectionState("", sock.getpeername(), now, now)
    except OSError:
        return None
