"""A budget for the kernel memory of connections whose clients do not read.

Such a client fills two queues in the kernel: the echo that it does not take, and what it sends meanwhile, because a
session reads only while nothing is pending.  The second queue may be as long as the window that the kernel has
announced (by tcp_rmem up to megabytes), and an announced window cannot be taken back: TCP_WINDOW_CLAMP only stops it
from growing.  Measured: 0.8 to 2.1 MB for a client.  Thousands of them would use up the memory that the kernel allows
for TCP on this machine, and then no connection gets any; so all of them together have a limit, not each.  The client
that occupies most is reset first: one that reads slowly, but sends no more than it reads, occupies little.
"""

from operator import itemgetter
from typing import TypeVar

SLOW = 64 << 10
"""Bytes per second.  Faster connections are not part of the budget: the kernel sizes their queues by their speed."""

C = TypeVar("C")


def excess(occupied: list[tuple[int, C]], most: int) -> list[C]:
    """The fewest clients without which the others occupy at most `most` bytes, largest first."""
    left = sum(memory for memory, _ in occupied)
    chosen = []
    for memory, client in sorted(occupied, key=itemgetter(0), reverse=True):
        if left <= most:
            break
        left -= memory
        chosen.append(client)
    return chosen
