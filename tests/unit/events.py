"""The events of echod for its tests: each method of `EventLog` that declares one, values for its fields, a recorder."""

import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from echod.log.events import EventLog, LogOptions
from echod.log.output import Framing, LogQueue, open_writer

EVENTS = {name: method for name, method in vars(EventLog).items() if hasattr(method, "__wrapped__")}
"""By name, in the order of the module."""

_ORDINARY: dict[Any, Any] = {str: "something", int: 7, float: 1.5, bool: True, list[str]: ["one", "two"]}


def fields_of(name: str) -> dict[str, Any]:
    """The event's own fields, each with an ordinary value."""
    parameters = inspect.signature(EVENTS[name]).parameters.values()
    return {parameter.name: _ORDINARY[parameter.annotation] for parameter in parameters if parameter.name != "self"}


class Recorder:
    """An `EventLog`, and what it has written into a pipe."""

    def __init__(self, framing: Framing, options: LogOptions) -> None:
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._reads, False)
        self._queue = LogQueue(open_writer(self._writes))
        self.events = EventLog(self._queue, framing, options)

    def log(self, name: str, **fields: Any) -> None:
        """Log an event with these fields, the others at ordinary values."""
        getattr(self.events, name)(**(fields_of(name) | fields))

    def written(self) -> bytes:
        """What was written since the last call."""
        try:
            return os.read(self._reads, 1 << 20)
        except BlockingIOError:
            return b""

    def lines(self) -> list[bytes]:
        """What was written since the last call, as lines."""
        return self.written().splitlines(keepends=True)

    def objects(self) -> list[dict[str, Any]]:
        """What was written since the last call, read as JSON."""
        return [json.loads(line) for line in self.lines()]

    def close(self) -> None:
        """Close the pipe."""
        self._queue.close()
        os.close(self._reads)
        os.close(self._writes)


@contextmanager
def recording(framing: Framing = Framing.LINE, **options: Any) -> Iterator[Recorder]:
    """A recorder with these options; by default it logs everything, as JSON."""
    defaults: dict[str, Any] = {"level": "debug", "format": "json", "connections": True, "payload": False}
    recorder = Recorder(framing, LogOptions(**(defaults | options)))
    try:
        yield recorder
    finally:
        recorder.close()
