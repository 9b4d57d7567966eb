"""The events of echod as its tests see them: each method of `Journal` that declares one, and values for its fields."""

import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from echod.log.events import EventLog, Framing
from echod.log.output import LogQueue, open_writer

EVENTS = {name: method for name, method in vars(EventLog).items() if hasattr(method, "__wrapped__")}
"""By name, in the order of the module."""

_ORDINARY: dict[Any, Any] = {str: "something", int: 7, float: 1.5, bool: True, list[str]: ["one", "two"]}


def fields_of(name: str) -> dict[str, Any]:
    """The event's own fields, each with an ordinary value."""
    parameters = inspect.signature(EVENTS[name]).parameters.values()
    return {parameter.name: _ORDINARY[parameter.annotation] for parameter in parameters if parameter.name != "self"}


class Told:
    """A journal, and what it has written."""

    def __init__(self, **options: Any) -> None:
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._reads, False)
        self._sink = LogQueue(open_writer(self._writes))
        defaults: dict[str, Any] = {
            "level": "debug",
            "form": "json",
            "connections": True,
            "payload": False,
            "output": Framing.LINE,
        }
        self.journal = EventLog(self._sink, **(defaults | options))

    def tell(self, name: str, **fields: Any) -> None:
        """Have an event told, with these fields, and the others at ordinary values."""
        getattr(self.journal, name)(**(fields_of(name) | fields))

    def written(self) -> bytes:
        """What was written since this was last asked."""
        try:
            return os.read(self._reads, 1 << 20)
        except BlockingIOError:
            return b""

    def lines(self) -> list[bytes]:
        """The same, line by line."""
        return self.written().splitlines(keepends=True)

    def objects(self) -> list[dict[str, Any]]:
        """The same, read as JSON."""
        return [json.loads(line) for line in self.lines()]

    def close(self) -> None:
        """Close the pipe."""
        self._sink.close()
        os.close(self._reads)
        os.close(self._writes)


@contextmanager
def telling(**options: Any) -> Iterator[Told]:
    """A journal with these options, the others such that everything is told, as JSON."""
    told = Told(**options)
    try:
        yield told
    finally:
        told.close()
