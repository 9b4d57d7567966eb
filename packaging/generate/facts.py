"""Facts from the code of echod: its events, exit statuses, settings, status and docstrings."""

import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any, cast

from echod import errors
from echod.config.settings import Key, keys
from echod.log.events import EventLog
from echod.parent.status import Reloads, serving
from echod.shared.counters import Totals

# Statuses for which errors.py has no exception; one that is missing here raises KeyError.
STATUS_WITHOUT_ERROR = {
    errors.EX_OK: "Stopped by SIGTERM, SIGINT or, at a terminal, SIGHUP; or printed the requested output.",
    errors.EX_HANDED_OVER: "After SIGTERM, echod left its sockets to the next echod, which systemd starts at once.",
    errors.EX_SOFTWARE: "A bug; the event `bug` has its traceback.",
    errors.EX_INTERRUPTED: "Interrupted by SIGINT during the start.",
}


def events() -> Iterator[tuple[str, str, str, list[str]]]:
    """Name, levels, meaning and fields of each event, in the order of declaration."""
    for name, method in vars(EventLog).items():
        if hasattr(method, "__wrapped__"):
            fields = [field for field in inspect.signature(method).parameters if field != "self"]
            yield name, _levels(inspect.getclosurevars(method).nonlocals["level"]), _doc(method), fields


def example() -> dict[str, Any]:
    """An event as the journal shows it: the end of a connection on which `hello` was echoed."""
    fields: dict[str, Any] = {
        "connection": "156.2",
        "peer": "127.0.0.1:35082",
        "local": "127.0.0.1:10000",
        "bytes_received": 5,
        "bytes_sent": 5,
        "chunks": 1,
        "started": "2026-11-25T10:18:36.864365Z",
        "duration": 0.000479,
        "restarts": 0,
        "reason": "eof",
    }
    return {
        "message": inspect.unwrap(EventLog.connection_closed)(cast(EventLog, None), **fields),
        "event": "connection_closed",
        "timestamp": "2026-11-25T10:18:36.864844Z",
        "level": "info",
        "pid": 156,
        "worker": 0,
    } | fields


def status_line() -> str:
    """The status, as `systemctl status` shows it, of an echod that has echoed `hello` once."""
    totals = Totals(clients_now=0, clients_total=1, clients_refused=0, bytes_echoed=5)
    return serving(
        ["127.0.0.1:10000", "[::1]:10000"],
        totals,
        adopted=False,
        overruled=[],
        reloads=Reloads(0, under_way=False, failure=""),
    )


def statuses() -> Iterator[tuple[int, str]]:
    """echod's exit statuses, and the meaning of each."""
    meanings = {error.exit_code: _doc(error) for error in errors.EchodError.__subclasses__()}
    for status in sorted({value for name, value in vars(errors).items() if name.startswith("EX_")}):
        yield status, meanings[status] if status in meanings else STATUS_WITHOUT_ERROR[status]


def settings() -> dict[str, Key]:
    """The settings of echod by their flags."""
    return {key.flag: key for key in keys()}


def _levels(level: int | Callable[..., int]) -> str:
    """A level, or all levels that a function may choose: those that its code names.  `info` comes first."""
    if isinstance(level, int):
        return logging.getLevelName(level).lower()
    known = logging.getLevelNamesMapping()
    named = [name for name in level.__code__.co_names if name in known]
    return " or ".join(sorted(map(str.lower, named), key=lambda name: (name != "info", known[name.upper()])))


def _doc(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())
