"""The arguments of `echoc ping`, and its run: the first connection, the messages or silences, and the summary."""

from __future__ import annotations

import argparse
import signal
import time
from contextlib import closing, suppress

from echod.client.connect import NEVER, ShownAttempts
from echod.client.errors import ClientError, ConnectError, UntestableError
from echod.client.options import (
    DEFAULT_TIMEOUT,
    Parser,
    add_common_arguments,
    seconds,
    seconds_or_zero,
    size,
    target_of,
    whole_number,
)
from echod.client.output import Screen
from echod.client.ping.connection import Server
from echod.client.ping.idle import IdleSearch
from echod.client.ping.report import Names, Report
from echod.client.ping.series import Series
from echod.client.ping.sweep import SizeSearch
from echod.client.target import Target
from echod.client.text import counted

TYPE_CHECKING = False  # type checkers treat the name as true; importing typing would cost a third of echoc's start
if TYPE_CHECKING:
    from types import FrameType
    from typing import Self

Work = Series | IdleSearch | SizeSearch
"""What a ping does after the first connection."""

_INTERVAL = 1.0
_SIZE = 56
_SWEEP_TIMEOUT = 2.0  # about half of the sizes tried are lost, and each is retransmitted three times within this time
_AT_ONCE = 1e-6  # seconds; 0 would disable the timer


