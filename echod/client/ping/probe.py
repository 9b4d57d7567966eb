"""One message after another there and back, on a connected socket, in lock-step.

Rules:
- A message is sent when the echo of the one before is complete: its time is a round trip, not a queue's.
- Of the socket only what is owed is read.  What else comes stays in the kernel's buffer, and is found as soon as
  nothing is owed.
- Between messages the socket is watched, so that its end is noticed when it happens.
"""

from __future__ import annotations

import select
import socket
import sys
import time

from echod.client.faults import (
    WINDOW,
    BrokenConnectionError,
    ClosedError,
    MismatchError,
    OverdueError,
    ShortfallError,
    SurplusError,
    reason,
)

_MILLISECOND = 1_000_000
_CHUNK = 64 * 1024
_SEGS_IN = slice(140, 144)
"""Where in TCP_INFO the segments received are counted, since Linux 4.2 (tcpi_segs_in in linux/tcp.h)."""


class Probe:
    """A connection that is asked for echoes.  It owns `connection`: `close` closes it.

    `echoed` is how many bytes have come back.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.echoed = 0
        self._connection = connection
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            # Nagle's algorithm (RFC 896) would hold back the last part of a message until the rest is acknowledged.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def echo(self, message: bytes, timeout: float) -> int:
        """Send `message` and compare what comes back; return the nanoseconds until the last byte.

        Raises an EchoError when the whole is not back within `timeout` seconds, or something else comes back, or the
        connection ends.  Then it can't be used any more: nobody knows what its stream still holds.
        """
        began = time.perf_counter_ns()
        deadline = began + round(timeout * 1e9)
        sent = self._send(message, 0, 0)
        received = 0
        while received < len(message):
            wanted = select.POLLIN | (select.POLLOUT if sent < len(message) else 0)
            events = self._wait(wanted, deadline)
            if not events:
                raise OverdueError(timeout, len(message), received)
            if events & ~select.POLLOUT:
                received += self._receive(message, received, sent)
            elif events & select.POLLOUT:
                sent += self._send(message, sent, received)
        took = time.perf_counter_ns() - began
        self.echoed += received
        return took

    def watch(self, until: int) -> None:
        """Wait quietly until the time `until` (of perf_counter_ns), but look once at least.

        Raises an EchoError as soon as bytes come that nobody asked for, or the connection ends.
        """
        if not self._wait(select.POLLIN, until - _MILLISECOND):
            # poll(2) counts whole milliseconds.
            time.sleep(max(until - time.perf_counter_ns(), 0) / 1e9)
            if not self._wait(select.POLLIN, until):
                return
        try:
            data = self._connection.recv(_CHUNK)
        except OSError as error:
            raise BrokenConnectionError(reason(error), self.echoed, self.echoed) from error
        if not data:
            raise ClosedError(self.echoed)
        raise SurplusError(self.echoed, data)

    def segments(self) -> int | None:
        """How many TCP segments have come so far, those without data too; None where the kernel does not tell."""
        if self._connection.family == socket.AF_UNIX:
            return None
        info = self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SEGS_IN.stop)
        return int.from_bytes(info[_SEGS_IN], sys.byteorder) if len(info) == _SEGS_IN.stop else None

    def _wait(self, wanted: int, until: int) -> int:
        """What happened on the socket, or 0 when the time is over."""
        self._poll.modify(self._connection, wanted)
        left = max(until - time.perf_counter_ns(), 0)
        return sum(events for _, events in self._poll.poll(left / _MILLISECOND))

    def _send(self, message: bytes, sent: int, received: int) -> int:
        try:
            return self._connection.send(memoryview(message)[sent:])
        except BlockingIOError:
            return 0
        except OSError as error:
            raise BrokenConnectionError(reason(error), len(message), received) from error

    def _receive(self, message: bytes, received: int, sent: int) -> int:
        try:
            # Also where nothing is owed, there may be an end to see.
            data = self._connection.recv(min(sent - received, _CHUNK) or _CHUNK)
        except OSError as error:
            raise BrokenConnectionError(reason(error), len(message), received) from error
        if not data:
            raise ShortfallError(len(message), received)
        if received == sent:
            raise SurplusError(self.echoed + received, data)
        expected = message[received : received + len(data)]
        if data != expected:
            index = next(index for index, byte in enumerate(expected) if byte != data[index])
            wrong = received + index
            raise MismatchError(self.echoed + wrong, message[wrong : wrong + WINDOW], data[index:])
        return len(data)
