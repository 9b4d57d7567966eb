"""One crew takes over from another, in the same echod: where another number of workers is to serve, or elsewhere.

All connections go from the old workers to the new by way of a queue, as at a restart (`handover`); who connects
meanwhile waits in the kernel's.  Measured, 200 clients wait for a fiftieth of a second, and 10,000 for half of one.
Rejected: to add and to remove single workers, and to send them sockets; that would be a second way for each of the
things that can be done this way.
"""

import socket
import time

from echod.handover import queue as handover
from echod.log.events import EventLog
from echod.parent.pool import WorkerPool


class Replacement:
    """Has the `old` crew hand over and end; once it has, `complete` has the `new` one begin.

    Raises OSError if there is no descriptor for that, and then there is no new crew either.
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
        """When nobody of the old crew is left: who serves from now on.

        Not before that is the queue read, for until then this process has a copy of each connection.  It holds 70,000.
        """
        self._old.bequeath(self._writing)
        now, room = time.monotonic(), self._new.room
        taken = handover.take_over([self._reading.detach()], now, restarts=0, room=room)
        if taken.forgotten or taken.lost:
            self._events.taken_over(count=len(taken.connections), forgotten=taken.forgotten, lost=taken.lost)
        before = self._old.counters.totals()
        self._old.close()
        self._writing.close()
        self._new.start(taken.connections, before)
        return self._new

    def close(self) -> None:
        """Give back what the new crew was to have, which never comes."""
        self._reading.close()
        self._writing.close()
        self._new.close()
