"""The memory and the descriptors that all workers of a pool have in common, made before the first of them is forked."""

from collections.abc import Sequence
from dataclasses import dataclass

from echod.shared.counters import Counters
from echod.shared.limits import Limits


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """What the workers of one pool share.

    `wakeups` has a descriptor for each worker, by its number (eventfd(2), non-blocking), which wakes that worker.
    """

    counters: Counters
    limits: Limits
    wakeups: Sequence[int]
