"""One process of a load: its share of the connections, from the first connect to the last echo.

It takes orders from its parent by a socket of packets, and sends reports there.  While it loads it never waits for the
parent: a report that the socket does not take is kept, and goes out as part of the next; the last waits for the end.
"""

from __future__ import annotations

import os
import socket

from echod.client.load.flow import Census, Mode
from echod.client.load.loop import READ, Loop, clock
from echod.client.load.plan import Plan
from echod.client.load.tally import Tally
from echod.client.pattern import Pattern

READY, INTERVAL, RESULT = b"R", b"I", b"E"
"""How a report begins: every connection was tried; a tally of an interval, of which the last ends with the load; the
tally of what came back after that."""

GO, STOP = b"G", b"S"
"""How an order begins: begin at this time (8 bytes, nanoseconds of the monotonic clock); begin nothing new.

End of file, because the parent is gone or has enough, is the order to leave at once."""

_CONNECTING = 512
"""Most connections that a process opens at once: more would overflow the server's queue, and wait a second to be sent
again (RFC 6298)."""

_LOOKS = 10
"""How many times in a time-out the connections are looked at."""


class Generator:
    """The connections `first`, `first` + `step` and so on of a `plan`, each a flow of `mode`."""

    def __init__(self, plan: Plan, mode: Mode, pattern: Pattern, orders: socket.socket, first: int, step: int) -> None:
        self._plan, self._orders, self._first, self._step = plan, orders, first, step
        self._loop = Loop(precise=plan.rate is not None)
        self._census = Census()
        self._tally = Tally()
        self._flows = [
            mode(number, plan, pattern, self._loop, self._tally, self._census)
            for number in range(first, plan.connections, step)
        ]
        self._running = False
        self._idle = 0  # what the loop had waited when the load began
        self._dealt = 0  # messages that were due so far, of this process's flows
        self._interval = 0
        self._kept = b""  # the report of the last interval, when the parent had no time for it
        self._look_every = max(min(plan.timeout, plan.connect_timeout) // _LOOKS, 1_000_000)

    def run(self) -> None:
        """Load until everything has come back or was given up; raises OSError when the parent is gone."""
        self._orders.setblocking(False)
        self._loop.watch(self._orders.fileno(), READ, self._on_order)
        self._loop.call_at(clock() + self._look_every, self._look)
        self._connect()
        self._orders.send(READY)
        while self._census.over < len(self._flows):
            self._loop.turn()
        self._orders.setblocking(True)
        if self._kept:
            self._orders.send(self._kept)
        self._orders.send(RESULT + self._tally.packed())

    def _connect(self) -> None:
        for flow in self._flows:
            if flow.early:
                flow.open(clock())
            while self._census.connecting >= _CONNECTING:
                self._loop.turn()
        while self._census.connecting:
            self._loop.turn()

    def _on_order(self, events: int) -> None:
        order = self._orders.recv(64)
        if not order:
            os._exit(0)
        if order.startswith(GO):
            self._begin(int.from_bytes(order.removeprefix(GO), "big"))
        elif self._running:
            self._stop(clock())

    def _begin(self, begin: int) -> None:
        self._plan.begin = begin
        self._running = True
        self._loop.call_at(begin, self._start)
        # The end comes before an interval that ends with it, after which there would be one of no length.
        self._loop.call_at(begin + self._plan.duration, self._stop)
        self._loop.call_at(begin + self._plan.interval, self._tick)

    def _start(self, now: int) -> None:
        if not self._running:  # stopped before it began
            return
        self._idle = self._loop.idle
        for flow in self._flows:
            flow.begin(now)
        if self._plan.rate is not None:
            self._deal(now)

    def _deal(self, now: int) -> None:
        """Tell the flows, which take turns, what is due, as much as it is: a process that can't keep up must not
        take one message at a time, or it would never come to receive any."""
        if not self._running:
            return
        count = len(self._flows)
        due = self._due_by(min(now, self._plan.begin + self._plan.duration - 1))
        for message in range(self._dealt, min(due, self._dealt + count)):
            index = message % count
            self._flows[index].owe((due - index + count - 1) // count, now)
        self._dealt = due
        turn, index = divmod(due, count)
        self._loop.call_at(self._plan.due(self._first + index * self._step + turn * self._plan.connections), self._deal)

    def _due_by(self, now: int) -> int:
        """How many messages of this process are due by then."""
        turns, rest = divmod(self._plan.due_by(now), self._plan.connections)
        return turns * len(self._flows) + max(-(-(rest - self._first) // self._step), 0)

    def _look(self, now: int) -> None:
        for flow in self._flows:
            flow.look(now)
        self._loop.call_at(now + self._look_every, self._look)

    def _tick(self, now: int) -> None:
        if self._running:
            self._report()
            self._loop.call_at(self._plan.begin + (self._interval + 1) * self._plan.interval, self._tick)

    def _stop(self, now: int) -> None:
        if not self._running:
            return
        if self._plan.rate is not None:
            self._deal(now)
        self._running = False
        self._tally.busy = max(now - self._plan.begin - (self._loop.idle - self._idle), 0)
        # Kept from its processor, it may have missed the ends of several intervals: this report is of them all.
        over = min(now - self._plan.begin, self._plan.duration)
        self._interval = max(self._interval, -(-over // self._plan.interval) - 1)
        if report := self._report():
            self._kept = report  # what comes back from now on must not be counted with it
            self._tally.clear()
        for flow in self._flows:
            flow.finish(now)
        # Who was silent all the time is found by a look before.
        self._loop.call_at(now + self._plan.timeout + 2 * self._look_every, self._give_up)

    def _give_up(self, now: int) -> None:
        for flow in self._flows:
            flow.give_up()

    def _report(self) -> bytes:
        """Report what was seen since the last report; returns the report if the socket has no room for it."""
        self._interval += 1
        report = INTERVAL + self._interval.to_bytes(4, "big") + self._tally.packed()
        try:
            self._orders.send(report)
        except BlockingIOError:
            return report
        self._tally.clear()
        return b""
