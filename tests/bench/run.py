"""What an echo costs: echod compared with other echo servers, in CPU time per message.  README.md has the method.

    python tests/bench/run.py [--quick] [--cases 64x64,churn] [--servers echod,c] [--echod-b PATH] [--json FILE] ...

Exit status: 0; 64 for a wrong command line; 69 if something that the benchmark needs is missing, or the interpreter is
not Debian's and `--any-python` is not given; 70 if a server or the load generator failed.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NoReturn, TextIO

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # in place of this directory: modules are named from the top here, as in all tests

from tests.bench import load, report, start  # noqa: E402
from tests.bench.cases import CASES, Case  # noqa: E402
from tests.bench.measure import Failed, cpu_pair, measure  # noqa: E402
from tests.bench.servers import SERVERS, Kind, compile_program, echod_in  # noqa: E402

ROUNDS = 5
QUICK = 4
"""By this the slices of a round are divided if it must be quick."""
PYTHON = "/usr/bin/python3"
"""Debian's interpreter, which an installed echod runs on."""


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


def words_of(what: str, known: Collection[str]) -> Callable[[str], list[str]]:
    """Some of the known words, by commas and each at most once, for argparse."""

    def convert(text: str) -> list[str]:
        words = text.split(",")
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"there is no {what} {word!r}, only {', '.join(known)}")
        if len(set(words)) < len(words):
            raise argparse.ArgumentTypeError(f"{text!r} names a {what} twice")
        return words

    return convert


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
    add("--quick", action="store_true", help="one short round, whose figures mean little")
    add("--rounds", type=number(1, 1000), help=f"fresh starts of every server ({ROUNDS}, or 1 if quick)")
    add("--cases", type=words_of("case", CASES), default=list(CASES), help=f"the loads ({','.join(CASES)})")
    add("--servers", type=words_of("server", SERVERS), default=list(SERVERS), help=f"({','.join(SERVERS)})")
    add("--echod-b", type=checkout, metavar="PATH", help="another checkout, to compare this one's echod with")
    add("--json", type=writable, metavar="FILE", help="write all figures there")
    add("--any-python", action="store_true", help="accept an interpreter that is not Debian's")
    return parser.parse_args(argv)


def missing(options: argparse.Namespace) -> str:
    """A sentence with the requirements that this machine lacks, or ''."""
    if not options.any_python and not is_debians():
        return f"this is not Debian's Python, {PYTHON}, but {interpreter()}: --any-python measures with it nevertheless"
    if not shutil.which("cc"):
        return "the load generator is compiled on the spot, and there is no C compiler here: install one (cc)"
    if "uvloop" in options.servers and not importlib.util.find_spec("uvloop"):
        return "this Python has no uvloop: install it, or leave it out by --servers"
    for name in ("xinetd", "socat"):
        if name in options.servers and not shutil.which(name):
            return f"{name} is not installed: install it, or leave it out by --servers"
    return ""


def interpreter() -> str:
    """The interpreter of this environment: the file that a virtual environment refers to."""
    return os.path.realpath(sys.executable)


def is_debians() -> bool:
    """Whether the interpreter is the one of Debian's package."""
    return os.path.exists("/etc/debian_version") and interpreter() == os.path.realpath(PYTHON)


def kinds(options: argparse.Namespace, directory: Path) -> list[Kind]:
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
        return False  # it reads as much as the other one in C
    return case.is_for_processes or not kind.forks


def describe_machine() -> str:
    """The line that describes the machine, without which no figure is meaningful."""
    python = f"Debian's Python, {PYTHON}" if is_debians() else f"not Debian's Python, but {interpreter()}"
    parts = [
        f"{len(os.sched_getaffinity(0))} CPUs ({report.cpu_model()})",
        f"kernel {platform.release()}",
        f"{python}, {platform.python_version()}",
        f"load {os.getloadavg()[0]:.1f}",
    ]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        parts.insert(3, f"uvloop {importlib.metadata.version('uvloop')}")
    return ", ".join(parts)


def raise_limit() -> None:
    """Allow the generator and the servers as many descriptors as the hard limit does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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
    raise_limit()
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    head = {
        "machine": describe_machine(),
        "date": datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
        "command": shlex.join(["tests/bench/run.py", *argv]),
        "rounds": rounds,
    }
    for name, value in head.items():
        print(f"{name}: {value}")
    tables = []
    try:
        with tempfile.TemporaryDirectory(prefix="echod-bench-") as name, ended_by_signals():
            generator = compile_program("generator.c", Path(name))
            servers = kinds(options, Path(name))
            for case in map(CASES.__getitem__, options.cases):
                slices = max(2, case.slices // QUICK) if options.quick else case.slices
                chosen = [kind for kind in servers if takes_part(kind, case)]
                table = report.Table(case, measure(case, rounds, slices, chosen, generator))
                print(f"\n{table.render()}", flush=True)
                tables.append(table)
            print(f"\n{load.report(load.compare(generator, 64, rounds, cpu_pair()))}", flush=True)
        started = report.Spread.over(start.measure(start.TURNS // (QUICK if options.quick else 1)))
        print(f"start: echoc --version takes {started.show()} of {start.BASELINE}, at most {start.LIMIT}")
    except Failed as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 70
    except KeyboardInterrupt:
        return 130
    if options.json:
        with options.json as file:
            json.dump(head | {"cases": [table.to_json() for table in tables]}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
