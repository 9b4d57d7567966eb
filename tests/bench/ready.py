"""What a server needs until it is ready: the CPU time, and the memory at that moment."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from tests.bench import processes
from tests.bench.measure import cpu_pair, log_file
from tests.bench.servers import Kind, Server

GOAL_SECONDS, GOAL_MIB = 0.19, 34


class Ready(NamedTuple):
    """CPU time in seconds and memory in MiB, of all processes; what they share counts once (PSS)."""

    seconds: float
    memory: float


def measure(kinds: Sequence[Kind], turns: int) -> dict[str, list[Ready]]:
    """Start each server that many times, after one start that compiles its modules and fills the page cache."""
    _, cpu = cpu_pair()
    draw = random.Random(0)
    order = list(kinds)
    found: dict[str, list[Ready]] = {kind.name: [] for kind in kinds}
    for turn in range(1 + turns):
        draw.shuffle(order)
        for kind in order:
            with log_file() as log, Server(kind, (), cpu, log) as server:
                ready = Ready(server.cpu_ns() / 1e9, processes.proportional_memory(server.pids()) / (1 << 20))
            if turn:
                found[kind.name].append(ready)
    return found
