"""Send, receive and compare at the same time, on a connected socket.

Rules:
- Sending never waits for the echo, and receiving never for the input: no order in which a server reads and writes can
  stop the exchange.
- At most one chunk is read from the input before the socket accepts it.  A byte counts as sent, and as outstanding,
  when the kernel has accepted it; bytes received before that were not its echo.
- echoc waits for the server while bytes are outstanding or, after the half-close, until the server closes.  A slow
  input is not the server's fault and may take any time.
- Without a half-close the exchange ends when everything has come back; surplus bytes are found only if they have
  arrived by then.
- A connection that cannot be written to may still hold bytes to read: a failed send is reported when reading ends.
"""

import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress

from echod.client.compare import compare
from echod.client.errors import (
    WINDOW,
    BrokenConnectionError,
    LateError,
    ShortfallError,
    SilenceError,
    UntestableError,
    reason,
)
from echod.client.spool import Spool
from echod.client.transport import silence

_NEVER = float("inf")  # math.inf is in a module that takes a quarter of a millisecond to import
_CHUNK = 256 * 1024  # a gigabyte takes half as long as with 64 KiB; more gains nothing


class Terms:
    """How long an exchange waits, and how it ends.

    `timeout` is how many seconds the server may neither accept nor return a byte while any are outstanding, `deadline`
    the time (of time.monotonic()) by which all must be done.  Without `half_close` our side stays open, and the
    exchange ends with the last byte of the echo.
    """

    def __init__(self, timeout: float, deadline: float = _NEVER, half_close: bool = True) -> None:
        self.timeout, self.deadline, self.half_close = timeout, deadline, half_close


def exchange(
    connection: socket.socket,
    source: bytes | int,
    terms: Terms,
    on_sent: Callable[[memoryview], None],
    on_received: Callable[[bytes], None],
) -> int:
    """Send `source`, half-close, and compare what comes back until the server closes; return its number of bytes.

    `source` is the message itself, or a descriptor that is read until its end (and left open).  `on_sent` gets each
    chunk that the kernel has accepted, `on_received` each chunk received, before it is compared, so also a wrong one.
    `connection` is left open and non-blocking.

    Raises an EchoError at the first wrong, missing or surplus byte, and when the server exceeds the `terms`;
    UntestableError when the input cannot be read.
    """
    connection.setblocking(False)
    with closing(Spool()) as outstanding:
        run = _Exchange(connection, outstanding, terms, on_sent, on_received)
        run.start(source)
        while not run.ended:
            run.turn()
        return run.received


class _Exchange:
    def __init__(
        self,
        connection: socket.socket,
        outstanding: Spool,
        terms: Terms,
        on_sent: Callable[[memoryview], None],
        on_received: Callable[[bytes], None],
    ) -> None:
        self.received = 0
        self.ended = False
        self._connection = connection
        self._outstanding = outstanding
        self._terms = terms
        self._on_sent = on_sent
        self._on_received = on_received
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
        left = self._terms.deadline - now
        if left <= 0:
            raise LateError(self._sent, self.received, self._cause())
        if self._outstanding or self._pending or self._done_sending:
            left = min(left, self._progress + self._terms.timeout - now)
        ready = poll.poll(None if left == _NEVER else max(left, 0) * 1000)
        if not ready and time.monotonic() < self._terms.deadline:
            raise SilenceError(self._terms.timeout, self._sent, self.received, self._cause())
        return dict(ready)

    def _cause(self) -> str:
        return silence(self._connection, self._sent, self.received)

    def _read_input(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:  # another process that shares the input was faster
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
        if self._sent == 0 and self._has_greeting():
            self._receive()
        try:
            count = self._connection.send(self._pending)
        except BlockingIOError:
            return
        except OSError as error:
            self._stop_sending(error)
            return
        # Room found at once says nothing about the server, since either kernel may have had it; room that was waited
        # for was made by the server.
        if waited or not self._outstanding:
            self._progress = time.monotonic()
        accepted = self._pending[:count]
        self._on_sent(accepted)
        self._outstanding.append(accepted)
        self._sent += count
        self._pending = self._pending[count:]
        if not self._pending and self._input is None:
            self._finish_sending()

    def _has_greeting(self) -> bool:
        """Whether bytes have arrived; before the first send they cannot be an echo."""
        with suppress(OSError):  # nothing yet; or a reset, which the send will report
            return bool(self._connection.recv(1, socket.MSG_PEEK))
        return False

    def _finish_sending(self) -> None:
        self._done_sending = True
        self._progress = time.monotonic()
        if not self._terms.half_close:
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
        sent = self._outstanding.head(len(data) + WINDOW)
        if error_found := compare(data, self.received, sent, 0, len(self._outstanding)):
            raise error_found
        self._outstanding.discard(len(data))
        self.received += len(data)
        self._progress = time.monotonic()
        if self._done_sending and not self._terms.half_close:
            self._finish_receiving()

    def _finish_receiving(self) -> None:
        """Without a half-close: end with the last byte of the echo, after a look for surplus bytes."""
        if not self._outstanding and not self._send_failure:
            self.ended = True
            self._receive()

    def _end(self) -> None:
        if self._send_failure:
            raise BrokenConnectionError(self._send_failure, self._sent, self.received)
        if self._outstanding or not self._done_sending:
            raise ShortfallError(self._sent, self.received)
        self.ended = True
