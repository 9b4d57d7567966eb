"""What echod has to say: one small function for each event, and nothing is said in any other way.

An event is one JSON object on one line of standard error: `timestamp` (RFC 3339, UTC), `level`, `event`, `message`,
`pid` and `worker`, then the event's own fields, which are the arguments of its function.  Lines are short enough
(PIPE_BUF, pipe(7)) never to be torn apart by those of another process: from what would be longer, the middle is left
out.

Where standard error goes to systemd's journal, that is given the fields as well, by its own protocol; if it does not
answer, lines that begin with their priority (sd-daemon(3)).  `systemctl status` shows the beginning of a line only, so
there the object begins with `message` and `event`.
"""

import functools
import logging
import os
import traceback
from collections.abc import Callable
from enum import Enum, auto
from select import PIPE_BUF
from typing import Any, Concatenate, ParamSpec

from echod.log import journald, sentences
from echod.log.formatters import Console, Json, Sentence, shorter
from echod.log.output import LogQueue, Writer, open_writer

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
PAYLOAD_MAX = 512
"""Bytes of a chunk that its event shows; escaped, each may take six."""

P = ParamSpec("P")
_Declaration = Callable[Concatenate["EventLog", P], None]
_Level = int | Callable[["EventLog", dict[str, Any]], int]
_Message = str | Callable[[dict[str, Any]], str]

_TEXT_MAX = 2000
"""Characters of a traceback or of an error's sentence that an event shows."""
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""syslog(3) priorities."""


class Framing(Enum):
    """What an event is on its way out."""

    LINE = auto()
    """A line."""
    LINE_WITH_PRIORITY = auto()
    """The same for the journal, as sd-daemon(3) has it."""
    ENTRY = auto()
    """An entry of the journal."""


def goes_to_journal(fd: int) -> bool:
    """Whether `fd` is the one that systemd connected to its journal (JOURNAL_STREAM, systemd.exec(5))."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def open_sink(fd: int) -> tuple[LogQueue, Framing]:
    """Where the events of a process go whose standard error is `fd`, and as what."""
    if not goes_to_journal(fd):
        return LogQueue(open_writer(fd)), Framing.LINE
    try:
        journal = journald.JournaldSocket(journald.SOCKET)
        return LogQueue(Writer(journal.fd, journal.write, journal.close)), Framing.ENTRY
    except OSError:
        # No socket, or none for us (RestrictAddressFamilies=): standard error is there all the same.
        return LogQueue(open_writer(fd)), Framing.LINE_WITH_PRIORITY


def _event(level: _Level, message: _Message) -> Callable[[_Declaration[P]], _Declaration[P]]:
    """Make a method the declaration of an event: its name, its arguments and `message` are all there is to it."""

    def declare(method: _Declaration[P]) -> _Declaration[P]:
        @functools.wraps(method)
        def tell(self: "EventLog", /, *_: P.args, **fields: P.kwargs) -> None:
            self._tell(level if isinstance(level, int) else level(self, fields), method.__name__, message, fields)

        return tell

    return declare


WORKER_DIED = "worker_died"
"""Why a connection was closed that could not go on without its worker."""


def _of_connection(journal: "EventLog", fields: dict[str, Any]) -> int:
    """A connection on which nothing ever came, as a health check's, is told at debug only; not one that a dead worker
    took along, on which something may have come since the parent heard of it."""
    silent = fields.get("bytes_received") == 0 and fields.get("reason") != WORKER_DIED
    return logging.INFO if journal.tells_connections and not silent else logging.DEBUG


def _of_exit(journal: "EventLog", fields: dict[str, Any]) -> int:
    return logging.ERROR if fields["reason"] != "stopped" else logging.INFO


def _of_handover(journal: "EventLog", fields: dict[str, Any]) -> int:
    whole = not any(fields.get(name) for name in ("left", "forgotten", "lost"))
    return logging.INFO if whole else logging.WARNING


