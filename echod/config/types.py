"""The types of settings: how each value is written, which values are valid, and how messages describe them.

Sizes and durations are in systemd's notation (systemd.syntax(7), systemd.time(7)).
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

INFINITY = math.inf
"""A timeout that is disabled."""

BRACKETED = re.compile(r"\[([0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[^][]+)?)\]")
"""An IPv6 address in brackets, as in a URL (RFC 3986), with or without a zone."""

_CHUNK_SIZE_MAX = 16 << 20
_WORKERS_MAX = 256
_MEMORY_MIN = 1 << 20
_KEEPALIVE_MAX = 32767
"""Seconds; TCP_KEEPIDLE and TCP_KEEPINTVL take no more (tcp(7))."""
_PROBES_MAX = 127
"""TCP_KEEPCNT takes no more."""
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
_HOUR = 3600.0
_WEEK = 7 * 24 * _HOUR

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


@dataclass(frozen=True, slots=True)
class ValueType:
    """The words that follow "must be" in a message, the placeholder in `--help`, and how to write a value in TOML."""

    expected: str
    metavar: str
    show: Callable[[Any], str] = str


def quoted(value: str) -> str:
    """A TOML string: the same as in JSON, except that TOML requires DEL to be escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def parse_size(text: str) -> int:
    """The bytes in `"16"`, `"64KiB"` or `"1M"`; K, M and G are powers of 1024, as in systemd.

    Raises ValueError for anything else, including `"64kB"` and `"1MB"`, which may mean powers of 1000 or of 1024.
    """
    match = _SIZE.fullmatch(text)
    if not match or match[2].upper() not in _SIZE_UNITS:
        raise ValueError(text)
    return int(match[1]) * _SIZE_UNITS[match[2].upper()]


def show_size(size: int) -> str:
    """The shortest text that `parse_size` reads as exactly this size."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


def parse_duration(text: str) -> float:
    """The seconds in `"90"`, `"1.5h"`, `"1min 30s"`, `"100ms"` or `"infinity"`; a number without a unit is seconds.

    Raises ValueError for anything else.  Months and years, which systemd accepts too, are too long for a timeout.
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
    """The duration in systemd's notation, which `parse_duration` reads: `"3h"`, `"1min 30s"`, `"0.5s"`."""
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


def _hosts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _host(host: Any) -> Any:
    """As other programs write it: `*` is every address, and an IPv6 address may have the brackets of a URL."""
    if isinstance(host, str) and (match := BRACKETED.fullmatch(host)):
        return match[1]
    return "" if host == "*" else host


def _level(value: Any) -> Any:
    """In either case, as in other programs, and `warn` too."""
    level = value.lower() if isinstance(value, str) else value
    return "warning" if level == "warn" else level


def _whole(value: Any) -> Any:
    if isinstance(value, (bool, float)):
        raise ValueError(value)
    return value


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else _whole(value)


def _memory(value: Any) -> Any:
    if value == "auto":
        return value
    size = _size(value)
    if isinstance(size, int) and 0 < size < _MEMORY_MIN:
        raise ValueError(value)
    return size


