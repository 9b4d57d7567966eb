"""What a connection of a load does in each mode.

In a closed loop the next message is sent when the previous one has come back.  While a server stalls it gets no
messages, so only a few show the stall.  In an open loop each message is due at a fixed time, and its latency is counted
from then: every message due during the stall has waited, as a real client would have.
"""

from __future__ import annotations

from echod.client.load.connection import CLOSED, CONNECTING, FINISH, HALF_CLOSED, OPEN, RUN, Connection
from echod.client.load.loop import WRITE, clock
from echod.client.load.transfer import PIECE

_ENDLESS = 1 << 62


class ClosedLoop(Connection):
    """One message at a time."""

    _began = 0  # when the message was sent

    def on_open(self, now: int) -> None:
        """Send the first message."""
        self._next(now)

    def on_progress(self, now: int) -> None:
        """Send the next message when this one is complete."""
        if self._received == self._goal:
            self._tally.messages += 1
            if self._began >= self._plan.measured:
                self._tally.latency.record(now - self._began)
            if self.order != FINISH:
                self._next(now)
                return
        if self.order == FINISH and self._received == self._sent:
            self.half_close(now)

    def outstanding(self) -> int:
        """At most one message."""
        return int(self._received < (self._sent if self.order == FINISH else self._goal))

    def _next(self, now: int) -> None:
        self._began = now
        self._goal += self._plan.size
        self.send()


class CountedLoop(ClosedLoop):
    """One message at a time, while any are left; a class of its own, since `ClosedLoop` need not count."""

    def on_backed_off(self, now: int) -> None:
        """Connect again, if there is a message left to send."""
        if self._counts.left:
            self.open(now)
        else:
            self.may_begin()  # rests

    def _next(self, now: int) -> None:
        if self.may_begin():
            super()._next(now)


class Scheduled(Connection):
    """A connection whose messages are due at fixed times; it counts them, and calculates when each was due."""

    _due = 0
    _begun = 0  # how many were begun on earlier connections

    def on_due(self, due: int, now: int) -> None:
        """Count the messages."""
        self._due = due

    def due_at(self, message: int) -> int:
        """When a message of this connection was due; its messages are numbered from 0."""
        return self._plan.due(self._number + message * self._plan.connections)

    def on_finished(self) -> None:
        """Messages that were due and not sent completely are neither lost nor outstanding."""
        self._tally.unsent += self._due - self._begun
        self._begun = self._due


class OpenLoop(Scheduled):
    """Messages when they are due, whether or not earlier ones have come back."""

    _complete = 0  # how many came back on this connection

    def on_due(self, due: int, now: int) -> None:
        """Send the messages, unless the kernel has no room even for earlier ones."""
        first = self._due
        super().on_due(due, now)
        if self.state == OPEN:
            if self._received == self._goal:
                self._progress = now
            self._goal += (due - first) * self._plan.size
            if not self._watched & WRITE and not self._send_failure:
                now = clock()  # after the messages of other connections
                for message in range(first, due):
                    self._tally.late.record(now - self.due_at(message))
                self.send()

    def on_open(self, now: int) -> None:
        """Send what has become due meanwhile."""
        self._goal = (self._due - self._begun) * self._plan.size
        if self._goal:
            self.send()

    def on_progress(self, now: int) -> None:
        """Count the messages that are now complete."""
        complete = self._received // self._plan.size
        for message in range(self._begun + self._complete, self._begun + complete):
            due = self.due_at(message)
            if due >= self._plan.measured:
                self._tally.latency.record(now - due)
        self._tally.messages += complete - self._complete
        self._complete = complete
        if self.order == FINISH and self._received == self._sent:
            self.half_close(now)

    def on_completed(self, now: int) -> None:
        """All messages begun here are complete."""
        self._begun += self._complete
        self._complete = 0

    def outstanding(self) -> int:
        """Messages that were begun and are not complete."""
        if self.order == FINISH and self._received == self._sent:
            return 0
        return -(-self._sent // self._plan.size) - self._complete

    def on_loss(self) -> None:
        """The messages that were not begun are sent on the next connection."""
        self._begun += self._complete + self.outstanding()
        self._complete = 0


class Stream(Connection):
    """As many bytes as the kernel accepts, in both directions at once, in pieces of the plan's size.

    One byte at a time is a mark; its round trip is timed and counted as a message.  The mark waits in every queue that
    the stream fills.
    """

    _mark = 0  # the number of bytes up to the mark, or 0
    _marked = 0  # when it was sent

    def on_open(self, now: int) -> None:
        """Send without end."""
        self._goal = _ENDLESS
        self._piece = min(self._plan.size, PIECE)
        self.send()

    def send(self) -> None:
        """Send a piece, and mark its last byte if no mark is outstanding."""
        began = self._sent
        super().send()
        if not self._mark and self._sent > began:
            self._mark, self._marked = self._sent, self._progress

    def on_progress(self, now: int) -> None:
        """Count the mark when it has come back."""
        if self._mark and self._received >= self._mark:
            self._tally.messages += 1
            if self._marked >= self._plan.measured:
                self._tally.latency.record(now - self._marked)
            self._mark = 0
        if self.order == FINISH and self._received == self._sent:
            self.half_close(now)

    def outstanding(self) -> int:
        """The mark; outstanding bytes are the difference of those sent and received."""
        return int(self._mark > 0)

    def on_loss(self) -> None:
        """The mark is lost."""
        self._mark = 0


class Churn(Scheduled):
    """A connection for each message: connect, echo, half-close, and wait for the server to close.

    The latency is the time of all this together.
    """

    early = False
    _from = 0  # when its latency began

    def begin(self, now: int) -> None:
        """In a closed loop, connect; otherwise wait until a message is due."""
        self.order = RUN
        self.on_backed_off(now)

    def on_due(self, due: int, now: int) -> None:
        """Connect, unless the previous connection is still in use."""
        super().on_due(due, now)
        if self.state == CLOSED:
            self._tally.late.record(clock() - self.due_at(self._begun))
            self.on_backed_off(now)

    def on_open(self, now: int) -> None:
        """Send the message."""
        self._goal = self._plan.size
        self.send()

    def on_progress(self, now: int) -> None:
        """Half-close when the message has come back."""
        if self._received == self._goal or (self.order == FINISH and self._received == self._sent):
            self.half_close(now)

    def on_completed(self, now: int) -> None:
        """Count the message, and continue with the next."""
        if self._received < self._goal:
            self._withdraw()
            return
        self._tally.messages += 1
        if self._from >= self._plan.measured:
            self._tally.latency.record(now - self._from)
        self.on_backed_off(now)

    def finish(self, now: int) -> None:
        """Send nothing more; a message for which there is no connection yet is not sent."""
        if self.state == CONNECTING:
            self._withdraw()
        super().finish(now)

    def outstanding(self) -> int:
        """The message, also if no connection could be made for it, until the server has closed its side."""
        return int(self.state in (CONNECTING, OPEN, HALF_CLOSED))

    def on_backed_off(self, now: int) -> None:
        """Connect for the next message, if one is due."""
        if self.order != RUN:
            return
        if self._plan.rate is None:
            if not self.may_begin():
                return
            self._from = now
            self._due += 1
        elif self._begun < self._due:
            self._from = self.due_at(self._begun)
        else:
            return
        self._begun += 1
        self.open(now)

    def _withdraw(self) -> None:
        """The end of the load has cut the message short."""
        self._begun -= 1
        if self._plan.rate is None:
            self._due -= 1
