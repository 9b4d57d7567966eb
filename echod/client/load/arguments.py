"""The arguments of `echoc load`."""

from __future__ import annotations

import argparse
import resource

from echod.client.errors import UntestableError
from echod.client.histogram import PERCENTILES
from echod.client.load.transfer import PIECE
from echod.client.options import (
    DEFAULT_TIMEOUT,
    Parser,
    add_common_arguments,
    seconds,
    seconds_or_zero,
    size,
    whole_number,
)
from echod.client.text import counted

_CONNECTIONS = 64
_SIZE = 64
_DURATION = 10.0
_DRAIN = 2.0
_LONGEST = 24 * 60 * 60.0
_MOST = 20

_SHORTEST = 0.01
"""Seconds of the shortest interval: reports take time, and a load process sends them all, however busy it is."""

_SPARE = 32
"""Descriptors that a process needs in addition to those of its connections."""


def make_parser(verb: str = "load") -> Parser:
    """The parser of `echoc load`."""
    parser = Parser(
        verb,
        description="Load an echo service from many connections, compare every byte, and print rate, latencies and "
        "errors.",
        epilog="""In a closed loop (without --rate) each connection sends its next message when the previous one has
        come back.  In an open loop (with --rate) messages are due at fixed times, and latency is measured from these
        times, so that it includes every stall of the server, and about 0.1 ms for waking echoc up.  "late" is
        the part of it by which echoc itself sent messages too late.  "busy" is the fraction of the time in
        which a processor worked for echoc, and "starved" the fraction in which echoc waited for a processor.
        If both together are near 100 %, rate and latency show the limit of echoc instead of the server's: use
        more --processes.  A connection that breaks is counted, and opened again.  After the time, or Ctrl-C or
        SIGTERM, nothing more is sent; the load waits for outstanding echoes until the next Ctrl-C, and prints
        the result.  Ctrl-\\ prints what is known so far, and the load continues.  Exit codes: 0 everything came
        back identical; 1 something was wrong, lost, outstanding at the end, or due and not sent; 2 there is no
        result: usage, no connection at all, or an interrupt before the load began.""",
    )
    parser.add_argument(
        "--mode",
        choices=("message", "stream", "churn"),
        default="message",
        help="message: one message after another on each connection; stream: as many bytes as possible, in both "
        "directions at once; churn: a new connection for each message (default: %(default)s)",
    )
    parser.add_argument(
        "--connections",
        metavar="N",
        type=whole_number(1, 100_000),
        default=_CONNECTIONS,
        help="number of simultaneous connections (default: %(default)d)",
    )
    parser.add_argument(
        "-s",
        "--size",
        metavar="BYTES",
        type=size,
        help=f"size of a message, up to 16M (default: {_SIZE}, in a stream 64K)",
    )
    parser.add_argument(
        "--duration",
        metavar="SECONDS",
        type=seconds,
        help=f"how long to send (default: {_DURATION:g}, with --count 24h)",
    )
    parser.add_argument(
        "--warmup",
        metavar="SECONDS",
        type=seconds_or_zero,
        default=0.0,
        help="first send for this time: its messages are compared, and errors count, but times and rates are not "
        "recorded (default: %(default)g)",
    )
    parser.add_argument(
        "--count",
        metavar="N",
        type=whole_number(1, 10**12),
        help="end after this number of messages over all connections; not with --warmup or --mode stream",
    )
    parser.add_argument(
        "--percentiles",
        metavar="LIST",
        type=_percentiles,
        default=PERCENTILES,
        help="percentiles to report, separated by commas (default: 50,90,99,99.9)",
    )
    parser.add_argument(
        "--drain",
        metavar="SECONDS",
        type=seconds_or_zero,
        default=_DRAIN,
        help="time allowed afterwards for outstanding echoes; 0 waits for none (default: %(default)g)",
    )
    parser.add_argument(
        "--rate",
        metavar="N",
        type=_rate,
        help="messages per second over all connections (default: as fast as possible)",
    )
    parser.add_argument(
        "--processes",
        metavar="N",
        type=whole_number(1, 1000),
        default=1,
        help="share the connections among N processes, to use more than one CPU (default: %(default)d)",
    )
    parser.add_argument(
        "-i",
        "--interval",
        metavar="SECONDS",
        type=_interval,
        default=1.0,
        help="time between reports of progress: a line on standard error, or objects with --json; at least "
        f"{_SHORTEST * 1000:g}ms (default: %(default)g)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=DEFAULT_TIMEOUT,
        help="count a connection as failed when bytes are outstanding and the server neither accepts nor returns any "
        "for this time (default: %(default)g)",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print each address tried, and the result, on standard error"
    )
    add_common_arguments(parser)
    return parser


def prepare(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other, and make sure that there are enough descriptors."""
    if options.size is None:
        options.size = PIECE if options.mode == "stream" else _SIZE
    if options.mode == "stream" and options.rate is not None:
        raise UntestableError("--rate cannot be combined with --mode stream, which is as fast as possible")
    if options.count is not None and options.mode == "stream":
        raise UntestableError("--count cannot be combined with --mode stream, which has no messages")
    if options.count is not None and options.warmup:
        raise UntestableError("--count cannot be combined with --warmup; give one of them")
    if options.duration is None:
        options.duration = _DURATION if options.count is None else _LONGEST
    if options.processes > options.connections:
        raise UntestableError(
            f"--processes: {options.processes} cannot share {counted(options.connections, 'connection')}; give fewer"
        )
    if options.source_port and len(options.source_port) < options.connections:
        raise UntestableError(
            f"--source-port: {counted(options.connections, 'connection')} to one address cannot share "
            f"{counted(len(options.source_port), 'port')}; give fewer --connections, or a larger range"
        )
    need = -(-options.connections // options.processes) + options.processes + _SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != hard < need:
        raise UntestableError(
            f"--connections: {options.connections} need {need} descriptors in a process, and the limit (ulimit -Hn) is "
            f"{hard}; give fewer, or more --processes"
        )
    if resource.RLIM_INFINITY != soft < need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if 0 < len(values) <= _MOST and all(0 < value <= 100 for value in values):
        return values
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a list of percentiles; give up to {_MOST} numbers, more than 0 and at most 100, as in 50,99.9"
    )


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0.001 <= value <= 1e7:
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a rate; give messages per second, from 0.001 to 10000000")


def _interval(text: str) -> float:
    value = seconds(text)
    if value >= _SHORTEST:
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is too short; give at least {_SHORTEST * 1000:g}ms")
