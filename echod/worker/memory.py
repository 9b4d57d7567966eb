"""A budget for the kernel memory of connections whose clients do not read.

Such a client fills two queues in the kernel: the echo that it does not take, and what it sends meanwhile, because a
session reads only while nothing is pending.  The second queue may be as long as the window that the kernel has
announced (by tcp_rmem up to megabytes), and an announced window cannot be taken back: TCP_WINDOW_CLAMP only stops it
from growing.  Measured: 0.3 to 1.4 MB for a client.  Thousands of them would use up the memory that the kernel allows
for TCP on this machine, and then no connection gets any; so all of them together have a limit, not each.  The client
that occupies most is reset first: one that reads slowly, but sends no more than it reads, occupies little.
"""

import socket
from collections.abc import Iterable
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

from echod.net import tcpinfo

SLOW = 64 << 10
"""Bytes per second.  Faster connections are not part of the budget: the kernel sizes their queues by their speed."""


class Client(Protocol):
    """The part of a session that the budget needs."""

    counted: int
    """`bytes_echoed` at the last tick."""

    @property
    def sock(self) -> socket.socket:
        """Its socket."""

    @property
    def started(self) -> float:
        """When it was accepted, by the monotonic clock."""

    @property
    def bytes_echoed(self) -> int:
        """Bytes sent back so far."""


C = TypeVar("C", bound=Client)


class Budget(Generic[C]):
    """The slow clients of one worker, which ticks every `tick` seconds."""

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._empty: set[C] = set()
        """The clients that occupied nothing at the last tick: the kernel is not asked again until they send."""

    def excess(self, clients: Iterable[C], most: int, now: float) -> list[C]:
        """The fewest clients without which all slow ones occupy at most `most` bytes, largest first; call at a tick."""
        occupied: list[tuple[int, C]] = []
        empty: set[C] = set()
        for client in clients:
            echoed = client.bytes_echoed - client.counted
            if echoed >= SLOW * self._tick or now - client.started < self._tick:
                continue
            known = not echoed and client in self._empty
            if not known and (memory := tcpinfo.kernel_memory(client.sock)):
                occupied.append((memory, client))
            else:
                empty.add(client)
        self._empty = empty
        excess = sum(memory for memory, _ in occupied) - most
        chosen: list[C] = []
        if excess > 0:
            occupied.sort(key=itemgetter(0))
            while excess > 0:
                memory, client = occupied.pop()
                excess -= memory
                chosen.append(client)
        return chosen
