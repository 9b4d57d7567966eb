"""What an echo costs: echod compared with other echo servers, in CPU time per message.  README.md has the method.

    python tests/bench/run.py [--quick] [--cases 64x64,churn] [--servers echod,c] [--echod-b PATH] [--json FILE] ...

Exit status: 0; 64 for a wrong command line; 69 if something that the benchmark needs is missing, or the interpreter is
not Debian's and `--any-python` is not given; 70 if a server or the load generator failed.
"""

import argparse
import contextlib
import datetime
import json
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # in place of this directory: modules are named from the top here, as in all tests

from tests.bench import client_load, client_start, holding, idle, machine, ready  # noqa: E402
from tests.bench.cases import CASES, Case  # noqa: E402
from tests.bench.measure import cpu_pair, measure  # noqa: E402
from tests.bench.options import parse  # noqa: E402
from tests.bench.processes import Failed  # noqa: E402
from tests.bench.report import Spread, Table  # noqa: E402
from tests.bench.servers import SERVERS, Kind, compile_program, echod_in  # noqa: E402
from tests.bench.summary import Results  # noqa: E402

QUICK = 4
"""The number by which `--quick` divides the slices of a round."""
STARTS = 15
CLIENTS = 64


def choose(options: argparse.Namespace, directory: Path) -> list[Kind]:
    """The servers to compare, compiled where they need it; each echod comes first, because it needs time to settle."""
    chosen = [SERVERS[name](directory) for name in options.servers]
    if options.echod_b:
        chosen.append(echod_in(options.echod_b, "echod-b"))
    return sorted(chosen, key=lambda kind: not kind.is_echod)


def takes_part(kind: Kind, case: Case) -> bool:
    """Whether a server makes sense under that load."""
    if case.echod_only and not kind.is_echod and kind.name != "c":
        return False
    if kind.name == "c256" and "c256" not in dict(case.goals) and case.mode != "stream":
        return False  # messages are so small that both servers in C read them whole
    return case.is_for_processes or not kind.forks


def run(options: argparse.Namespace, results: Results, directory: Path) -> None:
    """Measure what was chosen, and show each part as soon as it is there.  Raises `Failed`."""
    generator = compile_program("generator.c", directory)
    kinds = choose(options, directory)
    results.servers = [kind.name for kind in kinds]
    shorter = QUICK if options.quick else 1
    if "holding" in options.cases:
        results.held = holding.measure(kinds)
        results.marked = {name for name, mib in results.held.items() if mib > holding.BOUND}
        print(f"\n{holding.render(results.held)}", flush=True)
    for case in (CASES[name] for name in options.cases if name in CASES):
        taking_part = [kind for kind in kinds if takes_part(kind, case)]
        rounds = measure(case, options.rounds, max(2, case.slices // shorter), taking_part, generator)
        results.tables.append(Table(case, rounds, results.marked))
        print(f"\n{results.tables[-1].render()}", flush=True)
    if "idle" in options.cases:
        taking_part = [kind for kind in kinds if not kind.forks and kind.name != "c256"]
        results.idle = idle.measure(taking_part, generator, idle.SECONDS / shorter)
    if "ready" in options.cases:
        results.ready = ready.measure([kind for kind in kinds if kind.is_echod], STARTS // shorter)
    if "echoc" in options.cases:
        print(f"\n{client_load.report(client_load.compare(generator, CLIENTS, options.rounds, cpu_pair()))}")
        started = Spread.over(client_start.measure(client_start.TURNS // shorter))
        print(f"start: echoc --version takes {started.show()} of {client_start.BASELINE}, at most {client_start.LIMIT}")


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Make SIGTERM unwind the stack as SIGINT does, so that no server outlives the benchmark."""

    def handle_term(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handle_term)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: list[str]) -> int:
    """Measure, report, and return the exit status."""
    options = parse(argv)
    if sentence := machine.missing(options):
        print(f"run.py: {sentence}", file=sys.stderr)
        return 69
    machine.raise_limit()
    now = datetime.datetime.now().astimezone().isoformat(" ", "minutes")
    command = shlex.join(["tests/bench/run.py", *argv])
    results = Results({"machine": machine.describe(), "date": now, "command": command}, options.servers)
    print("\n".join(f"{name}: {value}" for name, value in results.head.items()))
    try:
        with tempfile.TemporaryDirectory(prefix="echod-bench-") as name, ended_by_signals():
            run(options, results, Path(name))
    except Failed as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 70
    except KeyboardInterrupt:
        return 130
    print(f"\n{results.markdown()}")
    if options.json:
        options.json.write_text(json.dumps(results.to_json(), indent=1))
    if options.plot:
        from tests.bench import plot

        plot.draw(results.tables, options.plot, "; ".join(results.head.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
