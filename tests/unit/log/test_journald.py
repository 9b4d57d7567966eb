"""log.journald: entries in the native protocol, and a socket that loses no entry for which journald has room."""

import errno
import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.log.journald import ENTRY_MAX, JournaldSocket, encode
from echod.log.output import QUEUE_BYTES, LogQueue, Writer
from echod.net.loop import Loop
from tests.journald import Journald, decode

FIRST = b"SYSLOG_IDENTIFIER=echod\nSYSLOG_FACILITY=3\nPRIORITY=6\nMESSAGE=It is.\n"


class TestEncode:
    def test_an_entry(self) -> None:
        """An entry has a line for each field, with its name in capitals."""
        entry = encode("It is.", 6, {"event": "connection_closed", "peer": "127.0.0.1:7"})
        assert entry == FIRST + b"ECHOD_EVENT=connection_closed\nECHOD_PEER=127.0.0.1:7\n"

    @pytest.mark.parametrize(
        ("value", "lines"),
        [
            (7, b"ECHOD_X=7\n"),
            (-1.5e-07, b"ECHOD_X=-1.5e-07\n"),
            (True, b"ECHOD_X=true\n"),
            (False, b"ECHOD_X=false\n"),
            (None, b""),
            ("", b"ECHOD_X=\n"),
            ("a=b", b"ECHOD_X=a=b\n"),
            ("\0\x1b", b"ECHOD_X=\0\x1b\n"),
            ("\u00ff\u20ac\U0001f600", b"ECHOD_X=\xc3\xbf\xe2\x82\xac\xf0\x9f\x98\x80\n"),
            (["one", "two"], b"ECHOD_X=one\nECHOD_X=two\n"),
            ([], b""),
        ],
    )
    def test_values(self, value: object, lines: bytes) -> None:
        """Text stays as it is, numbers and bools are JSON, None is left out, and each item of a list is a field."""
        assert encode("It is.", 6, {"x": value}) == FIRST + lines

    @pytest.mark.parametrize("size", [1, 128, 300, 70_000])
    def test_a_value_of_several_lines(self, size: int) -> None:
        """Text with a line break follows its length in bytes, written as 64 bits in little-endian order."""
        text = "\n" + (size - 1) * "x"
        expected = FIRST + b"ECHOD_X\n" + size.to_bytes(8, "little") + text.encode() + b"\n"
        assert encode("It is.", 6, {"x": text}) == expected

    @pytest.mark.parametrize("end", ["", "\n"])
    def test_the_bytes_of_a_path(self, end: str) -> None:
        """Bytes of a file name that are not UTF-8 are written as they are in the file system (PEP 383)."""
        name = b"/tmp/\xff\xc3" + end.encode()
        assert decode(encode("It is.", 6, {"x": os.fsdecode(name)}))[-1] == ("ECHOD_X", name)

    @given(
        st.dictionaries(
            st.from_regex("[a-z][a-z_]{0,50}", fullmatch=True),
            st.one_of(
                st.none(),
                st.text(),
                st.text(st.sampled_from("\n=\0\udcff\ud800\udfffx")),
                st.lists(st.text(), max_size=3),
                st.integers(),
                st.booleans(),
            ),
        ),
        st.integers(0, 7),
    )
    def test_what_was_encoded_can_be_decoded(self, fields: dict[str, Any], priority: int) -> None:
        """Any values can be read back; a surrogate that stands for no byte is escaped."""
        expected = [
            ("SYSLOG_IDENTIFIER", b"echod"),
            ("SYSLOG_FACILITY", b"3"),
            ("PRIORITY", str(priority).encode()),
            ("MESSAGE", b"It is."),
        ]
        for name, value in fields.items():
            for item in value if isinstance(value, list) else [value]:
                if item is not None:
                    text = item if isinstance(item, str) else str(item).lower()
                    expected.append((f"ECHOD_{name.upper()}", text.encode(errors="backslashreplace")))
        found = decode(encode("It is.", priority, fields))
        assert [
            (name, value.decode(errors="surrogateescape").encode(errors="backslashreplace")) for name, value in found
        ] == (expected)


def fill(sock: JournaldSocket) -> int:
    """Write entries until there is no room, and return their number."""
    number = 0
    try:
        while True:
            sock.write(encode("", 6, {"number": number}))
            number += 1
    except BlockingIOError:
        return number


