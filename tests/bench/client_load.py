"""The load that `echoc load` generates, compared with that of the generator in C, on the same server."""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.processes import Failed
from tests.bench.servers import ROOT, Server, echod_in, on_cpu

GOAL = 0.5
"""The goal: the least fraction of the C generator's messages per second that echoc must reach."""

SIZE = 64
SECONDS = 1.0
_ECHOC = (sys.executable, "-c", "import sys; from echod.client.cli import main; sys.exit(main())")


def compare(generator: str, connections: int, rounds: int, cpus: tuple[int | None, int | None]) -> list[float]:
    """For each round, the rate of `echoc load` as a share of the generator's; they take turns at one echod.

    Of `cpus` the first is the clients', the second the server's.  Raises Failed.
    """
    client_cpu, server_cpu = cpus
    with (
        tempfile.NamedTemporaryFile("w", prefix="echod-bench-", suffix=".log") as log,
        Server(echod_in(ROOT), (), server_cpu, log) as server,
    ):
        shares = []
        for _ in range(rounds):
            with on_cpu(client_cpu):
                in_c = _generator_rate(generator, server.port, connections)
                shares.append(_echoc_rate(server.port, connections) / in_c)
    return shares


def report(shares: list[float]) -> str:
    """The comparison as a sentence."""
    return (
        f"echoc load, closed loop, {SIZE} B: {statistics.median(shares):.2f} of the generator's messages a second "
        f"[{min(shares):.2f} {max(shares):.2f}]; the goal is {GOAL} or more"
    )


def _generator_rate(generator: str, port: int, connections: int) -> float:
    words = [generator, str(port), str(connections), str(SIZE), f"{SECONDS:.0f}", "echo", "sleep", "1"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # "ready", or nothing
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either, which is reported
            print(f"go {1 << 40}", file=process.stdin, flush=True)
        word, *count = process.stdout.readline().split() or [""]
        elapsed = time.monotonic() - began
    if word != "done":
        raise Failed(f"the generator ended with {process.returncode}")
    return int(count[0]) / elapsed


def _echoc_rate(port: int, connections: int) -> float:
    words = [*_ECHOC, "load", "127.0.0.1", str(port), "--connections", str(connections), "--size", str(SIZE)]
    words += ["--duration", str(SECONDS), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(ROOT), check=False)
    if done.returncode:
        raise Failed(f"echoc load ended with {done.returncode}: {done.stderr.strip()}")
    return float(json.loads(done.stdout.splitlines()[-1])["messages_per_second"])