def _workers(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else _whole(value)


def _duration(value: Any) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError  # without the value, which may be a number too long for Python to print
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError from error


def _mode(value: Any) -> str:
    """A mode as text, of four digits; the number 660 would not be the mode 0660."""
    if isinstance(value, str) and _MODE.fullmatch(value):
        return value.zfill(4)
    raise ValueError(value)


def _drain(value: Any) -> float:
    return _within(_duration(value), 0, _HOUR)


def _timeout(value: Any) -> float:
    return _never(_duration(value), 0.001, _WEEK)


def _keepalive(value: Any) -> float:
    return _never(_duration(value), 1, _KEEPALIVE_MAX)


def _interval(value: Any) -> float:
    return _within(_duration(value), 1, _KEEPALIVE_MAX)


def _never(seconds: float, least: float, most: float) -> float:
    """0 disables a timeout, as in systemd."""
    return INFINITY if seconds in (0, INFINITY) else _within(seconds, least, most)


def _within(seconds: float, least: float, most: float) -> float:
    """Rounded to the microsecond, the precision of systemd's durations and of `show_duration`."""
    if not least <= seconds <= most:
        raise ValueError(seconds)
    return round(seconds, 6)


def _show_hosts(hosts: tuple[str, ...]) -> str:
    return quoted(hosts[0]) if len(hosts) == 1 else "[" + ", ".join(map(quoted, hosts)) + "]"


def _show_workers(workers: int | str) -> str:
    return quoted(workers) if isinstance(workers, str) else str(workers)


def _show_duration(seconds: float) -> str:
    return quoted(show_duration(seconds))


def _show_truth(value: bool) -> str:
    return str(value).lower()


Hosts = Annotated[
    tuple[Annotated[str, BeforeValidator(_host), Field(strict=True)], ...],
    NoDecode,
    BeforeValidator(_hosts),
    Field(min_length=1),
    ValueType(
        "a name, an address, '' for every address, 'unix:/path' or 'unix:@name', or a list of these",
        "HOST",
        _show_hosts,
    ),
]
Port = Annotated[
    int,
    BeforeValidator(_whole),
    Field(ge=0, le=65535),
    ValueType("a whole number from 0 to 65535; 0 lets the kernel choose", "N"),
]
Mode = Annotated[
    str,
    BeforeValidator(_mode),
    ValueType("an octal mode in quotes, from '0000' to '0777', such as '0660'", "MODE", quoted),
]
ChunkSize = Annotated[
    int,
    BeforeValidator(_size),
    Field(ge=1, le=_CHUNK_SIZE_MAX),
    ValueType(
        "a size from 1 byte to 16MiB, in bytes or with a unit, such as '64KiB'",
        "BYTES",
        lambda size: quoted(show_size(size)),
    ),
]
Memory = Annotated[
    Annotated[int, Field(ge=0, le=1 << 40)] | Literal["auto"],
    BeforeValidator(_memory),
    ValueType(
        "a size from 1MiB to 1024GiB, such as '256MiB', 'auto' for 1/32 of the machine's memory, or 0 to disable it",
        "BYTES|auto",
        lambda size: quoted(size if size == "auto" else show_size(size)),
    ),
]
Workers = Annotated[
    Annotated[int, Field(ge=1, le=_WORKERS_MAX)] | Literal["auto"],
    BeforeValidator(_workers),
    ValueType(f"a whole number from 1 to {_WORKERS_MAX}, or 'auto' for one per processor", "N|auto", _show_workers),
]
Count = Annotated[
    int,
    BeforeValidator(_whole),
    Field(ge=1, le=1_000_000),
    ValueType("a whole number from 1 to 1000000", "N"),
]
Quota = Annotated[
    int,
    BeforeValidator(_whole),
    Field(ge=0, le=1_000_000),
    ValueType("a whole number from 1 to 1000000, or 0 to disable the limit", "N"),
]
Timeout = Annotated[
    float,
    BeforeValidator(_timeout),
    ValueType(
        "a duration from 1ms to 1w, in seconds or with units, such as '1h 30min', or 0 to disable it",
        "DURATION",
        _show_duration,
    ),
]
Keepalive = Annotated[
    float,
    BeforeValidator(_keepalive),
    ValueType(
        f"a duration from 1s to {_KEEPALIVE_MAX}s, in seconds or with units, such as '1h 30min', or 0 to disable it",
        "DURATION",
        _show_duration,
    ),
]
Prefix = Annotated[
    int,
    BeforeValidator(_whole),
    Field(ge=1, le=128),
    ValueType("a whole number from 1 to 128", "N"),
]
Interval = Annotated[
    float,
    BeforeValidator(_interval),
    ValueType(
        f"a duration from 1s to {_KEEPALIVE_MAX}s, in seconds or with units, such as '1min 30s'",
        "DURATION",
        _show_duration,
    ),
]
Probes = Annotated[
    int,
    BeforeValidator(_whole),
    Field(ge=1, le=_PROBES_MAX),
    ValueType(f"a whole number from 1 to {_PROBES_MAX}", "N"),
]
Drain = Annotated[
    float,
    BeforeValidator(_drain),
    ValueType("a duration from 0 to 1h, in seconds or with units, such as '1min 30s'", "DURATION", _show_duration),
]
Level = Annotated[
    Literal["debug", "info", "warning", "error"],
    BeforeValidator(_level),
    ValueType("one of debug, info, warning, error", "LEVEL", quoted),
]
Format = Annotated[Literal["json", "console"], ValueType("json or console", "FORMAT", quoted)]
Truth = Annotated[bool, ValueType("true or false", "BOOL", _show_truth)]
