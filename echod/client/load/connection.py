"""One of a load's connections: it connects, echoes, closes, and after a failure connects again.

A connection that is refused, breaks, returns a wrong byte or is silent is counted, closed, and opened again after a
short back-off: a load continues whatever the server does, and counts the losses.  What a connection does in each mode
(modes.py) is in the methods that this class leaves empty.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from echod.client.compare import Pattern
from echod.client.errors import ClientError, ConnectError, EchoError, LateError, SilenceError, reason
from echod.client.load.loop import READ, WRITE, Loop, clock
from echod.client.load.plan import Plan
from echod.client.load.tally import Tally
from echod.client.load.transfer import Transfer
from echod.client.text import endpoint
from echod.client.transport import begin_connecting, connected_to_itself, failure_of, send_at_once, silence, statistics

_BACK_OFF = 100_000_000
"""Nanoseconds before a connection that failed is opened again: a server that is down is asked ten times a second."""

_QUEUE_FULL = 10_000_000
"""Nanoseconds between two attempts to connect to a unix socket whose accept queue is full; a non-blocking connect(2)
does not wait for room."""

_STRIDE = 4099
"""The distance of the connections in the pattern: the bytes of one are wrong on another."""

# The state of a connection.
CLOSED, CONNECTING, OPEN, HALF_CLOSED, BACKING_OFF, FINISHED = (
    "closed",
    "connecting",
    "open",
    "half-closed",
    "backing off",
    "finished",
)

# The order it has from the process: to connect only, to send, to wait for what is outstanding.
WAIT, RUN, FINISH = "wait", "run", "finish"


class StateCounts:
    """How many connections of a process are `connecting`, `finished`, or `resting` because no messages are left.

    `left` is how many messages may still be begun; it is negative without a limit.
    """

    def __init__(self) -> None:
        self.connecting = self.finished = self.resting = 0
        self.left = -1


class Connection(Transfer):
    """A connection of a load; `number` identifies it among the connections of all processes."""

    early = True
    """Whether it connects before the load begins."""

    def __init__(
        self, number: int, plan: Plan, pattern: Pattern, loop: Loop, tally: Tally, counts: StateCounts
    ) -> None:
        super().__init__(pattern, number * _STRIDE, plan.size, loop, tally)
        self.state, self.order = CLOSED, WAIT
        self._number = number
        self._plan = plan
        self._counts = counts
        self._since = 0  # when it began to connect
        self._is_resting = False

    # For modes to override.

    def on_open(self, now: int) -> None:
        """The connection is open; called while the load lasts."""

    def on_completed(self, now: int) -> None:
        """The server closed the connection after our half-close, and everything had come back."""

    def on_backed_off(self, now: int) -> None:
        """The back-off after a failure is over."""
        self.open(now)

    def outstanding(self) -> int:
        """How many messages were begun on this connection and have not come back.

        A message that the end of the load has cut short is not one of them once all that was sent of it is back.
        """
        return 0

    def on_loss(self) -> None:
        """The connection is lost, or could not be made, and with it what is outstanding."""

    def on_finished(self) -> None:
        """There will be no other connection: count the messages that were due and never sent."""

    # Called by the process.

    def open(self, now: int) -> None:
        """Begin to connect."""
        self._phase += self._sent
        self._sent = self._received = self._goal = 0
        self._send_failure = ""
        self._since = now
        self._enter(CONNECTING)
        self._connect(now)

    def begin(self, now: int) -> None:
        """Begin to send, at once or as soon as connected."""
        self.order = RUN
        if self.state == OPEN:
            self._progress = now
            self.on_open(now)

    def on_due(self, due: int, now: int) -> None:
        """In an open loop: `due` messages are due by now, including all earlier ones."""

    def finish(self, now: int) -> None:
        """Send nothing more, not even the rest of a message, and finish as soon as what was sent has come back."""
        self.order = FINISH
        if self.state == OPEN:
            if self._watched != READ:
                self._watch(READ)
            if self._received == self._sent:
                self.half_close(now)
        elif self.state != HALF_CLOSED:
            self._finish()

    def check_timeouts(self, now: int) -> None:
        """Fail if the server has exceeded a time-out; to be called at intervals."""
        times = self._plan.times
        if self.state == CONNECTING:
            if now - self._since >= times.connect_timeout:
                self._refuse("timed out")
        elif self.state in (OPEN, HALF_CLOSED) and self._is_outstanding() and now - self._progress >= times.timeout:
            self._fail(SilenceError(times.timeout / 1e9, self._sent, self._received, self._silence()))

    def give_up(self, is_late: bool) -> None:
        """Finish at once; if it `is_late`, a server that has returned everything should have closed its side by now."""
        if self.state == FINISHED:
            return
        if self.state in (OPEN, HALF_CLOSED):
            outstanding = self.outstanding()
            # Not a silence, which `check_timeouts` counts.
            error = LateError(self._sent, self._received, self._silence())
            if outstanding:
                self._tally.outstanding += outstanding
                self._tally.examples.setdefault(error.kind, (str(error), self._local()))
            elif is_late:
                self._count(error, "")
            self.on_loss()
        self._finish()

    def may_begin(self) -> bool:
        """Whether a message is left of the process's share; it is then taken, and otherwise this connection rests."""
        counts = self._counts
        if counts.left:
            counts.left -= 1
            return True
        if not self._is_resting:
            self._is_resting = True
            counts.resting += 1
        return False

    def half_close(self, now: int) -> None:
        """Close our side, and wait for the server to close its side."""
        assert self._socket is not None
        self._enter(HALF_CLOSED)
        self._progress = now
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._send_failure = reason(error)

    # Called by the transfer.

    def on_fault(self, error: EchoError, why: str) -> None:
        """Count the error, and connect again."""
        self._fail(error, why)

    def on_closed(self) -> None:
        """Continue with what the mode does next."""
        self._drop()
        self.on_completed(clock())
        if self.state == CLOSED and self.order == FINISH:
            self._finish()

    def _is_half_closed(self) -> bool:
        return self.state == HALF_CLOSED

    def _is_outstanding(self) -> bool:
        return self._received < self._goal or self.state == HALF_CLOSED

    # From state to state.

    def _connect(self, now: int) -> None:
        try:
            connection, code = begin_connecting(self._plan.address, self._plan.origin)
            self._socket = connection
            send_at_once(connection)
        except OSError as error:
            self._refuse(reason(error))
            return
        if code == errno.EAGAIN:  # the accept queue of a unix socket is full; TCP has EADDRNOTAVAIL for ports
            self._close()
            self._loop.call_at(now + _QUEUE_FULL, self._connect_again)
        elif code not in (0, errno.EINPROGRESS):
            self._refuse(failure_of(code))
        else:
            self._watched = WRITE
            self._loop.watch(connection.fileno(), WRITE, self._on_connected)

    def _connect_again(self, now: int) -> None:
        if self.state == CONNECTING and self._socket is None:
            self._connect(now)

    def _on_connected(self, events: int) -> None:
        assert self._socket is not None
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._refuse(failure_of(code))
            return
        if connected_to_itself(self._socket):
            self._refuse("no server listens there")
            return
        now = clock()
        self._tally.connections += 1
        self._tally.connecting.record(now - self._since)
        self._progress = now
        self._enter(OPEN)
        self._watch(READ)
        if self.order != WAIT:
            self.on_open(now)

    def _refuse(self, why: str) -> None:
        address = endpoint(self._plan.address)
        self._fail(ConnectError(address, [(address, why)], asked=True), why)

    def _fail(self, error: ClientError, why: str = "") -> None:
        self._count(error, why)
        self._tally.lost += self.outstanding()
        self._drop()
        self.on_loss()
        if self.order == FINISH:
            self._finish()
        else:
            self._enter(BACKING_OFF)
            self._loop.call_at(clock() + _BACK_OFF, self._on_back_off_over)

    def _silence(self) -> str:
        assert self._socket is not None
        return silence(self._socket, self._sent, self._received)

    def _count(self, error: ClientError, why: str) -> None:
        self._tally.count_error(error.kind, why, str(error), self._local())

    def _local(self) -> str:
        """Our end of the connection; "" if there is none."""
        return endpoint(self._socket.getsockname()) if self._socket and self.state in (OPEN, HALF_CLOSED) else ""

    def _on_back_off_over(self, now: int) -> None:
        if self.state == BACKING_OFF:
            self._enter(CLOSED)
            self.on_backed_off(now)

    def _finish(self) -> None:
        self._drop()
        self.on_finished()
        self._enter(FINISHED)

    def _drop(self) -> None:
        self._close()
        self._enter(CLOSED)

    def _close(self) -> None:
        if self._socket:
            if self._watched:
                self._loop.unwatch(self._socket.fileno())
                self._watched = 0
            if self.state in (OPEN, HALF_CLOSED) and (fields := statistics(self._socket)):
                self._tally.count_path(fields, self._socket.getsockname()[:2])
            self._socket.close()
            self._socket = None

    def _enter(self, state: str) -> None:
        self._counts.connecting += (state == CONNECTING) - (self.state == CONNECTING)
        self._counts.finished += (state == FINISHED) - (self.state == FINISHED)
        self.state = state


Mode = Callable[[int, Plan, Pattern, Loop, Tally, StateCounts], Connection]
"""A class of connections, with the constructor of Connection."""
