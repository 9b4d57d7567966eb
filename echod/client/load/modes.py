"""What a load does with each of its connections: a flow for each mode.

In a closed loop the next message is sent when the one before has come back.  A server that stalls is then asked
nothing, so only few messages see the stall.  In an open loop messages are due at times that nothing shifts, and the
latency is counted from then on: whoever would have come during the stall has waited too.
"""

from __future__ import annotations

from echod.client.load.flow import CLOSED, FINISH, OPEN, RUN, Flow
from echod.client.load.loop import WRITE
from echod.client.load.wire import PIECE

_ENDLESS = 1 << 62


class ClosedLoop(Flow):
    """One message at a time."""

    _began = 0  # when the message was sent

    def on_open(self, now: int) -> None:
        """Send the first message."""
        if self.order == FINISH:
            self.half_close(now)
        else:
            self._next(now)

    def on_progress(self, now: int) -> None:
        """Send the next message when this one is complete."""
        if self._received == self._goal:
            self._tally.messages += 1
            self._tally.latency.record(now - self._began)
            if self.order == FINISH:
                self.half_close(now)
            else:
                self._next(now)

    def on_loss(self) -> None:
        """The message that was under way is lost."""
        self._tally.lost += self._received < self._goal

    def _next(self, now: int) -> None:
        self._began = now
        self._goal += self._plan.size
        self.send()


class OpenFlow(Flow):
    """A flow that is told when a message is due, and counts them: when each of them was due can be calculated."""

    _due = 0
    _begun = 0  # how many were begun on connections before this one

    def owe(self, due: int, now: int) -> None:
        """Count them."""
        self._due = due

    def due_at(self, message: int) -> int:
        """When a message of this flow was due; they are counted from 0."""
        return self._plan.due(self._number + message * self._plan.connections)

    def wants_more(self) -> bool:
        """Until nothing more will be due, and all that was due has been begun."""
        return self.order != FINISH or self._begun < self._due

    def on_over(self) -> None:
        """What was due and never begun is lost too."""
        self._tally.lost += self._due - self._begun
        self._begun = self._due


class OpenLoop(OpenFlow):
    """Messages when they are due, whether or not those before have come back."""

    _complete = 0  # how many came back on this connection

    def owe(self, due: int, now: int) -> None:
        """Send them, unless the kernel has no room even for what was due before."""
        more = due - self._due
        super().owe(due, now)
        if self.state == OPEN:
            if self._received == self._goal:
                self._heard = now
            self._goal += more * self._plan.size
            if not self._watched & WRITE and not self._send_failure:
                self.send()

    def on_open(self, now: int) -> None:
        """Send what became due in the meantime."""
        self._goal = (self._due - self._begun) * self._plan.size
        if self._goal:
            self.send()
        elif self.order == FINISH:
            self.half_close(now)

    def on_progress(self, now: int) -> None:
        """Count the messages that are complete with this."""
        complete = self._received // self._plan.size
        for message in range(self._begun + self._complete, self._begun + complete):
            self._tally.latency.record(now - self.due_at(message))
        self._tally.messages += complete - self._complete
        self._complete = complete
        if self.order == FINISH and self._received == self._goal:
            self.half_close(now)

    def on_end(self, now: int) -> None:
        """All that was begun here is complete."""
        self._begun += self._complete
        self._complete = 0

    def on_loss(self) -> None:
        """What was begun and is not complete is lost; the rest is for the next connection."""
        begun = -(-self._sent // self._plan.size)
        self._tally.lost += begun - self._complete
        self._begun += begun
        self._complete = 0


class Stream(Flow):
    """As many bytes as the kernel takes, both ways at once, in pieces of the plan's size.

    One byte at a time is a mark, whose way there and back is timed and counted as a message: it waits in every queue
    that the stream fills.
    """

    _mark = 0  # the number of bytes up to the mark, or 0
    _marked = 0  # when it was sent

    def on_open(self, now: int) -> None:
        """Send without end."""
        if self.order == FINISH:
            self.half_close(now)
        else:
            self._goal = _ENDLESS
            self._piece = min(self._plan.size, PIECE)
            self.send()

    def send(self) -> None:
        """Send a piece, and mark its end if no mark is under way."""
        began = self._sent
        super().send()
        if not self._mark and self._sent > began:
            self._mark, self._marked = self._sent, self._heard

    def finish(self, now: int) -> None:
        """Send no more."""
        self._goal = self._sent
        super().finish(now)

    def on_progress(self, now: int) -> None:
        """Count the mark when it has come back."""
        if self._mark and self._received >= self._mark:
            self._tally.messages += 1
            self._tally.latency.record(now - self._marked)
            self._mark = 0
        if self.order == FINISH and self._received == self._goal:
            self.half_close(now)

    def on_loss(self) -> None:
        """The mark is lost; the bytes are counted anyway."""
        self._tally.lost += self._mark > 0
        self._mark = 0


class Churn(OpenFlow):
    """A connection of its own for each message: connect, echo, half-close, and wait for the server's end.

    The latency is that of all this.
    """

    early = False
    _from = 0  # when its latency began

    def begin(self, now: int) -> None:
        """In a closed loop, begin; else wait until something is due."""
        self.order = RUN
        self.on_rested(now)

    def owe(self, due: int, now: int) -> None:
        """Connect, unless the connection before is not done with."""
        super().owe(due, now)
        if self.state == CLOSED:
            self.on_rested(now)

    def on_open(self, now: int) -> None:
        """Send the message."""
        self._goal = self._plan.size
        self.send()

    def on_progress(self, now: int) -> None:
        """Half-close when it has come back."""
        if self._received == self._goal:
            self.half_close(now)

    def on_end(self, now: int) -> None:
        """Count the message, and go on to the next."""
        self._tally.messages += 1
        self._tally.latency.record(now - self._from)
        self.on_rested(now)

    def on_loss(self) -> None:
        """The message is lost, for lack of a connection too."""
        self._tally.lost += 1

    def on_rested(self, now: int) -> None:
        """Connect for the next message, if it is time for one."""
        if self._plan.rate is None and self.order == RUN:
            self._from = now
            self._due += 1
        elif self._begun < self._due:
            self._from = self.due_at(self._begun)
        else:
            return
        self._begun += 1
        self.open(now)
