"""The parent's part in a restart: what its workers begin with, and what they leave to the next echod.

The parent has the connections of the echod before for as long as it takes to fork the workers that they are dealt out
to.  Their successors get none, for then the parent has them no more.
"""

import resource
from collections.abc import Sequence

from echod import handover
from echod.handover import Inherited
from echod.journal import Journal
from echod.slot import Slot
from echod.stats import Stats
from echod.systemd import Notifier

_FDS_PER_WORKER = 4
"""Descriptors that a parent has for each of its workers, and"""
_SPARE_FDS = 64
"""those that it has for whatever else, its listening sockets apart."""


def deal(connections: Sequence[Inherited], stats: Stats) -> list[list[Inherited]]:
    """What each worker begins with, as many as any other, and their places taken, whether there is room or not."""
    shares = [list(connections[number :: len(stats.rows)]) for number in range(len(stats.rows))]
    for row, share in zip(stats.rows, shares, strict=True):
        row.clients_now = len(share)
    return shares


class Succession:
    """Has the workers in `slots` begin with their `shares`, and in the end hand over what they have then.

    `listeners` is how many of its descriptors are listening sockets.
    """

    def __init__(
        self,
        shares: Sequence[list[Inherited]],
        slots: Sequence[Slot],
        notifier: Notifier,
        journal: Journal,
        stats: Stats,
        *,
        listeners: int,
    ) -> None:
        self._shares = shares
        self._slots = slots
        self._notifier = notifier
        self._journal = journal
        self._stats = stats
        self._spare = listeners + _FDS_PER_WORKER * len(slots) + _SPARE_FDS
        self._unfinished = False

    def share(self, number: int) -> list[Inherited]:
        """In the worker of that number: what it begins with.  The copies of what the others do are closed."""
        for slot in self._slots:
            if slot.number != number:
                self.release(slot.number)
        return self._shares[number]

    def release(self, number: int) -> None:
        """Close this process's copies of what a worker begins with, which has them now."""
        for sock, _ in self._shares[number]:
            sock.close()
        self._shares[number].clear()

    def begin(self) -> bool:
        """Have the workers hand over and end; False, and nothing is done but told, if the next echod can't get it."""
        queue = handover.open_queue(self._notifier)
        if queue is None:
            self._journal.handover_impossible(problem="systemd keeps no descriptors for this service")
            return False
        self._unfinished = True
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        quotas = handover.quotas([row.clients_now for row in self._stats.rows], descriptors - self._spare)
        with queue:
            for slot, quota in zip(self._slots, quotas, strict=True):
                slot.owes_answer = slot.order(handover.HAND_OVER + b"%d" % quota, [queue.fileno()])
        self.advance()
        return True

    def advance(self) -> None:
        """Tell what came of it, when every worker has done its part or is gone."""
        if self._unfinished and not any(slot.owes_answer for slot in self._slots):
            self._unfinished = False
            count = sum(row.handed_over for row in self._stats.rows)
            self._journal.handed_over(count=count, left=self._stats.clients_now())
