"""A queue of connections, and functions to put messages into it."""

import fcntl
import itertools
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from echod.handover import queue as handover
from echod.handover.queue import take_over
from echod.handover.state import ConnectionState, TakenOver, encode

VERSION = 1
NOW = time.monotonic()
HEADER = struct.pack("!HH", VERSION, 1)


class Queue:
    """A queue, and the clients of the connections in it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
        # This lets several descriptors of one connection stand for as many connections.
        cookies = itertools.count()
        self.monkeypatch.setattr(handover, "cookie", lambda sock: next(cookies))
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
        """Take over everything in the queue; the sockets are closed with the queue."""
        taken = take_over([self.reads.detach(), self.writes.detach()], time.monotonic(), restarts=1, room=1000)
        for sock, _ in taken.connections:
            self._stack.enter_context(sock)
        return taken


@contextmanager
def memory(contents: bytes, seals: int = handover._SEALS) -> Iterator[int]:
    """A memfd with these contents, sealed as in a message."""
    with open(os.memfd_create("test", os.MFD_ALLOW_SEALING), "wb", buffering=0) as file:
        file.write(contents)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
        yield file.fileno()


def as_json(sockaddr: Any, **changes: Any) -> dict[str, Any]:
    """The JSON object of a connection, with changes."""
    return encode(ConnectionState("1.1", sockaddr, NOW, NOW, 5, 1)) | changes


def contents(objects: Any, pending: bytes = b"") -> bytes:
    """The contents of a memfd."""
    return json.dumps(objects).encode() + b"\n" + pending
