"""echod-events(7): its list of events is what `echod.log.events` declares, and its example is what echod writes."""

import inspect
import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from echod.log.output import Framing
from generate.mdoc import prose
from tests.unit.events import EVENTS, recording

PAGE = Path(__file__).parents[2] / "packaging" / "man" / "echod-events.7"

# Fields on which the level of an event may depend.
VARIANTS: dict[str, list[Any]] = {
    "reason": ["stopped", "killed"],
    "bytes_received": [1, 0],
    "left": [0, 1],
    "forgotten": [0, 1],
    "lost": [0, 1],
    "connections": [True, False],
}


def block(name: str) -> list[str]:
    """The lines of a generated block of the page, between those that begin and end its list or display."""
    found = re.search(rf'^\.\\" begin generated: {name}\n\.B.*\n((?:.*\n)*?)\.E', PAGE.read_text(), re.MULTILINE)
    assert found, f"{PAGE.name} has no block {name!r}"
    return found[1].splitlines()


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


def entry(name: str) -> Iterator[str]:
    """The lines of the list for an event: its name, levels, docstring and parameters."""
    yield f".It Sy {name} Pq {levels(name)}"
    yield from prose(" ".join((inspect.getdoc(EVENTS[name]) or "").split()))
    *fields, last = [field for field in inspect.signature(EVENTS[name]).parameters if field != "self"]
    yield "Fields:"
    yield from (f".Va {field} ," for field in fields)
    yield f".Va {last} ."


def test_every_event_is_documented_as_it_is() -> None:
    """The page has the name, levels, meaning and fields of each event, in the order of the module, and no more."""
    expected = [line for name in EVENTS for line in entry(name)]
    assert block("events") == expected, f"the list of events in {PAGE.name} should be:\n" + "\n".join(expected)


def test_the_example_is_what_echod_writes() -> None:
    """The example's fields, logged to the journal, give the same object, except for time and process."""
    shown = json.loads("\n".join(block("example event")).replace(r"\(dq", '"').replace(r"\-", "-"))
    own = {name: value for name, value in shown.items() if name in inspect.signature(EVENTS[shown["event"]]).parameters}
    with recording(framing=Framing.LINE_WITH_PRIORITY) as recorder:
        recorder.events.worker = shown["worker"]
        recorder.log(shown["event"], **own)
        (line,) = recorder.lines()
    written = json.loads(line.decode().removeprefix("<6>"))
    elsewhere = {name: shown[name] for name in ("timestamp", "pid")}
    assert list((written | elsewhere).items()) == list(shown.items())
