"""config.types: the valid values of each type, how they are written, and the notation of sizes and durations."""

import math
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from echod.config import types
from echod.config.settings import Key, keys
from echod.config.types import parse_duration, parse_size, show_duration, show_size

KEYS = {key.name: key for key in keys()}

TAKEN: dict[str, list[tuple[Any, Any]]] = {
    "Hosts": [
        ("localhost", ("localhost",)),
        ("", ("",)),
        (["::1", "unix:@a"], ("::1", "unix:@a")),
        ("*", ("",)),
        (["[::1]", "[fe80::1%eth0]", "[a]"], ("::1", "fe80::1%eth0", "[a]")),
    ],
    "Port": [(0, 0), ("65535", 65535)],
    "Mode": [("0660", "0660"), ("0000", "0000"), ("0777", "0777")],
    "ChunkSize": [(1, 1), ("16MiB", 16 << 20), ("64K", 64 << 10), ("100", 100)],
    "Workers": [(1, 1), ("256", 256), ("auto", "auto")],
    "Count": [(1, 1), (1_000_000, 1_000_000), ("7", 7)],
    "Quota": [(0, 0), ("7", 7)],
    "Timeout": [
        (0, math.inf),
        ("0", math.inf),
        ("infinity", math.inf),
        (math.inf, math.inf),
        ("1ms", 0.001),
        ("1w", 604800.0),
        (1.0000004, 1.0),
    ],
    "Keepalive": [("1s", 1.0), (32767, 32767.0), (0, math.inf)],
    "Prefix": [(1, 1), ("128", 128)],
    "Memory": [("auto", "auto"), (0, 0), ("1MiB", 1 << 20), (1 << 40, 1 << 40)],
    "Interval": [("1s", 1.0), (32767, 32767.0)],
    "Probes": [(1, 1), ("127", 127)],
    "Drain": [(0, 0.0), ("1h", 3600.0), (0.5, 0.5)],
    "Level": [("debug", "debug"), ("INFO", "info"), ("Warning", "warning"), ("WARN", "warning"), ("warn", "warning")],
    "Format": [("console", "console")],
    "Truth": [(True, True), ("no", False), ("true", True)],
}
REFUSED: dict[str, list[Any]] = {
    "Hosts": [[], [1], 1, None, ["a", ["b"]], {"a": "b"}],
    "Mode": ["0778", "01000", "rw", "", 660, True, ["0660"]],
    "Port": [-1, 65536, "http", "", 80.0, True, [80], 10**30],
    "ChunkSize": [0, (16 << 20) + 1, "64kB", "", 16.0, True, [16]],
    "Workers": [0, 257, "many", "9" * 5000, True, 1.0],
    "Count": [0, 1_000_001, True, 1.0],
    "Quota": [-1, 1_000_001, True],
    "Timeout": [-1, "0.9ms", 1e-9, "8d", math.nan, -math.inf, True, [1], "", 10**400],
    "Keepalive": [0.5, 32768, "10h", True],
    "Prefix": [0, 129, True, 1.0],
    "Memory": ["1023KiB", 1, -1, (1 << 40) + 1, "all", "1MB", True, 1.0, [1 << 20]],
    "Interval": [0, 0.5, 32768, "infinity", True],
    "Probes": [0, 128, True, 1.0],
    "Drain": ["1h 1s", "infinity", -1, math.nan],
    "Level": ["loud", "critical", "", 1],
    "Format": ["xml", True],
    "Truth": ["maybe", 2, ""],
}


@pytest.mark.parametrize("name", TAKEN)
def test_valid_values(name: str) -> None:
    """They come with a type from a file, or as text from a variable or flag; 0 disables a timeout."""
    adapter = TypeAdapter(getattr(types, name))
    for value, expected in TAKEN[name]:
        assert adapter.validate_python(value) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_values(name: str) -> None:
    """They raise pydantic's error, which becomes a sentence, and never any other."""
    adapter = TypeAdapter(getattr(types, name))
    for value in REFUSED[name]:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


