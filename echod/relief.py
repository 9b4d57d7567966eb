"""One crew takes over from another, in the same echod: where another number of workers is to serve, or elsewhere.

All connections go from the old workers to the new by way of a queue, as at a restart (`handover`); who connects
meanwhile waits in the kernel's.  Measured, 200 clients wait for a fiftieth of a second, and 10,000 for half of one.
Rejected: to add and to remove single workers, and to send them sockets; that would be a second way for each of the
things that can be done this way.
"""

import os
import socket

from echod import handover
from echod.crew import Crew
from echod.handover import Estate, Inherited
from echod.journal import Journal
from echod.loop import READ, Loop


class Relief:
    """Has the `old` crew hand over and end; once it has, `complete` has the `new` one begin.

    Raises OSError if there is no descriptor for that, and then there is no new crew either.
    """

    def __init__(self, old: Crew, new: Crew, loop: Loop, journal: Journal) -> None:
        try:
            self._reading, self._writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            new.close()
            raise
        self._old = old
        self._new = new
        self._loop = loop
        self._journal = journal
        self._connections: list[Inherited] = []
        self._forgotten = self._lost = 0
        self._known: set[int] = set()
        self._writing.setblocking(False)
        loop.watch(self._reading.fileno(), READ, self._receive)
        old.hand_over(self._writing.fileno())

    def complete(self) -> Crew:
        """When nobody of the old crew is left: who serves from now on."""
        self._old.bequeath(self._writing)
        self._receive()
        if self._forgotten or self._lost:
            count = len(self._connections)
            self._journal.taken_over(count=count, forgotten=self._forgotten, lost=self._lost)
        before = self._old.stats.totals()
        self._old.close()
        self._hang_up()
        self._new.start(self._connections, before)
        return self._new

    def close(self) -> None:
        """Give back what the new crew was to have, which never comes."""
        self._hang_up()
        for sock, _ in self._connections:
            sock.close()
        self._new.close()

    def _receive(self) -> None:
        """Make room in the queue: connections are more than it may hold."""
        now, room = self._loop.now, self._new.room - len(self._connections)
        estate = handover.receive([os.dup(self._reading.fileno())], now, restarts=0, room=room, known=self._known)
        self._take(estate)

    def _take(self, estate: Estate) -> None:
        self._connections += estate.connections
        self._forgotten += estate.forgotten
        self._lost += estate.lost

    def _hang_up(self) -> None:
        self._loop.unwatch(self._reading.fileno())
        self._reading.close()
        self._writing.close()
