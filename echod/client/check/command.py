"""The arguments of `echoc check`, its probe, its line on standard output and its exit code.

After the Monitoring Plugins Development Guidelines: the first line on standard output is the result, an exit code from
0 to 3 repeats it, and what follows a "|" is for graphs.  As in check_tcp, a name that cannot be resolved is CRITICAL,
and so is every failure of an address, unless -r gives refusals another status.
"""

from __future__ import annotations

import argparse
import os
import socket
import time

from echod.client.check.threshold import FORMS, Threshold
from echod.client.connect import Observer, connect_to_any, resolve
from echod.client.errors import (
    ClientError,
    ConnectError,
    EchoError,
    LateError,
    NameLookupError,
    UntestableError,
    UsageError,
    reason,
)
from echod.client.exchange import Terms, exchange
from echod.client.options import DEFAULT_TIMEOUT, Parser, add_common_arguments, origin_of, seconds, size
from echod.client.output import Screen, print_json, print_line, print_text
from echod.client.target import Target, parse_target
from echod.client.text import counted, described, endpoint, printable
from echod.client.transport import statistics, statistics_line

TYPE_CHECKING = False  # type checkers treat the name as true; importing typing would cost a third of echoc's start
if TYPE_CHECKING:
    from typing import NoReturn

OK, WARNING, CRITICAL, UNKNOWN = range(4)
_STATUSES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

_REFUSALS = {"ok": OK, "warn": WARNING, "crit": CRITICAL}
_SIZE = 64


class _Parser(Parser):
    """Monitoring reads standard output only, and takes exit code 0 for a service that works."""

    def error(self, message: str) -> NoReturn:
        self._print_message(_line(UNKNOWN, f"{message} (see {self.prog} --help)") + "\n")
        raise SystemExit(UNKNOWN)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """After --help and --version: UNKNOWN, according to the guidelines, since nothing was checked."""
        super().exit(UNKNOWN, message)

    def _print_message(self, message: str, file: object = None) -> None:
        try:
            super()._print_message(message, file)
        except UntestableError as error:
            error.exit_code = UNKNOWN  # its own code, 2, would be CRITICAL, and blame the service
            raise


def make_parser(verb: str = "check") -> Parser:
    """The parser of `echoc check`."""
    parser = _Parser(
        verb,
        description="Send random bytes to an echo service and report in one line whether they came back, as a "
        "plugin of Nagios or Icinga, or a container's exec probe.",
        epilog=f"""RANGE is {FORMS}.  Exit codes: 0 OK; 1 WARNING and 2 CRITICAL, by -w and -c; also 2 when the name
        cannot be resolved, there is no connection, or the echo is wrong or incomplete; 3 UNKNOWN: usage, or a fault of
        this machine; also 3 for --help and --version, which check nothing.  An exec probe treats every code but 0 as a
        failure, including 1 for WARNING, so do not use -w there.""",
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
        default=DEFAULT_TIMEOUT,
        help="time allowed for everything: resolving, connecting to all addresses, the echo (default: %(default)g)",
    )
    parser.add_argument(
        "-r",
        "--refuse",
        choices=tuple(_REFUSALS),
        default="crit",
        help="status when the connection is refused: ok, to check that nothing listens, warn or crit "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "-s",
        "--size",
        metavar="BYTES",
        type=size,
        default=_SIZE,
        help="number of bytes to send, up to 16M; 4K finds a path that drops long packets (default: %(default)d)",
    )
    parser.add_argument(
        "--no-half-close",
        action="store_true",
        help="keep the sending direction open, for servers and proxies that stop answering after a half-close",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="after the first line, print each address tried, and the connection's family, type, protocol and two "
        "addresses, and what TCP knows about the path",
    )
    add_common_arguments(parser)
    return parser


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Probe once, print the line, and return the plugin's exit code."""
    probe = _Probe(options)
    try:
        probe.run()
    except ClientError as error:
        probe.error = error
    except OSError as error:  # for example, no free descriptor, in a place that adds nothing to the reason
        probe.error = UntestableError(reason(error))
    status, text = probe.verdict()
    try:
        if options.json:
            print_json("check", probe.fields(status, text))
        else:
            print_line(_line(status, text, probe.performance()))
            if options.verbose:
                probe.print_details()
    except ClientError as error:
        screen.message(f"echoc: {error}")
        return UNKNOWN
    return status


