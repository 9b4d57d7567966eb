"""Thousands of connections on which nothing happens: the memory of each, and the CPU time of all."""

import contextlib
import time
from collections.abc import Sequence
from typing import NamedTuple

from tests.bench import processes
from tests.bench.cases import Case
from tests.bench.measure import Load, cpu_pair, log_file
from tests.bench.servers import Kind, Server

CONNECTIONS = 10_000
SECONDS = 15.0
"""A multiple of the second in which echod looks at each connection."""
SETTLE = 4.0
"""Seconds from the last echo to the measurement: echod's parent has a copy of each connection by then."""
GOAL_BYTES, GOAL_CORES = 1600, 0.005

_CASE = Case("", "", CONNECTIONS, 64, CONNECTIONS, 1, flags=(f"--limits-max-connections={CONNECTIONS + 1000}",))


class Idle(NamedTuple):
    """Memory of user space for one connection, in bytes, and CPU time per second, both of all processes."""

    memory: float
    cores: float


def measure(kinds: Sequence[Kind], generator: str, seconds: float = SECONDS) -> dict[str, Idle]:
    """Connect to all servers, echo a message on each connection, and measure them all at the same time.

    The memory is the difference of the proportional set sizes (PSS) with and without the connections.
    """
    load_cpu, server_cpu = cpu_pair()
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(Server(kind, _CASE.flags, server_cpu, stack.enter_context(log_file())))
            for kind in kinds
        ]
        # Once all of them run, because a page that they share, such as the interpreter's, counts in part for each.
        before = [processes.proportional_memory(server.pids()) for server in servers]
        for server in servers:
            stack.enter_context(Load(generator, server, _CASE, load_cpu)).run()
        time.sleep(SETTLE)
        began, cpu = time.monotonic_ns(), [server.cpu_ns() for server in servers]
        time.sleep(seconds)
        used = [server.cpu_ns() - earlier for server, earlier in zip(servers, cpu, strict=True)]
        elapsed = time.monotonic_ns() - began
        memory = [
            processes.proportional_memory(server.pids()) - earlier
            for server, earlier in zip(servers, before, strict=True)
        ]
    return {
        kind.name: Idle(size / CONNECTIONS, spent / elapsed)
        for kind, size, spent in zip(kinds, memory, used, strict=True)
    }
