"""The loads under which the servers are compared, and the figures that echod must reach."""

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """A load: a slice of it is `messages` messages of `size` bytes on `connections` connections.

    In the mode `stream` a message is sent and its echo read at the same time; in `churn` each message is a connection
    of its own (generator.c).  `flags` are for echod.  `goals` are the least ratios of the CPU time of each server in
    C to echod's.
    """

    name: str
    title: str
    connections: int
    size: int
    messages: int
    slices: int
    mode: str = "echo"
    flags: tuple[str, ...] = ()
    goals: tuple[tuple[str, float], ...] = ()
    throughput: float = 0.0
    """The least ratio of echod's throughput to C's; 0 if there is no goal."""
    p99: float = 0.0
    """The greatest ratio of echod's 99th percentile to C's; 0 if there is no goal."""
    echod_only: bool = False
    """Whether only echod and C take part: the other servers log nothing, so this case is another one to them."""

    @property
    def unit(self) -> str:
        """The thing of which CPU time and throughput are given."""
        return {"echo": "message", "stream": "MiB", "churn": "connection"}[self.mode]

    @property
    def rate(self) -> str:
        """The unit of throughput."""
        return "MiB/s" if self.mode == "stream" else f"{self.unit}s/s"

    @property
    def units(self) -> float:
        """The number of units in a message."""
        return self.size / MIB if self.mode == "stream" else 1.0

    @property
    def is_for_processes(self) -> bool:
        """Whether a server with a process for each connection can take part without thousands of processes."""
        return self.connections <= 64


def _many(connections: int, messages: int, slices: int, goal: float, p99: float = 0.0) -> Case:
    title = f"64 B x {connections:,}"
    return Case(f"64x{connections}", title, connections, 64, messages, slices, goals=(("c", goal),), p99=p99)


def _stream(connections: int, goal: float) -> Case:
    name = f"stream{connections}"
    title = f"stream, {connections} connection{'s' * (connections > 1)}"
    return Case(name, title, connections, 128 * MIB // connections, connections, 8, "stream", goals=(("c", goal),))


_CHURN = "connect, echo 64 B, close"

CASES = {
    case.name: case
    for case in (
        Case("64x64", "64 B x 64", 64, 64, 3000, 24, goals=(("c", 0.85),), throughput=0.87),
        Case("1Kx64", "1 KiB x 64", 64, KIB, 3000, 24, goals=(("c", 0.85),), throughput=0.87),
        _many(1000, 6000, 12, 0.80, p99=1.3),
        _many(3000, 12000, 8, 0.78),
        _many(5000, 15000, 6, 0.72),
        Case("100Kx16", "100 KiB x 16", 16, 100 * KIB, 500, 16, goals=(("c", 1.20), ("c256", 0.88)), throughput=1.15),
        _stream(1, 1.5),
        _stream(16, 1.05),
        Case(
            "churn",
            f"{_CHURN}, no events",
            64,
            64,
            500,
            16,
            "churn",
            ("--log-connections=false",),
            goals=(("c", 0.44),),
        ),
        Case("churn-events", f"{_CHURN}, events", 64, 64, 500, 16, "churn", goals=(("c", 0.30),), echod_only=True),
    )
}
"""By name, in the order in which they run."""
