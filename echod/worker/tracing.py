"""A socket that logs each chunk, at the level debug."""

import socket
from collections.abc import Callable

from echod.log.events import EventLog


class TracedSocket:
    """A socket that calls `before` and logs each chunk.  Used only at debug; the hot path uses the socket itself."""

    def __init__(self, sock: socket.socket, name: str, events: EventLog, before: Callable[[], None]) -> None:
        self._sock = sock
        self._name = name
        self._events = events
        self._before = before

    def recv_into(self, buffer: memoryview, /) -> int:
        """Like the socket's own method."""
        count = self._sock.recv_into(buffer)
        if count:
            self._before()
            self._events.chunk_received(connection=self._name, bytes=count, **self._events.show(buffer[:count]))
        return count

    def send(self, data: memoryview, /) -> int:
        """Like the socket's own method."""
        count = self._sock.send(data)
        self._events.chunk_sent(connection=self._name, bytes=count, **self._events.show(data[:count]))
        return count
