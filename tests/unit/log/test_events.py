"""journal: every event, in each form, at each level, with the largest and the worst of values."""

import inspect
import json
import os
import re
import socket
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from select import PIPE_BUF
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.log import journald
from echod.log.events import LEVELS, PAYLOAD_MAX, Framing, goes_to_journal, open_sink
from echod.worker.tracing import TracedSocket
from tests.journald import Entry, Journald
from tests.unit.events import EVENTS, fields_of, telling

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
    """More than fits, of the worst kind."""
    text = character * 5000
    return {str: text, int: 2**64, float: 1e9, bool: True, list[str]: [text] * 5}[annotation]


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_one_line_with_all_its_fields(name: str) -> None:
    """The common fields come first, then its own, in the order of its function."""
    before = datetime.now(UTC)
    with telling() as told:
        told.journal.worker = 3
        told.tell(name)
        (event,) = told.objects()
    fields = fields_of(name)
    assert list(event) == COMMON + [name for name in fields if name != "worker"]
    assert event["event"] == name
    assert event["pid"] == os.getpid()
    assert event["worker"] == fields.get("worker", 3)
    assert {key: event[key] for key in fields} == fields
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["timestamp"])
    assert before <= datetime.fromisoformat(event["timestamp"]) <= datetime.now(UTC)


@pytest.mark.parametrize("name", EVENTS)
def test_a_message_says_something(name: str) -> None:
    """With nothing left to fill in."""
    with telling() as told:
        told.tell(name)
        (event,) = told.objects()
    assert event["message"]
    assert not re.search(r"[{}]", event["message"])


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("character", ["ÿ", "\U0001f600", "\0"])
def test_a_line_is_never_torn(form: str, character: str) -> None:
    """However large its values, it is one line of at most PIPE_BUF bytes (pipe(7)), and of JSON still one object."""
    with telling(form=form, output=Framing.LINE_WITH_PRIORITY) as told:
        for name, method in EVENTS.items():
            parameters = inspect.signature(method).parameters.values()
            fields = {each.name: large(each.annotation, character) for each in parameters if each.name != "self"}
            told.tell(name, **fields)
            (line,) = told.lines()
            assert len(line) <= PIPE_BUF
            if form == "json":
                event = json.loads(line[3:])
                assert set(event) == {*COMMON, *fields}
                assert all(event[key] == value for key, value in fields.items() if not isinstance(value, (str, list)))


@given(st.data())
def test_whatever_the_values(data: st.DataObject) -> None:
    """What was told can be read back, unless it is too long for a line."""
    name = data.draw(st.sampled_from(sorted(EVENTS)))
    parameters = inspect.signature(EVENTS[name]).parameters.values()
    fields = {each.name: data.draw(values[each.annotation]) for each in parameters if each.name != "self"}
    with telling() as told:
        told.tell(name, **fields)
        (line,) = told.lines()
    event = json.loads(line)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert "…" in line.decode("unicode_escape") or {key: event[key] for key in fields} == fields


@given(st.data())
def test_no_value_speaks_to_the_terminal(data: st.DataObject) -> None:
    """The console's form is one line of characters that can be seen."""
    name = data.draw(st.sampled_from(sorted(EVENTS)))
    parameters = inspect.signature(EVENTS[name]).parameters.values()
    fields = {each.name: data.draw(values[each.annotation]) for each in parameters if each.name != "self"}
    with telling(form="console") as told:
        told.tell(name, **fields)
        (line,) = told.lines()
    assert not [char for char in line.decode()[:-1] if unicodedata.category(char)[0] in "CZ" and char != " "]
    assert line.endswith(b"\n")


def test_the_console_form() -> None:
    """Time of day, level, sentence, and the fields."""
    with telling(form="console") as told:
        told.journal.listening(address="unix:/tmp/\x1b]0;title\x07", adopted=False)
        (line,) = told.lines()
    expected = (
        r"\d\d:\d\d:\d\d\.\d{3} info     Listening on unix:/tmp/\\x1b\]0;title\\x07\.  "
        r'\(listening worker=null address="unix:/tmp/\\u001b\]0;title\\u0007" adopted=false\)\n'
    )
    assert re.fullmatch(expected, line.decode())


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_below_the_level_is_not_told(level: str) -> None:
    """And all else is."""
    with telling() as everything, telling(level=level) as part:
        for name in EVENTS:
            everything.tell(name)
            part.tell(name)
        order = [*LEVELS, "critical"]
        expected = [e["event"] for e in everything.objects() if order.index(e["level"]) >= order.index(level)]
        assert [event["event"] for event in part.objects()] == expected


