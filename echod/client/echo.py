"""Send, receive and compare at the same time, on a connected socket.

Rules:
- Sending never waits for the echo and receiving never for the input: no order in which a server reads and
  writes can stop the exchange.
- At most one chunk is read from the input ahead of what the socket takes.  A byte counts as sent, and is
  owed by the server, when the kernel has taken it; what comes before that was not its echo.
- The server is waited for while it owes bytes or, after our half-close, the end.  A slow input is not its
  fault and may take for ever.
- Where our side is to stay open, the exchange is over when all has come back; what the server sends beyond
  that is found only if it is there by then.
- A connection that can't be written to may still hold bytes to be read: a failed send is told when reading
  ends.
"""

import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import closing

from echod.client.backlog import Backlog
from echod.client.faults import (
    WINDOW,
    BrokenConnectionError,
    EchoError,
    LateError,
    MismatchError,
    ShortfallError,
    SilenceError,
    SurplusError,
    UntestableError,
    reason,
)

_NEVER = float("inf")  # math.inf, without a module that costs a quarter of a millisecond
_CHUNK = 256 * 1024  # a gigabyte takes half as long as by 64 KiB; more gains nothing


def exchange(
    connection: socket.socket,
    source: bytes | int,
    *,
    timeout: float,
    on_sent: Callable[[memoryview], None],
    on_received: Callable[[bytes], None],
    half_close: bool = True,
    deadline: float = _NEVER,
) -> int:
    """Send `source`, half-close, and compare what comes back until its end; return how many bytes that was.

    `source` is the message itself, or a descriptor that is read until its end (and left open).  `on_sent`
    sees each chunk that the kernel has taken, `on_received` each chunk that came before it is compared, the
    wrong one too.  Without `half_close` our side stays open, and the echo ends with its last byte.
    `connection` is left open and non-blocking.

    Raises an EchoError at the first byte that is wrong, missing or too many, when the server, while it owes
    something, neither takes nor returns a byte for `timeout` seconds, or when it is not done by `deadline`
    (of time.monotonic()); UntestableError when the input can't be read.
    """
    connection.setblocking(False)
    with closing(Backlog()) as owed:
        run = _Exchange(connection, owed, timeout, on_sent, on_received, half_close, deadline)
        run.start(source)
        while not run.ended:
            run.turn()
        return run.received


class _Exchange:
    def __init__(
        self,
        connection: socket.socket,
        owed: Backlog,
        timeout: float,
        on_sent: Callable[[memoryview], None],
        on_received: Callable[[bytes], None],
        half_close: bool,
        deadline: float,
    ) -> None:
        self.received = 0
        self.ended = False
        self._connection = connection
        self._owed = owed
        self._timeout = timeout
        self._on_sent = on_sent
        self._on_received = on_received
        self._half_close = half_close
        self._deadline = deadline
        self._input: int | None = None
        self._pending = memoryview(b"")
        self._sent = 0
        self._done_sending = False
        self._send_failure = ""
        self._progress = time.monotonic()

    def start(self, source: bytes | int) -> None:
        if isinstance(source, int):
            self._input = source
        else:
            self._offer(source)

    def turn(self) -> None:
        """Wait until something can be done, and do it once."""
        ready = self._wait()
        events = ready.get(self._connection.fileno(), 0)
        if self._input is not None and self._input in ready:
            self._read_input(self._input)
        elif events & select.POLLOUT:
            self._send(waited=True)
        if events & ~select.POLLOUT:
            self._receive()

    def _wait(self) -> dict[int, int]:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN | (select.POLLOUT if self._pending else 0))
        if self._input is not None and not self._pending:
            poll.register(self._input, select.POLLIN)
        now = time.monotonic()
        left = self._deadline - now
        if left <= 0:
            raise LateError(self._sent, self.received)
        if self._owed or self._pending or self._done_sending:
            left = min(left, self._progress + self._timeout - now)
        ready = poll.poll(None if left == _NEVER else max(left, 0) * 1000)
        if not ready and time.monotonic() < self._deadline:
            raise SilenceError(self._timeout, self._sent, self.received)
        return dict(ready)

    def _read_input(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:  # whoever shares it was faster
            return
        except OSError as error:
            raise UntestableError(f"cannot read the input: {reason(error)}") from error
        if not data:
            self._input = None
        self._offer(data)

    def _offer(self, data: bytes) -> None:
        if not data:
            self._finish_sending()
            return
        self._pending = memoryview(data)
        self._send(waited=False)

    def _send(self, waited: bool) -> None:
        try:
            count = self._connection.send(self._pending)
        except BlockingIOError:
            return
        except OSError as error:
            self._stop_sending(error)
            return
        # Room found at once says nothing about the server, its kernel or ours had some; room waited for is
        # the server's doing.
        if waited or not self._owed:
            self._progress = time.monotonic()
        taken = self._pending[:count]
        self._on_sent(taken)
        self._owed.append(taken)
        self._sent += count
        self._pending = self._pending[count:]
        if not self._pending and self._input is None:
            self._finish_sending()

    def _finish_sending(self) -> None:
        self._done_sending = True
        self._progress = time.monotonic()
        if not self._half_close:
            self._finish_receiving()
            return
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._stop_sending(error)

    def _stop_sending(self, error: OSError) -> None:
        self._send_failure = reason(error)
        self._pending = memoryview(b"")
        self._input = None
        self._done_sending = True

    def _receive(self) -> None:
        try:
            data = self._connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            raise BrokenConnectionError(reason(error), self._sent, self.received) from error
        if not data:
            self._end()
            return
        self._on_received(data)
        if not self._owed.begins_with(data):
            raise self._fault(self._owed.peek(len(data)), data)
        self._owed.discard(len(data))
        self.received += len(data)
        self._progress = time.monotonic()
        if self._done_sending and not self._half_close:
            self._finish_receiving()

    def _finish_receiving(self) -> None:
        """Where there is no end to wait for: end with the last byte, but not without a look at what follows it."""
        if not self._owed and not self._send_failure:
            self.ended = True
            self._receive()

    def _end(self) -> None:
        if self._send_failure:
            raise BrokenConnectionError(self._send_failure, self._sent, self.received)
        if self._owed or not self._done_sending:
            raise ShortfallError(self._sent, self.received)
        self.ended = True

    def _fault(self, expected: bytes, data: bytes) -> EchoError:
        for index, (sent, came) in enumerate(zip(expected, data, strict=False)):
            if sent != came:
                self._owed.discard(index)
                return MismatchError(self.received + index, self._owed.peek(WINDOW), data[index:])
        return SurplusError(self.received + len(expected), data[len(expected) :])
