"""`echoc check`: one probe, for monitoring, as a plugin of Nagios, Icinga and their kin.

After the Monitoring Plugins Development Guidelines: the first line on standard output says how it is, an exit
code from 0 to 3 says it again, and what follows a "|" is for graphs.  As check_tcp has it, a name that can't be
resolved is UNKNOWN, and everything that an address is to blame for is CRITICAL.
"""

from __future__ import annotations

import argparse
import os
import time

from echod import __version__
from echod.client.connect import Attempt, connect_to_any
from echod.client.echo import exchange
from echod.client.faults import ClientError, ConnectError, EchoError, LateError, UntestableError, reason
from echod.client.options import PATIENCE, Parser, add_common_arguments, seconds
from echod.client.output import Screen, print_json, print_line
from echod.client.resolver import resolve
from echod.client.target import Target, parse_target
from echod.client.threshold import FORMS, Threshold
from echod.client.words import described, printable

TYPE_CHECKING = False  # as type checkers take the name; importing typing would cost a third of the whole start
if TYPE_CHECKING:
    from typing import NoReturn

OK, WARNING, CRITICAL, UNKNOWN = range(4)
_STATUSES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

_SIZE = 64


class _Parser(Parser):
    """Monitoring reads standard output alone, and takes an exit code of 0 for a service that works."""

    def error(self, message: str) -> NoReturn:
        self._print_message(_line(UNKNOWN, f"{message} (see {self.prog} --help)") + "\n")
        raise SystemExit(UNKNOWN)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """After --help and --version: the guidelines have UNKNOWN there, since nothing was checked."""
        super().exit(UNKNOWN, message)

    def _print_message(self, message: str, file: object = None) -> None:
        try:
            super()._print_message(message, file)
        except UntestableError as error:
            error.exit_code = UNKNOWN  # its own would be CRITICAL, and blame the service
            raise


def make_parser(verb: str = "check") -> Parser:
    """The arguments of `echoc check`."""
    parser = _Parser(
        verb,
        description=f"Send {_SIZE} random bytes to an echo service and say in one line whether they came back, as a "
        "plugin of Nagios or Icinga, or a container's exec probe.",
        epilog=f"""RANGE, in seconds, is {FORMS}.  Exit codes: 0 OK; 1 WARNING, and 2 CRITICAL, by -w and -c; 2 also
        when there is no connection, or the echo is wrong or lost; 3 UNKNOWN: usage, a name that can't be resolved,
        or this machine's own trouble; --help and --version as well, since they check nothing.  An exec probe takes
        everything but OK for a failure, a WARNING too: leave out -w there.""",
    )
    parser.add_argument("-H", "--hostname", metavar="HOST", help="the same as HOST")
    parser.add_argument("-p", "--port", dest="service", metavar="PORT", help="the same as PORT")
    for letter, status in (("w", "WARNING"), ("c", "CRITICAL")):
        parser.add_argument(
            f"-{letter}",
            f"--{status.lower()}",
            metavar="RANGE",
            type=_threshold,
            help=f"{status} when the time from the start of connecting to the last byte of the echo is outside RANGE",
        )
    parser.add_argument(
        "-t",
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=PATIENCE,
        help="the time for everything together: resolving, all addresses, the echo (default: %(default)g)",
    )
    parser.add_argument(
        "--no-half-close",
        action="store_true",
        help="keep our side of the connection open, for servers and proxies that stop answering when the client has "
        "nothing more to say",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="tell after the first line each address tried, and the connection's family, type, protocol and ends",
    )
    parser.add_argument("-V", action="version", version=f"echoc {__version__}", help="the same as --version")
    add_common_arguments(parser)
    return parser


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Probe once, print the line, and return the plugin's exit code."""
    probe = _Probe(options)
    try:
        probe.run()
    except ClientError as error:
        probe.error = error
    except OSError as error:  # out of descriptors, say, where nothing more can be told about it
        probe.error = UntestableError(reason(error))
    status, text = probe.verdict()
    try:
        if options.json:
            print_json("check", probe.fields(status, text))
        else:
            print_line(_line(status, text, probe.performance()))
            if options.verbose:
                probe.tell_more()
    except ClientError as error:
        screen.tell(f"echoc: {error}")
        return UNKNOWN
    return status


