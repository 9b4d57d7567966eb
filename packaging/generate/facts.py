"""What the code of echod says of itself: its events, exit statuses, settings and docstrings."""

import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

from echod import errors
from echod.config.settings import Key, keys
from echod.log.events import EventLog

# What errors.py has no exception for; a new status there has no sentence here, and is a KeyError.
STATUS_WITHOUT_ERROR = {
    errors.EX_OK: "Stopped when told to.",
    errors.EX_SOFTWARE: "A bug; its traceback is in the event `bug`.",
    errors.EX_INTERRUPTED: "Interrupted (SIGINT) before it served.",
}


def events() -> Iterator[tuple[str, str, str, list[str]]]:
    """Name, levels, meaning and fields of each event, in the order of their declarations."""
    for name, method in vars(EventLog).items():
        if hasattr(method, "__wrapped__"):
            fields = [field for field in inspect.signature(method).parameters if field != "self"]
            yield name, _levels(inspect.getclosurevars(method).nonlocals["level"]), _doc(method), fields


def statuses() -> Iterator[tuple[int, str]]:
    """echod's exit statuses, and what each means."""
    meanings = {error.exit_code: _doc(error) for error in errors.EchodError.__subclasses__()}
    for status in sorted({value for name, value in vars(errors).items() if name.startswith("EX_")}):
        yield status, meanings[status] if status in meanings else STATUS_WITHOUT_ERROR[status]


def settings() -> dict[str, Key]:
    """The settings of echod by their flags."""
    return {key.flag: key for key in keys()}


def _levels(level: int | Callable[..., int]) -> str:
    """A level, or all those among which a function chooses: the names that its code mentions.  `info` comes first."""
    if isinstance(level, int):
        return logging.getLevelName(level).lower()
    known = logging.getLevelNamesMapping()
    named = [name for name in level.__code__.co_names if name in known]
    return " or ".join(sorted(map(str.lower, named), key=lambda name: (name != "info", known[name.upper()])))


def _doc(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())
