"""log.events: every event, in each format, at each level, with the largest and most difficult values."""

import errno
import inspect
import json
import os
import re
import socket
import unicodedata
from datetime import UTC, datetime
from select import PIPE_BUF
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.log import journald
from echod.log.events import LEVELS, PAYLOAD_MAX, EventLog, LogOptions
from echod.log.output import Framing, LogQueue, Writer
from echod.worker.tracing import TracedSocket
from tests.journald import Entry
from tests.unit.events import EVENTS, fields_of, recording

COMMON = ["timestamp", "level", "event", "message", "pid", "worker"]
SENTENCE_FIRST = ["message", "event", "timestamp", "level", "pid", "worker"]
WORST = ["\0", "\n", '"', "\\", "\x7f", "ÿ", "€", "\U0001f600", "\udcff", "{}", "%s"]

values: dict[Any, st.SearchStrategy[Any]] = {
    str: st.one_of(st.text(), st.sampled_from(WORST)),
    int: st.integers(0, 2**64),
    float: st.floats(0, 1e9),
    bool: st.booleans(),
    list[str]: st.lists(st.text(), max_size=5),
}


def large(annotation: Any, character: str) -> Any:
    """A value that does not fit into a line, of characters that take the most room when escaped."""
    text = character * 5000
    return {str: text, int: 2**64, float: 1e9, bool: True, list[str]: [text] * 5}[annotation]


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_one_line_with_all_its_fields(name: str) -> None:
    """The common fields come first, then its own, in the order of its method's arguments."""
    before = datetime.now(UTC)
    with recording() as recorder:
        recorder.events.worker = 3
        recorder.log(name)
        (event,) = recorder.objects()
    fields = fields_of(name)
    assert list(event) == COMMON + [name for name in fields if name != "worker"]
    assert event["event"] == name
    assert event["pid"] == os.getpid()
    assert event["worker"] == fields.get("worker", 3)
    assert {key: event[key] for key in fields} == fields
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["timestamp"])
    assert before <= datetime.fromisoformat(event["timestamp"]) <= datetime.now(UTC)


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_has_a_sentence(name: str) -> None:
    """Each sentence is complete: it is not empty, and has no placeholder left."""
    with recording() as recorder:
        recorder.log(name)
        (event,) = recorder.objects()
    assert event["message"]
    assert not re.search(r"[{}]", event["message"])


@pytest.mark.parametrize("format_", ["json", "console"])
@pytest.mark.parametrize("character", ["ÿ", "\U0001f600", "\0"])
def test_a_line_is_never_torn(format_: str, character: str) -> None:
    """However large the values, the event is one line of at most PIPE_BUF bytes (pipe(7)); JSON stays valid."""
    with recording(format=format_, framing=Framing.LINE_WITH_PRIORITY) as recorder:
        for name, method in EVENTS.items():
            parameters = inspect.signature(method).parameters.values()
            fields = {each.name: large(each.annotation, character) for each in parameters if each.name != "self"}
            recorder.log(name, **fields)
            (line,) = recorder.lines()
            assert len(line) <= PIPE_BUF
            if format_ == "json":
                event = json.loads(line[3:])
                assert set(event) == {*COMMON, *fields}
                assert all(event[key] == value for key, value in fields.items() if not isinstance(value, (str, list)))


@given(st.data())
def test_whatever_the_values(data: st.DataObject) -> None:
    """Every value can be read back, unless it is too long for a line."""
    name = data.draw(st.sampled_from(sorted(EVENTS)))
    parameters = inspect.signature(EVENTS[name]).parameters.values()
    fields = {each.name: data.draw(values[each.annotation]) for each in parameters if each.name != "self"}
    with recording() as recorder:
        recorder.log(name, **fields)
        (line,) = recorder.lines()
    event = json.loads(line)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert "…" in line.decode("unicode_escape") or {key: event[key] for key in fields} == fields


@given(st.data())
def test_no_value_speaks_to_the_terminal(data: st.DataObject) -> None:
    """The console format is one line of printable characters, without control sequences."""
    name = data.draw(st.sampled_from(sorted(EVENTS)))
    parameters = inspect.signature(EVENTS[name]).parameters.values()
    fields = {each.name: data.draw(values[each.annotation]) for each in parameters if each.name != "self"}
    with recording(format="console") as recorder:
        recorder.log(name, **fields)
        (line,) = recorder.lines()
    assert not [char for char in line.decode()[:-1] if unicodedata.category(char)[0] in "CZ" and char != " "]
    assert line.endswith(b"\n")


