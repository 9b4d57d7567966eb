"""The run of `echoc load`: the first connection, the processes, and the result."""

from __future__ import annotations

import argparse
import os
import signal

from echod.client.compare import Pattern
from echod.client.connect import Attempt, ShownAttempts, open_connection
from echod.client.errors import ClientError, UntestableError
from echod.client.load.arguments import make_parser, prepare
from echod.client.load.connection import Mode
from echod.client.load.modes import Churn, ClosedLoop, CountedLoop, OpenLoop, Stream
from echod.client.load.plan import Plan, Times
from echod.client.load.pool import ProcessPool
from echod.client.load.summary import (
    errors_and_losses,
    histogram,
    numbers,
    path_fields,
    progress,
    so_far,
    summary,
    waiting,
    warnings,
)
from echod.client.load.tally import Result, Tally
from echod.client.load.transfer import PIECE
from echod.client.options import origin_of, target_of
from echod.client.output import Screen, columns, has_colours, print_json, print_text
from echod.client.text import counted

TYPE_CHECKING = False  # type checkers treat the name as true; importing typing would cost a third of echoc's start
if TYPE_CHECKING:
    from types import FrameType
    from typing import Self

__all__ = ["make_parser", "run"]


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Load, and print the result; raises ClientError if there is none."""
    prepare(options)
    target = str(target_of(options))
    try:
        result = _load(options, screen)
    except ClientError as error:
        if options.json:
            _print_fields(options, target, Result(Tally(), Tally(), 0.0, 0, []), error)
        raise
    wrong = errors_and_losses(result.total)
    if options.json:
        _print_fields(options, target, result, None)
    else:
        settings = _settings(options, target)
        for text in summary(options.mode, settings, result, has_colours(1), options.percentiles, columns(1)):
            print_text(text)
        for warning in warnings(result):
            screen.message(f"echoc: warning: {warning}")
    for death in result.deaths:
        screen.message(f"echoc: {death}")
    for example, local in result.total.examples.values():
        screen.message(f"echoc: for example, {f'from {local}: ' if local else ''}{example}")
    if wrong:
        screen.message(f"echoc: not everything came back as it was sent: {wrong}")
    return 1 if wrong or result.deaths else 0


def _load(options: argparse.Namespace, screen: Screen) -> Result:
    """Raises ClientError if there is no connection, or if nothing was tested."""
    report = _Report(options, screen)
    with _Signals(screen) as signals:
        plan = _plan(options, _first_connection(options, screen))
        with ProcessPool(plan, _mode(options), Pattern(PIECE), options.processes) as pool:
            signals.pool = pool
            try:
                pool.run(report.on_interval, report.on_waiting)
            finally:
                screen.status.erase()
    total = pool.result.total
    if not (total.received or total.lost or total.outstanding or total.errors or pool.result.deaths):
        raise UntestableError("nothing was sent, so nothing was tested; give a longer --duration")
    return pool.result


class _Report:
    """Shows the progress: on a terminal as one line, otherwise as lines or objects."""

    def __init__(self, options: argparse.Namespace, screen: Screen) -> None:
        self._json: bool = options.json
        self._percentiles: tuple[float, ...] = options.percentiles
        self._screen = screen
        self._is_waiting = False

    def on_interval(self, began: float, ended: float, tally: Tally) -> None:
        """Show an interval."""
        if self._json:
            print_json("load_interval", {"began": began, **numbers(tally, tally, ended - began, self._percentiles)})
        self._show(progress(ended, ended - began, tally))

    def on_waiting(self, echoes: int, connections: int) -> None:
        """Show what the load waits for: on a terminal how it decreases, in a log once."""
        if self._screen.status.is_wanted or not self._is_waiting:
            self._show(waiting(echoes, connections))
        self._is_waiting = True

    def _show(self, line: str) -> None:
        if self._screen.status.is_wanted:
            self._screen.status.show(line)
        elif not (self._json or os.isatty(2)):
            self._screen.message(line)


class _Signals:
    """What signals do to a load: SIGINT, which Ctrl-C sends, and SIGTERM end it, and then the wait for echoes; SIGQUIT,
    which Ctrl-\\ sends, prints on standard error what is known so far."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.pool: ProcessPool | None = None

    def __enter__(self) -> Self:
        handlers = {signal.SIGINT: self._stop, signal.SIGTERM: self._stop, signal.SIGQUIT: self._report}
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.pool is None:
            raise UntestableError("interrupted before there was a connection, so nothing was tested")
        self.pool.stop()
        self._screen.status.show("stopping")  # over the "^C" of the terminal

    def _report(self, number: int, frame: FrameType | None) -> None:
        self._screen.message(f"\r{so_far(*self.pool.so_far) if self.pool else 'connecting'}")


def _first_connection(options: argparse.Namespace, screen: Screen) -> Attempt:
    """The first successful connection, whose address all others use; raises ConnectError if there is none."""
    observer = ShownAttempts(screen, options.verbose)
    target = target_of(options)
    target.origin.ports = range(0)  # those given are for the load; one used here would be in TIME_WAIT
    open_connection(target, options.connect_timeout, observer).close()
    return observer.attempts[-1]


def _plan(options: argparse.Namespace, first: Attempt) -> Plan:
    times = Times(
        duration=_nanoseconds(options.duration),
        interval=_nanoseconds(options.interval),
        timeout=_nanoseconds(options.timeout),
        connect_timeout=_nanoseconds(options.connect_timeout),
        drain=_nanoseconds(options.drain),
        warmup=_nanoseconds(options.warmup),
    )
    plan = Plan(first.where, origin_of(options), options.connections, options.size, options.rate, times)
    if options.rate is None:
        plan.count = options.count
    elif options.count is not None:
        times.duration = min(times.duration, plan.due(options.count) - plan.begin)
    return plan


def _mode(options: argparse.Namespace) -> Mode:
    if options.mode == "stream":
        return Stream
    if options.mode == "churn":
        return Churn
    if options.rate is None:
        return ClosedLoop if options.count is None else CountedLoop
    return OpenLoop


def _settings(options: argparse.Namespace, target: str) -> list[tuple[str, str]]:
    settings = [("target", target), ("mode", options.mode), ("connections", f"{options.connections}")]
    settings += [("size", counted(options.size, "byte")), ("processes", f"{options.processes}")]
    if options.rate is not None:
        settings.append(("asked", f"{options.rate:.10g} messages/s"))
    return settings


def _print_fields(options: argparse.Namespace, target: str, result: Result, error: ClientError | None) -> None:
    total = result.total
    print_json(
        "load",
        {
            "ok": not (error or errors_and_losses(total) or result.deaths),
            "target": target,
            "mode": options.mode,
            "connections": options.connections,
            "size": options.size,
            "processes": options.processes,
            "rate": options.rate,
            "count": options.count,
            "warmup": options.warmup,
            "busy": result.busy,
            "starved": result.starved,
            "stopped": total.stopped / 1e9,
            "warnings": warnings(result),
            **numbers(total, result.within, result.seconds, options.percentiles),
            **path_fields(total),
            "histogram": histogram(total.latency),
            "examples": [
                {"kind": kind, "message": text, "local": local or None}
                for kind, (text, local) in total.examples.items()
            ],
            "deaths": result.deaths,
            "error": error and error.fields(),
        },
    )


def _nanoseconds(value: float) -> int:
    return round(value * 1e9)
