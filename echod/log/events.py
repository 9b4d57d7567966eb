"""The events that echod logs: one method for each, and nothing is logged in any other way.

An event is one JSON object on one line of standard error: `timestamp` (RFC 3339, UTC), `level`, `event`, `message`,
`pid` and `worker`, then the event's own fields.  A line is never longer than PIPE_BUF, so the kernel never mixes it
with the line of another process (pipe(7)); in a longer event the middle of the longest field is left out.

If standard error is connected to systemd's journal, each event is an entry there, with its fields as fields of the
journal.  `systemctl status` truncates an entry at the width of the terminal, so there the object begins with `message`,
and the most important words of the sentence come first.

To add an event, add a method to `EventLog`: its name, its keyword arguments and its docstring are the event's name, its
fields and its description in the documentation, and it returns the sentence.  To add a field, add an argument.
"""

import functools
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from select import PIPE_BUF
from typing import Any, Concatenate, ParamSpec

from echod.log import journald
from echod.log.formatters import Console, Json, Record, Sentence, shorter
from echod.log.output import Framing, LogQueue
from echod.log.words import amount, enumeration, plural, span

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
PAYLOAD_MAX = 512
"""Most bytes of a chunk that its event shows; escaped, each may take six."""
WORKER_DIED = "worker_died"
"""The reason for closing a connection that could not continue without its worker."""

P = ParamSpec("P")
_Declaration = Callable[Concatenate["EventLog", P], str]
_Event = Callable[Concatenate["EventLog", P], None]
_Level = int | Callable[["EventLog", dict[str, Any]], int]

