"""One of a load's connections, with one life after the other: it connects, echoes, ends, or breaks.

A connection that is refused, breaks, returns a wrong byte or is silent is counted, closed, and after a short while
opened again: a load goes on whatever the server does, and counts what that costs.  What a mode does with a connection
(modes.py) is in the methods that this class leaves empty.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from echod.client.connect import connected_to_itself, open_socket
from echod.client.faults import ClientError, ConnectError, EchoError, LateError, SilenceError, reason
from echod.client.load.loop import READ, WRITE, Loop, clock
from echod.client.load.plan import Plan
from echod.client.load.tally import Tally
from echod.client.load.wire import Wire
from echod.client.pattern import Pattern
from echod.client.words import endpoint

_BACK_OFF = 100_000_000
"""Nanoseconds before a flow that failed connects again: a server that is down is asked ten times a second."""

_QUEUE_FULL = 10_000_000
"""Nanoseconds before a unix socket is tried again whose queue of connections is full, for which connect(2) would
wait if it might."""

_STRIDE = 4099
"""How far apart the flows are in the pattern: the bytes of one are wrong for another."""

# What a flow is doing.
CLOSED, CONNECTING, OPEN, ENDING, RESTING, OVER = "closed", "connecting", "open", "ending", "resting", "over"

# What is asked of it.
WAIT, RUN, FINISH = "wait", "run", "finish"


class Census:
    """How many flows of a process are `connecting`, and how many are `over`."""

    def __init__(self) -> None:
        self.connecting = self.over = 0


class Flow(Wire):
    """A connection of a load; `number` tells it from the others, over all processes."""

    early = True
    """Whether it connects before the load begins."""

    def __init__(self, number: int, plan: Plan, pattern: Pattern, loop: Loop, tally: Tally, census: Census) -> None:
        super().__init__(pattern, number * _STRIDE, plan.size, loop, tally)
        self.state, self.order = CLOSED, WAIT
        self._number = number
        self._plan = plan
        self._census = census
        self._since = 0  # when it began to connect

    # What modes do.

    def on_open(self, now: int) -> None:
        """The connection stands; called with `order` RUN or FINISH, or by `begin`."""

    def on_end(self, now: int) -> None:
        """The server ended the connection after we did, and everything had come back."""

    def on_rested(self, now: int) -> None:
        """After a failure enough time has passed to connect again."""
        self.open(now)

    def on_loss(self) -> None:
        """The connection is lost, or could not be made: count what that costs."""

    def on_over(self) -> None:
        """There will be no other connection: count what is still owed."""

    def wants_more(self) -> bool:
        """Whether there shall be another connection after this one, now or later."""
        return self.order != FINISH

    # What a process asks of it.

    def open(self, now: int) -> None:
        """Begin to connect."""
        self._phase += self._sent
        self._sent = self._received = self._goal = 0
        self._send_failure = ""
        self._since = now
        self._enter(CONNECTING)
        self._connect(now)

    def begin(self, now: int) -> None:
        """Do what the mode does, now or as soon as connected."""
        self.order = RUN
        if self.state == OPEN:
            self._heard = now
            self.on_open(now)

    def owe(self, due: int, now: int) -> None:
        """So many messages are due by now, those from before included; in an open loop."""

    def finish(self, now: int) -> None:
        """Begin nothing new, and be over as soon as everything has come back."""
        self.order = FINISH
        if self.state == OPEN and self._received == self._goal:
            self.half_close(now)
        elif self.state in (CLOSED, RESTING) and not self.wants_more():
            self._leave()

    def look(self, now: int) -> None:
        """See whether the server has taken too long; to be called now and then."""
        if self.state == CONNECTING:
            if now - self._since >= self._plan.connect_timeout:
                self._refuse("timed out")
        elif self.state in (OPEN, ENDING) and self._is_owed() and now - self._heard >= self._plan.timeout:
            self._fail(SilenceError(self._plan.timeout / 1e9, self._sent, self._received))

    def give_up(self) -> None:
        """Be over at once."""
        if self.state == OVER:
            return
        if self.state in (OPEN, ENDING):
            # Not silence, which is counted by `look`.
            self._count(LateError(self._sent, self._received), "")
        lost = self.state in (CONNECTING, OPEN, ENDING)
        self._drop()
        if lost:
            self.on_loss()
        self._leave()

    def half_close(self, now: int) -> None:
        """End our side, and expect the server to end its own."""
        assert self._socket is not None
        self._enter(ENDING)
        self._heard = now
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._send_failure = reason(error)

    # What its wire tells.

    def on_fault(self, error: EchoError, why: str) -> None:
        """Count it, and connect again."""
        self._fail(error, why)

    def on_all_returned(self) -> None:
        """Go on with what the mode does next."""
        self._drop()
        self.on_end(clock())
        if self.state == CLOSED and not self.wants_more():
            self._leave()

    def _is_half_closed(self) -> bool:
        return self.state == ENDING

    def _is_owed(self) -> bool:
        return self._received < self._goal or self.state == ENDING

    # Its lives.

    def _connect(self, now: int) -> None:
        plan = self._plan
        try:
            self._socket = connection = open_socket(plan.address, plan.source)
            connection.setblocking(False)
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = connection.connect_ex(plan.address)
        except OSError as error:
            self._refuse(reason(error))
            return
        if code == errno.EAGAIN:  # a unix socket's queue is full (unix(7)), for ports EADDRNOTAVAIL is told
            self._close()
            self._loop.call_at(now + _QUEUE_FULL, self._connect_again)
        elif code == errno.EADDRNOTAVAIL:
            self._refuse(f"no local port is left ({os.strerror(code)})")
        elif code not in (0, errno.EINPROGRESS):
            self._refuse(os.strerror(code))
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
            self._refuse(os.strerror(code))
            return
        if connected_to_itself(self._socket):
            self._refuse("nobody listens there")
            return
        now = clock()
        self._tally.connections += 1
        self._tally.connecting.record(now - self._since)
        self._heard = now
        self._enter(OPEN)
        self._watch(READ)
        if self.order != WAIT:
            self.on_open(now)

    def _refuse(self, why: str) -> None:
        address = endpoint(self._plan.address)
        self._fail(ConnectError(address, [(address, why)], asked=True), why)

    def _fail(self, error: ClientError, why: str = "") -> None:
        self._count(error, why)
        self._drop()
        self.on_loss()
        if self.wants_more():
            self._enter(RESTING)
            self._loop.call_at(clock() + _BACK_OFF, self._wake_up)
        else:
            self._leave()

    def _count(self, error: ClientError, why: str) -> None:
        self._tally.count_error(error.kind, why, str(error))

    def _wake_up(self, now: int) -> None:
        if self.state == RESTING:
            self._enter(CLOSED)
            self.on_rested(now)

    def _leave(self) -> None:
        self._drop()
        self.on_over()
        self._enter(OVER)

    def _drop(self) -> None:
        self._close()
        self._enter(CLOSED)

    def _close(self) -> None:
        if self._socket:
            if self._watched:
                self._loop.unwatch(self._socket.fileno())
                self._watched = 0
            self._socket.close()
            self._socket = None

    def _enter(self, state: str) -> None:
        self._census.connecting += (state == CONNECTING) - (self.state == CONNECTING)
        self._census.over += (state == OVER) - (self.state == OVER)
        self.state = state


Mode = Callable[[int, Plan, Pattern, Loop, Tally, Census], Flow]
"""A kind of flow, to be made with the arguments of Flow."""