def test_every_type_is_tried() -> None:
    """The tables above have every type that the model uses."""
    used = {id(key.kind) for key in KEYS.values()}
    tried = {id(each) for name in TAKEN for each in getattr(types, name).__metadata__}
    assert used <= tried
    assert TAKEN.keys() == REFUSED.keys()


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_default_is_written_as_it_is_read(key: Key) -> None:
    """`show` writes TOML that is read back as the default."""
    shown = tomllib.loads(f"x = {key.kind.show(key.default)}")["x"]
    if key.name == "host":
        shown = (shown,)
    assert shown == key.default or key.kind.metavar in ("BYTES", "DURATION")
    assert key.kind.expected
    assert key.kind.metavar


@given(st.text())
def test_a_quoted_string_is_one_of_toml(text: str) -> None:
    """A string with any characters, such as a file name or a host from a flag, becomes valid TOML."""
    assert tomllib.loads(f"x = {types.quoted(text)}") == {"x": text}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16", 16),
        ("16B", 16),
        ("64KiB", 64 << 10),
        ("64k", 64 << 10),
        (" 1 MiB ", 1 << 20),
        ("1M", 1 << 20),
        ("2G", 2 << 30),
        ("2gib", 2 << 30),
        ("0", 0),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Units are powers of 1024, in upper or lower case, with or without space."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", " ", "KiB", "64kB", "1MB", "1.5K", "-1", "+1", "1 2", "0x10", "1T", "1_000", "٣", "9" * 5000]
)
def test_invalid_sizes(text: str) -> None:
    """Nothing is guessed, least of all whether a kB has 1000 or 1024 bytes."""
    with pytest.raises(ValueError):
        parse_size(text)


@given(st.one_of(st.integers(0, 1 << 50), st.integers(0, 1 << 12).map(lambda count: count << 20)))
def test_a_size_that_is_shown_is_read_back(size: int) -> None:
    """The text is exact: no size is rounded."""
    assert parse_size(show_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1, "1"), (1025, "1025"), (1024, "1KiB"), (3 << 20, "3MiB"), (1 << 30, "1GiB")]
)
def test_sizes_are_shown_in_the_largest_unit_that_is_exact(size: int, text: str) -> None:
    """The text has the largest unit of which the size is a whole number."""
    assert show_size(size) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5h", 5400),
        ("1min 30s", 90),
        ("1min30s", 90),
        (" 2 hours ", 7200),
        ("100ms", 0.1),
        ("7us", 7e-6),
        ("7µs", 7e-6),
        ("7μs", 7e-6),
        ("1w 1d 1hr 1m 1sec", 694861),
        ("0", 0),
        ("infinity", math.inf),
        (" infinity ", math.inf),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """Terms are added; a number without a unit is seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "s", "1 parsec", "1M", "1y", "1month", "-1s", "1,5s", "1e3", "1.5.2", "1s,", "inf", "5 x 5", "٣"]
)
def test_invalid_durations(text: str) -> None:
    """Months and years, which systemd accepts too, are too long for a timeout; the others mean nothing."""
    with pytest.raises(ValueError):
        parse_duration(text)


@given(st.one_of(st.integers(0, 10**7), st.floats(0, 10**7).map(lambda seconds: round(seconds, 6))))
def test_a_duration_that_is_shown_is_read_back(seconds: float) -> None:
    """The text is exact to the microsecond, the precision of systemd."""
    assert parse_duration(show_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.5, "0.5s"),
        (90, "1min 30s"),
        (3600, "1h"),
        (90061, "1d 1h 1min 1s"),
        (math.inf, "infinity"),
        (1e-6, "0.000001s"),
    ],
)
def test_durations_are_shown_in_the_units_of_systemd(seconds: float, text: str) -> None:
    """Whole seconds are split into units, others are one number."""
    assert show_duration(seconds) == text
