"""What each worker of a crew is to begin with: connections that wait for it, and hold their places meanwhile."""

import socket
from collections.abc import Sequence

from echod.handover import copies
from echod.handover import queue as handover
from echod.handover.state import Connection
from echod.log.events import EventLog
from echod.net import address
from echod.shared.counters import Counters
from echod.shared.limits import Limits


class PendingConnections:
    """One for each of the workers whose counters are in `stats`."""

    def __init__(self, counters: Counters, limits: Limits) -> None:
        self._rows = counters.rows
        self._limits = limits
        self._shares: list[list[Connection]] = [[] for _ in counters.rows]

    def add(self, worker: int, connections: Sequence[Connection]) -> None:
        """Have more wait for a worker that is not there yet, whether there is room for them or not."""
        self._shares[worker].extend(connections)
        self._rows[worker].clients_now += len(connections)
        self._count(worker, connections)

    def count_again(self) -> None:
        """In new tables of sources."""
        for worker, share in enumerate(self._shares):
            self._count(worker, share)

    def take(self, worker: int) -> list[Connection]:
        """What the worker has from now on, with the places."""
        share, self._shares[worker] = self._shares[worker], []
        return share

    def pass_on(self, queue: socket.socket) -> None:
        """Send what still waits to the queue, as far as it fits."""
        for row, share in zip(self._rows, self._shares, strict=True):
            count = handover.hand_over_all(queue, share)
            row.add_handed_over(count)
            row.clients_now -= count

    def end(self, events: EventLog) -> None:
        """End what still waits, and tell it."""
        for share in self._shares:
            while share:
                copies.close_unowned(share.pop(), events)

    def close(self) -> None:
        """In a worker: give back what is others'."""
        for share in self._shares:
            for sock, _ in share:
                sock.close()

    def _count(self, worker: int, connections: Sequence[Connection]) -> None:
        self._limits.count(worker, (address.source(sock.family, state.sockaddr) for sock, state in connections))
