"""Connections that wait for a worker to start, and already count as its clients."""

import socket
from collections.abc import Sequence

from echod.handover import copies
from echod.handover import queue as handover
from echod.handover.state import Connection
from echod.log.events import EventLog
from echod.shared.counters import Counters
from echod.shared.limits import Limits


class PendingConnections:
    """For each worker, which has a row in `counters`, the connections that it will start with."""

    def __init__(self, counters: Counters, limits: Limits) -> None:
        self._rows = counters.rows
        self._limits = limits
        self._pending: list[list[Connection]] = [[] for _ in counters.rows]

    def add(self, worker: int, connections: Sequence[Connection]) -> None:
        """Add connections for a worker that has not started yet, even above the limits."""
        self._pending[worker].extend(connections)
        self._rows[worker].clients_now += len(connections)
        self._count(worker, connections)

    def count_again(self) -> None:
        """Count the sources of all of them, in new tables."""
        for worker, connections in enumerate(self._pending):
            self._count(worker, connections)

    def take(self, worker: int) -> list[Connection]:
        """The connections of a worker that starts; the worker owns them from now on, and they stay counted."""
        connections, self._pending[worker] = self._pending[worker], []
        return connections

    def hand_over(self, queue: socket.socket) -> None:
        """Send the waiting connections to the queue, as far as it has room."""
        for row, connections in zip(self._rows, self._pending, strict=True):
            count = handover.hand_over_all(queue, connections)
            row.handed_over += count
            row.clients_now -= count

    def close_all(self, events: EventLog) -> None:
        """Close the waiting connections, and log each."""
        for connections in self._pending:
            while connections:
                copies.close_unowned(connections.pop(), events)

    def close(self) -> None:
        """In a worker: close the descriptors of the other workers' connections."""
        for connections in self._pending:
            for sock, _ in connections:
                sock.close()

    def _count(self, worker: int, connections: Sequence[Connection]) -> None:
        self._limits.count(worker, (self._limits.source(state.sockaddr) for _, state in connections))