def test_the_console_format() -> None:
    """A line has the time of day, the level, the sentence and the fields."""
    with recording(format="console") as recorder:
        recorder.events.listening(address="unix:/tmp/\x1b]0;title\x07", adopted=False)
        (line,) = recorder.lines()
    expected = (
        r"\d\d:\d\d:\d\d\.\d{3} info     Listening on unix:/tmp/\\x1b\]0;title\\x07\.  "
        r'\(listening worker=null address="unix:/tmp/\\u001b\]0;title\\u0007" adopted=false\)\n'
    )
    assert re.fullmatch(expected, line.decode())


@pytest.mark.parametrize("level", LEVELS)
def test_the_level_is_the_minimum(level: str) -> None:
    """Events below the level are not logged; all others are."""
    with recording() as everything, recording(level=level) as part:
        for name in EVENTS:
            everything.log(name)
            part.log(name)
        order = [*LEVELS, "critical"]
        expected = [e["event"] for e in everything.objects() if order.index(e["level"]) >= order.index(level)]
        assert [event["event"] for event in part.objects()] == expected


@pytest.mark.parametrize(
    ("name", "priority"),
    [("connection_accepted", 7), ("ready", 6), ("log_dropped", 4), ("worker_exited", 3), ("bug", 2)],
)
def test_priorities(name: str, priority: int) -> None:
    """For the journal, each line begins with its priority (sd-daemon(3)), so that `journalctl -p` works."""
    with recording(framing=Framing.LINE_WITH_PRIORITY) as recorder:
        recorder.log(name)
        (line,) = recorder.lines()
    assert line.startswith(f"<{priority}>{{".encode())
    with recording(framing=Framing.ENTRY) as recorder:
        recorder.log(name)
        assert Entry(recorder.written())["PRIORITY"] == str(priority)


@pytest.mark.parametrize("framing", [Framing.LINE_WITH_PRIORITY, Framing.ENTRY])
def test_in_the_journal_the_sentence_comes_first(framing: Framing) -> None:
    """`systemctl status` shows only the beginning of an entry; the other fields follow in their usual order."""
    with recording(framing=framing) as recorder:
        recorder.log("connection_closed")
        data = recorder.written()
    text = Entry(data)["MESSAGE"] if framing is Framing.ENTRY else data[3:].decode()
    assert list(json.loads(text)) == SENTENCE_FIRST + list(fields_of("connection_closed"))


