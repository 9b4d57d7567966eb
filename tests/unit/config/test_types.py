"""kinds: what each kind of value takes, and how it is written."""

import math
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from echod.config import types as kinds
from echod.config.settings import Key, keys

KEYS = {key.name: key for key in keys()}

TAKEN: dict[str, list[tuple[Any, Any]]] = {
    "Hosts": [("localhost", ("localhost",)), ("", ("",)), (["::1", "unix:@a"], ("::1", "unix:@a"))],
    "Port": [(0, 0), ("65535", 65535)],
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
    "Drain": [(0, 0.0), ("1h", 3600.0), (0.5, 0.5)],
    "Level": [("debug", "debug")],
    "Format": [("console", "console")],
    "Truth": [(True, True), ("no", False), ("true", True)],
}
REFUSED: dict[str, list[Any]] = {
    "Hosts": [[], [1], 1, None, ["a", ["b"]], {"a": "b"}],
    "Port": [-1, 65536, "http", "", 80.0, True, [80], 10**30],
    "ChunkSize": [0, (16 << 20) + 1, "64kB", "", 16.0, True, [16]],
    "Workers": [0, 257, "many", "9" * 5000, True, 1.0],
    "Count": [0, 1_000_001, True, 1.0],
    "Quota": [-1, 1_000_001, True],
    "Timeout": [-1, "0.9ms", 1e-9, "8d", math.nan, -math.inf, True, [1], "", 10**400],
    "Keepalive": [0.5, 32768, "10h", True],
    "Drain": ["1h 1s", "infinity", -1, math.nan],
    "Level": ["loud", "INFO", "", 1],
    "Format": ["xml", True],
    "Truth": ["maybe", 2, ""],
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken(name: str) -> None:
    """From a file with types, and as text from a variable or flag; 0 is never, as it is to systemd."""
    adapter = TypeAdapter(getattr(kinds, name))
    for value, expected in TAKEN[name]:
        assert adapter.validate_python(value) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    """Always by pydantic's error, which becomes a sentence, and never by another."""
    adapter = TypeAdapter(getattr(kinds, name))
    for value in REFUSED[name]:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


def test_every_kind_is_tried() -> None:
    """Those that the model has."""
    used = {id(key.kind) for key in KEYS.values()}
    tried = {id(each) for name in TAKEN for each in getattr(kinds, name).__metadata__}
    assert used <= tried
    assert TAKEN.keys() == REFUSED.keys()


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_default_is_written_as_it_is_read(key: Key) -> None:
    """What `show` writes is TOML, and means the default."""
    shown = tomllib.loads(f"x = {key.kind.show(key.default)}")["x"]
    if key.name == "host":
        shown = (shown,)
    assert shown == key.default or key.kind.metavar in ("BYTES", "DURATION")
    assert key.kind.expected
    assert key.kind.metavar


@given(st.text())
def test_a_quoted_string_is_one_of_toml(text: str) -> None:
    """Whatever is in it, a file name or a host from a flag for example."""
    assert tomllib.loads(f"x = {kinds.quoted(text)}") == {"x": text}
