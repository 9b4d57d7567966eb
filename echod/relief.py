"""One crew takes over from another, in the same echod: where another number of workers is to serve, or elsewhere.

All connections go from the old workers to the new by way of a queue, as at a restart (`handover`); who connects
meanwhile waits in the kernel's.  Measured, that takes a tenth of a second.  Rejected: to add and to remove single
workers, and to send them sockets; that would be a second way for each of the things that can be done this way.
"""

import socket

from echod import handover
from echod.crew import Crew
from echod.journal import Journal


class Relief:
    """Has the `old` crew hand over and end; once it has, `complete` has the `new` one begin.

    Raises OSError if there is no descriptor for that, and then there is no new crew either.
    """

    def __init__(self, old: Crew, new: Crew, journal: Journal) -> None:
        self._old = old
        self._new = new
        self._journal = journal
        try:
            self._queue, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            new.close()
            raise
        with writing:
            writing.setblocking(False)
            old.hand_over(writing.fileno())

    def complete(self, now: float) -> Crew:
        """When nobody of the old crew is left: who serves from now on."""
        estate = handover.receive([self._queue.detach()], now, restarts=0)
        if estate.forgotten or estate.lost:
            self._journal.taken_over(count=len(estate.connections), forgotten=estate.forgotten, lost=estate.lost)
        connections, before = [*estate.connections, *self._old.heirless()], self._old.stats.totals()
        self._old.close()
        self._new.start(connections, before)
        return self._new

    def close(self) -> None:
        """Give back what the new crew was to have, which never comes."""
        self._queue.close()
        self._new.close()
