"""What all of echoc's verbs take on their command lines, and how they say that it was wrong."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable

from echod import __version__
from echod.client.faults import UntestableError
from echod.client.output import print_bytes
from echod.client.target import HOST_FORMS, PORT, Target, parse_target

TYPE_CHECKING = False  # as type checkers take the name; importing typing would cost a third of the whole start
if TYPE_CHECKING:
    from typing import NoReturn

PATIENCE = 10.0
"""Seconds that a server is given, where nobody says how long."""

_DAY = 24 * 60 * 60


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage that buries it; prints without Python's buffer."""

    def __init__(self, verb: str, **arguments: str) -> None:
        super().__init__(prog=f"echoc {verb}".strip(), allow_abbrev=False, **arguments)  # type: ignore[arg-type]
        self._optionals.title = "options"

    def error(self, message: str) -> NoReturn:
        """Raises UntestableError, which ends with the exit code 2."""
        raise UntestableError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: object = None) -> None:
        print_bytes(message.encode())


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """HOST, PORT, and the options that every verb has."""
    parser.add_argument("host", metavar="HOST", nargs="?", help=f"{HOST_FORMS} (default: $ECHOC_HOST, or localhost)")
    parser.add_argument("port", metavar="PORT", nargs="?", help=f"1 to 65535 (default: $ECHOC_PORT, or {PORT})")
    common = parser.add_argument_group("options of every verb")
    family = common.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=socket.AF_INET, help="connect over IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const=socket.AF_INET6, help="connect over IPv6 only")
    common.add_argument("--source", metavar="ADDRESS", help="connect from this address of this machine")
    common.add_argument(
        "--connect-timeout",
        metavar="SECONDS",
        type=seconds,
        default=PATIENCE,
        help="go on to the next address when connecting to one takes longer (default: %(default)g)",
    )
    common.add_argument("--json", action="store_true", help="print results as JSON, an object a line, instead of text")
    common.add_argument("--version", action="version", version=f"echoc {__version__}")
    parser.set_defaults(family=socket.AF_UNSPEC)


def target_of(options: argparse.Namespace) -> Target:
    """The target that the common arguments name; raises UntestableError."""
    return parse_target(options.host, options.port, family=options.family, source=options.source)


def seconds(text: str) -> float:
    """A time more than 0, at most a day."""
    value = _number(text)
    if 0 < value <= _DAY:
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a time; say seconds, more than 0 and at most {_DAY}")


def seconds_or_none(text: str) -> float:
    """A time, or 0, at most a day."""
    value = _number(text)
    if 0 <= value <= _DAY:
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a time; say seconds, from 0 to {_DAY}")


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A type of argument: a whole number from `least` to `most`."""

    def convert(text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")

    return convert


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0
