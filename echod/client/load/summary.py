"""The result of a load as text, with a chart of its latencies, and as the fields of `--json`."""

from __future__ import annotations

from echod.client.histogram import PERCENTILES, Histogram, bounds
from echod.client.load.tally import Result, Tally
from echod.client.text import counted

Percentiles = tuple[float, ...]

_RED, _PLAIN = "\x1b[31m", "\x1b[0m"

_LIMIT = 0.95
"""The fraction of the time, busy or starved, from which on echoc had none left for more messages."""

_BEFORE = 34
"""Columns before the bar in a line of the chart."""
_COLUMNS = 74
"""Columns of the longest line of the chart, if the terminal has as many."""

_STEPS = (1, 2, 5)


def summary(
    mode: str,
    settings: list[tuple[str, str]],
    result: Result,
    has_colours: bool,
    percentiles: Percentiles = PERCENTILES,
    columns: int = _COLUMNS,
) -> list[str]:
    """The result as lines: a name, a value, and for numbers a unit, separated by spaces; then the chart.

    The names and values of the `settings` come first.  The chart fits into `columns`, if these are at least 35.
    """

    def alarming(count: int, text: str) -> str:
        return f"{_RED}{text}{_PLAIN}" if count and has_colours else text

    total, within, seconds = result.total, result.within, result.seconds
    errors = sum(total.errors.values())
    unit = "marks" if mode == "stream" else "messages"
    lines = [
        *settings,
        ("time", f"{seconds:.3f} s"),
        (unit, f"{total.messages}"),
        ("rate", f"{_per_second(within.messages, seconds):.1f} {unit}/s"),
        ("throughput", f"{_per_second(within.received, seconds) / 1e6:.3f} MB/s each way"),
        ("sent", counted(total.sent, "byte")),
        ("received", counted(total.received, "byte")),
        ("busy", f"{100 * result.busy:.1f} %"),
        ("starved", f"{100 * result.starved:.1f} %"),
        *_times("", total.latency, percentiles),
        *_times("late-", total.late, percentiles),
        *(_times("connect-", total.connecting, percentiles) if mode == "churn" else []),
        *_path(total),
        *(
            (name, alarming(count, counted(count, unit.removesuffix("s"))))
            for name, count in (("lost", total.lost), ("outstanding", total.outstanding), ("unsent", total.unsent))
        ),
        ("errors", alarming(errors, f"{errors}")),
        *((f"error-{kind}", alarming(count, f"{count} {why}".rstrip())) for (kind, why), count in total.errors.items()),
    ]
    text = [f"{name:<15} {value}" for name, value in lines]
    if total.latency.count:
        text += ["", f"{'latency':>10} {unit:>12}", *chart(total.latency, columns)]
    return text


def progress(now: float, seconds: float, tally: Tally) -> str:
    """One line about an interval of `seconds` that ended at `now`."""
    latency = tally.latency
    parts = [f"{now:.1f} s", f"{_per_second(tally.messages, seconds):.0f} messages/s"]
    parts.append(f"{_per_second(tally.received, seconds) / 1e6:.2f} MB/s")
    if errors := sum(tally.errors.values()):  # before the parts that a narrow terminal may cut off
        parts.append(counted(errors, "error"))
    if latency.count:
        parts += [f"p50 {duration(latency.percentile(50) / 1e9)}", _longest(latency)]
    return ", ".join(parts)


def waiting(echoes: int, connections: int) -> str:
    """One line about what the load waits for after its end."""
    what = counted(echoes, "echo") if echoes < 2 else f"{echoes} echoes"
    if not echoes:
        what = f"the server to close {counted(connections, 'connection')}"
    return f"waiting for {what}, Ctrl-C to stop waiting"


def so_far(seconds: float, total: Tally) -> str:
    """One line about everything that was reported in the first `seconds`."""
    parts = [f"{seconds:.1f} s", counted(total.messages, "message"), f"{_per_second(total.messages, seconds):.0f}/s"]
    parts += [errors_and_losses(total)] if errors_and_losses(total) else []
    if total.latency.count:
        parts += [f"p50 {duration(total.latency.percentile(50) / 1e9)}", _longest(total.latency)]
    return ", ".join(parts)


def warnings(result: Result) -> list[str]:
    """A sentence for each way in which echoc itself, and not the server, has determined the numbers."""
    found = []
    if result.total.stopped:
        found.append(
            f"echoc itself was stopped, or had no processor, for {duration(result.total.stopped / 1e9)}: rates and "
            "latencies include that time, which is not the server's"
        )
    if result.busy + result.starved >= _LIMIT:
        found.append(
            f"echoc itself was the limit: for {100 * result.busy:.0f} % of the time it was busy, and for "
            f"{100 * result.starved:.0f} % it had no processor; use more --processes, or a machine with more processors"
        )
    return found


def errors_and_losses(total: Tally) -> str:
    """All that did not come back as it was sent, or was not sent, as a list in one line; "" if all came back."""
    parts = [f"{count} {kind}{f' ({why})' if why else ''}" for (kind, why), count in total.errors.items()]
    counts = (("lost", total.lost), ("outstanding", total.outstanding), ("unsent", total.unsent))
    return ", ".join(parts + [f"{count} {name}" for name, count in counts if count])


