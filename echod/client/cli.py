"""echoc's command line: argv -> connection -> exchange -> exit code.

Exit codes: 0 the echo was identical; 1 it was wrong or lost; 2 nothing can be said (usage, no connection,
unreadable input, unwritable output).  Ended by Ctrl-C it is 130, and when the reader of standard output goes
away 141, as a shell reports a death by SIGINT and SIGPIPE.
"""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from echod import __version__
from echod.client.connect import UNIX, open_connection
from echod.client.echo import exchange
from echod.client.faults import ClientError, UntestableError, reason
from echod.client.output import Screen, fill_standard_descriptors, print_bytes
from echod.client.words import described, quoted

TYPE_CHECKING = False  # as type checkers take the name; importing typing would cost a third of the whole start
if TYPE_CHECKING:
    from typing import NoReturn

SENTENCE = "This is the message.  It will be repeated."
"""The message of the socket tutorial in Doug Hellmann's Python Module of the Week."""

_PORT = 10000
_TIMEOUT = 10.0
_DAY = 24 * 60 * 60


def main(argv: Sequence[str] | None = None) -> int:
    """Run echoc with `argv` (default: the process's own arguments) and return its exit code."""
    screen = Screen()
    try:
        fill_standard_descriptors()
        _send(parse_arguments(argv), screen)
    except ClientError as error:
        screen.tell(f"echoc: {error}")
        return error.exit_code
    except BrokenPipeError:
        return 141
    except OSError as error:  # out of descriptors, say, where nothing more can be told about it
        screen.tell(f"echoc: {reason(error)}")
        return UntestableError.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _send(options: argparse.Namespace, screen: Screen) -> None:
    def on_sending(data: bytes) -> None:
        if options.verbose:
            screen.tell(f"sending {quoted(data)}")

    def on_received(data: bytes) -> None:
        if options.verbose:
            screen.tell(f"received {quoted(data)}")
        screen.echo(data)

    timeout: float = options.timeout
    with _opened(options) as source, open_connection(options.host, options.port, timeout) as connection:
        if options.verbose:
            screen.tell("\n".join([*described(connection), ""]))
        try:
            count = exchange(connection, source, timeout=timeout, on_sending=on_sending, on_received=on_received)
        finally:
            screen.end_line()
        if options.verbose:
            screen.tell("closing socket")
    if count == 0:
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


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage that buries it; prints without Python's buffer."""

    def error(self, message: str) -> NoReturn:
        raise UntestableError(f"{message} (see echoc --help)")

    def _print_message(self, message: str, file: object = None) -> None:
        print_bytes(message.encode())


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """What `argv` asks for, checked and with every default filled in; raises UntestableError."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if not options.host.startswith(UNIX):
        options.port = options.port or _PORT
    elif options.port:
        parser.error(f"{options.host!r} is a unix socket and has no port")
    return options


def make_parser() -> argparse.ArgumentParser:
    """All arguments, with what `--help` says of them; the man page is made from it too."""
    parser = _Parser(
        prog="echoc",
        description="Send bytes to an echo service, compare what comes back byte for byte, and print it.",
        epilog="""Without -m and -f, what is piped into echoc or redirected to it is sent, or else the sentence of
        the socket tutorial, "This is the message.  It will be repeated."  So in a loop that reads, say -m.  Exit
        codes: 0 the echo was identical; 1 it was wrong or lost; 2 nothing can be said: usage, no connection,
        unreadable or empty input, unwritable output.""",
        allow_abbrev=False,
    )
    parser.add_argument(
        "host",
        metavar="HOST",
        nargs="?",
        default="localhost",
        type=_host,
        help="a name, an IPv4 or IPv6 address, unix:/path or unix:@abstract (default: %(default)s)",
    )
    parser.add_argument("port", metavar="PORT", nargs="?", type=_port, help=f"1 to 65535 (default: {_PORT})")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-m", "--message", metavar="TEXT", help="send this")
    what.add_argument("-f", "--file", metavar="FILE", help="send what is in FILE; - is standard input")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=_TIMEOUT,
        help="give up when connecting to an address takes longer, or when the server owes something and "
        "neither takes nor returns a byte for so long (default: %(default)g)",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="tell on standard error the connection's family, type, protocol and ends, and each chunk",
    )
    parser.add_argument("--version", action="version", version=f"echoc {__version__}")
    return parser


def _host(text: str) -> str:
    if text in ("", UNIX, UNIX + "@"):
        raise argparse.ArgumentTypeError(f"{text!r} is no host: want a name, an address, unix:/path or unix:@name")
    return text


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port: want a number from 1 to 65535")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 0 < seconds <= _DAY:
        return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a time: want seconds, more than 0 and at most {_DAY}")