@pytest.mark.parametrize(
    ("name", "priority"),
    [("connection_accepted", 7), ("ready", 6), ("log_dropped", 4), ("worker_exited", 3), ("bug", 2)],
)
def test_priorities(name: str, priority: int) -> None:
    """For the journal each line begins with its priority (sd-daemon(3)), so that `journalctl -p` works."""
    with telling(output=Framing.LINE_WITH_PRIORITY) as told:
        told.tell(name)
        (line,) = told.lines()
    assert line.startswith(f"<{priority}>{{".encode())
    with telling(output=Framing.ENTRY) as told:
        told.tell(name)
        assert Entry(told.written())["PRIORITY"] == str(priority)


@pytest.mark.parametrize("output", [Framing.LINE_WITH_PRIORITY, Framing.ENTRY])
def test_in_the_journal_the_sentence_comes_first(output: Framing) -> None:
    """Its beginning is what `systemctl status` shows; the rest follows in its usual order."""
    with telling(output=output) as told:
        told.tell("connection_closed")
        data = told.written()
    text = Entry(data)["MESSAGE"] if output is Framing.ENTRY else data[3:].decode()
    assert list(json.loads(text)) == SENTENCE_FIRST + list(fields_of("connection_closed"))


class TestEntries:
    def test_an_entry_has_all_the_fields_of_its_event(self) -> None:
        """Text raw, the rest as JSON; what is null is left out, and a list is a field for each item."""
        with telling(output=Framing.ENTRY) as told:
            for name in EVENTS:
                for worker in (None, 3):
                    told.journal.worker = worker
                    told.tell(name)
                    entry = Entry(told.written())
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
    def test_names_that_the_journal_takes(self, name: str) -> None:
        """Capitals, digits and underscores, 64 at most, and none of them journald's own (systemd.journal-fields(7))."""
        with telling(output=Framing.ENTRY) as told:
            told.tell(name)
            names = Entry(told.written()).fields
        assert all(re.fullmatch("[A-Z][A-Z0-9_]{0,63}", field) for field in names)

    def test_a_traceback(self) -> None:
        """It has its lines in its field, and is on one in the object."""
        with telling(output=Framing.ENTRY) as told:
            told.journal.bug_of(ValueError("of two\nlines"))
            entry = Entry(told.written())
        assert entry["ECHOD_TRACEBACK"].endswith("ValueError: of two\nlines\n")
        assert entry["MESSAGE"].count("\n") == 0
        assert entry.event["traceback"] == entry["ECHOD_TRACEBACK"]

    def test_the_console_form(self) -> None:
        """It is the sentence alone, and says nothing to the terminal; time, level and fields are in fields."""
        with telling(output=Framing.ENTRY, form="console") as told:
            told.journal.listening(address="unix:/tmp/\x1b\n", adopted=False)
            entry = Entry(told.written())
        assert entry["MESSAGE"] == r"Listening on unix:/tmp/\x1b\n."
        assert entry["ECHOD_ADDRESS"] == "unix:/tmp/\x1b\n"

    @pytest.mark.parametrize("form", ["json", "console"])
    @pytest.mark.parametrize("character", ["\xff", "\U0001f600", "\0", "\n", "\udcff"])
    def test_an_entry_is_never_too_large(self, form: str, character: str) -> None:
        """However large its values: it has all its fields, and what can't be shortened is whole."""
        with telling(form=form, output=Framing.ENTRY) as told:
            for name, method in EVENTS.items():
                parameters = inspect.signature(method).parameters.values()
                fields = {each.name: large(each.annotation, character) for each in parameters if each.name != "self"}
                told.tell(name, **fields)
                entry = Entry(told.written())
                assert entry.size <= journald.ENTRY_MAX
                assert {f"ECHOD_{field.upper()}" for field in fields} <= set(entry.fields)
                if form == "json":
                    assert set(entry.event) == {*COMMON, *fields}

    def test_the_longest_payload_fits(self) -> None:
        """Nothing of it is left out, in its field nor in the object."""
        with telling(payload=True, output=Framing.ENTRY) as told:
            shown = told.journal.show(b"\xff" * PAYLOAD_MAX)
            told.journal.chunk_sent(connection="4194304.999999999999", bytes=1 << 24, **shown)
            entry = Entry(told.written())
        assert entry.event["payload"] == entry["ECHOD_PAYLOAD"] == "\xff" * PAYLOAD_MAX

    @given(st.data())
    def test_whatever_the_values(self, data: st.DataObject) -> None:
        """What was told can be read back, from the object and from the fields, unless it is too long."""
        name = data.draw(st.sampled_from(sorted(EVENTS)))
        parameters = inspect.signature(EVENTS[name]).parameters.values()
        fields = {each.name: data.draw(values[each.annotation]) for each in parameters if each.name != "self"}
        with telling(output=Framing.ENTRY) as told:
            told.tell(name, **fields)
            entry = Entry(told.written())
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
    def levels(self, name: str, connections: bool, **fields: Any) -> str:
        """At which level this is told."""
        with telling(connections=connections) as told:
            told.tell(name, **fields)
            (event,) = told.objects()
        return str(event["level"])

    def test_one_that_sent_nothing_is_told_at_debug(self) -> None:
        """A health check floods no log."""
        assert self.levels("connection_closed", True, bytes_received=0) == "debug"
        assert self.levels("connection_closed", True, bytes_received=1) == "info"

    def test_one_that_a_dead_worker_took_along_is_told_at_info(self) -> None:
        """The parent may not have heard of its first bytes."""
        assert self.levels("connection_closed", True, bytes_received=0, reason="worker_died") == "info"

    @pytest.mark.parametrize("name", ["connection_opened", "connection_closed"])
    def test_without_log_connections_all_are(self, name: str) -> None:
        """They are still there for whoever looks closely."""
        assert self.levels(name, True) == "info"
        assert self.levels(name, False) == "debug"


