"""README.md: its table of events is what `echod.log.events` declares."""

import inspect
from itertools import product
from pathlib import Path
from typing import Any

from tests.unit.events import EVENTS, recording

README = Path(__file__).parents[2] / "README.md"
HEADER = "| Event | Level | When | Fields |"

# Everything on which the level of an event may depend.
VARIANTS: dict[str, list[Any]] = {
    "reason": ["stopped", "killed"],
    "bytes_received": [1, 0],
    "left": [0, 1],
    "forgotten": [0, 1],
    "lost": [0, 1],
    "connections": [True, False],
}


def levels(name: str) -> str:
    """All levels at which an event may be logged, the usual one first."""
    parameters = inspect.signature(EVENTS[name]).parameters
    found: list[str] = []
    for values in product(*VARIANTS.values()):
        variant = dict(zip(VARIANTS, values, strict=True))
        with recording(connections=variant["connections"]) as recorder:
            recorder.log(name, **{key: value for key, value in variant.items() if key in parameters})
            (event,) = recorder.objects()
        if event["level"] not in found:
            found.append(event["level"])
    return " or ".join(found)


def row(name: str) -> str:
    """The line of the table for an event: its name, levels, docstring and parameters."""
    fields = ", ".join(f"`{field}`" for field in inspect.signature(EVENTS[name]).parameters if field != "self")
    when = " ".join((inspect.getdoc(EVENTS[name]) or "").split())
    return f"| `{name}` | {levels(name)} | {when} | {fields} |"


def test_every_event_is_documented_as_it_is() -> None:
    """The table has name, level, description and fields of every event, in the order of the module."""
    _, header, table = README.read_text().partition(HEADER + "\n")
    assert header, f"README.md has no table that begins with {HEADER}"
    documented = table.partition("\n\n")[0].splitlines()[1:]
    expected = [row(name) for name in EVENTS]
    assert documented == expected, "the table of events in README.md should be:\n" + "\n".join(expected)