def make_parser(verb: str = "ping") -> Parser:
    """The parser of `echoc ping`."""
    parser = Parser(
        verb,
        description="Send one small message after another to an echo service and print the round-trip time of each.  "
        "Ctrl-C and SIGTERM end the run with a summary, and Ctrl-\\ prints a summary of the messages so far.  After a "
        "loss, which a refused connection is as well, the next message is sent over a new connection.  The next echo "
        "ends the outage, whose printed length may be too long by up to one interval.",
        epilog="""Exit codes: 0 all messages came back identical, or the connection survived the silence, or the largest
        size passed; 1 a message was lost or wrong, or the connection ended; 2 there is no result: usage, a name that
        does not resolve, or an interruption before the first result of --idle or --sweep, which also need a first
        connection.  With -c and -w: 0 if COUNT messages came back, even if others were lost; 1 if fewer did, or an echo
        was wrong.""",
    )
    parser.add_argument(
        "-c",
        "--count",
        metavar="COUNT",
        type=whole_number(1, 10**15),
        help="stop after this number of messages, with -w of echoes, or with --idle of silences",
    )
    parser.add_argument(
        "-i",
        "--interval",
        metavar="SECONDS",
        type=seconds_or_zero,
        help="time from sending one message to sending the next, which always waits for the previous echo; 0 adds no "
        f"delay, but 0.1 s after a failed attempt to connect (default: {_INTERVAL:g})",
    )
    parser.add_argument(
        "-s",
        "--size",
        metavar="BYTES",
        type=size,
        help=f"size of each message, up to 16M (default: {_SIZE})",
    )
    parser.add_argument(
        "-w",
        "--deadline",
        metavar="SECONDS",
        type=seconds,
        help="stop after this time, even if an echo is outstanding; with -c, send until COUNT echoes have come back, "
        "and exit with 1 if they have not by then",
    )
    parser.add_argument(
        "-W",
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        help="time allowed for an echo; after it the message counts as lost, and a new connection is opened "
        f"(default: {DEFAULT_TIMEOUT:g}, with --sweep {_SWEEP_TIMEOUT:g})",
    )
    parser.add_argument(
        "-O",
        dest="outstanding",
        action="store_true",
        help="while an echo is outstanding, print at each interval that there is no answer yet",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="print each address tried, and after each echo what TCP knows about the connection",
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
    parser.add_argument(
        "--sweep",
        metavar="FROM:TO",
        type=_sizes,
        help="find the largest size of a message that passes, from FROM, which must pass, to TO, by halving: a path "
        "may drop packets above a size without an error (path-MTU black hole).  TCP divides a message into segments "
        "of at most the MSS, so above the MSS every size meets the same limit",
    )
    add_common_arguments(parser)
    return parser


def _sizes(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    with suppress(argparse.ArgumentTypeError):
        least, most = size(first), size(last)
        if least < most:
            return least, most
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a range of sizes; give FROM:TO, FROM below TO, from 1 to 16M, as in 1000:9K"
    )


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Ping, and return the exit code; raises ClientError if the first connection fails."""
    target = target_of(options)
    size, what = options.size or _SIZE, counted(options.size or _SIZE, "byte")
    if options.sweep:
        size, what = options.sweep[1], "{} to {} bytes".format(*options.sweep)
    timeout = options.timeout or (_SWEEP_TIMEOUT if options.sweep else DEFAULT_TIMEOUT)
    is_verbose = options.verbose and not options.quiet
    server = Server(
        target, size, options.connect_timeout, timeout, lambda: ShownAttempts(screen, is_verbose=is_verbose)
    )
    report = Report(options, screen, Names(target.host, options.numeric))
    work = _work(options, server, report)
    deadline = NEVER if options.deadline is None else time.monotonic() + options.deadline
    with closing(server), _Signals(screen, work) as signals:
        try:
            work.open(deadline)
            name = report.names.title(server.address) if server.address else str(target)
            source = f" from {server.local}:" if server.local else ""
            report.frame(f"PING {name}{source} {what} of data.")
            signals.interrupt_at(deadline)
            work.run()
        except KeyboardInterrupt:
            if not server.asked:
                raise
        except ConnectError as error:
            report.summary(work.kind, _fields(target, work, error))
            raise
        signals.ignore()
        screen.status.erase()
        work.stop()
        report.frame("", f"--- {target.host} ping statistics ---", *work.lines())
        report.summary(work.kind, _fields(target, work, None))
    return work.exit_code


def _work(options: argparse.Namespace, server: Server, report: Report) -> Work:
    """What the options ask for; raises UntestableError if they cannot be combined."""
    given = {"-i": options.interval is not None, "--reconnect": options.reconnect}
    if options.sweep:
        _reject(given | {"-c": options.count, "-s": options.size, "--idle": options.idle}, "--sweep")
        return SizeSearch(server, report, *options.sweep)
    if options.idle:
        _reject(given, "--idle")
        return IdleSearch(server, report, options.idle, options.count)
    interval = _INTERVAL if options.interval is None else options.interval
    count, wanted = (options.count, None) if options.deadline is None else (None, options.count)
    return Series(server, report, interval, count, wanted, options.reconnect)


def _reject(given: dict[str, object], by: str) -> None:
    for name, is_given in given.items():
        if is_given:
            raise UntestableError(f"{name} cannot be combined with {by}")


def _fields(target: Target, work: Work, error: ClientError | None) -> dict[str, object]:
    fields = {"ok": error is None and not work.exit_code, "target": str(target)} | work.fields()
    return fields | {"error": error.fields()} if error else fields


class _Signals:
    """What signals do in a block: SIGTERM and the end of a time interrupt it as SIGINT does, by KeyboardInterrupt, and
    SIGQUIT, which Ctrl-\\ sends, prints the intermediate result of `work` on standard error."""

    def __init__(self, screen: Screen, work: Work) -> None:
        self._screen, self._work = screen, work
        self._ignored = False

    def __enter__(self) -> Self:
        handlers = {signal.SIGTERM: self._interrupt, signal.SIGALRM: self._interrupt, signal.SIGQUIT: self._report}
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        self.ignore()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def interrupt_at(self, when: float) -> None:
        """Interrupt at the time `when`, of monotonic(): the -w of ping(8) uses a signal as well."""
        if when != NEVER:
            signal.setitimer(signal.ITIMER_REAL, max(when - time.monotonic(), _AT_ONCE))

    def ignore(self) -> None:
        """Ignore SIGTERM and the end of the time from now on: timeout(1) sends SIGTERM to the process and again to its
        group, and the second must not prevent the summary."""
        self._ignored = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._ignored:
            self._ignored = True
            raise KeyboardInterrupt

    def _report(self, number: int, frame: FrameType | None) -> None:
        self._screen.message(f"\r{self._work.short_line()}")
