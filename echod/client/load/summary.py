"""A load's numbers, as text and as the fields of `--json`."""

from __future__ import annotations

from echod.client.histogram import PERCENTILES, Histogram
from echod.client.load.chart import chart, duration, rows
from echod.client.load.tally import Tally

_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


def summary(
    mode: str,
    asked: list[tuple[str, str]],
    total: Tally,
    within: Tally,
    seconds: float,
    busy: float,
    has_colours: bool,
) -> list[str]:
    """The result as lines: a name, a value, and for numbers a unit, between blanks; then the histogram.

    Of what was `asked` it tells first.  `within` is what came back during the `seconds` of the load, and `busy` the
    share of these in which echoc itself had something to do.
    """

    def alarming(count: int, text: str) -> str:
        return f"{_RED}{text}{_PLAIN}" if count and has_colours else text

    errors = sum(total.errors.values())
    unit = "marks" if mode == "stream" else "messages"
    lines = [
        *asked,
        ("time", f"{seconds:.3f} s"),
        (unit, f"{total.messages}"),
        ("rate", f"{_each(within.messages, seconds):.1f} {unit}/s"),
        ("throughput", f"{_each(within.received, seconds) / 1e6:.3f} MB/s each way"),
        ("sent", f"{total.sent} bytes"),
        ("received", f"{total.received} bytes"),
        ("busy", f"{100 * busy:.1f} %"),
        *_times("", total.latency),
        *(_times("connect-", total.connecting) if mode == "churn" else []),
        ("lost", alarming(total.lost, f"{total.lost} {unit}")),
        ("errors", alarming(errors, f"{errors}")),
        *((f"error-{kind}", alarming(count, f"{count} {why}".rstrip())) for (kind, why), count in total.errors.items()),
    ]
    text = [f"{name:<15} {value}" for name, value in lines]
    if total.latency.count:
        text += ["", f"{'latency':>10} {unit:>12}", *chart(total.latency)]
    return text


def progress(now: float, seconds: float, tally: Tally) -> str:
    """A line about an interval of `seconds` that ended `now`; for a person who waits."""
    latency = tally.latency
    parts = [f"{now:.1f} s", f"{_each(tally.messages, seconds):.0f} messages/s"]
    parts.append(f"{_each(tally.received, seconds) / 1e6:.2f} MB/s")
    if errors := sum(tally.errors.values()):  # before what a narrow terminal may cut off
        parts.append(f"{errors} errors")
    if latency.count:
        parts.append(f"p50 {duration(latency.percentile(50) / 1e9)}, max {duration(latency.greatest / 1e9)}")
    return ", ".join(parts)


def sentence(total: Tally) -> str:
    """What went wrong, as half a sentence; "" where nothing did."""
    parts = [f"{count} {kind}{f' ({why})' if why else ''}" for (kind, why), count in total.errors.items()]
    if total.lost:
        parts.append(f"{total.lost} lost")
    return ", ".join(parts)


def numbers(tally: Tally, within: Tally, seconds: float) -> dict[str, object]:
    """What `--json` tells of an interval and of a whole load alike."""
    return {
        "seconds": seconds,
        "messages": tally.messages,
        "lost": tally.lost,
        "sent": tally.sent,
        "received": tally.received,
        "connections_made": tally.connections,
        "messages_per_second": _each(within.messages, seconds),
        "bytes_per_second": _each(within.received, seconds),
        "latency": tally.latency.fields(),
        "connecting": tally.connecting.fields(),
        "errors": [
            {"kind": kind, "reason": why or None, "count": count} for (kind, why), count in tally.errors.items()
        ],
    }


def histogram(times: Histogram) -> list[dict[str, object]]:
    """The rows of the chart, as `--json` tells them."""
    return [{"at_most": step, "count": count} for step, count in rows(times)]


def _each(count: int, seconds: float) -> float:
    return count / seconds if seconds else 0.0


def _times(prefix: str, times: Histogram) -> list[tuple[str, str]]:
    if not times.count:
        return []
    found = [(f"p{percent:g}", times.percentile(percent)) for percent in PERCENTILES] + [("max", times.greatest)]
    return [(prefix + name, f"{nanoseconds / 1e6:.3f} ms") for name, nanoseconds in found]