class TestJournalSocket:
    def test_without_a_journald(self, tmp_path: Path) -> None:
        """The constructor raises OSError, and leaves no descriptor behind."""
        path = tmp_path / "socket"
        with pytest.raises(FileNotFoundError):
            JournaldSocket(str(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(str(path))
        with pytest.raises(ConnectionRefusedError):
            JournaldSocket(str(path))

    def test_an_entry_is_one_datagram(self, tmp_path: Path) -> None:
        """It arrives whole and at once, from the process that sent it."""
        with Journald(tmp_path / "socket") as journald, closing(JournaldSocket(str(journald.path))) as sock:
            entries = [encode("x" * size, 6, {}) for size in (1, ENTRY_MAX, 100_000)]
            assert [sock.write(entry) for entry in entries] == [len(entry) for entry in entries]
            found = journald.entries()
            assert [entry.size for entry in found] == [len(entry) for entry in entries]
            assert {entry.pid for entry in found} == {os.getpid()}

    def test_a_journald_that_was_restarted(self, tmp_path: Path) -> None:
        """The first entry afterwards is not lost, and the descriptor, which a loop may watch, stays the same."""
        with Journald(tmp_path / "socket") as journald, closing(JournaldSocket(str(journald.path))) as sock:
            fd = sock.fd
            for number in range(3):
                journald.restart()
                for _ in range(2):
                    sock.write(encode(f"{number}", 6, {}))
                assert [entry["MESSAGE"] for entry in journald.entries()] == [f"{number}"] * 2
            assert sock.fd == fd

    def test_a_journald_that_is_gone(self, tmp_path: Path) -> None:
        """Each entry is an error until there is a journald again, and the first one after that is not."""
        with Journald(tmp_path / "socket") as journald, closing(JournaldSocket(str(journald.path))) as sock:
            journald.stop()
            for _ in range(3):
                with pytest.raises(FileNotFoundError):
                    sock.write(encode("nobody", 6, {}))
            journald.restart()
            sock.write(encode("somebody", 6, {}))
            assert [entry["MESSAGE"] for entry in journald.entries()] == ["somebody"]

    def test_a_journald_that_does_not_read(self, tmp_path: Path) -> None:
        """A write does not wait for it; poll(2) reports when its queue and our buffer have room again."""
        with Journald(tmp_path / "socket") as journald, closing(JournaldSocket(str(journald.path))) as sock:
            poll = select.poll()
            poll.register(sock.fd, select.POLLOUT)
            sent = fill(sock)
            assert poll.poll(0) == []
            assert [int(entry["ECHOD_NUMBER"]) for entry in journald.entries()] == list(range(sent))
            assert poll.poll(0) == [(sock.fd, select.POLLOUT)]
            sock.write(encode("", 6, {"number": sent}))
            journald.entries()

    def test_the_end_waits_for_the_last_entry(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The process stays until journald has taken the entry: it cannot find the unit of a process that is gone."""
        with Journald(tmp_path / "socket") as journald:

            class Poll:
                """A poll during which journald reads."""

                def __init__(self) -> None:
                    self._poll = real()

                def register(self, fd: int, events: int) -> None:
                    self._poll.register(fd, events)

                def poll(self, milliseconds: float) -> list[tuple[int, int]]:
                    assert milliseconds > 0
                    assert self._poll.poll(0) == []
                    found.extend(journald.entries())
                    ready = self._poll.poll(0)
                    assert ready
                    return ready

            real, found = select.poll, journald.entries()
            sock = JournaldSocket(str(journald.path))
            sock.write(encode("the last" * 30, 3, {}))
            monkeypatch.setattr(select, "poll", Poll)
            sock.close()
            assert len(found) == 1
            with pytest.raises(OSError):
                os.fstat(sock.fd)


@contextmanager
def queueing(path: Path) -> Iterator[tuple[Journald, LogQueue, Loop]]:
    """A journald, a queue in front of it, and the loop to which the queue is attached, in which nothing may fail."""

    def fail(fd: int, error: Exception) -> None:
        raise error

    with Journald(path) as journald:
        sock = JournaldSocket(str(path))
        queue = LogQueue(Writer(sock.fd, sock.write, sock.close))
        with closing(queue), closing(Loop(fail)) as loop:
            queue.attach(loop)
            yield journald, queue, loop
            journald.entries()  # or the end would wait


def turn(loop: Loop) -> None:
    """Run one turn of the loop."""
    loop.call_later(0, lambda now: loop.stop())
    loop.run()


def entry(number: int, size: int = 4000) -> bytes:
    """An entry of about this size."""
    return encode("x" * size, 6, {"number": number})


class TestSink:
    def test_entries_that_have_to_wait(self, tmp_path: Path) -> None:
        """Entries are written when there is room, whole and in order; those above the bound are dropped and counted."""
        with queueing(tmp_path / "socket") as (journald, queue, loop):
            total = 2 * QUEUE_BYTES // 4000
            for number in range(total):
                queue.put(entry(number))
            assert queue.take_dropped() == 0
            found = []
            while got := journald.entries():
                found += got
                turn(loop)
            assert [int(each["ECHOD_NUMBER"]) for each in found] == list(range(len(found)))
            assert {each.size for each in found} <= {len(entry(number)) for number in (1, 10, 100)}
            dropped = queue.take_dropped()
            assert dropped > 0
            assert len(found) + dropped == total
            assert queue.take_dropped() == 0
            assert not loop._poller.get_map()

    def test_a_journald_that_is_restarted_while_entries_wait(self, tmp_path: Path) -> None:
        """Entries in its own queue are lost with it; those that wait here are written when the loop sees room."""
        with queueing(tmp_path / "socket") as (journald, queue, loop):
            for number in range(100):
                queue.put(entry(number))
            waiting = len(queue._queue)
            assert waiting
            journald.restart()
            found = []
            turn(loop)
            while got := journald.entries():
                found += got
                turn(loop)
            assert [int(each["ECHOD_NUMBER"]) for each in found] == list(range(100 - waiting, 100))
            assert queue.take_dropped() == 0

    def test_a_journald_that_is_gone(self, tmp_path: Path) -> None:
        """Entries are dropped and counted, also those that wait; the next journald gets the next one."""
        with queueing(tmp_path / "socket") as (journald, queue, loop):
            for number in range(100):
                queue.put(entry(number))
            waiting = len(queue._queue)
            journald.stop()
            turn(loop)
            queue.put(entry(100))
            assert queue.take_dropped() == waiting + 1
            assert not loop._poller.get_map()
            journald.restart()
            queue.put(entry(101))
            assert [each["ECHOD_NUMBER"] for each in journald.entries()] == ["101"]

    def test_one_that_is_too_large(self, tmp_path: Path) -> None:
        """An entry that is too large is dropped and counted, and the next one is not."""
        with Journald(tmp_path / "socket") as journald:
            sock = JournaldSocket(str(journald.path))
            sock._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            with pytest.raises(OSError) as refused:
                sock.write(entry(0, 5000))
            assert refused.value.errno == errno.EMSGSIZE
            with closing(LogQueue(Writer(sock.fd, sock.write, sock.close))) as queue:
                queue.put(entry(1, 5000))
                queue.put(entry(2, 10))
                assert [each["ECHOD_NUMBER"] for each in journald.entries()] == ["2"]
                assert queue.take_dropped() == 1

    def test_finish_waits_for_journald(self, tmp_path: Path) -> None:
        """Without a loop, entries are written as journald reads them."""
        with queueing(tmp_path / "socket") as (journald, queue, _):
            for number in range(100):
                queue.put(entry(number))
            queue.detach()
            reads, writes = os.pipe()
            child = os.fork()
            if not child:
                code = 1
                try:
                    os.close(reads)
                    queue.finish(30)
                    code = 0
                finally:
                    os._exit(code)
            os.close(writes)
            found = [journald.next() for _ in range(100)]
            assert [int(each["ECHOD_NUMBER"]) for each in found] == list(range(100))
            assert found[0].pid == os.getpid()
            assert found[-1].pid == child
            assert os.waitpid(child, 0)[1] == 0
            assert os.read(reads, 1) == b""
            os.close(reads)
            queue.reset()

    def test_after_a_fork(self, tmp_path: Path) -> None:
        """Waiting entries stay with the parent; those of the child come from the child, through the same socket."""
        with queueing(tmp_path / "socket") as (journald, queue, loop):
            for number in range(100):
                queue.put(entry(number))
            child = os.fork()
            if not child:
                code = 1
                try:
                    queue.reset()
                    journald.entries()
                    queue.put(entry(1000))
                    journald._socket.close()
                    queue.finish(0)
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
            found = []
            while got := journald.entries():
                found += got
                turn(loop)
            assert [(each["ECHOD_NUMBER"], each.pid) for each in found if each.pid != os.getpid()] == [("1000", child)]
            assert found[-1]["ECHOD_NUMBER"] == "99"
