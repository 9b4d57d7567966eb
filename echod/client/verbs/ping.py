"""`echoc ping`: one small message after another, in ping(8)'s words, and how long each took."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from echod.client.faults import ClientError, ConnectError, UntestableError
from echod.client.options import (
    PATIENCE,
    Parser,
    add_common_arguments,
    seconds,
    seconds_or_none,
    target_of,
    whole_number,
)
from echod.client.output import Screen
from echod.client.ping.idle import Search
from echod.client.ping.link import Link
from echod.client.ping.report import Names, Report
from echod.client.ping.series import Series
from echod.client.resolver import NEVER
from echod.client.target import Target

TYPE_CHECKING = False  # as type checkers take the name; importing typing would cost a third of the whole start
if TYPE_CHECKING:
    from types import FrameType

_INTERVAL = 1.0
_SIZE = 56
_LARGEST = 16 * 1024 * 1024
_AT_ONCE = 1e-6  # seconds; 0 would mean never


def make_parser(verb: str = "ping") -> Parser:
    """The arguments of `echoc ping`."""
    parser = Parser(
        verb,
        description="""Send one small message after another to an echo service and tell how long each takes to come
        back; Ctrl-C ends it with a summary, and Ctrl-\\ tells how it goes so far.  After a loss the connection is
        made anew for the next message, and when echoes come again, the length of the outage is told, which may be too
        long by an interval.""",
        epilog="""Exit codes: 0 all messages came back identical, or the connection outlived the silence; 1 one was
        lost or wrong, or the connection ended; 2 nothing can be said: usage, it never connected, or the first silence
        was not over.""",
    )
    parser.add_argument(
        "-c", "--count", metavar="COUNT", type=whole_number(1, 10**15), help="stop after so many messages, or silences"
    )
    parser.add_argument(
        "-i",
        "--interval",
        metavar="SECONDS",
        type=seconds_or_none,
        help=f"from sending one message to sending the next, which never happens before the echo has come "
        f"(default: {_INTERVAL:g})",
    )
    parser.add_argument(
        "-s",
        "--size",
        metavar="BYTES",
        type=whole_number(1, _LARGEST),
        default=_SIZE,
        help="of each message (default: %(default)s)",
    )
    parser.add_argument("-w", "--deadline", metavar="SECONDS", type=seconds, help="stop after so long, whatever is out")
    parser.add_argument(
        "-W",
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=PATIENCE,
        help="how long an echo may take: then it is lost, and the connection is made anew (default: %(default)g)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the first line and the summary")
    parser.add_argument(
        "-D", dest="timestamps", action="store_true", help="print the time before each line, in seconds since 1970"
    )
    parser.add_argument("-n", dest="numeric", action="store_true", help="in each line print the address alone")
    parser.add_argument(
        "--reconnect", action="store_true", help="a connection for each message, and how long it took to make"
    )
    parser.add_argument(
        "--idle",
        metavar="SECONDS",
        type=seconds,
        help="find out whether a connection outlives so much silence, as NATs, firewalls and balancers may not allow, "
        "and if it does not, by halving, how much it does.  Another end that sends keepalives breaks the silence, "
        "which is told: echod does after 7200 s, and ends an idle connection after 10800 s, if not configured "
        "otherwise",
    )
    add_common_arguments(parser)
    return parser


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Ping, and return the exit code; raises ClientError where there never was a connection."""
    if options.idle is not None:
        for given, name in ((options.interval is not None, "-i"), (options.reconnect, "--reconnect")):
            if given:
                raise UntestableError(f"{name} makes no sense with --idle, which says itself when to send")
    target = target_of(options)
    deadline = time.monotonic() + options.deadline if options.deadline else NEVER
    link = Link(target, options.size, options.connect_timeout, options.timeout)
    report = Report(options, screen, Names(target.host, options.numeric))
    work: Series | Search
    if options.idle is None:
        interval = _INTERVAL if options.interval is None else options.interval
        work = Series(link, report, interval, options.count, options.reconnect)
    else:
        work = Search(link, report, options.idle, options.count)
    with closing(link), _telling_at_will(screen, work):
        try:
            link.open(deadline)
        except ConnectError as error:
            report.summary(work.kind, _fields(target, options.size, work, error))
            raise
        with suppress(KeyboardInterrupt), _ending(deadline):
            report.frame(f"PING {report.names.title(link.address)} {options.size} bytes of data.")
            work.run()
        work.stop()
    report.frame("", f"--- {target.host} ping statistics ---", *work.lines())
    report.summary(work.kind, _fields(target, options.size, work, None))
    return work.exit_code


def _fields(target: Target, size: int, work: Series | Search, error: ClientError | None) -> dict[str, object]:
    fields = {"ok": error is None and not work.exit_code, "target": str(target), "size": size} | work.fields()
    return fields | {"error": error.fields()} if error else fields


@contextmanager
def _ending(when: float) -> Iterator[None]:
    """Do as if Ctrl-C had been pressed at the time `when`, of monotonic(): ping(8)'s -w ends it by a signal too."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        if when != NEVER:
            signal.setitimer(signal.ITIMER_REAL, max(when - time.monotonic(), _AT_ONCE))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _telling_at_will(screen: Screen, work: Series | Search) -> Iterator[None]:
    """Tell on standard error how it goes, at each SIGQUIT, which Ctrl-\\ sends."""

    def handle(number: int, frame: FrameType | None) -> None:
        screen.tell(f"\r{work.short_line()}")

    before = signal.signal(signal.SIGQUIT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGQUIT, before)