@pytest.mark.parametrize(("reason", "level"), [("stopped", "info"), ("killed by SIGSEGV", "error")])
def test_a_worker_that_was_told_to_end_is_no_error(reason: str, level: str) -> None:
    """One that ends by itself is."""
    with telling() as told:
        told.tell("worker_exited", reason=reason)
        (event,) = told.objects()
    assert event["level"] == level


@pytest.mark.parametrize(("level", "tells"), [("debug", True), ("info", False)])
def test_chunks_are_told_at_debug_only(level: str, tells: bool) -> None:
    """Whoever moves them can know beforehand, and save the trouble."""
    with telling(level=level) as told:
        assert told.journal.tells_chunks == tells


class TestPayload:
    def test_it_is_shown_where_it_is_wanted(self) -> None:
        """As the characters of those numbers, so that every byte can be told again."""
        with telling(payload=True) as told:
            data = bytes(range(256))
            told.journal.chunk_received(connection="1.1", bytes=256, **told.journal.show(memoryview(data)))
            (event,) = told.objects()
        assert event["payload"].encode("latin-1") == data

    def test_and_only_there(self) -> None:
        """What clients send is nobody's business."""
        with telling(payload=False) as told:
            told.journal.chunk_received(connection="1.1", bytes=6, **told.journal.show(b"secret"))
            (line,) = told.lines()
        assert b"secret" not in line
        assert "payload" not in json.loads(line)

    @pytest.mark.parametrize("byte", [b"\xff", b"\0", b'"'])
    def test_the_longest_fits_in_a_line(self, byte: bytes) -> None:
        """Nothing of it is left out, even if each byte takes six."""
        with telling(payload=True, output=Framing.LINE_WITH_PRIORITY) as told:
            shown = told.journal.show(byte * (PAYLOAD_MAX + 1))
            told.journal.chunk_sent(connection="4194304.999999999999", bytes=1 << 24, **shown)
            (line,) = told.lines()
        assert len(line) <= PIPE_BUF
        assert json.loads(line[3:])["payload"].encode("latin-1") == byte * PAYLOAD_MAX

    def test_a_socket_that_tells_of_each_chunk(self) -> None:
        """It does what a socket does, and tells what that did; the end of input is no chunk, and has none before."""
        ours, theirs = socket.socketpair()
        with ours, theirs, telling(payload=True) as told:
            journal = told.journal
            traced = TracedSocket(ours, "1.1", journal, lambda: journal.chunk_sent(connection="before", bytes=0))
            buffer = memoryview(bytearray(10))
            theirs.send(b"abc")
            assert traced.recv_into(buffer) == 3
            assert traced.send(buffer[:3]) == 3
            assert theirs.recv(10) == b"abc"
            theirs.shutdown(socket.SHUT_WR)
            assert traced.recv_into(buffer) == 0
            events = told.objects()
        assert events.pop(0)["connection"] == "before"
        assert [(event["event"], event["bytes"], event["payload"]) for event in events] == [
            ("chunk_received", 3, "abc"),
            ("chunk_sent", 3, "abc"),
        ]


