"""Sizes and durations as people write them, in systemd's notation (systemd.time(7), systemd.syntax(7))."""

import math
import re

INFINITY = math.inf

_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "K": 1 << 10,
    "KIB": 1 << 10,
    "M": 1 << 20,
    "MIB": 1 << 20,
    "G": 1 << 30,
    "GIB": 1 << 30,
}
_SIZE = re.compile(r"\s*(\d+)\s*([A-Za-z]*)\s*", re.ASCII)

_SPELLINGS = (
    (1e-6, "us usec µs μs"),
    (1e-3, "ms msec"),
    (1.0, "s sec second seconds"),
    (60.0, "min m minute minutes"),
    (3600.0, "h hr hour hours"),
    (86400.0, "d day days"),
    (604800.0, "w week weeks"),
)
_SECONDS = {spelling: seconds for seconds, spellings in _SPELLINGS for spelling in spellings.split()}
_TERM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zµμ]*)", re.ASCII)
_SHOWN = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def parse_size(text: str) -> int:
    """Bytes in `"16"`, `"64KiB"` or `"1M"`: K, M and G are powers of 1024, as systemd takes them.

    Raises ValueError for anything else, `"64kB"` and `"1MB"` included, which mean one thing to some and another to
    others.
    """
    match = _SIZE.fullmatch(text)
    if not match or match[2].upper() not in _SIZE_UNITS:
        raise ValueError(text)
    return int(match[1]) * _SIZE_UNITS[match[2].upper()]


def show_size(size: int) -> str:
    """The shortest exact form that `parse_size` reads back."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


def parse_duration(text: str) -> float:
    """Seconds in `"90"`, `"1.5h"`, `"1min 30s"`, `"100ms"` or `"infinity"`; a number without a unit is seconds.

    Raises ValueError for anything else.  Months and years, which systemd knows too, are no time-outs.
    """
    if text.strip() == "infinity":
        return INFINITY
    seconds, position = 0.0, 0
    while position < len(text.rstrip()):
        match = _TERM.match(text, position)
        if not match:
            raise ValueError(text)
        seconds += float(match[1]) * _SECONDS.get(match[2] or "s", math.nan)
        position = match.end()
    if position == 0 or math.isnan(seconds):
        raise ValueError(text)
    return seconds


def show_duration(seconds: float) -> str:
    """The form of systemd that `parse_duration` reads back: `"3h"`, `"1min 30s"`, `"0.5s"`."""
    if math.isinf(seconds):
        return "infinity"
    if seconds == 0 or seconds != int(seconds):
        return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"
    terms, rest = [], int(seconds)
    for unit, name in _SHOWN:
        count, rest = divmod(rest, unit)
        if count:
            terms.append(f"{count}{name}")
    return " ".join(terms)
