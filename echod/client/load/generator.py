"""One process of a load: its connections, from the first connect to the last echo, and its reports.

It gets orders from its parent over a socket that keeps packets apart, and sends reports there.  While it loads it never
waits for the parent: a report for which the socket has no room is kept and becomes part of the next; only the last one
waits.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

from echod.client.compare import Pattern
from echod.client.load.connection import Mode, StateCounts
from echod.client.load.loop import READ, Loop, clock
from echod.client.load.plan import Plan
from echod.client.load.tally import Tally

READY, WARM, INTERVAL, WAITING, RESULT = b"R", b"U", b"I", b"W", b"E"
"""The first byte of a report: every connection was tried; the tally of the warm-up; the number of an interval (4
bytes), the nanoseconds since the warm-up (8 bytes) and the tally of that interval, the last of which ends with the
load; how many echoes and how many connections are waited for (8 bytes each); the tally of what came back after the
load."""

GO, STOP, GIVE_UP = b"G", b"S", b"X"
"""The first byte of an order: begin at this time (8 bytes, nanoseconds of the monotonic clock); send nothing more; wait
no longer.

End of file, when the parent has died or needs nothing more, is the order to exit at once."""

_CONNECTING = 512
"""The most connections that a process opens at the same time: more would overflow the server's accept queue, and wait
a second for the retransmission (RFC 6298)."""

_WAITING_EVERY = 100_000_000
"""Nanoseconds between two reports of what this process waits for."""

_TICK = 20_000_000
"""Nanoseconds between two looks at the clock, which show whether this process was stopped."""

_GAP = 50_000_000
"""Nanoseconds: a process that is later than this was delayed by more than its usual work."""

_CHECKS = 10
"""How many times the connections are checked during one time-out."""


class Generator:
    """The connections `first`, `first` + `step` and so on of a `plan`, each of the class `mode`."""

    def __init__(self, plan: Plan, mode: Mode, pattern: Pattern, orders: socket.socket, first: int, step: int) -> None:
        self._plan, self._orders, self._first, self._step = plan, orders, first, step
        plan.origin = plan.origin.share(first, step)  # of this process's copy of the plan
        self._loop = Loop(precise=plan.rate is not None)
        self._counts = StateCounts()
        if plan.count is not None:
            self._counts.left = (plan.count - first + step - 1) // step  # a share of the count
        self._tally = Tally()
        self._connections = [
            mode(number, plan, pattern, self._loop, self._tally, self._counts)
            for number in range(first, plan.connections, step)
        ]
        self._running = False
        self._used = 0, 0  # the processor time, and the wait for a processor, when the load began
        self._tick = 0, 0  # the clock and the processor time when the last tick was due
        self._announced = 0  # messages due so far, of this process's connections
        self._interval = 0
        self._kept = b""  # the report of the last interval, if the socket had no room for it
        self._check = 0  # when the next check of the time-outs is due
        self._check_every = max(min(plan.times.timeout, plan.times.connect_timeout) // _CHECKS, 1_000_000)

    def run(self) -> None:
        """Load until everything has come back or was given up; raises OSError when the parent has died."""
        self._orders.setblocking(False)
        self._loop.watch(self._orders.fileno(), READ, self._on_order)
        self._check_at(clock() + self._check_every)
        self._connect()
        self._orders.send(READY)
        counts, connections = self._counts, len(self._connections)
        while counts.finished < connections:
            self._loop.turn()
            if counts.resting == connections:
                self._stop(clock())
        self._orders.setblocking(True)
        if self._kept:
            self._orders.send(self._kept)
        self._orders.send(RESULT + self._tally.packed())

    def _connect(self) -> None:
        for connection in self._connections:
            if connection.early:
                connection.open(clock())
            while self._counts.connecting >= _CONNECTING:
                self._loop.turn()
        while self._counts.connecting:
            self._loop.turn()

    def _on_order(self, events: int) -> None:
        order = self._orders.recv(64)
        if not order:
            os._exit(0)
        if order.startswith(GO):
            self._schedule(int.from_bytes(order.removeprefix(GO), "big"))
        else:
            # When all descriptors of this turn are served: some may be ready for the rest of a message.
            self._loop.call_at(clock(), self._stop if order.startswith(STOP) else self._give_up)

    def _schedule(self, begin: int) -> None:
        self._plan.begin = begin
        self._plan.measured = measured = begin + self._plan.times.warmup
        self._running = True
        times = self._plan.times
        self._loop.call_at(begin, self._begin)
        # Before an interval that ends at the same time, after which there would be one of length 0.
        self._loop.call_at(measured + times.duration, self._stop)
        self._loop.call_at(measured + times.interval, self._on_interval)
        if times.warmup:
            self._loop.call_at(measured, self._on_warm)

    def _begin(self, now: int) -> None:
        if not self._running:  # stopped before it began
            return
        self._used = time.process_time_ns(), _waited_for_processor()
        self._tick_at(now + _TICK)
        for connection in self._connections:
            connection.begin(now)
        if self._plan.rate is not None:
            self._announce_due(now)

    def _on_warm(self, now: int) -> None:
        """The warm-up is over: its messages and errors count, its times and rates do not."""
        if self._running:
            self._used = time.process_time_ns(), _waited_for_processor()
            self._forget_times()
            self._orders.send(WARM + self._tally.packed())  # the first report after READY, so there is room
            self._tally.clear()

    def _forget_times(self) -> None:
        self._tally.forget_times(with_connecting=not self._connections[0].early)

    def _announce_due(self, now: int) -> None:
        """Announce to the connections, which take turns, how many messages are due.

        All due messages are announced together: a process that cannot keep up and announced one at a time would never
        get to receive any.
        """
        if not self._running:
            return
        count = len(self._connections)
        due = self._due_by(min(now, self._plan.measured + self._plan.times.duration - 1))
        for message in range(self._announced, min(due, self._announced + count)):
            index = message % count
            self._connections[index].on_due((due - index + count - 1) // count, now)
        self._announced = due
        turn, index = divmod(due, count)
        message = self._first + index * self._step + turn * self._plan.connections
        self._loop.call_at(self._plan.due(message), self._announce_due)

    def _due_by(self, now: int) -> int:
        """How many messages of this process are due by `now`."""
        turns, rest = divmod(self._plan.due_by(now), self._plan.connections)
        return turns * len(self._connections) + max(-(-(rest - self._first) // self._step), 0)

    def _check_at(self, when: int) -> None:
        self._check = when
        self._loop.call_at(when, self._check_timeouts)

    def _check_timeouts(self, now: int) -> None:
        if now - self._check >= _GAP:  # echoes have waited for this process: it must serve them first
            self._check_at(now + _TICK)
            return
        for connection in self._connections:
            connection.check_timeouts(now)
        self._check_at(now + self._check_every)

    def _tick_at(self, when: int) -> None:
        self._tick = when, time.process_time_ns()
        self._loop.call_at(when, self._on_tick)

    def _on_tick(self, now: int) -> None:
        """Notice if this process neither ran nor waited: it was stopped, or another had its processor."""
        when, processor_time = self._tick
        gap = now - when - (time.process_time_ns() - processor_time)
        if self._running:
            self._tally.stopped += gap if gap >= _GAP else 0
            self._tick_at(now + _TICK)

    def _on_interval(self, now: int) -> None:
        if self._running:
            self._report(now)
            next_end = self._plan.measured + (self._interval + 1) * self._plan.times.interval
            self._loop.call_at(next_end, self._on_interval)

    def _stop(self, now: int) -> None:
        if not self._running:
            return
        times = self._plan.times
        if self._plan.rate is not None and now >= self._plan.measured + times.duration:
            self._announce_due(now)  # what was due in the last moment is sent in the last moment
        self._running = False
        if self._used[0]:
            self._tally.busy = time.process_time_ns() - self._used[0]
            self._tally.starved = _waited_for_processor() - self._used[1]
        # Without a processor for a while, it may have missed the ends of several intervals; this report covers them.
        over = min(now - self._plan.measured, times.duration)
        if over < 0:
            self._forget_times()
        self._interval = max(self._interval, -(-over // times.interval) - 1)
        if report := self._report(now):
            self._kept = report  # what comes back from now on must not be counted with it
            self._tally.clear()
        for connection in self._connections:
            connection.finish(now)
        self._loop.call_at(now + times.drain, lambda now: self._give_up(now, is_late=times.drain > 0))
        self._loop.call_at(now + _WAITING_EVERY, self._report_waiting)

    def _report_waiting(self, now: int) -> None:
        echoes = sum(connection.outstanding() for connection in self._connections)
        connections = len(self._connections) - self._counts.finished
        with suppress(BlockingIOError):
            self._orders.send(WAITING + echoes.to_bytes(8, "big") + connections.to_bytes(8, "big"))
        self._loop.call_at(now + _WAITING_EVERY, self._report_waiting)

    def _give_up(self, now: int, is_late: bool = False) -> None:
        self._stop(now)  # unless it has ended by itself
        for connection in self._connections:
            connection.give_up(is_late)

    def _report(self, now: int) -> bytes:
        """Report the tally since the last report; returns the report if the socket has no room for it."""
        self._interval += 1
        elapsed = max(now - self._plan.measured, 0)
        report = INTERVAL + self._interval.to_bytes(4, "big") + elapsed.to_bytes(8, "big") + self._tally.packed()
        try:
            self._orders.send(report)
        except BlockingIOError:
            return report
        self._tally.clear()
        return b""


def _waited_for_processor() -> int:
    """Nanoseconds for which this process was ready to run and had no processor; 0 if the kernel does not count them."""
    try:
        with open("/proc/self/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError):
        return 0
