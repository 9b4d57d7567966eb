"""The arguments of `echoc load`, and its run: the first connection, the processes, and the result."""

from __future__ import annotations

import argparse
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from echod.client.compare import Pattern
from echod.client.connect import Attempt, ShownAttempts, open_connection
from echod.client.errors import UntestableError
from echod.client.load.connection import Mode
from echod.client.load.modes import Churn, ClosedLoop, OpenLoop, Stream
from echod.client.load.plan import Plan, Times
from echod.client.load.pool import ProcessPool
from echod.client.load.summary import errors_and_losses, histogram, numbers, progress, summary
from echod.client.load.tally import Result, Tally
from echod.client.load.transfer import PIECE
from echod.client.options import (
    DEFAULT_TIMEOUT,
    Parser,
    add_common_arguments,
    origin_of,
    seconds,
    size,
    target_of,
    whole_number,
)
from echod.client.output import Screen, has_colours, print_json, print_line
from echod.client.text import counted

_CONNECTIONS = 64
_SIZE = 64
_DURATION = 10.0

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
        times, so that it includes every stall of the server, and about 0.1 ms for waking echoc up.  "busy" is the
        fraction of the time in which echoc itself was working.  Near 100 %, rate and latency show the limit of echoc
        instead of the server's: use more --processes.  A connection that breaks is counted, and opened again.  Ctrl-C
        ends the load early and prints the result.  Exit codes: 0 everything came back identical; 1 something was wrong
        or lost; 2 there is no result: usage, or no connection at all.""",
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
        "--size",
        metavar="BYTES",
        type=size,
        help=f"size of a message, up to 16M (default: {_SIZE}, in a stream 64K)",
    )
    parser.add_argument(
        "--duration",
        metavar="SECONDS",
        type=seconds,
        default=_DURATION,
        help="how long to send (default: %(default)g)",
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
        "--interval",
        metavar="SECONDS",
        type=_interval,
        default=1.0,
        help="time between reports of progress, which are one line on a terminal, or objects with --json; at least "
        f"{_SHORTEST:g} (default: %(default)g)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=DEFAULT_TIMEOUT,
        help="count a connection as failed when bytes are outstanding and the server neither accepts nor returns any "
        "for this time; also the time allowed for the last echoes (default: %(default)g)",
    )
    add_common_arguments(parser)
    return parser


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Load, and print the result; raises ClientError if there is none."""
    _prepare(options)
    target = target_of(options)
    if options.json and os.isatty(1):
        screen.status.is_wanted = False  # objects would continue it
    plan = _plan(options, _first_connection(options, screen))

    def on_interval(began: float, ended: float, tally: Tally) -> None:
        if options.json:
            print_json("load_interval", {"began": began, **numbers(tally, tally, ended - began)})
        screen.status.show(progress(ended, ended - began, tally))

    with ProcessPool(plan, _mode(options), Pattern(PIECE), options.processes) as pool:
        try:
            with _stopped_by_signals(pool):
                pool.run(on_interval)
        finally:
            screen.status.erase()
    result = pool.result
    total = result.total
    if not (total.received or total.lost or total.errors or result.deaths):
        raise UntestableError("nothing was sent, so nothing was tested; give a longer --duration")
    wrong = errors_and_losses(total)
    if options.json:
        _print_fields(options, str(target), result)
    else:
        for text in summary(options.mode, _settings(options, str(target)), result, has_colours(1)):
            print_line(text)
    for death in result.deaths:
        screen.message(f"echoc: {death}")
    for example in total.examples.values():
        screen.message(f"echoc: for example, {example}")
    if wrong:
        screen.message(f"echoc: not everything came back as it was sent: {wrong}")
    return 1 if wrong or result.deaths else 0


def _prepare(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other, and make sure that there are enough descriptors."""
    if options.size is None:
        options.size = PIECE if options.mode == "stream" else _SIZE
    if options.mode == "stream" and options.rate is not None:
        raise UntestableError("--rate cannot be combined with --mode stream, which is as fast as possible")
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


def _first_connection(options: argparse.Namespace, screen: Screen) -> Attempt:
    """The first successful connection, whose address all others use; raises ConnectError if there is none."""
    observer = ShownAttempts(screen, is_verbose=False)
    open_connection(target_of(options), options.connect_timeout, observer).close()
    return observer.attempts[-1]


def _plan(options: argparse.Namespace, first: Attempt) -> Plan:
    times = Times(
        duration=_nanoseconds(options.duration),
        interval=_nanoseconds(options.interval),
        timeout=_nanoseconds(options.timeout),
        connect_timeout=_nanoseconds(options.connect_timeout),
    )
    return Plan(first.where, origin_of(options), options.connections, options.size, options.rate, times)


def _mode(options: argparse.Namespace) -> Mode:
    if options.mode == "stream":
        return Stream
    if options.mode == "churn":
        return Churn
    return ClosedLoop if options.rate is None else OpenLoop


def _settings(options: argparse.Namespace, target: str) -> list[tuple[str, str]]:
    settings = [("target", target), ("mode", options.mode), ("connections", f"{options.connections}")]
    settings += [("size", counted(options.size, "byte")), ("processes", f"{options.processes}")]
    if options.rate is not None:
        settings.append(("asked", f"{options.rate:.10g} messages/s"))
    return settings


def _print_fields(options: argparse.Namespace, target: str, result: Result) -> None:
    total = result.total
    print_json(
        "load",
        {
            "ok": not (total.errors or total.lost or result.deaths),
            "target": target,
            "mode": options.mode,
            "connections": options.connections,
            "size": options.size,
            "processes": options.processes,
            "rate": options.rate,
            "busy": result.busy,
            **numbers(total, result.within, result.seconds),
            "histogram": histogram(total.latency),
            "examples": [{"kind": kind, "message": text} for kind, text in total.examples.items()],
            "deaths": result.deaths,
        },
    )


@contextmanager
def _stopped_by_signals(pool: ProcessPool) -> Iterator[None]:
    """End the load early, with its result, at SIGINT and SIGTERM."""

    def handle(number: int, frame: object) -> None:
        pool.stop()

    before = [(number, signal.signal(number, handle)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


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


def _nanoseconds(value: float) -> int:
    return round(value * 1e9)