class _Probe:
    """One probe, and what is known of it so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.error: ClientError | None = None
        self._options = options
        self._deadline = time.monotonic() + options.timeout
        self._target: Target | None = None
        self._attempts: list[Attempt] = []
        self._connection: dict[str, object] | None = None
        self._began = self._ended = 0.0

    def run(self) -> None:
        """Raises ClientError for whatever is not an identical echo."""
        options = self._options
        target = self._target = _target(options)
        addresses = resolve(target, self._deadline)
        self._began = time.monotonic()
        with connect_to_any(
            addresses, target, options.connect_timeout, self._attempts.append, deadline=self._deadline
        ) as connection:
            self._connection = described(connection)
            exchange(
                connection,
                os.urandom(_SIZE),
                timeout=options.timeout,
                on_sent=lambda data: None,
                on_received=self._on_received,
                half_close=not options.no_half_close,
                deadline=self._deadline,
            )

    def _on_received(self, data: bytes) -> None:
        self._ended = time.monotonic()

    def verdict(self) -> tuple[int, str]:
        """The status, and what there is to say."""
        if self.error:
            return _blame(self.error), self._complaint(self.error)
        text = f"{_SIZE} bytes back from {self._peer()} in {self._seconds() * 1000:.3f} ms"
        for status, letter, threshold in (
            (CRITICAL, "c", self._options.critical),
            (WARNING, "w", self._options.warning),
        ):
            if threshold and threshold.alerts(self._seconds()):
                return status, f"{text}, {threshold.side} the range of -{letter} {threshold}"
        return OK, text

    def performance(self) -> str:
        """What follows the "|"; nothing when there was no echo to measure."""
        if self.error:
            return ""
        # No exponent in the time-out: performance data does not know it.
        most = f"{self._options.timeout:.6f}".rstrip("0").rstrip(".")
        return (
            f"time={self._seconds():.6f}s;{self._options.warning or ''};{self._options.critical or ''};0;{most} "
            f"connect={self._attempts[-1].seconds:.6f}s;;;0;{most} size={_SIZE}B;;;0"
        )

    def tell_more(self) -> None:
        """Print what -v adds below the line."""
        for attempt in self._attempts:
            print_line(_clean(str(attempt)))
        for name, value in (self._connection or {}).items():
            print_line(_clean(f"{name.capitalize():8}: {value}"))

    def fields(self, status: int, text: str) -> dict[str, object]:
        """What `--json` tells."""
        return {
            "status": _STATUSES[status],
            "message": text,
            "target": self._target and str(self._target),
            "attempts": [attempt.fields() for attempt in self._attempts],
            "connection": self._connection,
            "size": _SIZE,
            "seconds": None if self.error else self._seconds(),
            "warning": self._options.warning and str(self._options.warning),
            "critical": self._options.critical and str(self._options.critical),
            "error": self.error and self.error.fields(),
        }

    def _seconds(self) -> float:
        """From the start of connecting to the last byte of the echo."""
        return self._ended - self._began

    def _complaint(self, error: ClientError) -> str:
        """The error, and where it was, if it does not say so itself."""
        if not isinstance(error, EchoError):
            return str(error)
        late = f" (--timeout {self._options.timeout:g})" if isinstance(error, LateError) else ""
        return f"{self._peer()}: {error}{late}"

    def _peer(self) -> str:
        """The target, and the address that it came to be where that does not say it already."""
        address = self._attempts[-1].address
        if self._target is None or address == str(self._target):
            return address
        return f"{self._target.host} ({address})"


def _target(options: argparse.Namespace) -> Target:
    for what, argument, option in (
        ("HOST", options.host, options.hostname),
        ("PORT", options.port, options.service),
    ):
        if argument is not None and option is not None:
            raise UntestableError(f"{what} is said twice, {argument!r} and {option!r}; say one")
    return parse_target(
        options.hostname if options.host is None else options.host,
        options.service if options.port is None else options.port,
        family=options.family,
        source=options.source,
    )


def _blame(error: ClientError) -> int:
    """CRITICAL where the service has failed, UNKNOWN where it was not even asked."""
    failed = error.asked if isinstance(error, ConnectError) else isinstance(error, EchoError)
    return CRITICAL if failed else UNKNOWN


def _threshold(text: str) -> Threshold:
    try:
        return Threshold(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of seconds; say {FORMS}") from None


def _line(status: int, text: str, performance: str = "") -> str:
    return f"ECHO {_STATUSES[status]} - {_clean(text)}" + (performance and f" | {performance}")


def _clean(text: str) -> str:
    """What a server or the command line had in it must neither begin the performance data nor end the line."""
    return printable(text.replace("|", "\\x7c"))