def numbers(tally: Tally, within: Tally, seconds: float, percentiles: Percentiles) -> dict[str, object]:
    """The fields of `--json` that an interval and the result have in common; rates are those of `within`."""
    return {
        "seconds": seconds,
        "messages": tally.messages,
        "lost": tally.lost,
        "outstanding": tally.outstanding,
        "unsent": tally.unsent,
        "sent": tally.sent,
        "received": tally.received,
        "connections_made": tally.connections,
        "messages_per_second": _per_second(within.messages, seconds),
        "bytes_per_second": _per_second(within.received, seconds),
        "latency": tally.latency.fields(percentiles),
        "late": tally.late.fields(percentiles),
        "connecting": tally.connecting.fields(percentiles),
        "errors": [
            {"kind": kind, "reason": why or None, "count": count} for (kind, why), count in tally.errors.items()
        ],
    }


def histogram(times: Histogram) -> list[dict[str, object]]:
    """The rows of the chart in the form that `--json` prints."""
    return [{"at_most": step, "count": count} for step, count in rows(times)]


def chart(times: Histogram, columns: int = _COLUMNS) -> list[str]:
    """A line for each of the `rows`: the step, the count, its share of all, and a bar; see `summary`."""
    longest = max(min(columns, _COLUMNS) - _BEFORE, 1)
    found = rows(times)
    most = max((count for _, count in found), default=0)
    lines = []
    for step, count in found:
        bar = "#" * (count * longest // most or count > 0)
        share = 100 * count / times.count
        lines.append(f"<= {duration(step):>7} {count:>12} {share:6.2f} %  {bar}".rstrip())
    return lines


def rows(times: Histogram) -> list[tuple[float, int]]:
    """The times in steps of 1, 2 and 5 microseconds, 10, 20 and so on, from the shortest to the longest.

    Each row has its step in seconds, and how many times were at most that long, but longer than the step before.
    """
    counts: dict[int, int] = {}
    for bucket, count in times.buckets.items():
        # A bucket belongs to the row of its middle, so a step is off by no more than half the width of a bucket, 1 %.
        row = _row(sum(bounds(bucket)) / 2000)
        counts[row] = counts.get(row, 0) + count
    if not counts:
        return []
    return [(_step(row) / 1e6, counts.get(row, 0)) for row in range(min(counts), max(counts) + 1)]


def duration(seconds: float) -> str:
    """A time with three digits or more, and its unit: "1.23 ms"."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size * 0.9995:
            return _rounded(seconds / size, unit)
    return _rounded(seconds * 1e6, "us")


def _longest(times: Histogram) -> str:
    return f"max {duration(times.greatest / 1e9)}"


def _path(total: Tally) -> list[tuple[str, str]]:
    """What TCP knows about the path, and the local ends, by which a packet capture can be filtered."""
    if not total.rtt.count:
        return []
    return [
        ("tcp-rtt-min", f"{total.rtt.least / 1e6:.3f} ms"),
        ("tcp-rtt-p50", f"{total.rtt.percentile(50) / 1e6:.3f} ms"),
        ("tcp-retransmits", counted(total.retransmits, "segment")),
        ("tcp-lost", counted(total.segments_lost, "segment")),
        *((f"tcp-{name}", f"{value:.0f} bytes") for name, value in total.least.items()),
        *(("local", f"{address} ports {low} to {high}") for address, (low, high) in total.ports.items()),
    ]


def path_fields(total: Tally) -> dict[str, object]:
    """The same in the form that `--json` prints."""
    tcp: dict[str, object] | None = None
    if total.rtt.count:
        rtt = {"min": total.rtt.least / 1e9, "median": total.rtt.percentile(50) / 1e9, "max": total.rtt.greatest / 1e9}
        tcp = {
            "connections": total.rtt.count,
            "rtt": rtt,
            "retransmits": total.retransmits,
            "lost": total.segments_lost,
        }
        tcp |= total.least
    local = [{"address": address, "ports": {"min": low, "max": high}} for address, (low, high) in total.ports.items()]
    return {"tcp": tcp, "local": local}


def _rounded(value: float, unit: str) -> str:
    decimals = 0 if value >= 99.95 or value == int(value) else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f} {unit}"


def _row(microseconds: float) -> int:
    row = 0
    while _step(row) < microseconds:
        row += 1
    return row


def _step(row: int) -> int:
    """The longest time of a row, in microseconds."""
    power, step = divmod(row, len(_STEPS))
    return _STEPS[step] * int(10**power)


def _per_second(count: int, seconds: float) -> float:
    return count / seconds if seconds else 0.0


def _times(prefix: str, times: Histogram, percentiles: Percentiles) -> list[tuple[str, str]]:
    if not times.count:
        return []
    found = [(f"p{percent:g}", times.percentile(percent)) for percent in percentiles] + [("max", times.greatest)]
    return [(prefix + name, f"{nanoseconds / 1e6:.3f} ms") for name, nanoseconds in found]