class TestEntries:
    def test_an_entry_has_all_the_fields_of_its_event(self) -> None:
        """Text is raw, other values are JSON; null is left out, and each item of a list is a field."""
        with recording(framing=Framing.ENTRY) as recorder:
            for name in EVENTS:
                for worker in (None, 3):
                    recorder.events.worker = worker
                    recorder.log(name)
                    entry = Entry(recorder.written())
                    expected: dict[str, list[bytes]] = {}
                    for field, value in ({"event": name, "worker": worker} | fields_of(name)).items():
                        texts = value if isinstance(value, list) else [] if value is None else [value]
                        if texts:
                            expected[f"ECHOD_{field.upper()}"] = [
                                (text if isinstance(text, str) else json.dumps(text)).encode() for text in texts
                            ]
                    assert {key: entry.fields[key] for key in entry.fields if key.startswith("ECHOD_")} == expected
                    assert entry["SYSLOG_IDENTIFIER"] == "echod"
                    assert entry.event["event"] == name

    @pytest.mark.parametrize("name", EVENTS)
    def test_the_journal_accepts_the_names_of_all_fields(self, name: str) -> None:
        """At most 64 capitals, digits and underscores; a leading underscore is reserved (systemd.journal-fields(7))."""
        with recording(framing=Framing.ENTRY) as recorder:
            recorder.log(name)
            names = Entry(recorder.written()).fields
        assert all(re.fullmatch("[A-Z][A-Z0-9_]{0,63}", field) for field in names)

    def test_a_traceback(self) -> None:
        """Its field of the entry keeps the line breaks; the object has them escaped."""
        with recording(framing=Framing.ENTRY) as recorder:
            recorder.events.bug_of(ValueError("of two\nlines"))
            entry = Entry(recorder.written())
        assert entry["ECHOD_TRACEBACK"].endswith("ValueError: of two\nlines\n")
        assert entry["MESSAGE"].count("\n") == 0
        assert entry.event["traceback"] == entry["ECHOD_TRACEBACK"]

    def test_the_console_format(self) -> None:
        """MESSAGE is the sentence alone, with control characters escaped; the rest is in the entry's fields."""
        with recording(framing=Framing.ENTRY, format="console") as recorder:
            recorder.events.listening(address="unix:/tmp/\x1b\n", adopted=False)
            entry = Entry(recorder.written())
        assert entry["MESSAGE"] == r"Listening on unix:/tmp/\x1b\n."
        assert entry["ECHOD_ADDRESS"] == "unix:/tmp/\x1b\n"

    @pytest.mark.parametrize("format_", ["json", "console"])
    @pytest.mark.parametrize("character", ["\xff", "\U0001f600", "\0", "\n", "\udcff"])
    def test_an_entry_is_never_too_large(self, format_: str, character: str) -> None:
        """However large the values, the entry has all its fields."""
        with recording(format=format_, framing=Framing.ENTRY) as recorder:
            for name, method in EVENTS.items():
                parameters = inspect.signature(method).parameters.values()
                fields = {each.name: large(each.annotation, character) for each in parameters if each.name != "self"}
                recorder.log(name, **fields)
                entry = Entry(recorder.written())
                assert entry.size <= journald.ENTRY_MAX
                assert {f"ECHOD_{field.upper()}" for field in fields} <= set(entry.fields)
                if format_ == "json":
                    assert set(entry.event) == {*COMMON, *fields}

    def test_the_longest_payload_fits(self) -> None:
        """The whole payload is in its field and in the object."""
        with recording(payload=True, framing=Framing.ENTRY) as recorder:
            shown = recorder.events.show(b"\xff" * PAYLOAD_MAX)
            recorder.events.chunk_sent(connection="4194304.999999999999", bytes=1 << 24, **shown)
            entry = Entry(recorder.written())
        assert entry.event["payload"] == entry["ECHOD_PAYLOAD"] == "\xff" * PAYLOAD_MAX

    @given(st.data())
    def test_whatever_the_values(self, data: st.DataObject) -> None:
        """Every value can be read back from the object and from the entry's fields, unless it is too long."""
        name = data.draw(st.sampled_from(sorted(EVENTS)))
        parameters = inspect.signature(EVENTS[name]).parameters.values()
        fields = {each.name: data.draw(values[each.annotation]) for each in parameters if each.name != "self"}
        with recording(framing=Framing.ENTRY) as recorder:
            recorder.log(name, **fields)
            entry = Entry(recorder.written())
        if "\u2026" not in entry.event["message"] + str(entry.event):
            assert {key: entry.event[key] for key in fields} == fields
            for key, value in fields.items():
                texts = [
                    field.decode(errors="surrogateescape") for field in entry.fields.get(f"ECHOD_{key.upper()}", [])
                ]
                assert texts == (
                    value if isinstance(value, list) else [value if isinstance(value, str) else json.dumps(value)]
                )


class TestConnections:
    def level(self, name: str, connections: bool, **fields: Any) -> str:
        """The level at which this event is logged."""
        with recording(connections=connections) as recorder:
            recorder.log(name, **fields)
            (event,) = recorder.objects()
        return str(event["level"])

    def test_one_that_sent_nothing_is_logged_at_debug(self) -> None:
        """A connection on which nothing arrived, such as a health check, is logged at debug."""
        assert self.level("connection_closed", True, bytes_received=0) == "debug"
        assert self.level("connection_closed", True, bytes_received=1) == "info"

    def test_one_that_was_lost_with_its_worker_is_logged_at_info(self) -> None:
        """The parent may not know whether it has sent anything."""
        assert self.level("connection_closed", True, bytes_received=0, reason="worker_died") == "info"

    @pytest.mark.parametrize("name", ["connection_opened", "connection_closed"])
    def test_without_log_connections_all_are_logged_at_debug(self, name: str) -> None:
        """`log.connections = false` moves the events of connections to debug."""
        assert self.level(name, True) == "info"
        assert self.level(name, False) == "debug"

    @pytest.mark.parametrize("level", ["debug", "info", "warning"])
    @pytest.mark.parametrize("connections", [True, False])
    @pytest.mark.parametrize("bytes_received", [0, 1])
    @pytest.mark.parametrize("reason", ["eof", "worker_died"])
    def test_the_answer_beforehand(self, level: str, connections: bool, bytes_received: int, reason: str) -> None:
        """`logs_connection` says whether the event will be logged, so that the connection needs no names if not."""
        with recording(level=level, connections=connections) as recorder:
            recorder.log("connection_closed", bytes_received=bytes_received, reason=reason)
            assert recorder.events.logs_connection(bytes_received, reason) == bool(recorder.lines())


