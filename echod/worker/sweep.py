"""One look at each connection of a worker in every round, for what no descriptor reports.

A round takes a quarter of the shortest time-out, and at most a tick.  It is spread over turns of the loop, so that a
worker with many connections pauses for none of them.  A connection on which nothing has happened costs no system call.
Rejected: a timer for each connection.  It took 230 bytes, and an idle worker with 10,000 connections woke for each.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import islice

from echod.net import tcpinfo
from echod.net.loop import Loop, Timer
from echod.shared.counters import WorkerCounters
from echod.shared.terms import ServiceTerms
from echod.worker.memory import SLOW, excess
from echod.worker.quiet import SILENCE
from echod.worker.session import Session

SLICE = 512
"""Most connections that are looked at in one turn of the loop."""
_LOOKS = 4
"""Looks within the shortest time-out.

A connection outlasts its time-out by at most a quarter of it, or nearly half if many others end in the middle of a
round: the next round has fewer parts, with longer pauses.
"""


class Sweep:
    """Looks at `sessions`, counts their bytes in `row`, and keeps the slow ones within `share` of the kernel's memory.

    `share` is the worker's part of the limit for all workers: 1 / their number.
    """

    def __init__(self, sessions: Mapping[int, Session], row: WorkerCounters, share: float, loop: Loop) -> None:
        self._sessions = sessions
        self._row = row
        self._share = share
        self._loop = loop
        self._round: Iterator[Session] = iter(())
        """The sessions to look at in the rest of this round, some of which may have ended since."""
        self._slices, self._left = 1, 0
        """The parts of this round, each in a turn of its own, and how many are left."""
        self._pause = 0.0
        """Seconds between two parts; a whole round takes `_interval`."""
        self._occupied: list[tuple[int, Session]] = []
        """Slow sessions, with the bytes that they occupy in the kernel, as far as found in this round."""
        self._timer: Timer | None = None

    def follow(self, terms: ServiceTerms, *, draining: bool) -> None:
        """Look by these terms from now on; while `draining`, often enough to notice that a client is quiet."""
        timeouts = terms.timeouts
        shortest = min(timeouts.idle, timeouts.stall, SILENCE if draining else math.inf)
        self._terms = terms
        self._interval = min(terms.tick, shortest / _LOOKS)
        self._most = int(terms.kernel_memory * self._share)
        # Not if it is due before that anyway: otherwise frequent reloads would postpone it for ever.
        if self._timer is None or self._interval < self._pause:
            self._pause_for(self._interval)

    def _pause_for(self, pause: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._pause = pause
        self._timer = self._loop.call_at_multiple(pause, self._on_timer)

    def _on_timer(self, now: float) -> None:
        if not self._left:
            sessions = list(self._sessions.values())
            self._round = iter(sessions)
            self._left = self._slices = max(1, -(-len(sessions) // SLICE))
        idle = self._terms.timeouts.idle
        for session in islice(self._round, SLICE):
            if not session.is_at_rest(now, idle):
                self._look(session, now)
            session.looked = now
        self._left -= 1
        if not self._left:
            self._free_memory()
        self._pause_for(self._interval / self._slices)

    def _free_memory(self) -> None:
        occupied, self._occupied = self._occupied, []
        if self._most and occupied:
            left = set(self._sessions.values())  # not those that have ended since they were looked at
            for session in excess([each for each in occupied if each[1] in left], self._most):
                session.abort("memory")

    def _look(self, session: Session, now: float) -> None:
        echoed = self.count(session)
        session.check(now, self._terms.timeouts)
        if session.is_at_rest(now, self._terms.timeouts.idle):
            return  # so its queues in the kernel are empty
        # Not by the interval: the machine may be busy, and older sessions that end make a session's turn come earlier.
        seconds = now - session.looked
        measured = seconds >= self._interval / 2 and now - session.started >= self._interval
        if self._most and measured and echoed < SLOW * seconds:
            self._occupied.append((tcpinfo.kernel_memory(session.sock), session))

    def count(self, session: Session) -> int:
        """Add the bytes echoed since the last call to the counters, and return their number.

        The session counts them itself, since a shared counter would cost time in every echo.
        """
        before, session.counted = session.counted, session.bytes_echoed
        echoed = session.counted - before
        self._row.bytes_echoed += echoed
        self._row.bytes_live += echoed
        return echoed
