"""The turns of the servers: they alternate, so that other load on the machine affects all of them alike."""

import contextlib
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from tests.bench.cases import Case
from tests.bench.processes import Failed
from tests.bench.servers import Kind, Server, on_cpu

__all__ = ["Failed", "Round", "Slice", "log_file", "measure"]

PHASE_SECONDS = 5
"""Most seconds of a slice; after them the generator sends nothing new, and 10 s later it is killed."""

SETTLE = 2.2
"""Seconds from the last connection to the first slice: a connection that is one second old is copied to the parent."""

OF_PROCESSES = 8
"""The number by which the messages of a slice are divided for a slow server: one with a process per connection."""

SHARED_MEMORY = Path("/dev/shm")


class Slice(NamedTuple):
    """One slice of one server: CPU time in us of a unit, units per second, and the latency in us of a message."""

    cpu: float
    rate: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Round:
    """One server's part of one round."""

    slices: list[Slice]

    def median(self, field: str) -> float:
        """The median of a field of the slices."""
        return statistics.median(self._values(field))

    def ratio(self, field: str, other: "Round") -> float:
        """The median, over all turns, of this server's value divided by the other's."""
        pairs = zip(self._values(field), other._values(field), strict=True)
        return statistics.median(mine / its for mine, its in pairs)

    def _values(self, field: str) -> list[float]:
        place = Slice._fields.index(field)
        return [each[place] for each in self.slices]


class Load:
    """A load generator connected to one server.  Raises `Failed` when a byte comes back wrong, or not at all."""

    def __init__(self, program: str, server: Server, case: Case, cpu: int | None) -> None:
        self._server = server
        self._case = case
        fewer = max(case.connections, case.messages // OF_PROCESSES)
        self._messages = min(fewer, case.messages) if server.kind.forks else case.messages
        wait = "sleep" if cpu is None else "spin"
        # xinetd looks up the name of each client, and /etc/hosts has one for 127.0.0.1 only.
        sources = 1 if server.kind.forks else case.connections
        words = [server.port, case.connections, case.size, PHASE_SECONDS, case.mode, wait, sources]
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

    def run(self) -> Slice:
        """One slice: read the server's CPU clocks, send the messages, wait for the last echo, read the clocks."""
        alone = self._case.mode == "churn" and self._server.kind.forks
        pids = self._server.pids()
        before = self._server.cpu_ns(alone=alone)
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either, which is reported
            print(f"go {self._messages}", file=self._process.stdin, flush=True)
        done, elapsed, p50, p99 = map(int, self._expect("done"))
        used = self._server.cpu_ns(alone=alone) - before
        if not alone and self._server.pids() != pids:
            raise Failed(f"a process of {self._server.name} came or went in the middle: {self._server.last_words()}")
        units = done * self._case.units
        return Slice(used / units / 1e3, units / elapsed * 1e9, p50 / 1e3, p99 / 1e3)

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


def cpu_pair() -> tuple[int | None, int | None]:
    """The CPUs of the generator and of the servers, or twice None on a machine with one CPU."""
    cpus = sorted(os.sched_getaffinity(0))
    return (cpus[0], cpus[-1]) if len(cpus) > 1 else (None, None)


def log_file() -> contextlib.AbstractContextManager[IO[str]]:
    """A file for the output of a server, in memory where possible: a disk's file system would be measured as well."""
    directory = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    return tempfile.NamedTemporaryFile("w", prefix="echod-bench-", suffix=".log", dir=directory)


def measure(case: Case, rounds: int, slices: int, kinds: Sequence[Kind], generator: str) -> dict[str, list[Round]]:
    """Run all rounds of a case; returns each server's, by its name.

    In a round all servers run at once, and only the one whose slice it is has work.  Their order is drawn at random for
    each turn, from a fixed seed, so that no server always follows the same other one.
    """
    draw = random.Random(0)
    results: dict[str, list[Round]] = {kind.name: [] for kind in kinds}
    for _ in range(rounds):
        for name, each in _round(case, slices, kinds, generator, draw).items():
            results[name].append(each)
    return results


def _round(case: Case, slices: int, kinds: Sequence[Kind], generator: str, draw: random.Random) -> dict[str, Round]:
    load_cpu, server_cpu = cpu_pair()
    with contextlib.ExitStack() as stack:
        loads = {}
        settled = 0.0
        for kind in kinds:
            server = stack.enter_context(Server(kind, case.flags, server_cpu, stack.enter_context(log_file())))
            loads[kind.name] = stack.enter_context(Load(generator, server, case, load_cpu))
            if kind.is_echod:
                settled = time.monotonic() + SETTLE
        for load in loads.values():
            load.run()  # warm up: the interpreter specialises, the allocators fill
        time.sleep(max(0.0, settled - time.monotonic()))
        taken: dict[str, list[Slice]] = {name: [] for name in loads}
        order = list(loads)
        for _ in range(slices):
            draw.shuffle(order)
            for name in order:
                taken[name].append(loads[name].run())
        return {name: Round(each) for name, each in taken.items()}
