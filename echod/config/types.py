"""What the values of settings may be: for each kind a type that reads it, and words that say what would be right."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from echod.config.quantities import INFINITY, parse_duration, parse_size, show_duration, show_size

_CHUNK_SIZE_MAX = 16 << 20
_WORKERS_MAX = 256
_KEEPALIVE_MAX = 32767
"""Seconds; TCP_KEEPIDLE takes no more (tcp(7))."""
_HOUR = 3600.0
_WEEK = 7 * 24 * _HOUR


@dataclass(frozen=True, slots=True)
class ValueType:
    """What a value may be, in words; what stands for one in `--help`; and how one is written in TOML."""

    expected: str
    metavar: str
    show: Callable[[Any], str] = str


def quoted(value: str) -> str:
    """A TOML string; JSON's are, but for DEL, which TOML does not let stand as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _hosts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _whole(value: Any) -> Any:
    if isinstance(value, (bool, float)):
        raise ValueError(value)
    return value


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else _whole(value)


def _workers(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else _whole(value)


def _duration(value: Any) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError  # without the value: whoever shows the error would fail where that is too long a number
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError from error


def _drain(value: Any) -> float:
    return _within(_duration(value), 0, _HOUR)


def _timeout(value: Any) -> float:
    return _never(_duration(value), 0.001, _WEEK)


def _keepalive(value: Any) -> float:
    return _never(_duration(value), 1, _KEEPALIVE_MAX)


def _never(seconds: float, least: float, most: float) -> float:
    """0 means never, as it does to systemd."""
    return INFINITY if seconds in (0, INFINITY) else _within(seconds, least, most)


def _within(seconds: float, least: float, most: float) -> float:
    """Rounded to the microsecond, which is what can be shown, and as exact as systemd's are."""
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
    tuple[Annotated[str, Field(strict=True)], ...],
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
    ValueType("a whole number from 0 to 65535, 0 for one that the kernel chooses", "N"),
]
ChunkSize = Annotated[
    int,
    BeforeValidator(_size),
    Field(ge=1, le=_CHUNK_SIZE_MAX),
    ValueType("a size of 1 byte to 16MiB, in bytes or like '64KiB'", "BYTES", lambda size: quoted(show_size(size))),
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
    ValueType("a whole number from 1 to 1000000, or 0 for no limit", "N"),
]
Timeout = Annotated[
    float,
    BeforeValidator(_timeout),
    ValueType("a duration from 1ms to 1w, in seconds or like '1h 30min', or 0 for never", "DURATION", _show_duration),
]
Keepalive = Annotated[
    float,
    BeforeValidator(_keepalive),
    ValueType(
        f"a duration from 1s to {_KEEPALIVE_MAX}s, in seconds or like '1h 30min', or 0 for never",
        "DURATION",
        _show_duration,
    ),
]
Drain = Annotated[
    float,
    BeforeValidator(_drain),
    ValueType("a duration from 0 to 1h, in seconds or like '1min 30s'", "DURATION", _show_duration),
]
Level = Annotated[
    Literal["debug", "info", "warning", "error"],
    ValueType("one of debug, info, warning, error", "LEVEL", quoted),
]
Format = Annotated[Literal["json", "console"], ValueType("json or console", "FORMAT", quoted)]
Truth = Annotated[bool, ValueType("true or false", "BOOL", _show_truth)]
