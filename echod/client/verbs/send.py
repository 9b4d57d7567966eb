"""`echoc send`, and plain `echoc`: send something, print its echo, and say whether it is identical."""

from __future__ import annotations

import argparse
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from echod.client.connect import Attempt, open_connection
from echod.client.echo import exchange
from echod.client.faults import ClientError, UntestableError, reason
from echod.client.options import PATIENCE, Parser, add_common_arguments, seconds, target_of
from echod.client.output import Screen, print_json
from echod.client.resolver import SockAddr
from echod.client.words import described, endpoint, quoted

SENTENCE = "This is the message.  It will be repeated."
"""The message of the socket tutorial in Doug Hellmann's Python Module of the Week."""


def make_parser(verb: str = "send") -> Parser:
    """The arguments of `echoc send`, and with `verb` empty those of plain echoc."""
    parser = Parser(
        verb,
        description="Send bytes to an echo service, compare what comes back byte for byte, and print it."
        + ("" if verb else "  Verbs, each with a --help of its own: send (this), ping, load, check."),
        epilog="""Without -m and -f, what is piped into echoc or redirected to it is sent, or else the sentence of
        the socket tutorial, "This is the message.  It will be repeated."  So in a loop that reads, say -m.  Exit
        codes: 0 the echo was identical; 1 it was wrong or lost; 2 nothing can be said: usage, no connection,
        unreadable or empty input, unwritable output.""",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-m", "--message", metavar="TEXT", help="send this")
    what.add_argument("-f", "--file", metavar="FILE", help="send what is in FILE; - is standard input")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=PATIENCE,
        help="give up when the server owes something and neither takes nor returns a byte for so long "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--no-half-close",
        action="store_true",
        help="keep our side of the connection open after the last byte, and be done when that has come back: for "
        "servers and proxies that stop answering when the client has nothing more to say; bytes that come after "
        "the echo may then go unnoticed",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="tell on standard error each address before it is tried and how that ended, the connection's family, "
        "type, protocol and ends, and each chunk",
    )
    add_common_arguments(parser)
    return parser


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Send, receive and compare; raises ClientError for whatever is not "identical"."""
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
    """What `--json` tells of it."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.attempts: list[Attempt] = []
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
            "sent": self.sent,
            "received": self.received,
            "seconds": self.seconds,
            "error": error and error.fields(),
        }


def _send(options: argparse.Namespace, screen: Screen, result: _Result) -> None:
    def tell(line: str) -> None:
        if options.verbose:
            screen.tell(line)

    def on_trying(address: SockAddr) -> None:
        tell(f"trying {endpoint(address)}")

    def on_attempt(attempt: Attempt) -> None:
        result.attempts.append(attempt)
        tell(str(attempt))

    def on_sent(data: memoryview) -> None:
        result.sent += len(data)
        tell(f"sending {quoted(data)}")

    def on_received(data: bytes) -> None:
        result.received += len(data)
        tell(f"received {quoted(data)}")
        if not options.json:
            screen.echo(data)

    with (
        _opened(options) as source,
        open_connection(target_of(options), options.connect_timeout, on_attempt, on_trying) as connection,
    ):
        result.connection = described(connection)
        for name, value in result.connection.items():
            tell(f"{name.capitalize():8}: {value}")
        tell("")
        began = time.monotonic()
        try:
            exchange(
                connection,
                source,
                timeout=options.timeout,
                on_sent=on_sent,
                on_received=on_received,
                half_close=not options.no_half_close,
            )
        finally:
            result.seconds = time.monotonic() - began
            screen.end_line()
        tell("closing socket")
    if result.sent == 0:
        raise UntestableError("the input was empty: nothing was sent, so nothing was tested; give -m TEXT")


@contextmanager
def _opened(options: argparse.Namespace) -> Iterator[bytes | int]:
    if options.message is not None:
        yield os.fsencode(options.message)  # the very bytes of argv, whatever the locale
    elif options.file == "-" or (options.file is None and _is_fed(0)):
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


def _is_fed(descriptor: int) -> bool:
    """Whether something was meant to be sent: a pipe or a file, not a terminal, /dev/null or sshd's socket."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
