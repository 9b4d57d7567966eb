"""What a server holds for a client that sends and does not read: without back-pressure, everything."""

import socket
from collections.abc import Sequence

from tests.bench import processes
from tests.bench.measure import cpu_pair, log_file
from tests.bench.servers import Kind, Server

MIB = 1 << 20
SENT = 64
"""MiB that the client offers."""
BOUND = 16
"""MiB: a server that holds more has no back-pressure, and is marked in every table."""
QUIET = 1.0
"""Seconds for a MiB, after which the server is taken to read no more."""


def measure(kinds: Sequence[Kind]) -> dict[str, float]:
    """By how many MiB each server's memory grows at its peak."""
    _, cpu = cpu_pair()
    held = {}
    for kind in kinds:
        with log_file() as log, Server(kind, (), cpu, log) as server:
            held[kind.name] = _hold(server)
    return held


def _hold(server: Server) -> float:
    before = processes.peak_memory(server.pids())
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.settimeout(QUIET)
        try:
            for _ in range(SENT):
                sock.sendall(bytes(MIB))
        except TimeoutError:
            pass
        return (processes.peak_memory(server.pids()) - before) / MIB


def render(held: dict[str, float]) -> str:
    """The figures in a sentence."""
    figures = ", ".join(f"{name} {mib:.1f} MiB" for name, mib in held.items())
    return f"memory held for a client that sends {SENT} MiB and reads nothing (* above {BOUND} MiB): {figures}"
