"""The memory and the descriptors that all workers of a pool share, created before the first worker is forked."""

from collections.abc import Sequence
from dataclasses import dataclass

from echod.shared.counters import Counters
from echod.shared.limits import Limits


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """Everything that the workers of one pool share.

    `wakeups[n]` is the descriptor (eventfd(2), non-blocking) that wakes worker n.
    """

    counters: Counters
    limits: Limits
    wakeups: Sequence[int]
