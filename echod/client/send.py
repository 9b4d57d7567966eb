"""`echoc send`, and plain `echoc`: send bytes, print their echo, and check that it is identical."""

from __future__ import annotations

import argparse
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from echod.client.connect import Attempt, ShownAttempts, open_connection
from echod.client.errors import ClientError, UntestableError, reason
from echod.client.exchange import Terms, exchange
from echod.client.options import DEFAULT_TIMEOUT, Parser, add_common_arguments, seconds, target_of
from echod.client.output import Screen, print_json
from echod.client.text import described, quoted
from echod.client.transport import statistics, statistics_line

SENTENCE = "This is the message.  It will be repeated."
"""The message of the socket tutorial in Doug Hellmann's Python Module of the Week."""


def make_parser(verb: str = "send") -> Parser:
    """The parser of `echoc send`; if `verb` is empty, the parser of echoc without a verb."""
    parser = Parser(
        verb,
        description="Send bytes to an echo service, print the echo, and check that it is identical."
        + ("" if verb else "  Verbs, each with its own --help: send (the default), ping, load, check."),
        epilog="""Without -m and -f, echoc sends what is piped or redirected into it, or else the sentence "This is the
        message.  It will be repeated."  In a shell loop that reads standard input, use -m.  Exit codes: 0 the echo was
        identical; 1 the echo was wrong or incomplete; 2 the echo could not be tested: usage, no connection, unreadable
        or empty input, unwritable output.""",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-m", "--message", metavar="TEXT", help="send this text")
    what.add_argument("-f", "--file", metavar="FILE", help="send the contents of FILE; - is standard input")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=DEFAULT_TIMEOUT,
        help="give up when bytes are outstanding and the server neither accepts nor returns any for this time "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--no-half-close",
        action="store_true",
        help="keep the sending direction open after the last byte, and finish when that byte has come back: for "
        "servers and proxies that stop answering after a half-close; surplus bytes after the echo may go unnoticed",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="print to standard error each address before it is tried, and the result; the connection's family, type, "
        "protocol and two addresses; and each chunk",
    )
    add_common_arguments(parser)
    return parser


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Send, receive and compare; raises ClientError for any result other than "identical"."""
    result = _Result(str(target_of(options)))
    try:
        _send(options, screen, result)
    except ClientError as error:
        if options.json:
            print_json("send", result.fields(error))
        raise
    if options.json:
        print_json("send", result.fields(None))
    return 0


class _Result:
    """The result, in the form that `--json` prints."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.attempts: list[Attempt] = []
        self.tcp: dict[str, float] | None = None
        self.connection: dict[str, object] | None = None
        self.sent = 0
        self.received = 0
        self.seconds: float | None = None

    def fields(self, error: ClientError | None) -> dict[str, object]:
        return {
            "ok": error is None,
            "target": self.target,
            "attempts": [attempt.fields() for attempt in self.attempts],
            "connection": self.connection,
            "tcp": self.tcp,
            "sent": self.sent,
            "received": self.received,
            "seconds": self.seconds,
            "error": error and error.fields(),
        }


def _send(options: argparse.Namespace, screen: Screen, result: _Result) -> None:
    def note(line: str) -> None:
        if options.verbose:
            screen.message(line)

    def on_sent(data: memoryview) -> None:
        result.sent += len(data)
        note(f"sending {quoted(data)}")

    def on_received(data: bytes) -> None:
        result.received += len(data)
        note(f"received {quoted(data)}")
        if not options.json:
            screen.echo(data)

    observer = ShownAttempts(screen, options.verbose)
    result.attempts = observer.attempts
    with (
        _opened(options) as source,
        open_connection(target_of(options), options.connect_timeout, observer) as connection,
    ):
        result.connection = described(connection)
        for name, value in result.connection.items():
            note(f"{name.capitalize():8}: {value}")
        note("")
        began = time.monotonic()
        terms = Terms(options.timeout, half_close=not options.no_half_close)
        try:
            exchange(connection, source, terms, on_sent, on_received)
        finally:
            result.seconds = time.monotonic() - began
            result.tcp = statistics(connection)
            screen.end_line()
            if result.tcp:
                note(f"{'TCP':8}: {statistics_line(result.tcp)}")
        note("closing socket")
    if result.sent == 0:
        raise UntestableError("the input was empty: nothing was sent, so nothing was tested; give -m TEXT")


@contextmanager
def _opened(options: argparse.Namespace) -> Iterator[bytes | int]:
    if options.message is not None:
        yield os.fsencode(options.message)  # the exact bytes of argv, in any locale
    elif options.file == "-" or (options.file is None and _has_input(0)):
        yield 0
    elif options.file is None:
        yield SENTENCE.encode()
    else:
        try:
            descriptor = os.open(options.file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UntestableError(f"cannot read {options.file!r}: {reason(error)}") from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _has_input(descriptor: int) -> bool:
    """Whether `descriptor` is a pipe or a file, which is meant as input; not a terminal, /dev/null or sshd's socket."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
