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
from typing import Protocol, TypeVar

from echod.net import tcpinfo

SLOW = 64 << 10
"""Bytes per second.  Faster connections are not part of the budget: the kernel sizes their queues by their speed."""


class Client(Protocol):
    """The part of a session that the budget needs."""

    @property
    def sock(self) -> socket.socket:
        """Its socket."""


C = TypeVar("C", bound=Client)


def over_budget(clients: Iterable[C], budget: int) -> list[C]:
    """The fewest of `clients` without which the others occupy at most `budget` bytes, largest first."""
    occupied = [(tcpinfo.kernel_memory(client.sock), client) for client in clients]
    excess = sum(memory for memory, _ in occupied) - budget
    chosen: list[C] = []
    if excess > 0:
        occupied.sort(key=itemgetter(0))
        while excess > 0:
            memory, client = occupied.pop()
            excess -= memory
            chosen.append(client)
    return chosen