@pytest.mark.parametrize(("reason", "level"), [("stopped", "info"), ("killed by SIGSEGV", "error")])
def test_the_exit_of_a_worker_is_an_error_unless_echod_stops(reason: str, level: str) -> None:
    """A worker that stops by command is logged at info, any other exit at error."""
    with recording() as recorder:
        recorder.log("worker_exited", reason=reason)
        (event,) = recorder.objects()
    assert event["level"] == level


@pytest.mark.parametrize(("level", "logs"), [("debug", True), ("info", False)])
def test_chunks_are_logged_at_debug_only(level: str, logs: bool) -> None:
    """`logs_chunks` says so beforehand, so that the hot path needs no event at other levels."""
    with recording(level=level) as recorder:
        assert recorder.events.logs_chunks == logs


class TestPayload:
    def test_it_is_logged_with_log_payload(self) -> None:
        """Each byte is the character of that number, so every payload can be restored."""
        with recording(payload=True) as recorder:
            data = bytes(range(256))
            recorder.events.chunk_received(connection="1.1", bytes=256, **recorder.events.show(memoryview(data)))
            (event,) = recorder.objects()
        assert event["payload"].encode("latin-1") == data

    def test_it_is_not_logged_without(self) -> None:
        """By default no byte that a client sends is in the log."""
        with recording(payload=False) as recorder:
            recorder.events.chunk_received(connection="1.1", bytes=6, **recorder.events.show(b"secret"))
            (line,) = recorder.lines()
        assert b"secret" not in line
        assert "payload" not in json.loads(line)

    @pytest.mark.parametrize("byte", [b"\xff", b"\0", b'"'])
    def test_the_longest_fits_in_a_line(self, byte: bytes) -> None:
        """The whole payload is in the line, even if each byte takes six when escaped."""
        with recording(payload=True, framing=Framing.LINE_WITH_PRIORITY) as recorder:
            shown = recorder.events.show(byte * (PAYLOAD_MAX + 1))
            recorder.events.chunk_sent(connection="4194304.999999999999", bytes=1 << 24, **shown)
            (line,) = recorder.lines()
        assert len(line) <= PIPE_BUF
        assert json.loads(line[3:])["payload"].encode("latin-1") == byte * PAYLOAD_MAX

    def test_a_traced_socket_logs_each_chunk(self) -> None:
        """It works like a socket, and logs what was received and sent; end of file is not logged as a chunk."""
        ours, theirs = socket.socketpair()
        with ours, theirs, recording(payload=True) as recorder:
            log = recorder.events
            traced = TracedSocket(ours, "1.1", log, lambda: log.chunk_sent(connection="before", bytes=0))
            buffer = memoryview(bytearray(10))
            theirs.send(b"abc")
            assert traced.recv_into(buffer) == 3
            assert traced.send(buffer[:3]) == 3
            assert theirs.recv(10) == b"abc"
            theirs.shutdown(socket.SHUT_WR)
            assert traced.recv_into(buffer) == 0
            events = recorder.objects()
        assert events.pop(0)["connection"] == "before"
        assert [(event["event"], event["bytes"], event["payload"]) for event in events] == [
            ("chunk_received", 3, "abc"),
            ("chunk_sent", 3, "abc"),
        ]


