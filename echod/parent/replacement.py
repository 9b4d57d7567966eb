"""Replacing one worker pool by another in the same echod, when the number of workers or the addresses change.

All connections move from the old workers to the new through a queue, as at a restart (`handover.queue`); new
connections wait in the kernel's queues meanwhile.  Measured: 200 clients wait for 0.02 s, and 10,000 for 0.5 s.
Rejected: adding and removing single workers, and sending them listening sockets, because each would be a second
mechanism for what this one does.
"""

import socket
import time

from echod.handover import queue as handover
from echod.log.events import EventLog
from echod.parent.pool import WorkerPool


class Replacement:
    """Makes the `old` pool hand over its connections and end; then `complete` starts the `new` pool.

    Raises OSError if there is no descriptor for the queue, after it has closed the new pool.
    """

    def __init__(self, old: WorkerPool, new: WorkerPool, events: EventLog) -> None:
        try:
            self._reading, self._writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            new.close()
            raise
        self._old = old
        self._new = new
        self._events = events
        self._writing.setblocking(False)
        old.hand_over(self._writing.fileno())

    def complete(self) -> WorkerPool:
        """Start the new pool, and return it.  Call this once no worker of the old pool is left.

        The queue is not read earlier, because until then this process holds a copy of each connection.  The queue has
        room for 70,000 connections.
        """
        self._old.hand_over_pending(self._writing)
        now, room = time.monotonic(), self._new.room
        taken_over = handover.take_over([self._reading.detach()], now, restarts=0, room=room)
        if taken_over.forgotten or taken_over.lost:
            self._events.taken_over(
                count=len(taken_over.connections), forgotten=taken_over.forgotten, lost=taken_over.lost
            )
        before = self._old.counters.totals()
        self._old.close()
        self._writing.close()
        self._new.start(taken_over.connections, before)
        return self._new

    def close(self) -> None:
        """Close the queue, and the new pool, which has not started."""
        self._reading.close()
        self._writing.close()
        self._new.close()