class _Probe:
    """One probe, and its results so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.error: ClientError | None = None
        self._options = options
        self._deadline = time.monotonic() + options.timeout
        self._target: Target | None = None
        self._observer = Observer()
        self._connection: dict[str, object] | None = None
        self._tcp: dict[str, float] | None = None
        self._local = ""
        self._began = self._ended = 0.0

    def run(self) -> None:
        """Raises ClientError for any result other than an identical echo."""
        options = self._options
        target = self._target = _target(options)
        addresses = resolve(target, self._observer, self._deadline)
        self._began = time.monotonic()
        timeout = options.connect_timeout
        with connect_to_any(addresses, target, timeout, self._observer, self._deadline) as connection:
            self._connection = described(connection)
            if connection.family != socket.AF_UNIX:
                self._local = endpoint(connection.getsockname())
            terms = Terms(options.timeout, self._deadline, half_close=not options.no_half_close)
            try:
                exchange(connection, os.urandom(options.size), terms, lambda data: None, self._on_received)
            finally:
                self._tcp = statistics(connection)

    def _on_received(self, data: bytes) -> None:
        self._ended = time.monotonic()

    def verdict(self) -> tuple[int, str]:
        """The status, and the text that explains it."""
        if self.error:
            return self._status_of(self.error), self._error_text(self.error)
        text = f"{counted(self._options.size, 'byte')} back from {self._peer()} in {self._seconds() * 1000:.3f} ms"
        for status, letter, threshold in (
            (CRITICAL, "c", self._options.critical),
            (WARNING, "w", self._options.warning),
        ):
            if threshold and threshold.alerts(self._seconds()):
                return status, f"{text}, {threshold.side} the range of -{letter} {threshold}"
        return OK, text

    def performance(self) -> str:
        """The part of the line after the "|"; "" when there was no echo to measure."""
        if self.error:
            return ""
        # Performance data allows no exponent.
        most = f"{self._options.timeout:.6f}".rstrip("0").rstrip(".")
        warning, critical = (
            given.in_seconds if given else "" for given in (self._options.warning, self._options.critical)
        )
        data = [
            f"time={self._seconds():.6f}s;{warning};{critical};0;{most}",
            f"connect={self._observer.attempts[-1].total:.6f}s;;;0;{most}",
            f"size={self._options.size}B;;;0",
        ]
        if self._tcp:
            data += [f"rtt={self._tcp['rtt']:.6f}s;;;0", f"retransmits={self._tcp['retransmits']};;;0"]
        return " ".join(data)

    def print_details(self) -> None:
        """Print the lines that -v adds."""
        for attempt in self._observer.attempts:
            print_text(_clean(str(attempt)))
        for name, value in (self._connection or {}).items():
            print_text(_clean(f"{name.capitalize():8}: {value}"))
        if self._tcp:
            print_text(f"{'TCP':8}: {statistics_line(self._tcp)}")

    def fields(self, status: int, text: str) -> dict[str, object]:
        """The result in the form that `--json` prints."""
        return {
            "status": _STATUSES[status],
            "message": text,
            "target": self._target and str(self._target),
            "attempts": [attempt.fields() for attempt in self._observer.attempts],
            "connection": self._connection,
            "tcp": self._tcp,
            "size": self._options.size,
            "seconds": None if self.error else self._seconds(),
            "warning": self._options.warning and str(self._options.warning),
            "critical": self._options.critical and str(self._options.critical),
            "error": self.error and self.error.fields(),
        }

    def _seconds(self) -> float:
        """From the start of connecting to the last byte of the echo."""
        return self._ended - self._began

    def _error_text(self, error: ClientError) -> str:
        """The error, after the name of the server unless it is in the error."""
        if not isinstance(error, EchoError):
            return str(error)
        late = f" (--timeout {self._options.timeout:g})" if isinstance(error, LateError) else ""
        return f"{self._peer()}: {error}{late}"

    def _peer(self) -> str:
        """The target, the address connected to if that differs, and the local address."""
        address = self._observer.attempts[-1].address
        local = [f"local {self._local}"] if self._local else []
        if self._target is None or address == str(self._target):
            name, details = address, local
        else:
            name, details = self._target.host, [address, *local]
        return f"{name} ({', '.join(details)})" if details else name

    def _status_of(self, error: ClientError) -> int:
        """CRITICAL if the service has failed, UNKNOWN if this machine has; of a refusal, what -r says."""
        if isinstance(error, ConnectError) and error.refused:
            return _REFUSALS[self._options.refuse]
        failed = error.asked if isinstance(error, ConnectError) else isinstance(error, EchoError)
        return CRITICAL if failed or isinstance(error, NameLookupError) else UNKNOWN


def _target(options: argparse.Namespace) -> Target:
    for what, argument, option in (
        ("HOST", options.host, options.hostname),
        ("PORT", options.port, options.service),
    ):
        if argument is not None and option is not None:
            raise UsageError(f"{what} is given twice, {argument!r} and {option!r}; give it once")
    return parse_target(
        options.hostname if options.host is None else options.host,
        options.service if options.port is None else options.port,
        family=options.family,
        origin=origin_of(options),
    )


def _threshold(text: str) -> Threshold:
    try:
        return Threshold(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of times; give {FORMS}") from None


def _line(status: int, text: str, performance: str = "") -> str:
    return f"ECHO {_STATUSES[status]} - {_clean(text)}" + (performance and f" | {performance}")


def _clean(text: str) -> str:
    """`text` without anything from a server or the command line that would begin the performance data or end the
    line."""
    return printable(text.replace("|", "\\x7c"))
