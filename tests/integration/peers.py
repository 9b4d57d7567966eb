"""Clients of a daemon, of the tests' own making; none of them waits for longer than the deadline."""

import contextlib
import os
import selectors
import socket
import struct
import time
from collections.abc import Iterator, Mapping

from tests.integration.daemon import DEADLINE, Daemon, Event

_NO_LINGER = struct.pack("ii", 1, 0)
_MOST = 1 << 18


def connect(address: str, *, source: str = "", receive_buffer: int = 0) -> socket.socket:
    """A client of `address`, which is written as in the events.

    It comes from the address `source`; `receive_buffer`, in bytes, keeps the kernel from taking megabytes for a client
    that does not read.
    """
    family, target = _sockaddr(address)
    sock = socket.socket(family)
    try:
        sock.settimeout(DEADLINE)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            sock.bind((source, 0))
        sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return sock


def _sockaddr(address: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    if address.startswith("unix:"):
        return socket.AF_UNIX, address.removeprefix("unix:").replace("@", "\0", 1)
    host, _, port = address.rpartition(":")
    return socket.AF_INET6 if ":" in host else socket.AF_INET, (host.strip("[]"), int(port))


@contextlib.contextmanager
def clients(address: str, count: int, *, source: str = "") -> Iterator[list[socket.socket]]:
    """Connect `count` clients to `address`."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connect(address, source=source)) for _ in range(count)]


def exchange_all(talks: Mapping[socket.socket, bytes], *, half_close: bool = True) -> dict[socket.socket, bytes]:
    """Let every client send its bytes and read at the same time, and return what each has heard.

    Each ends its side when it has sent everything, and reads to the end; or, without `half_close`, reads as many bytes
    as it has sent.
    """
    unsent = {sock: memoryview(data) for sock, data in talks.items()}
    heard = {sock: bytearray() for sock in talks}
    wanted = {sock: -1 if half_close else len(data) for sock, data in talks.items()}
    with selectors.DefaultSelector() as selector:
        for sock in talks:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, sock)
        while selector.get_map():
            ready = selector.select(DEADLINE)
            assert ready, f"{len(selector.get_map())} clients wait in vain"
            for key, events in ready:
                sock = key.data
                if events & selectors.EVENT_WRITE:
                    unsent[sock] = unsent[sock][sock.send(unsent[sock][:_MOST]) :]
                    if not unsent[sock]:
                        selector.modify(sock, selectors.EVENT_READ, sock)
                        if half_close:
                            sock.shutdown(socket.SHUT_WR)
                if events & selectors.EVENT_READ:
                    data = sock.recv(_MOST)
                    heard[sock] += data
                    if not data or len(heard[sock]) == wanted[sock]:
                        selector.unregister(sock)
    for sock in talks:
        sock.settimeout(DEADLINE)
    return {sock: bytes(data) for sock, data in heard.items()}


def exchange(sock: socket.socket, data: bytes, *, half_close: bool = True) -> bytes:
    """The same for one client."""
    return exchange_all({sock: data}, half_close=half_close)[sock]


def echoes(address: str, data: bytes = b"hello", *, source: str = "") -> bool:
    """Whether a new client of `address` gets everything back, and then the end."""
    with connect(address, source=source) as sock:
        return exchange(sock, data) == data


def is_refused(address: str, *, source: str = "") -> bool:
    """Whether a new client is reset before it has got a byte or the end; it may notice that while it still connects."""
    try:
        with connect(address, source=source) as sock:
            sock.recv(1)
    except ConnectionResetError:
        return True
    return False


def send_until_blocked(sock: socket.socket, data: bytes) -> int:
    """Send as much of `data` as the kernel takes without waiting; how many bytes that is."""
    sent = 0
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while sent < len(data):
            sent += sock.send(data[sent : sent + _MOST])
    sock.settimeout(DEADLINE)
    return sent


def reset(sock: socket.socket) -> None:
    """Close with a reset, whatever is on its way."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    sock.close()


def name(sock: socket.socket) -> str:
    """What events call this client: its `peer`."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def about(daemon: Daemon, sock: socket.socket, event: str) -> Event:
    """Wait for the event of that name about this client."""
    peer = name(sock)
    return daemon.wait_for(event, where=lambda event: event["peer"] == peer)


def most_at_once(events: list[Event]) -> int:
    """The most clients that a daemon has served at once, by its events at the level debug."""
    now = most = 0
    for event in events:
        now += (event["event"] == "connection_accepted") - (event["event"] == "connection_closed")
        most = max(most, now)
    return most


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def wait_for_descriptors(pid: int, count: int) -> None:
    """Wait until the process has `count` descriptors."""
    deadline = time.monotonic() + DEADLINE
    while descriptors(pid) != count:
        assert time.monotonic() < deadline, f"{descriptors(pid)} descriptors, not {count}"
        os.sched_yield()
