"""Connections that wait for a worker, and count as its clients meanwhile."""

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
    """For each worker that `counters` has a row for, the connections with which it is to start."""

    def __init__(self, counters: Counters, limits: Limits) -> None:
        self._rows = counters.rows
        self._limits = limits
        self._pending: list[list[Connection]] = [[] for _ in counters.rows]

    def add(self, worker: int, connections: Sequence[Connection]) -> None:
        """Let more connections wait for a worker that is not there yet, even above the limits."""
        self._pending[worker].extend(connections)
        self._rows[worker].clients_now += len(connections)
        self._count(worker, connections)

    def count_again(self) -> None:
        """Count the sources of all of them, in new tables."""
        for worker, connections in enumerate(self._pending):
            self._count(worker, connections)

    def take(self, worker: int) -> list[Connection]:
        """The connections of a worker that starts; they are its own from now on, and stay counted."""
        connections, self._pending[worker] = self._pending[worker], []
        return connections

    def hand_over(self, queue: socket.socket) -> None:
        """Send to the queue what still waits, as far as there is room."""
        for row, connections in zip(self._rows, self._pending, strict=True):
            count = handover.hand_over_all(queue, connections)
            row.add_handed_over(count)
            row.clients_now -= count

    def close_all(self, events: EventLog) -> None:
        """Close what still waits, and log it."""
        for connections in self._pending:
            while connections:
                copies.close_unowned(connections.pop(), events)

    def close(self) -> None:
        """In a worker: close the descriptors of the other workers' connections."""
        for connections in self._pending:
            for sock, _ in connections:
                sock.close()

    def _count(self, worker: int, connections: Sequence[Connection]) -> None:
        self._limits.count(worker, (address.source(sock.family, state.sockaddr) for sock, state in connections))