class TestBug:
    def test_it_is_told_with_its_traceback(self) -> None:
        """Whoever reports it has all that is needed."""
        with telling() as told:
            try:
                int("no number")
            except ValueError as error:
                told.journal.bug_of(error)
            (event,) = told.objects()
        assert event["level"] == "critical"
        assert event["error"] == """ValueError("invalid literal for int() with base 10: 'no number'")"""
        assert event["traceback"].startswith("Traceback (most recent call last):")
        assert 'int("no number")' in event["traceback"]

    def test_of_a_long_one_the_end_is_kept(self) -> None:
        """There stands what happened."""
        with telling() as told:
            told.journal.bug_of(ValueError("x" * 100_000 + "the end"))
            (line,) = told.lines()
        assert len(line) <= PIPE_BUF
        assert json.loads(line)["traceback"].endswith("the end\n")


class TestDropped:
    def test_what_was_lost_is_told_before_the_next(self) -> None:
        """As soon as there is room, once."""
        with telling() as told:
            told.journal.sink._dropped = 5
            told.tell("ready")
            told.tell("ready")
            events = told.objects()
        assert [event["event"] for event in events] == ["log_dropped", "ready", "ready"]
        assert events[0]["count"] == 5


class TestJournal:
    def test_its_stream_is_known_by_its_inode(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """JOURNAL_STREAM names device and inode of the one descriptor that it is (systemd.exec(5))."""
        reads, writes = os.pipe()
        status = os.fstat(writes)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        other, another = os.pipe()
        assert goes_to_journal(writes)
        assert not goes_to_journal(another)
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not goes_to_journal(writes)
        for fd in (reads, writes, other, another):
            os.close(fd)


class TestWhereEventsGo:
    @pytest.fixture
    def journal_stream(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
        """A descriptor that systemd has connected to its journal, and no socket of journald's yet."""
        ours, its = socket.socketpair()
        with ours, its:
            status = os.fstat(its.fileno())
            monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
            monkeypatch.setattr(journald, "SOCKET", str(tmp_path / "socket"))
            yield its.fileno()

    def test_standard_error(self, journal_stream: int, tmp_path: Path) -> None:
        """What is not the journal gets lines, whether there is a journald or not."""
        reads, writes = os.pipe()
        with Journald(tmp_path / "socket"):
            sink, output = open_sink(writes)
            sink.put(b"line\n")
            assert (os.read(reads, 100), output) == (b"line\n", Framing.LINE)
            sink.close()
        os.close(reads)
        os.close(writes)

    def test_the_journal(self, journal_stream: int, tmp_path: Path) -> None:
        """It gets entries."""
        with Journald(tmp_path / "socket") as found:
            sink, output = open_sink(journal_stream)
            sink.put(journald.encode("entry", 6, {}))
            assert ([entry["MESSAGE"] for entry in found.entries()], output) == (["entry"], Framing.ENTRY)
            sink.close()

    def test_the_journal_without_its_socket(self, journal_stream: int) -> None:
        """It gets lines with priorities."""
        sink, output = open_sink(journal_stream)
        assert output is Framing.LINE_WITH_PRIORITY
        sink.close()


def test_a_journal_that_changes() -> None:
    """Level, form, connections and payload, from the next event on."""
    with telling(level="error") as told:
        told.tell("ready")
        assert told.lines() == []
        told.journal.change(level="debug", form="console", connections=False, payload=True)
        told.tell("connection_opened")
        (line,) = told.lines()
        assert b" debug " in line
        assert told.journal.tells_chunks
        assert told.journal.show(b"x") == {"payload": "x"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([], "Reloaded; nothing has changed."),
        (["log.level", "chunk_size"], "Reloaded; changed: log.level, chunk_size."),
    ],
)
def test_a_reload(changed: list[str], message: str) -> None:
    """The sentence says what is new."""
    with telling() as told:
        told.tell("reloaded", changed=changed)
        (event,) = told.objects()
    assert event["message"] == message


@pytest.mark.parametrize(("adopted", "end"), [(True, ", passed by systemd."), (False, "0:7.")])
def test_where_a_socket_comes_from(adopted: bool, end: str) -> None:
    """The sentence says whose it is, if it is not ours."""
    with telling() as told:
        told.tell("listening", address="0.0.0.0:7", adopted=adopted)
        (event,) = told.objects()
    assert event["message"].endswith(end)
