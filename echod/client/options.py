"""The command-line arguments that all verbs share, and how an invalid command line is reported."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable, Sequence

from echod import __version__
from echod.client.errors import UsageError
from echod.client.output import print_bytes
from echod.client.target import HOST_FORMS, PORT, Target, parse_target
from echod.client.transport import Origin

TYPE_CHECKING = False  # type checkers treat the name as true; importing typing would cost a third of echoc's start
if TYPE_CHECKING:
    from typing import NoReturn

DEFAULT_TIMEOUT = 10.0
"""The default of every time-out, in seconds."""

TIME_UNITS = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
"""The units of a time, in seconds."""

_SIZES = {"": 1, "K": 1 << 10, "KIB": 1 << 10, "M": 1 << 20, "MIB": 1 << 20}
_TIME_FORMS = "give seconds, or a unit as in 100ms, 2s, 5m and 1h"
_DAY = 24 * 60 * 60
_LARGEST = 16 * 1024 * 1024


class Parser(argparse.ArgumentParser):
    """Reports an error in one sentence, without the long usage text before it; prints without Python's buffer."""

    def __init__(self, verb: str, **arguments: str) -> None:
        super().__init__(prog=f"echoc {verb}".strip(), allow_abbrev=False, **arguments)  # type: ignore[arg-type]
        self._optionals.title = "options"

    def error(self, message: str) -> NoReturn:
        """Raises UsageError, which leads to exit code 2."""
        raise UsageError(f"{message} (see {self.prog} --help)")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Lets options stand between HOST and PORT.

        argparse takes PORT as left out when an option follows HOST; only its later versions do not (3.13.0 does).  Its
        parse_intermixed_args was rejected: it formats the usage first, and importing shutil for that takes half as long
        as importing argparse.
        """
        options, rest = super().parse_known_args(args, namespace)
        if rest[:1] == ["--"]:
            del rest[0]
        if rest and options.port is None and not rest[0].startswith("-"):
            options.port = rest.pop(0)
        return options, rest

    def _print_message(self, message: str, file: object = None) -> None:
        print_bytes(message.encode())


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add HOST, PORT, and the options of every verb."""
    parser.add_argument("host", metavar="HOST", nargs="?", help=f"{HOST_FORMS} (default: $ECHOC_HOST, or localhost)")
    parser.add_argument(
        "port", metavar="PORT", nargs="?", help=f"1 to 65535, or a service name (default: $ECHOC_PORT, or {PORT})"
    )
    common = parser.add_argument_group(
        "options of every verb", "SECONDS may have a unit, as in 50us, 100ms, 2s, 5m and 1h, and so may BYTES: 64K, 1M."
    )
    family = common.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=socket.AF_INET, help="connect over IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const=socket.AF_INET6, help="connect over IPv6 only")
    common.add_argument("--source", metavar="ADDRESS", help="connect from this local address")
    common.add_argument(
        "--source-port",
        metavar="N[-M]",
        type=_ports,
        default=range(0),
        help="connect from this local port; of a range, each connection takes the next port that is free",
    )
    common.add_argument("--interface", metavar="NAME", default="", help="connect through this network interface")
    common.add_argument(
        "--dscp",
        metavar="CODE",
        type=_dscp,
        default=0,
        help="mark the packets with this code point: 0 to 63, or a name such as EF, AF41 or CS1 (default: %(default)d)",
    )
    common.add_argument(
        "--connect-timeout",
        metavar="SECONDS",
        type=seconds,
        default=DEFAULT_TIMEOUT,
        help="time allowed to connect to one address (default: %(default)g)",
    )
    common.add_argument(
        "--json", action="store_true", help="print results as JSON, one object per line, instead of text"
    )
    common.add_argument("-V", "--version", action="version", version=f"echoc {__version__}")
    parser.set_defaults(family=socket.AF_UNSPEC)


def target_of(options: argparse.Namespace) -> Target:
    """The target given by the shared arguments; raises UsageError."""
    return parse_target(options.host, options.port, family=options.family, origin=origin_of(options))


def origin_of(options: argparse.Namespace) -> Origin:
    """What to connect from, by the shared arguments."""
    return Origin(options.source, options.source_port, options.interface, options.dscp)


def seconds(text: str) -> float:
    """A number of seconds, or a number with one of the units us, ms, s, m and h; more than 0 and at most a day."""
    value = _duration(text)
    if 0 < value <= _DAY:
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a valid time; {_TIME_FORMS}, more than 0 and at most 24h")


def seconds_or_zero(text: str) -> float:
    """As `seconds`, and also 0."""
    value = _duration(text)
    if 0 <= value <= _DAY:
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a valid time; {_TIME_FORMS}, from 0 to 24h")


def size(text: str) -> int:
    """A number of bytes from 1 to 16M, or a number with one of the units K, KiB, M and MiB (powers of 1024)."""
    number = text.rstrip("KkMmIiBb")
    factor = _SIZES.get(text[len(number) :].upper(), 0)
    if number.isascii() and number.isdecimal() and len(number) <= 8 and 1 <= int(number) * factor <= _LARGEST:
        return int(number) * factor
    raise argparse.ArgumentTypeError(f"{text!r} is not a size; give bytes, from 1 to 16M, as in 64 or 64K")


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from `least` to `most`."""

    def convert(text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")

    return convert


def _ports(text: str) -> range:
    first, dash, last = text.partition("-")
    numbers = [first, last if dash else first]
    if all(number.isascii() and number.isdecimal() and len(number) <= 5 for number in numbers):
        least, most = map(int, numbers)
        if 1 <= least <= most <= 65535:
            return range(least, most + 1)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port or a range; give 1 to 65535, as in 40000 or 40000-40063")


def _dscp(text: str) -> int:
    names = {"EF": 46, "VA": 44, "LE": 1}
    names |= {f"CS{number}": 8 * number for number in range(8)}
    names |= {f"AF{queue}{drop}": 8 * queue + 2 * drop for queue in range(1, 5) for drop in range(1, 4)}
    if text.isascii() and text.isdecimal() and len(text) <= 2 and int(text) <= 63:
        return int(text)
    if text.upper() in names:
        return names[text.upper()]
    raise argparse.ArgumentTypeError(f"{text!r} is not a code point; give 0 to 63, or a name such as EF, AF41 or CS1")


def _duration(text: str) -> float:
    """Seconds; -1 if `text` is not a time."""
    number = text.rstrip("hmsu")
    try:
        return float(number) * TIME_UNITS[text[len(number) :]]
    except (ValueError, KeyError):
        return -1.0
