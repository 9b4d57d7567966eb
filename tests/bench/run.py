"""The cost of an echo: echod compared with asyncio, uvloop and C, in CPU time per message.  README.md has the method.

    python tests/bench/run.py [--rounds N] [--sizes 64,1024] [--churn] [--servers echod,asyncio,uvloop,c] ...

Exit status: 0; 1 if `--assert` finds the goal missed; 64 for a wrong command line; 69 if something that the benchmark
needs is missing; 70 if a server or the load generator failed.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TextIO

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # in place of this directory: modules are named from the top here, as in all tests

from tests.bench import load, report, start  # noqa: E402
from tests.bench.measure import Case, Failed, Plan, measure  # noqa: E402
from tests.bench.servers import SERVERS, Kind, compile_program, echod_in  # noqa: E402

GOAL = 1.00
GOAL_SIZES = (64, 1024)
GOAL_ROUNDS = 7
"""The fewest rounds from which --assert draws a conclusion."""
MAX_SIZE = 16 << 20
CHURN_SIZE = 64


class Parser(argparse.ArgumentParser):
    """Exits with 64, EX_USAGE, as echod does."""

    def error(self, message: str) -> NoReturn:
        """Report an error in one sentence."""
        self.exit(64, f"{self.prog}: {message}\n")


def number(low: int, high: int) -> Callable[[str], int]:
    """A whole number within bounds, for argparse."""

    def convert(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {low} to {high}")
        return int(text)

    return convert


def sizes(text: str) -> list[int]:
    """Message sizes in bytes, by commas."""
    convert = number(1, MAX_SIZE)
    return [convert(word) for word in text.split(",")]


def names(text: str) -> list[str]:
    """Servers, by commas; each at most once."""
    words = text.split(",")
    for word in words:
        if word not in SERVERS:
            raise argparse.ArgumentTypeError(f"there is no server {word!r}, only {', '.join(SERVERS)}")
    if len(set(words)) < len(words):
        raise argparse.ArgumentTypeError(f"{text!r} names a server twice")
    return words


def checkout(text: str) -> Path:
    """A directory that holds the package echod."""
    path = Path(text).resolve()
    if not (path / "echod" / "__main__.py").is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is no checkout of echod: it has no echod/__main__.py")
    return path


def writable(text: str) -> TextIO:
    """A file to write to; an error is better reported at the start."""
    try:
        return open(text, "w")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} can't be written: {error.strerror}") from None


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(prog="run.py", description="Compare the CPU time per echoed message of echo servers.")
    add = parser.add_argument
    add("--rounds", type=number(1, 1000), default=GOAL_ROUNDS, help="fresh starts of every server (%(default)s)")
    add("--sizes", type=sizes, default=[64, 1024, 65536], help="message sizes in bytes (64,1024,65536)")
    add("--churn", action="store_true", help="measure connect, echo, close as well")
    add("--connections", type=number(1, 1000), default=64, help="clients at once (%(default)s)")
    add("--servers", type=names, default=list(SERVERS), help=f"which to compare ({','.join(SERVERS)})")
    add("--echod-b", type=checkout, metavar="PATH", help="another checkout, to compare this one's echod with")
    add("--json", type=writable, metavar="FILE", help="write all figures there")
    add(
        "--assert",
        dest="goal",
        action="store_true",
        help="exit 1 if echod costs more than uvloop, or echoc starts late",
    )
    add("--quick", action="store_true", help="a smoke test: two short rounds, whose figures mean little")
    options = parser.parse_args(argv)
    if options.goal and not ({"echod", "uvloop"} <= set(options.servers) and set(GOAL_SIZES) <= set(options.sizes)):
        parser.error("--assert needs the servers echod and uvloop and the sizes 64 and 1024")
    if options.goal and (options.quick or options.rounds < GOAL_ROUNDS):
        parser.error(f"--assert needs {GOAL_ROUNDS} full rounds or more")
    return options


def missing(options: argparse.Namespace) -> str:
    """A sentence with the requirements that this machine lacks, or ''."""
    if not shutil.which("cc"):
        return "the load generator is compiled on the spot, and there is no C compiler here: install one (cc)"
    if not os.access(start.PYTHON, os.X_OK):
        return f"the start of echoc is measured by {start.PYTHON}, which is not here"
    if "uvloop" in options.servers and not importlib.util.find_spec("uvloop"):
        return "this Python has no uvloop: install it, or leave it out by --servers"
    return ""


def kinds(options: argparse.Namespace, directory: Path) -> list[Kind]:
    """The servers to compare, compiled where they need it."""
    chosen = [SERVERS[name](directory) for name in options.servers]
    if options.echod_b:
        chosen.append(echod_in(options.echod_b, "echod-b"))
    return chosen


def describe_machine() -> str:
    """The line that describes the machine, without which no figure is meaningful."""
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    build = "with" if optimised else "without"
    parts = [
        f"{len(os.sched_getaffinity(0))} CPUs ({report.cpu_model()})",
        f"kernel {platform.release()}",
        f"{platform.python_implementation()} {platform.python_version()} built {build} PGO",
        f"load {os.getloadavg()[0]:.1f}",
    ]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        parts.insert(3, f"uvloop {importlib.metadata.version('uvloop')}")
    return ", ".join(parts)


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
    if sentence := missing(options):
        print(f"run.py: {sentence}", file=sys.stderr)
        return 69
    cases = [Case(size) for size in options.sizes]
    if options.churn:
        cases.append(Case(CHURN_SIZE, churn=True))
    plan = Plan(options.connections, 2, 4) if options.quick else Plan(options.connections, options.rounds, 40)
    machine = describe_machine()
    print(f"machine: {machine}")
    tables = []
    try:
        started = report.Spread.over(start.measure(3 if options.quick else start.TURNS))
        print(f"start: echoc --version takes {started.show(2)} of {start.BASELINE}, at most {start.LIMIT}")
        print(f"{plan.describe()}; median [lowest and highest round]", flush=True)
        with tempfile.TemporaryDirectory(prefix="echod-bench-") as name, ended_by_signals():
            generator = compile_program("generator.c", Path(name))
            servers = kinds(options, Path(name))
            for case in cases:
                table = report.Table(case, measure(case, plan, servers, generator))
                print(f"\n{table.render()}", flush=True)
                tables.append(table)
            cpus = sorted(os.sched_getaffinity(0))
            pair = (cpus[0], cpus[-1]) if len(cpus) > 1 else (None, None)
            print(f"\n{load.report(load.compare(generator, plan.connections, plan.rounds, pair))}", flush=True)
    except Failed as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 70
    except KeyboardInterrupt:
        return 130
    if options.json:
        with options.json as file:
            json.dump(
                {"machine": machine, "plan": plan.describe(), "cases": [t.to_json() for t in tables]}, file, indent=1
            )
    return judge(tables, started.median) if options.goal else 0


def judge(tables: list["report.Table"], start_ratio: float) -> int:
    """Print whether the goals are met, and return 0 or 1."""
    met = start_ratio <= start.LIMIT
    status = int(not met)
    print(f"\ngoal of the start: {start_ratio:.2f}, at most {start.LIMIT}: {'met' if met else 'missed'}")
    for table in tables:
        if table.case.churn or table.case.size not in GOAL_SIZES:
            continue
        ratio = table.ratio("echod", "uvloop").median
        met = ratio <= GOAL
        print(
            f"goal at {table.case}: echod costs {ratio:.3f} of uvloop, at most {GOAL:.2f}: {'met' if met else 'missed'}"
        )
        status |= not met
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
