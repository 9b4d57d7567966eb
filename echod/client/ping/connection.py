"""A connection on which messages are echoed one after another, and the server to which it is made again after a loss.

Rules:
- A message is sent when the echo of the previous one is complete: its time is a round trip, without a queue.
- Only outstanding bytes are read from the socket.  Surplus bytes stay in the kernel's buffer, and are found as soon as
  nothing is outstanding.
- Between messages the socket is watched, so that its end is noticed when it happens.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

from echod.client.compare import PERIOD, Pattern, compare
from echod.client.connect import NEVER, Observer, connect_to_any, resolve
from echod.client.errors import (
    BrokenConnectionError,
    ClosedError,
    EchoError,
    LostError,
    OverdueError,
    ShortfallError,
    SurplusError,
    reason,
)
from echod.client.target import Target
from echod.client.text import endpoint
from echod.client.transport import segments_received, send_at_once, silence, statistics

GONE = (LostError, OverdueError)
"""The errors of a connection that delivers nothing more.  After any other error it still exists."""

_MILLISECOND = 1_000_000
_CHUNK = 64 * 1024


class Server:
    """The echo server at `target`, over a connection that is made when it is needed.

    Each message of `size` bytes, which may be reduced, comes from another place of a pattern than the previous one, so
    that a stale or repeated echo is found.  `connect_timeout` and `timeout` are seconds, for each address and for each
    echo.  `asked` is whether the name was resolved, so that connecting has begun; `address` is the one connected to,
    `local` our end ("" for a unix socket), and `connecting` how many nanoseconds passed since the first attempt.  While
    an echo is outstanding, `on_waiting` is called every `reminder` seconds, with the time since sending.  `observe`
    makes an observer of each connect.
    """

    def __init__(
        self,
        target: Target,
        size: int,
        connect_timeout: float,
        timeout: float,
        observe: Callable[[], Observer] = Observer,
    ) -> None:
        self.asked = False
        self.address = self.local = ""
        self.connecting = 0
        self.size = size
        self.reminder = NEVER
        self.on_waiting: Callable[[float], None] = lambda seconds: None
        self._target, self._observe = target, observe
        self._connect_timeout, self._timeout = connect_timeout, timeout
        self._pattern = Pattern(size)
        self._offset = 0
        self._step = size if size % PERIOD else size + 1
        self._connection: Connection | None = None
        self._tcp: dict[str, float] | None = None

    def open(self, deadline: float = NEVER) -> None:
        """Resolve the name and connect by `deadline`, of time.monotonic(); raises ConnectError."""
        observer = self._observe()
        addresses = resolve(self._target, observer, deadline)
        self.asked = True
        connected = connect_to_any(addresses, self._target, self._connect_timeout, observer, deadline)
        self._connection = Connection(connected)
        self.address, self.local = observer.attempts[-1].address, self._connection.local
        self.connecting = round(observer.attempts[-1].total * 1e9)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection:
            self._tcp = self._connection.tcp()
            self._connection.close()
            self._connection = None

    def echo(self) -> int:
        """Send a message, after connecting if there is no connection; return how many nanoseconds its echo took.

        Raises ConnectError, and the errors of Connection.echo, after which the connection is closed.
        """
        if not self._connection:
            self.open()
        assert self._connection
        message = self._pattern.part(self._offset, self.size)
        self._offset += self._step
        try:
            return self._connection.echo(message, self._timeout, self.reminder, self.on_waiting)
        except EchoError:
            self.close()
            raise

    def watch(self, until: int) -> None:
        """Wait until the time `until` (of perf_counter_ns).

        Raises the errors of Connection.watch, after which the connection is closed.
        """
        if not self._connection:
            time.sleep(max(until - time.perf_counter_ns(), 0) / 1e9)  # no event can happen
            return
        try:
            self._connection.watch(until)
        except EchoError:
            self.close()
            raise

    def ends(self) -> dict[str, object]:
        """Both ends of the connection, or of the last one, in the form that `--json` prints."""
        return {"address": self.address or None, "local": self.local or None}

    def tcp(self) -> dict[str, float] | None:
        """What TCP knows about the connection, or knew about the last one (transport.statistics)."""
        return self._connection.tcp() if self._connection else self._tcp

    def segments(self) -> int | None:
        """How many TCP segments have arrived on this connection; None if that is unknown."""
        return self._connection.segments() if self._connection else None


class Connection:
    """Echoes messages over `connection`, which it owns: `close` closes it.

    `echoed` is how many bytes have come back, `local` the address of this end ("" for a unix socket, which has none).
    """

    def __init__(self, connection: socket.socket) -> None:
        self.echoed = 0
        self.local = "" if connection.family == socket.AF_UNIX else endpoint(connection.getsockname())
        self._connection = connection
        connection.setblocking(False)
        send_at_once(connection)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def echo(
        self,
        message: bytes,
        timeout: float,
        reminder: float = NEVER,
        on_waiting: Callable[[float], None] = lambda seconds: None,
    ) -> int:
        """Send `message` and compare what comes back; return the nanoseconds until the last byte.

        Until then `on_waiting` is called every `reminder` seconds, with the time since sending.
        Raises an EchoError when the echo is wrong, is not complete within `timeout` seconds, or the connection ends.
        After that the connection must not be used, since its stream may still hold parts of the echo.
        """
        if (
            not self.echoed
            and self._wait(select.POLLIN, 0) == select.POLLIN
            and (data := self._connection.recv(_CHUNK))
        ):
            raise SurplusError(0, data)  # the server speaks first
        began = time.perf_counter_ns()
        waited = reminder
        sent = self._send(message, 0, 0)
        received = 0
        while received < len(message):
            wanted = select.POLLIN | (select.POLLOUT if sent < len(message) else 0)
            events = self._wait(wanted, began + min(timeout, waited) * 1e9)
            if not events and waited < timeout:
                on_waiting(waited)
                waited += reminder
            elif not events:
                raise OverdueError(timeout, len(message), received, silence(self._connection, sent, received))
            elif events & ~select.POLLOUT:
                received += self._receive(message, received, sent)
            elif events & select.POLLOUT:
                sent += self._send(message, sent, received)
        took = time.perf_counter_ns() - began
        self.echoed += received
        return took

    def watch(self, until: int) -> None:
        """Wait until the time `until` (of perf_counter_ns) without sending anything; look at the socket at least once.

        Raises an EchoError as soon as surplus bytes arrive or the connection ends.
        """
        if not self._wait(select.POLLIN, until - _MILLISECOND):
            # poll(2) counts in whole milliseconds.
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

    def tcp(self) -> dict[str, float] | None:
        """What TCP knows about the path (transport.statistics)."""
        return statistics(self._connection)

    def segments(self) -> int | None:
        """How many TCP segments have arrived, including those without data; None if the kernel does not count them."""
        return segments_received(self._connection)

    def _wait(self, wanted: int, until: float) -> int:
        """The events on the socket, or 0 at the time `until`."""
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
            # Also where nothing is outstanding, to see the end of the connection.
            data = self._connection.recv(min(sent - received, _CHUNK) or _CHUNK)
        except OSError as error:
            raise BrokenConnectionError(reason(error), len(message), received) from error
        if not data:
            raise ShortfallError(len(message), received)
        if wrong := compare(data, self.echoed + received, message, received, sent - received):
            raise wrong
        return len(data)
