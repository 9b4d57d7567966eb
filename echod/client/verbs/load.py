"""`echoc load`: as many messages as the server takes, or so many a second, every byte compared."""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from echod.client.connect import Attempt, open_connection
from echod.client.faults import UntestableError
from echod.client.load.crew import Crew
from echod.client.load.flow import Mode
from echod.client.load.modes import Churn, ClosedLoop, OpenLoop, Stream
from echod.client.load.plan import Plan
from echod.client.load.summary import histogram, numbers, progress, sentence, summary
from echod.client.load.tally import Tally
from echod.client.load.wire import PIECE
from echod.client.options import PATIENCE, Parser, add_common_arguments, seconds, target_of, whole_number
from echod.client.output import Screen, has_colours, print_json, print_line
from echod.client.pattern import Pattern

_CONNECTIONS = 64
_SIZE = 64
_DURATION = 10.0
_LARGEST = 16 * 1024 * 1024
_UNITS = {"": 1, "K": 1 << 10, "KIB": 1 << 10, "M": 1 << 20, "MIB": 1 << 20}

_SHORTEST = 0.01
"""Seconds of an interval: reports cost time, and a load process does them all, even if it can do nothing else."""

_SPARE = 32
"""Descriptors that a process needs besides its connections'."""


def make_parser(verb: str = "load") -> Parser:
    """The arguments of `echoc load`."""
    parser = Parser(
        verb,
        description="Load an echo service from many connections, compare every byte, and tell rate, latencies and "
        "errors.",
        epilog="""In a closed loop (without --rate) each connection sends its next message when the one before has come
        back.  In an open loop (with --rate) messages are due at fixed times, and the latency is counted from then:
        a server that stalls can't hide it; some 0.1 ms of it is echoc's own wake-up.  "busy" is how much of the time
        echoc itself had something to do: near 100 % rate and latency show its limit, not the server's; say more
        --processes.  Connections that break are counted and opened again.  Ctrl-C ends the load early, with its
        result.  Exit codes: 0 everything came back identical; 1 something was wrong or lost; 2 nothing can be said:
        usage, or no connection at all.""",
    )
    parser.add_argument(
        "--mode",
        choices=("message", "stream", "churn"),
        default="message",
        help="message: one after the other on each connection; stream: as many bytes as go, both ways at once; churn: "
        "a connection of its own for each message (default: %(default)s)",
    )
    parser.add_argument(
        "--connections",
        metavar="N",
        type=whole_number(1, 100_000),
        default=_CONNECTIONS,
        help="how many at once (default: %(default)d)",
    )
    parser.add_argument(
        "--size",
        metavar="BYTES",
        type=_size,
        help=f"of a message, up to 16M; K and M are powers of 1024 (default: {_SIZE}, in a stream 64K)",
    )
    parser.add_argument(
        "--duration", metavar="SECONDS", type=seconds, default=_DURATION, help="how long (default: %(default)g)"
    )
    parser.add_argument(
        "--rate", metavar="N", type=_rate, help="messages a second over all connections (default: as fast as it goes)"
    )
    parser.add_argument(
        "--processes",
        metavar="N",
        type=whole_number(1, 1000),
        default=1,
        help="share the connections among N processes, for more than one CPU (default: %(default)d)",
    )
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_interval,
        default=1.0,
        help="tell of progress so often: on a terminal in a line, with --json as objects; at least "
        f"{_SHORTEST:g} (default: %(default)g)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=PATIENCE,
        help="count a connection as failed when the server owes something and neither takes nor returns a byte for so "
        "long, and wait so long for the last echoes (default: %(default)g)",
    )
    add_common_arguments(parser)
    return parser


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Load, and print the result; raises ClientError where there can be none."""
    _check(options)
    target = target_of(options)
    plan = _plan(options, _reached(options))
    line = _Line(is_wanted=os.isatty(2) and not (options.json and os.isatty(1)))

    def on_interval(began: float, ended: float, tally: Tally) -> None:
        if options.json:
            print_json("load_interval", {"began": began, **numbers(tally, tally, ended - began)})
        line.show(progress(ended, ended - began, tally))

    with Crew(plan, _mode(options), Pattern(PIECE), options.processes) as crew:
        try:
            with _stopped_by_signals(crew):
                crew.run(on_interval)
        finally:
            line.erase()
    if not (crew.total.received or crew.total.lost or crew.total.errors or crew.deaths):
        raise UntestableError("nothing was sent, so nothing was tested; let it go on longer")
    wrong = sentence(crew.total)
    if options.json:
        _print_fields(options, str(target), crew)
    else:
        for text in summary(
            options.mode,
            _asked(options, str(target)),
            crew.total,
            crew.within,
            crew.seconds,
            crew.busy,
            has_colours(1),
        ):
            print_line(text)
    for death in crew.deaths:
        screen.tell(f"echoc: {death}")
    for example in crew.total.examples.values():
        screen.tell(f"echoc: for example, {example}")
    if wrong:
        screen.tell(f"echoc: not everything came back as it was sent: {wrong}")
    return 1 if wrong or crew.deaths else 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what makes no sense together, and see that there are descriptors enough."""
    if options.size is None:
        options.size = PIECE if options.mode == "stream" else _SIZE
    if options.mode == "stream" and options.rate is not None:
        raise UntestableError("--rate: a stream goes as fast as it can; leave out --rate, or say another --mode")
    if options.processes > options.connections:
        raise UntestableError(
            f"--processes: {options.processes} can't share {options.connections} connections; say fewer"
        )
    need = -(-options.connections // options.processes) + options.processes + _SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != hard < need:
        raise UntestableError(
            f"--connections: {options.connections} need {need} descriptors in a process, and {hard} is the limit "
            "(ulimit -Hn); say fewer, or more --processes"
        )
    if resource.RLIM_INFINITY != soft < need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def _reached(options: argparse.Namespace) -> Attempt:
    """The first connection, which finds the address that all others take; raises ConnectError where there is none."""
    attempts: list[Attempt] = []
    open_connection(target_of(options), options.connect_timeout, attempts.append).close()
    return attempts[-1]


def _plan(options: argparse.Namespace, reached: Attempt) -> Plan:
    return Plan(
        reached.where,
        target_of(options).source,
        connections=options.connections,
        size=options.size,
        rate=options.rate,
        duration=_nanoseconds(options.duration),
        interval=_nanoseconds(options.interval),
        timeout=_nanoseconds(options.timeout),
        connect_timeout=_nanoseconds(options.connect_timeout),
    )


def _mode(options: argparse.Namespace) -> Mode:
    if options.mode == "stream":
        return Stream
    if options.mode == "churn":
        return Churn
    return ClosedLoop if options.rate is None else OpenLoop


def _asked(options: argparse.Namespace, target: str) -> list[tuple[str, str]]:
    asked = [("target", target), ("mode", options.mode), ("connections", f"{options.connections}")]
    asked += [("size", f"{options.size} bytes"), ("processes", f"{options.processes}")]
    if options.rate is not None:
        asked.append(("asked", f"{options.rate:.10g} messages/s"))
    return asked


def _print_fields(options: argparse.Namespace, target: str, crew: Crew) -> None:
    total = crew.total
    print_json(
        "load",
        {
            "ok": not (total.errors or total.lost or crew.deaths),
            "target": target,
            "mode": options.mode,
            "connections": options.connections,
            "size": options.size,
            "processes": options.processes,
            "rate": options.rate,
            "busy": crew.busy,
            **numbers(total, crew.within, crew.seconds),
            "histogram": histogram(total.latency),
            "examples": [{"kind": kind, "message": text} for kind, text in total.examples.items()],
            "deaths": crew.deaths,
        },
    )


@contextmanager
def _stopped_by_signals(crew: Crew) -> Iterator[None]:
    """Have SIGINT and SIGTERM end the load early, with its result."""

    def handle(number: int, frame: object) -> None:
        crew.stop()

    before = [(number, signal.signal(number, handle)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


class _Line:
    """A line on standard error that is written over, where a person looks at it."""

    def __init__(self, is_wanted: bool) -> None:
        self._is_wanted = is_wanted
        self._length = 0

    def show(self, text: str) -> None:
        """Put `text` in place of what was there, cut to the width of the terminal."""
        if self._is_wanted:
            with suppress(OSError):
                text = text[: (os.get_terminal_size(2).columns or 80) - 1]
                os.write(2, f"\r{text:<{self._length}}".encode())
                self._length = len(text)

    def erase(self) -> None:
        """Leave nothing behind."""
        self.show("")
        if self._is_wanted:
            with suppress(OSError):
                os.write(2, b"\r")


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,8})([A-Za-z]*)", text)
    if match and match[2].upper() in _UNITS:
        value = int(match[1]) * _UNITS[match[2].upper()]
        if 1 <= value <= _LARGEST:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a size; say bytes, from 1 to 16M, as in 64 or 64K")


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0.001 <= value <= 1e7:
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a rate; say messages a second, from 0.001 to 10000000")


def _interval(text: str) -> float:
    value = seconds(text)
    if value >= _SHORTEST:
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is too short; say at least {_SHORTEST:g} seconds")


def _nanoseconds(value: float) -> int:
    return round(value * 1e9)