_TEXT_MAX = 2000
"""Most characters of a traceback that an event shows; of an error's sentence, a quarter as many."""
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""syslog(3) priorities."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The options of the log; a reload can change all of them.

    `level` is one of `LEVELS` and `format` is `json` or `console`.  Without `connections` the events of connections are
    logged at debug only; with `payload` the events of chunks show the bytes themselves.
    """

    level: str
    format: str
    connections: bool
    payload: bool


def _event(level: _Level) -> Callable[[_Declaration[P]], _Event[P]]:
    """Turn a method that returns a sentence into one that logs an event of its name, with its arguments as fields."""

    def declare(sentence: _Declaration[P]) -> _Event[P]:
        @functools.wraps(sentence)
        def log(self: "EventLog", /, *_: P.args, **fields: P.kwargs) -> None:
            self._log(level if isinstance(level, int) else level(self, fields), sentence, fields)

        return log

    return declare


def _of_connection(log: "EventLog", fields: dict[str, Any]) -> int:
    """A connection that never sent anything, such as a health check's, is logged at debug only.

    A connection that was lost with its worker is an exception: it may have sent bytes unknown to the parent.
    """
    silent = fields.get("bytes_received") == 0 and fields.get("reason") != WORKER_DIED
    return logging.INFO if log.shows_connections and not silent else logging.DEBUG


def _of_exit(log: "EventLog", fields: dict[str, Any]) -> int:
    return logging.ERROR if fields["reason"] != "stopped" else logging.INFO


def _of_handover(log: "EventLog", fields: dict[str, Any]) -> int:
    complete = not any(fields.get(name) for name in ("left", "forgotten", "lost"))
    return logging.INFO if complete else logging.WARNING


class EventLog:
    """The event log of one process, parent or worker, which writes to `queue` in this framing."""

    def __init__(self, queue: LogQueue, framing: Framing, options: LogOptions) -> None:
        self.queue = queue
        self.worker: int | None = None
        """The number of the worker whose process this is; None in the parent."""
        self._framing = framing
        self._size_max = journald.ENTRY_MAX if framing is Framing.ENTRY else PIPE_BUF
        self.change(options)

    def change(self, options: LogOptions) -> None:
        """Log by these options from now on."""
        self.shows_connections = options.connections
        self.shows_payload = options.payload
        self._level = LEVELS[options.level]
        self._formatter = _formatter(options.format, self._framing)

    @property
    def logs_chunks(self) -> bool:
        """Whether the events of single chunks are logged."""
        return self._level <= logging.DEBUG

    def logs_connection(self, bytes_received: int, reason: str = "") -> bool:
        """Whether the events of a connection with these fields are logged; if not, it needs no names."""
        return self._level <= _of_connection(self, {"bytes_received": bytes_received, "reason": reason})

    @_event(logging.INFO)
    def starting(self, *, version: str, config_files: list[str]) -> str:
        """Nothing is open yet; `config_files` is empty if echod begins with the settings of the previous echod."""
        return f"Starting echod {version}" + (f" with {enumeration(config_files)}." if config_files else ".")

    @_event(logging.ERROR)
    def cannot_start(self, *, problem: str) -> str:
        """A problem prevents the start, or would (`--check-config`); one event per problem, only in the journal."""
        return problem

    @_event(logging.WARNING)
    def config_warning(self, *, problem: str) -> str:
        """The configuration is valid, but part of it may be a mistake."""
        return problem

    @_event(logging.WARNING)
    def feature_missing(self, *, feature: str, error: str, effect: str) -> str:
        """The kernel, or a sandbox, lacks a feature that echod can do without; one event for all processes."""
        return f"This system lacks {feature} ({error}): {effect}."

    @_event(logging.INFO)
    def listening(self, *, address: str, adopted: bool) -> str:
        """A socket listens on `address`; if it is `adopted`, systemd passed it."""
        return f"Listening on {address}" + (" (socket passed by systemd)." if adopted else ".")

    @_event(logging.INFO)
    def ready(self, *, addresses: list[str], workers: int) -> str:
        """Every worker accepts connections."""
        return f"Ready: accepting connections on {enumeration(addresses)}."

    @_event(logging.INFO)
    def reloaded(self, *, changed: list[str]) -> str:
        """The configuration was read again, and the settings in `changed` are in effect in every worker."""
        return f"Configuration reloaded; changed: {enumeration(changed) or 'nothing'}."

    @_event(logging.ERROR)
    def reload_refused(self, *, problem: str) -> str:
        """The new configuration cannot be used, one event per problem; the old one stays in effect."""
        return f"Reload failed, configuration unchanged: {problem}"

    @_event(logging.INFO)
    def state(
        self,
        *,
        state: str,
        status: str,
        uptime: float,
        workers: int,
        clients: int,
        clients_total: int,
        clients_refused: int,
        bytes_echoed: int,
    ) -> str:
        """SIGQUIT requested the state of echod; `status` is the sentence that `systemctl status` shows."""
        return f"State after {span(uptime)}: {state}. {status}"

    @_event(logging.INFO)
    def worker_started(self, *, worker: int, worker_pid: int) -> str:
        """A worker accepts connections."""
        return f"Worker {worker} (pid {worker_pid}) started."

    @_event(_of_exit)
    def worker_exited(self, *, worker: int, worker_pid: int, reason: str, clients: int, kept: int, young: int) -> str:
        """A worker exited while it had `clients` connections, of which `kept` continue in its successor.

        Of the others, `young` have no event of their own, because the parent had no copy of them; nearly all were
        younger than two seconds.
        """
        exited = f"(pid {worker_pid}) exited" if worker_pid else "could not start"
        return f"Worker {worker} {exited}: {reason}{_continuing(kept, clients)}."

    @_event(logging.ERROR)
    def false_data(self, *, worker: int, worker_pid: int, problem: str) -> str:
        """A worker sent data that no worker of echod sends, as if an attacker controlled it; the parent kills it."""
        return f"Worker {worker} (pid {worker_pid}) sent false data: {problem}."

    @_event(logging.INFO)
    def draining(self, *, signal: str, clients: int, timeout: float) -> str:
        """echod stops: it accepts no more connections, and serves clients until they are quiet, at most `timeout` s."""
        open_now = f"draining {plural(clients, 'connection')} for up to {span(timeout)}"
        return f"Stopping on {signal}: {open_now if clients else 'no connections to drain'}."

    @_event(_of_handover)
    def handed_over(self, *, count: int, left: int) -> str:
        """At a restart, `count` connections were stored for the next echod; `left` more are drained as at a stop."""
        rest = f"; draining {left:,} more, for which there was no room" if left else ""
        return f"Handed over {plural(count, 'connection')} to the next echod{rest}."

    @_event(logging.WARNING)
    def handover_impossible(self, *, problem: str) -> str:
        """At a restart, the connections are drained although `handover` is true."""
        return f"Connections cannot be handed over; draining them instead: {problem}."

    @_event(_of_handover)
    def taken_over(self, *, count: int, forgotten: int, lost: int) -> str:
        """`count` connections continue here, `forgotten` of them with new counters; `lost` more could not continue."""
        new = f"; {forgotten:,} of them with new counters" if forgotten else ""
        closed = f"; {lost:,} more lost" if lost else ""
        return f"Took over {plural(count, 'connection')}{new}{closed}."

    @_event(logging.INFO)
    def stopped(self, *, uptime: float, clients_total: int, clients_refused: int, bytes_echoed: int) -> str:
        """Everything is closed; this is the last event."""
        served = f"{plural(clients_total, 'connection')} served, {amount(bytes_echoed)} echoed"
        return f"Stopped after {span(uptime)}: {served}."

    @_event(logging.DEBUG)
    def connection_accepted(self, *, connection: str, peer: str, local: str) -> str:
        """A connection was accepted; nothing has arrived on it yet."""
        return f"Connection from {peer} accepted."

    @_event(_of_connection)
    def connection_opened(self, *, connection: str, peer: str, local: str) -> str:
        """Bytes have arrived and the connection is a second old; at the level debug, the first bytes have arrived."""
        return f"Connection from {peer} opened."

    @_event(_of_connection)
    def connection_closed(
        self,
        *,
        connection: str,
        peer: str,
        local: str,
        bytes_received: int,
        bytes_sent: int,
        chunks: int,
        started: str,
        duration: float,
        restarts: int,
        reason: str,
    ) -> str:
        """A connection was closed, after it had continued through `restarts` restarts of echod.

        If it lasted less than a second, this is its only event; `started` is when it was accepted.
        """
        whole = bytes_sent == bytes_received
        echoed = amount(bytes_sent) if whole else f"{bytes_sent:,} of {plural(bytes_received, 'byte')}"
        return f"Connection from {peer} closed ({reason}): {echoed} echoed in {span(duration)}."

    @_event(logging.DEBUG)
    def chunk_received(self, *, connection: str, bytes: int, payload: str = "") -> str:  # noqa: A002  its name
        """A chunk was read; `payload` shows each byte as the character with that number."""
        return f"Received {plural(bytes, 'byte')} on connection {connection}."

    @_event(logging.DEBUG)
    def chunk_sent(self, *, connection: str, bytes: int, payload: str = "") -> str:  # noqa: A002  its name
        """Bytes of a chunk were sent back."""
        return f"Sent {plural(bytes, 'byte')} on connection {connection}."

    @_event(logging.WARNING)
    def accept_paused(self, *, reason: str, clients: int) -> str:
        """A worker stopped accepting connections for a while."""
        return f"Accepting paused ({reason}): new connections wait in the kernel's queue."

    @_event(logging.INFO)
    def accept_resumed(self, *, duration: float) -> str:
        """A worker that had paused for `duration` seconds has since accepted for a while without another pause."""
        return f"Accepting resumed after {span(duration)}."

    @_event(logging.WARNING)
    def client_refused(self, *, peer: str, count: int) -> str:
        """Connections above the limit per source were reset at once: `count` since the last such event."""
        return f"Refused {plural(count, 'connection')} above the limit per source, most recently from {peer}."

    @_event(logging.WARNING)
    def log_dropped(self, *, count: int) -> str:
        """`count` events were lost, because standard error or the journal did not accept them in time, or at all."""
        reader = "the journal" if self._framing is Framing.ENTRY else "standard error"
        return f"Dropped {plural(count, 'event')}: {reader} did not accept them."

    @_event(logging.CRITICAL)
    def bug(self, *, error: str, traceback: str) -> str:
        """An unexpected error in echod; please report it."""
        return f"Bug in echod: {error}"

    def show(self, data: bytes | memoryview) -> dict[str, str]:
        """The `payload` of a chunk's event, if the options require it."""
        return {"payload": bytes(data[:PAYLOAD_MAX]).decode("latin-1")} if self.shows_payload else {}

    def bug_of(self, error: BaseException) -> None:
        """Log a bug by its exception."""
        text = "".join(traceback.format_exception(error))
        self.bug(error=repr(error)[: _TEXT_MAX // 4], traceback=text[-_TEXT_MAX:])

    def finish(self, seconds: float) -> None:
        """At the end of a process: wait up to `seconds` until all events are written, then report the dropped ones."""
        self.queue.finish(seconds)
        self._report_dropped()

    def _report_dropped(self) -> None:
        if dropped := self.queue.take_dropped():
            self.log_dropped(count=dropped)

    def _log(self, level: int, sentence: Callable[..., str], fields: dict[str, Any]) -> None:
        if level < self._level:
            return
        self._report_dropped()
        while len(data := self._encode(level, sentence, fields)) > self._size_max:
            fields = shorter(fields)
        # If the report of dropped events is dropped itself, they are still to be reported.
        self.queue.put(data, events=fields["count"] if sentence.__name__ == "log_dropped" else 1)

    def _encode(self, level: int, sentence: Callable[..., str], fields: dict[str, Any]) -> bytes:
        event = sentence.__name__
        every = {"worker": self.worker} | fields
        text = self._formatter.format(Record(level, event, sentence(self, **fields), every))
        if self._framing is Framing.ENTRY:
            return journald.encode(text, _PRIORITIES[level], {"event": event} | every)
        prefix = f"<{_PRIORITIES[level]}>" if self._framing is Framing.LINE_WITH_PRIORITY else ""
        return f"{prefix}{text}\n".encode()


def _continuing(kept: int, clients: int) -> str:
    """The end of the sentence about a worker that exited: how many connections continue; empty if it had none."""
    if not clients:
        return ""
    if clients == 1:
        return f"; its connection {'continues' if kept else 'is lost'}"
    return f"; {kept:,} of its {clients:,} connections continue"


def _formatter(name: str, framing: Framing) -> logging.Formatter:
    if name == "json":
        return Json(sentence_first=framing is not Framing.LINE)
    return Sentence() if framing is Framing.ENTRY else Console()