class TestBug:
    def test_it_is_logged_with_its_traceback(self) -> None:
        """The event has all that a bug report needs."""
        with recording() as recorder:
            try:
                int("no number")
            except ValueError as error:
                recorder.events.bug_of(error)
            (event,) = recorder.objects()
        assert event["level"] == "critical"
        assert event["error"] == """ValueError("invalid literal for int() with base 10: 'no number'")"""
        assert event["traceback"].startswith("Traceback (most recent call last):")
        assert 'int("no number")' in event["traceback"]

    def test_a_long_traceback_keeps_its_end(self) -> None:
        """The last line names the error."""
        with recording() as recorder:
            recorder.events.bug_of(ValueError("x" * 100_000 + "the end"))
            (line,) = recorder.lines()
        assert len(line) <= PIPE_BUF
        assert json.loads(line)["traceback"].endswith("the end\n")


class TestDropped:
    def test_lost_events_are_reported_before_the_next(self) -> None:
        """`log_dropped` has their number, and comes once, as soon as there is room."""
        with recording() as recorder:
            recorder.events.queue._dropped = 5
            recorder.log("ready")
            recorder.log("ready")
            events = recorder.objects()
        assert [event["event"] for event in events] == ["log_dropped", "ready", "ready"]
        assert events[0]["count"] == 5

    def test_a_report_that_is_lost(self) -> None:
        """The number of lost events includes those whose report was lost, and not the report itself."""
        refuses = [True] * 5 + [False] * 3
        lines: list[bytes] = []

        def write(data: bytes) -> int:
            if refuses.pop(0):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            lines.append(data)
            return len(data)

        events = EventLog(
            LogQueue(Writer(-1, write, lambda: None)), Framing.LINE, LogOptions("info", "json", True, False)
        )
        for _ in range(4):  # the second and the third with a report before it
            events.reloaded(changed=[])
        assert [json.loads(line).get("count") for line in lines] == [3, None]

    def test_events_lost_at_the_end(self) -> None:
        """At the end of a process the lost events are reported, although no other event follows."""
        with recording() as recorder:
            recorder.events.queue._dropped = 5
            recorder.events.finish(0)
            (event,) = recorder.objects()
        assert (event["event"], event["count"]) == ("log_dropped", 5)


