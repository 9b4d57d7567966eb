"""The turns of the servers: they alternate, so that other load on the machine affects all of them alike."""

import contextlib
import os
import random
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.bench.servers import Failed, Kind, Server, on_cpu

__all__ = ["Case", "Failed", "Plan", "Round", "measure"]

PHASE_SECONDS = 5
"""Most seconds of a slice; after them the generator sends nothing new, and 10 s later it is killed."""


@dataclass(frozen=True, slots=True)
class Case:
    """The load: messages of `size` bytes, on permanent connections or each on a connection of its own."""

    size: int
    churn: bool = False

    def __str__(self) -> str:
        size = f"{self.size // 1024} KiB" if self.size % 1024 == 0 else f"{self.size} B"
        return f"connect, echo {size}, close" if self.churn else size


@dataclass(frozen=True, slots=True)
class Plan:
    """The number of measurements: in each round every server is restarted and has `slices` turns."""

    connections: int
    rounds: int
    slices: int

    def describe(self) -> str:
        """The plan in words."""
        return (
            f"CPU time per message of all of a server's processes, {self.connections} connections, "
            f"{self.rounds} rounds of {self.slices} slices"
        )

    def messages(self, case: Case) -> int:
        """The number of messages in a slice: about 15 ms, so that the machine's load stays the same in a turn."""
        return max(4 * self.connections, 300 if case.churn else 3000 // (1 + case.size // 4096))


@dataclass(frozen=True, slots=True)
class Round:
    """One server's part of one round: microseconds per message, a figure for each slice."""

    slices: list[float]

    @property
    def median(self) -> float:
        """Microseconds per message."""
        return statistics.median(self.slices)

    def ratio(self, other: "Round") -> float:
        """The median, over all slices, of the cost of this server's message divided by that of the other's."""
        return statistics.median(mine / its for mine, its in zip(self.slices, other.slices, strict=True))


class Load:
    """A load generator connected to one server.  Raises `Failed` when a byte comes back wrong, or not at all."""

    def __init__(self, program: str, server: Server, case: Case, connections: int, cpu: int | None) -> None:
        self._server = server
        mode, wait = ("churn" if case.churn else "echo"), ("sleep" if cpu is None else "spin")
        words = [server.port, connections, case.size, PHASE_SECONDS, mode, wait]
        with on_cpu(cpu):
            self._process = subprocess.Popen(
                [program, *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        try:
            self._expect("ready")
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, messages: int) -> float:
        """Send that many messages; returns the server's CPU time for one, in microseconds."""
        pids = self._server.pids()
        before = self._server.cpu_ns()
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either, which is reported
            print(f"go {messages}", file=self._process.stdin, flush=True)
        (done,) = self._expect("done")
        used = self._server.cpu_ns() - before
        if self._server.pids() != pids:
            raise Failed(f"a process of {self._server.name} came or went in the middle: {self._server.last_words()}")
        return used / int(done) / 1000

    def stop(self) -> None:
        """End it; it is idle, or broken."""
        self._process.kill()
        self._process.communicate()

    def _expect(self, word: str) -> list[str]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        found, *rest = self._process.stdout.readline().split() or [""]
        if found != word:
            status = self._process.wait()
            reason = self._process.stderr.read().strip() or f"the generator ended with {status}"
            raise Failed(f"against {self._server.name}: {reason}; its last words: {self._server.last_words()}")
        return rest


def measure(case: Case, plan: Plan, kinds: Sequence[Kind], generator: str) -> dict[str, list[Round]]:
    """Run all rounds of a case; returns each server's, by its name.

    In a round all servers run at once, and only the one whose slice it is has work.  Their order is drawn at random for
    each turn, from a fixed seed, so that no server always follows the same other one.
    """
    cpus = sorted(os.sched_getaffinity(0))
    load_cpu, server_cpu = (cpus[0], cpus[-1]) if len(cpus) > 1 else (None, None)
    messages = plan.messages(case)
    order = [kind.name for kind in kinds]
    draw = random.Random(0)
    results: dict[str, list[Round]] = {name: [] for name in order}
    for _ in range(plan.rounds):
        with contextlib.ExitStack() as stack:
            loads = {}
            for kind in kinds:
                log = stack.enter_context(tempfile.NamedTemporaryFile("w", prefix="echod-bench-", suffix=".log"))
                server = stack.enter_context(Server(kind, server_cpu, log))
                loads[kind.name] = stack.enter_context(Load(generator, server, case, plan.connections, load_cpu))
            for load in loads.values():
                load.run(messages)  # warm up: the interpreter specialises, the allocators fill
            slices: dict[str, list[float]] = {name: [] for name in loads}
            for _ in range(plan.slices):
                draw.shuffle(order)
                for name in order:
                    slices[name].append(loads[name].run(messages))
        for name, figures in slices.items():
            results[name].append(Round(figures))
    return results
