"""The command line of the benchmark."""

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NoReturn

from tests.bench.cases import CASES
from tests.bench.servers import SERVERS

ROUNDS = 5
PROBES = {
    "holding": "memory held for a client that does not read",
    "idle": "idle connections",
    "ready": "start to READY",
    "echoc": "the client",
}
"""What is measured besides the loads."""


class Parser(argparse.ArgumentParser):
    """Exits with 64, EX_USAGE, as echod does."""

    def error(self, message: str) -> NoReturn:
        """Report an error in one sentence."""
        self.exit(64, f"{self.prog}: {message}\n")


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    known = [*CASES, *PROBES]
    parser = Parser(prog="run.py", description="Compare the CPU time per echoed message of echo servers.")
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round, whose figures mean little")
    add("--rounds", type=_rounds, help=f"fresh starts of every server ({ROUNDS}, or 1 if quick)")
    add("--cases", type=_words("case", known), default=known, help=f"what to measure ({','.join(known)})")
    add("--servers", type=_words("server", SERVERS), default=list(SERVERS), help=f"({','.join(SERVERS)})")
    add("--echod-b", type=_checkout, metavar="PATH", help="another checkout, to compare this one's echod with")
    add("--json", type=_writable, metavar="FILE", help="write all figures there")
    add("--plot", type=_writable, metavar="FILE", help="draw the ratios to C there (PNG, SVG, ...); needs matplotlib")
    add("--any-python", action="store_true", help="accept an interpreter that is not Debian's")
    options = parser.parse_args(argv)
    if options.rounds is None:
        options.rounds = 1 if options.quick else ROUNDS
    return options


def _rounds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000")
    return int(text)


def _words(what: str, known: Collection[str]) -> Callable[[str], list[str]]:
    """A parser of known words that are separated by commas, each at most once."""

    def convert(text: str) -> list[str]:
        words = text.split(",")
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"there is no {what} {word!r}, only {', '.join(known)}")
        if len(set(words)) < len(words):
            raise argparse.ArgumentTypeError(f"{text!r} names a {what} twice")
        return words

    return convert


def _checkout(text: str) -> Path:
    path = Path(text).resolve()
    if not (path / "echod" / "__main__.py").is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is no checkout of echod: it has no echod/__main__.py")
    return path


def _writable(text: str) -> Path:
    """The path of a file that can be written; an error is reported now, not after the measurement."""
    try:
        open(text, "a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} can't be written: {error.strerror}") from None
    return Path(text)