def test_options_that_change() -> None:
    """Level, format, connections and payload apply from the next event on."""
    with recording(level="error") as recorder:
        recorder.log("ready")
        assert recorder.lines() == []
        recorder.events.change(LogOptions(level="debug", format="console", connections=False, payload=True))
        recorder.log("connection_opened")
        (line,) = recorder.lines()
        assert b" debug " in line
        assert recorder.events.logs_chunks
        assert recorder.events.show(b"x") == {"payload": "x"}


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("starting", {"version": "1", "config_files": []}, "Starting echod 1."),
        ("starting", {"version": "1", "config_files": ["/a", "/b"]}, "Starting echod 1 with /a and /b."),
        ("listening", {"address": "0.0.0.0:7", "adopted": False}, "Listening on 0.0.0.0:7."),
        ("listening", {"address": "[::]:7", "adopted": True}, "Listening on [::]:7 (socket passed by systemd)."),
        ("ready", {"addresses": ["[::1]:7"]}, "Ready: accepting connections on [::1]:7."),
        (
            "ready",
            {"addresses": ["127.0.0.1:7", "[::1]:7"]},
            "Ready: accepting connections on 127.0.0.1:7 and [::1]:7.",
        ),
        ("reloaded", {"changed": []}, "Configuration reloaded; changed: nothing."),
        ("reloaded", {"changed": ["port", "host"]}, "Configuration reloaded; changed: port and host."),
        ("reload_refused", {"problem": "no"}, "Reload failed, configuration unchanged: no"),
        ("worker_started", {"worker": 0, "worker_pid": 156}, "Worker 0 (pid 156) started."),
        (
            "worker_exited",
            {"worker": 0, "worker_pid": 156, "reason": "stopped", "clients": 0, "kept": 0},
            "Worker 0 (pid 156) exited: stopped.",
        ),
        (
            "worker_exited",
            {"worker": 0, "worker_pid": 156, "reason": "killed by SIGKILL", "clients": 14, "kept": 12},
            "Worker 0 (pid 156) exited: killed by SIGKILL; 12 of its 14 connections continue.",
        ),
        (
            "worker_exited",
            {"worker": 0, "worker_pid": 156, "reason": "exit status 1", "clients": 1, "kept": 1},
            "Worker 0 (pid 156) exited: exit status 1; its connection continues.",
        ),
        (
            "worker_exited",
            {"worker": 0, "worker_pid": 156, "reason": "exit status 1", "clients": 1, "kept": 0},
            "Worker 0 (pid 156) exited: exit status 1; its connection is lost.",
        ),
        (
            "worker_exited",
            {"worker": 1, "worker_pid": 0, "reason": "no process", "clients": 0, "kept": 0},
            "Worker 1 could not start: no process.",
        ),
        (
            "draining",
            {"signal": "SIGTERM", "clients": 1, "timeout": 5.0},
            "Stopping on SIGTERM: draining 1 connection for up to 5 s.",
        ),
        (
            "draining",
            {"signal": "SIGINT", "clients": 2000, "timeout": 3600.0},
            "Stopping on SIGINT: draining 2,000 connections for up to 1 h.",
        ),
        ("draining", {"signal": "SIGTERM", "clients": 0}, "Stopping on SIGTERM: no connections to drain."),
        ("handed_over", {"count": 1, "left": 0}, "Handed over 1 connection to the next echod."),
        (
            "handed_over",
            {"count": 70000, "left": 5},
            "Handed over 70,000 connections to the next echod; draining 5 more, for which there was no room.",
        ),
        (
            "handover_impossible",
            {"problem": "no store"},
            "Connections cannot be handed over; draining them instead: no store.",
        ),
        ("taken_over", {"count": 1, "forgotten": 0, "lost": 0}, "Took over 1 connection."),
        (
            "taken_over",
            {"count": 9, "forgotten": 2, "lost": 3},
            "Took over 9 connections; 2 of them with new counters; 3 more lost.",
        ),
        (
            "stopped",
            {"uptime": 7500.0, "clients_total": 1, "bytes_echoed": 1},
            "Stopped after 2 h 5 min: 1 connection served, 1 byte echoed.",
        ),
        ("connection_accepted", {"peer": "[::1]:5"}, "Connection from [::1]:5 accepted."),
        ("connection_opened", {"peer": "127.0.0.1:5"}, "Connection from 127.0.0.1:5 opened."),
        (
            "connection_closed",
            {"peer": "127.0.0.1:5", "reason": "eof", "bytes_received": 5, "bytes_sent": 5, "duration": 0.0005},
            "Connection from 127.0.0.1:5 closed (eof): 5 bytes echoed in 0.5 ms.",
        ),
        (
            "connection_closed",
            {"peer": "127.0.0.1:5", "reason": "cut", "bytes_received": 4096, "bytes_sent": 1, "duration": 2.25},
            "Connection from 127.0.0.1:5 closed (cut): 1 of 4,096 bytes echoed in 2.25 s.",
        ),
        ("chunk_received", {"connection": "9.1", "bytes": 1}, "Received 1 byte on connection 9.1."),
        ("chunk_sent", {"connection": "9.1", "bytes": 16}, "Sent 16 bytes on connection 9.1."),
        (
            "accept_paused",
            {"reason": "EMFILE"},
            "Accepting paused (EMFILE): new connections wait in the kernel's queue.",
        ),
        ("accept_resumed", {"duration": 12.345}, "Accepting resumed after 12.3 s."),
        (
            "client_refused",
            {"peer": "192.0.2.1:5", "count": 1},
            "Refused 1 connection above the limit per source, most recently from 192.0.2.1:5.",
        ),
        ("log_dropped", {"count": 1}, "Dropped 1 event: standard error did not accept them."),
        ("bug", {"error": "ValueError()"}, "Bug in echod: ValueError()"),
    ],
)
def test_sentences(name: str, fields: dict[str, Any], sentence: str) -> None:
    """Each begins with what happened, and has singular and plural where they belong."""
    with recording() as recorder:
        recorder.log(name, **fields)
        (event,) = recorder.objects()
    assert event["message"] == sentence


def test_events_that_the_journal_did_not_take() -> None:
    """The sentence names the journal, where that is the reader."""
    with recording(framing=Framing.ENTRY) as recorder:
        recorder.log("log_dropped", count=2)
        assert Entry(recorder.written()).event["message"] == "Dropped 2 events: the journal did not accept them."
