"""The arguments of `echoc ping`, and its run: the first connection, the messages or silences, and the summary."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from echod.client.connect import NEVER
from echod.client.errors import ClientError, ConnectError, UntestableError
from echod.client.options import (
    DEFAULT_TIMEOUT,
    Parser,
    add_common_arguments,
    seconds,
    seconds_or_zero,
    target_of,
    whole_number,
)
from echod.client.output import Screen
from echod.client.ping.connection import Server
from echod.client.ping.idle import IdleSearch
from echod.client.ping.report import Names, Report
from echod.client.ping.series import Series
from echod.client.target import Target
from echod.client.text import counted

TYPE_CHECKING = False  # type checkers treat the name as true; importing typing would cost a third of echoc's start
if TYPE_CHECKING:
    from types import FrameType

_INTERVAL = 1.0
_SIZE = 56
_LARGEST = 16 * 1024 * 1024
_AT_ONCE = 1e-6  # seconds; 0 would disable the timer


def make_parser(verb: str = "ping") -> Parser:
    """The parser of `echoc ping`."""
    parser = Parser(
        verb,
        description="Send one small message after another to an echo service and print the round-trip time of each.  "
        "Ctrl-C ends the run with a summary, and Ctrl-\\ prints a summary of the messages so far.  After a loss, the "
        "next message is sent over a new connection.  The next echo ends the outage, whose printed length may be too "
        "long by up to one interval.",
        epilog="""Exit codes: 0 all messages came back identical, or the connection survived the silence; 1 a message
        was lost or wrong, or the connection ended; 2 there is no result: usage, no first connection, or the first
        silence was interrupted.""",
    )
    parser.add_argument(
        "-c",
        "--count",
        metavar="COUNT",
        type=whole_number(1, 10**15),
        help="stop after this number of messages, or of silences with --idle",
    )
    parser.add_argument(
        "-i",
        "--interval",
        metavar="SECONDS",
        type=seconds_or_zero,
        help="time from sending one message to sending the next, which always waits for the previous echo; 0 adds no "
        f"delay (default: {_INTERVAL:g})",
    )
    parser.add_argument(
        "-s",
        "--size",
        metavar="BYTES",
        type=whole_number(1, _LARGEST),
        default=_SIZE,
        help="size of each message (default: %(default)s)",
    )
    parser.add_argument(
        "-w",
        "--deadline",
        metavar="SECONDS",
        type=seconds,
        help="stop after this time, even if an echo is outstanding",
    )
    parser.add_argument(
        "-W",
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=DEFAULT_TIMEOUT,
        help="time allowed for an echo; after it the message counts as lost, and a new connection is opened "
        "(default: %(default)g)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the first line and the summary")
    parser.add_argument(
        "-D", dest="timestamps", action="store_true", help="print the time before each line, in seconds since 1970"
    )
    parser.add_argument("-n", dest="numeric", action="store_true", help="print addresses without names")
    parser.add_argument(
        "--reconnect", action="store_true", help="open a new connection for each message, and print the time to connect"
    )
    parser.add_argument(
        "--idle",
        metavar="SECONDS",
        type=seconds,
        help="test whether a connection survives this much silence, after which a NAT, firewall or load balancer may "
        "drop it; if it is lost, search by halving for the longest silence that a connection survives.  A keepalive "
        "from the server breaks the silence, and is reported: by default echod sends the first after 7200 s, and "
        "closes an idle connection after 10800 s",
    )
    add_common_arguments(parser)
    return parser


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Ping, and return the exit code; raises ClientError if the first connection fails."""
    if options.idle is not None:
        for given, name in ((options.interval is not None, "-i"), (options.reconnect, "--reconnect")):
            if given:
                raise UntestableError(f"{name} cannot be combined with --idle")
    target = target_of(options)
    deadline = time.monotonic() + options.deadline if options.deadline else NEVER
    server = Server(target, options.size, options.connect_timeout, options.timeout)
    report = Report(options, screen, Names(target.host, options.numeric))
    work: Series | IdleSearch
    if options.idle is None:
        interval = _INTERVAL if options.interval is None else options.interval
        work = Series(server, report, interval, options.count, options.reconnect)
    else:
        work = IdleSearch(server, report, options.idle, options.count)
    with closing(server), _status_at_sigquit(screen, work):
        try:
            server.open(deadline)
        except ConnectError as error:
            report.summary(work.kind, _fields(target, options.size, work, error))
            raise
        with suppress(KeyboardInterrupt), _interrupted_at(deadline):
            report.frame(f"PING {report.names.title(server.address)} {counted(options.size, 'byte')} of data.")
            work.run()
        work.stop()
    report.frame("", f"--- {target.host} ping statistics ---", *work.lines())
    report.summary(work.kind, _fields(target, options.size, work, None))
    return work.exit_code


def _fields(target: Target, size: int, work: Series | IdleSearch, error: ClientError | None) -> dict[str, object]:
    fields = {"ok": error is None and not work.exit_code, "target": str(target), "size": size} | work.fields()
    return fields | {"error": error.fields()} if error else fields


@contextmanager
def _interrupted_at(when: float) -> Iterator[None]:
    """Raise KeyboardInterrupt at the time `when`, of monotonic(): the -w of ping(8) uses a signal as well."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        if when != NEVER:
            signal.setitimer(signal.ITIMER_REAL, max(when - time.monotonic(), _AT_ONCE))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _status_at_sigquit(screen: Screen, work: Series | IdleSearch) -> Iterator[None]:
    """Print the intermediate result on standard error at each SIGQUIT, which Ctrl-\\ sends."""

    def handle(number: int, frame: FrameType | None) -> None:
        screen.message(f"\r{work.short_line()}")

    before = signal.signal(signal.SIGQUIT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGQUIT, before)
