"""Counts, sizes, durations and lists in the form for a sentence."""

from collections.abc import Sequence

_SIZE_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_TIME_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def plural(count: int, noun: str) -> str:
    """`1 connection`, `1,000 connections`."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def enumeration(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *head, last = words or [""]
    return f"{', '.join(head)} and {last}" if head else last


def amount(count: int) -> str:
    """`1 byte`, `1023 bytes`, `1.00 KiB`: from 1024 bytes on, three digits and a suitable unit."""
    if count < 1024:
        return "1 byte" if count == 1 else f"{count} bytes"
    value, unit = float(count), "bytes"
    for unit in _SIZE_UNITS:  # noqa: B007  the last one is wanted
        value /= 1024
        if value < 999.5:
            break
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def span(seconds: float) -> str:
    """`0.5 ms`, `12.3 s`, `2 h 5 min`: three digits, or the two largest units."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    terms: list[tuple[int, str]] = []
    rest = round(seconds)
    for unit, name in _TIME_UNITS:
        count, rest = divmod(rest, unit)
        if count or terms:
            terms.append((count, name))
    return " ".join(f"{count} {name}" for count, name in terms[:2] if count)