class EventLog:
    """The events of one process, parent or worker.

    `level` is one of `LEVELS` and `form` is `json` or `console`; without `connections` the events of connections are
    told at debug only, and `payload` adds the bytes themselves to those of chunks.
    """

    def __init__(
        self, sink: LogQueue, output: Framing, *, level: str, form: str, connections: bool, payload: bool
    ) -> None:
        self.sink = sink
        self.worker: int | None = None
        """The worker whose process this is; None in the parent."""
        self._output = output
        self._size_max = journald.ENTRY_MAX if output is Framing.ENTRY else PIPE_BUF
        self.change(level=level, form=form, connections=connections, payload=payload)

    def change(self, *, level: str, form: str, connections: bool, payload: bool) -> None:
        """Tell by these from now on."""
        self.tells_connections = connections
        self.shows_payload = payload
        self._level = LEVELS[level]
        self._form = _form(form, self._output)

    @property
    def tells_chunks(self) -> bool:
        """Whether the events of single chunks are wanted at all."""
        return self._level <= logging.DEBUG

    @_event(logging.INFO, "echod {version} is starting.")
    def starting(self, *, version: str, config_files: list[str]) -> None:
        """The configuration is read and right; nothing is open yet."""

    @_event(logging.ERROR, "{problem}")
    def cannot_start(self, *, problem: str) -> None:
        """Something keeps echod from starting, or would (--check-config); one for each problem, in the journal only."""

    @_event(logging.WARNING, "{problem}")
    def config_warning(self, *, problem: str) -> None:
        """Something in the configuration is allowed, but may not be what was meant."""

    @_event(logging.INFO, sentences.listening)
    def listening(self, *, address: str, adopted: bool) -> None:
        """A socket is bound, or was passed to us bound; `address` is what getsockname(2) says."""

    @_event(logging.INFO, "Ready: whoever connects now gets an echo.")
    def ready(self, *, addresses: list[str], workers: int) -> None:
        """Every worker accepts."""

    @_event(logging.INFO, sentences.reloaded)
    def reloaded(self, *, changed: list[str]) -> None:
        """The configuration was read again and is right; what `changed` is in effect in every worker."""

    @_event(logging.ERROR, "Reload refused, so nothing changes: {problem}")
    def reload_refused(self, *, problem: str) -> None:
        """A new configuration can't be taken, one event for each reason why; the old one stays in effect."""

    @_event(logging.INFO, "Worker {worker} accepts connections.")
    def worker_started(self, *, worker: int, worker_pid: int) -> None:
        """A worker accepts connections."""

    @_event(_of_exit, "Worker {worker} is gone: {reason}.")
    def worker_exited(self, *, worker: int, worker_pid: int, reason: str, clients: int, kept: int) -> None:
        """A worker's process has ended, with so many clients, of which the `kept` ones go on in its successor."""

    @_event(logging.INFO, "Stopping on {signal}; clients to finish: {clients}.")
    def draining(self, *, signal: str, clients: int, timeout: float) -> None:
        """No connection is accepted any more; what has arrived is echoed, within `timeout` seconds."""

    @_event(_of_handover, sentences.handed_over)
    def handed_over(self, *, count: int, left: int) -> None:
        """At a restart `count` connections wait for the next echod; those `left` over are finished as at a stop."""

    @_event(logging.WARNING, "Clients can't be handed over, and are finished as at a stop: {problem}.")
    def handover_impossible(self, *, problem: str) -> None:
        """A restart ends the connections, though `handover` is set."""

    @_event(_of_handover, sentences.taken_over)
    def taken_over(self, *, count: int, forgotten: int, lost: int) -> None:
        """The connections of the echod before go on, `forgotten` ones as if new; `lost` were due what nobody knows."""

    @_event(logging.INFO, "Stopped; clients in all: {clients_total}, bytes echoed: {bytes_echoed}.")
    def stopped(self, *, uptime: float, clients_total: int, clients_refused: int, bytes_echoed: int) -> None:
        """Everything is closed; the last event."""

    @_event(logging.DEBUG, "Accepted a connection from {peer}.")
    def connection_accepted(self, *, connection: str, peer: str, local: str) -> None:
        """A connection was accepted; nothing has come yet."""

    @_event(_of_connection, "{peer} begins to send.")
    def connection_opened(self, *, connection: str, peer: str, local: str) -> None:
        """The first bytes of a connection have come."""

    @_event(_of_connection, "{peer} is gone ({reason}), {bytes_sent} bytes echoed.")
    def connection_closed(
        self,
        *,
        connection: str,
        peer: str,
        local: str,
        bytes_received: int,
        bytes_sent: int,
        chunks: int,
        duration: float,
        restarts: int,
        reason: str,
    ) -> None:
        """A connection is over, and has lived through so many `restarts` of echod."""

    @_event(logging.DEBUG, "Received {bytes} bytes.")
    def chunk_received(self, *, connection: str, bytes: int, payload: str = "") -> None:  # noqa: A002  its name
        """A chunk was read; `payload` has each byte as the character of that number."""

    @_event(logging.DEBUG, "Sent {bytes} bytes.")
    def chunk_sent(self, *, connection: str, bytes: int, payload: str = "") -> None:  # noqa: A002  its name
        """The socket took so many bytes back."""

    @_event(logging.WARNING, "Accepting pauses ({reason}): new connections wait in the kernel's queue.")
    def accept_paused(self, *, reason: str, clients: int) -> None:
        """A worker accepts nothing for now."""

    @_event(logging.INFO, "Accepting again, after {duration} s.")
    def accept_resumed(self, *, duration: float) -> None:
        """A worker that paused has accepted for a while without another pause."""

    @_event(
        logging.WARNING,
        "Refused {count} connections of sources that have all they may, the last of them {peer}.",
    )
    def client_refused(self, *, peer: str, count: int) -> None:
        """Connections over the limit of their source were closed at once, `count` of them since the last such event."""

    @_event(logging.WARNING, "{count} events could not be written.")
    def log_dropped(self, *, count: int) -> None:
        """Standard error, or the journal, did not take events in time, so they are lost."""

    @_event(logging.CRITICAL, "A bug in echod: {error}")
    def bug(self, *, error: str, traceback: str) -> None:
        """Something happened that echod does not expect; please report it."""

    def show(self, data: bytes | memoryview) -> dict[str, str]:
        """The `payload` of a chunk's event, where it is wanted."""
        return {"payload": bytes(data[:PAYLOAD_MAX]).decode("latin-1")} if self.shows_payload else {}

    def bug_of(self, error: BaseException) -> None:
        """Tell a bug by its exception."""
        text = "".join(traceback.format_exception(error))
        self.bug(error=repr(error)[: _TEXT_MAX // 4], traceback=text[-_TEXT_MAX:])

    def _tell(self, level: int, event: str, message: _Message, fields: dict[str, Any]) -> None:
        if level < self._level:
            return
        if dropped := self.sink.take_dropped():
            self.log_dropped(count=dropped)
        while len(data := self._encode(level, event, message, fields)) > self._size_max:
            fields = shorter(fields)
        self.sink.put(data)

    def _encode(self, level: int, event: str, message: _Message, fields: dict[str, Any]) -> bytes:
        every = {"worker": self.worker} | fields
        words = message.format_map(fields) if isinstance(message, str) else message(fields)
        record = logging.LogRecord("echod", level, "", 0, words, None, None)
        record.__dict__.update(event=event, fields=every)
        text = self._form.format(record)
        if self._output is Framing.ENTRY:
            return journald.encode(text, _PRIORITIES[level], {"event": event} | every)
        prefix = f"<{_PRIORITIES[level]}>" if self._output is Framing.LINE_WITH_PRIORITY else ""
        return f"{prefix}{text}\n".encode()


def _form(name: str, output: Framing) -> logging.Formatter:
    if name == "json":
        return Json(sentence_first=output is not Framing.LINE)
    return Sentence() if output is Framing.ENTRY else Console()
