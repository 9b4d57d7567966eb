"""journald: entries as systemd's documents have them, and a socket that loses none that can be had."""

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
        """A line for each field, with its name in capitals."""
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
        """Text as it is, numbers and truth as JSON has them, nothing for None, and a list item by item."""
        assert encode("It is.", 6, {"x": value}) == FIRST + lines

    @pytest.mark.parametrize("size", [1, 128, 300, 70_000])
    def test_a_value_of_several_lines(self, size: int) -> None:
        """It stands behind its length in bytes, in eight bytes of which the lowest come first."""
        text = "\n" + (size - 1) * "x"
        expected = FIRST + b"ECHOD_X\n" + size.to_bytes(8, "little") + text.encode() + b"\n"
        assert encode("It is.", 6, {"x": text}) == expected

    @pytest.mark.parametrize("end", ["", "\n"])
    def test_the_bytes_of_a_path(self, end: str) -> None:
        """What is no UTF-8 in the name of a file is in the entry as it is in the file system (PEP 383)."""
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
        """Whatever the values are; a surrogate that stands for no byte is written out."""
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
    """Write entries until there is no room; how many there was room for."""
    number = 0
    try:
        while True:
            sock.write(encode("", 6, {"number": number}))
            number += 1
    except BlockingIOError:
        return number


class TestJournalSocket:
    def test_without_a_journald(self, tmp_path: Path) -> None:
        """Whoever asks is told, and can do without."""
        path = tmp_path / "socket"
        with pytest.raises(FileNotFoundError):
            JournaldSocket(str(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(str(path))
        with pytest.raises(ConnectionRefusedError):
            JournaldSocket(str(path))

    def test_an_entry_is_one_datagram(self, tmp_path: Path) -> None:
        """Whole, at once, and from the process that has sent it."""
        with Journald(tmp_path / "socket") as journald, closing(JournaldSocket(str(journald.path))) as sock:
            entries = [encode("x" * size, 6, {}) for size in (1, ENTRY_MAX, 100_000)]
            assert [sock.write(entry) for entry in entries] == [len(entry) for entry in entries]
            found = journald.entries()
            assert [entry.size for entry in found] == [len(entry) for entry in entries]
            assert {entry.pid for entry in found} == {os.getpid()}

    def test_a_socket_that_was_made_anew(self, tmp_path: Path) -> None:
        """Nothing is lost, not even the first entry after it, and the descriptor is the one that a loop watches."""
        with Journald(tmp_path / "socket") as journald, closing(JournaldSocket(str(journald.path))) as sock:
            fd = sock.fd
            for number in range(3):
                journald.restart()
                for _ in range(2):
                    sock.write(encode(f"{number}", 6, {}))
                assert [entry["MESSAGE"] for entry in journald.entries()] == [f"{number}"] * 2
            assert sock.fd == fd

    def test_a_journald_that_is_gone(self, tmp_path: Path) -> None:
        """Each entry is an error, as long as nobody is there; the first after that is none."""
        with Journald(tmp_path / "socket") as journald, closing(JournaldSocket(str(journald.path))) as sock:
            journald.stop()
            for _ in range(3):
                with pytest.raises(FileNotFoundError):
                    sock.write(encode("nobody", 6, {}))
            journald.restart()
            sock.write(encode("somebody", 6, {}))
            assert [entry["MESSAGE"] for entry in journald.entries()] == ["somebody"]

    def test_a_journald_that_does_not_read(self, tmp_path: Path) -> None:
        """Nobody waits for it; the descriptor tells when there is room again, in its queue as well as in our buffer."""
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
        """Until journald has taken it, the process that sent it stays: of one that is gone it can't tell the unit."""
        with Journald(tmp_path / "socket") as journald:

            class Poll:
                """A poll that journald reads during."""

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
    """A journald, a queue before it, and a loop that the queue is attached to, in which nothing may fail."""

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
    """One turn, whatever is ready."""
    loop.call_later(0, lambda now: loop.stop())
    loop.run()


def entry(number: int, size: int = 4000) -> bytes:
    """An entry of about that size."""
    return encode("x" * size, 6, {"number": number})


class TestSink:
    def test_entries_that_have_to_wait(self, tmp_path: Path) -> None:
        """They go out when there is room, whole and in their order; those over the bound are counted, once."""
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

    def test_a_socket_that_was_made_anew_while_entries_wait(self, tmp_path: Path) -> None:
        """What journald had not read is lost with it; what waited here is not, and the loop tells when it can go."""
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
        """Entries are lost and counted, those that wait, too; nothing fails, and the next journald gets the next."""
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
        """It is lost and counted, and the next is not."""
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
        """Entries go out as it reads them, without a loop."""
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
        """Entries that wait are the parent's; the child's come from the child, by the same socket."""
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
