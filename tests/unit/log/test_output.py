"""log.output: lines to every kind of standard error, none of which may block the writer."""

import fcntl
import os
import resource
import socket
import stat
import tty
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.log import journald
from echod.log.output import QUEUE_BYTES, Framing, LogQueue, goes_to_journal, open_log_queue, open_writer
from echod.net.loop import Loop
from tests.journald import Journald

PAGE = 4096
LONG = 4000
"""Bytes of a line; a pipe of one page takes one such line, and then none."""


def line(number: int, size: int = LONG) -> bytes:
    """A line that begins with its number."""
    return f"{number:06}".encode().ljust(size - 1, b".") + b"\n"


def read_all(fd: int) -> bytes:
    """Everything that can be read now."""
    data = bytearray()
    while True:
        try:
            chunk = os.read(fd, 1 << 20)
        except BlockingIOError:
            return bytes(data)
        if not chunk:
            return bytes(data)
        data += chunk


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe of one page; only its reading end does not block."""
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, PAGE)
    fds = {reads, writes}
    try:
        yield reads, writes
    finally:
        for fd in fds:
            try:
                os.close(fd)
            except OSError:
                pass


@contextmanager
def looping() -> Iterator[Loop]:
    """A loop in which nothing may fail."""

    def fail(fd: int, error: Exception) -> None:
        raise error

    with closing(Loop(fail)) as loop:
        yield loop


def turn(loop: Loop) -> None:
    """Run one turn of the loop."""
    loop.call_later(0, lambda now: loop.stop())
    loop.run()


def in_child(function: Callable[[], None]) -> None:
    """Run `function` in another process, which may give up its privileges permanently."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


class TestPipe:
    def test_a_line_goes_out_at_once(self) -> None:
        """While there is room, a line is written at once, and no loop is needed."""
        with pipe() as (reads, writes), closing(LogQueue(open_writer(writes))) as queue:
            queue.put(b"one\n")
            queue.put(b"two\n")
            assert os.read(reads, 100) == b"one\ntwo\n"
            assert queue.take_dropped() == 0

    def test_a_full_one_does_not_block(self) -> None:
        """Lines wait, and are written whole and in order when the loop sees room."""
        with pipe() as (reads, writes), closing(LogQueue(open_writer(writes))) as queue, looping() as loop:
            queue.attach(loop)
            lines = [line(number) for number in range(20)]
            for each in lines:
                queue.put(each)
            received: list[bytes] = []
            while len(received) < len(lines):
                received.append(os.read(reads, 1 << 20))
                turn(loop)
            assert received == lines
            assert queue.take_dropped() == 0
            assert not loop._poller.get_map()

    def test_the_descriptor_is_left_as_it_is(self) -> None:
        """The descriptor itself, which other processes share, still blocks and stays open."""
        with pipe() as (reads, writes):
            with closing(LogQueue(open_writer(writes))) as queue:
                queue.put(line(1))
                queue.put(line(2))
                assert os.get_blocking(writes)
            assert os.read(reads, 1 << 20) == line(1)
            os.write(writes, b"still open\n")

    def test_lines_that_waited_before_there_was_a_loop(self) -> None:
        """They are written as soon as there is a loop that sees room."""
        with pipe() as (reads, writes), closing(LogQueue(open_writer(writes))) as queue, looping() as loop:
            for number in range(3):
                queue.put(line(number))
            queue.attach(loop)
            received = b""
            while len(received) < 3 * LONG:
                received += read_all(reads)
                turn(loop)
            assert received == line(0) + line(1) + line(2)
            queue.detach()
            queue.detach()

    def test_without_a_loop_lines_wait(self) -> None:
        """A detached queue does not use the loop; `finish` writes what waits."""
        with pipe() as (reads, writes), closing(LogQueue(open_writer(writes))) as queue, looping() as loop:
            queue.attach(loop)
            queue.put(line(0))
            queue.put(line(1))
            assert loop._poller.get_map()
            queue.detach()
            assert not loop._poller.get_map()
            assert os.read(reads, 1 << 20) == line(0)
            queue.put(line(2, 10))
            queue.finish(10)
            assert read_all(reads) == line(1) + line(2, 10)
            queue.put(line(3))
            queue.put(line(4))
            assert not loop._poller.get_map()

    def test_over_the_bound_lines_are_dropped_and_counted(self) -> None:
        """Lines queued before are written; the number is returned once, when the queue is empty again."""
        with pipe() as (reads, writes), closing(LogQueue(open_writer(writes))) as queue, looping() as loop:
            queue.attach(loop)
            fit = QUEUE_BYTES // LONG + 1  # and one in the pipe
            for number in range(fit + 7):
                queue.put(line(number))
            assert queue.take_dropped() == 0
            received = bytearray()
            while len(received) < fit * LONG:
                received += read_all(reads)
                turn(loop)
            assert received == b"".join(line(number) for number in range(fit))
            assert (queue.take_dropped(), queue.take_dropped()) == (7, 0)
            queue.put(b"again\n")
            assert read_all(reads) == b"again\n"

    def test_a_reader_that_is_gone(self) -> None:
        """Without a reader, lines are dropped and counted, whether they waited or not; nothing fails or hangs."""
        with pipe() as (reads, writes), closing(LogQueue(open_writer(writes))) as queue, looping() as loop:
            queue.attach(loop)
            for number in range(3):
                queue.put(line(number))
            os.close(reads)
            turn(loop)
            assert queue.take_dropped() == 2
            queue.put(line(4))
            assert queue.take_dropped() == 1
            assert not loop._poller.get_map()

    def test_a_reader_that_was_never_there(self) -> None:
        """A pipe without a reader cannot be opened again: the line is dropped and counted."""
        with pipe() as (reads, writes):
            os.close(reads)
            with closing(LogQueue(open_writer(writes))) as queue:
                queue.put(line(1))
                assert queue.take_dropped() == 1

    def test_one_that_another_user_made(self) -> None:
        """Such a pipe cannot be opened again; still it does not block, and no line is lost."""
        root = os.geteuid() == 0
        with pipe() as (reads, writes):
            os.fchmod(writes, 0)
            if root:  # which may open anything
                os.seteuid(65534)
            try:
                with pytest.raises(PermissionError):
                    os.open(f"/proc/self/fd/{writes}", os.O_WRONLY)
                queue = LogQueue(open_writer(writes))
            finally:
                if root:
                    os.seteuid(0)
            with closing(queue), looping() as loop:
                queue.attach(loop)
                for number in range(3):
                    queue.put(line(number))
                assert os.get_blocking(writes)
                received = b""
                while len(received) < 3 * LONG:
                    received += read_all(reads)
                    turn(loop)
            assert received == line(0) + line(1) + line(2)

    def test_finish_does_not_wait_for_ever(self) -> None:
        """It gives up after its timeout if the reader does not read, and does not wait at all if the queue is empty."""
        with pipe() as (reads, writes), closing(LogQueue(open_writer(writes))) as queue:
            queue.finish(1e9)
            for number in range(2):
                queue.put(line(number))
            queue.finish(0.001)
            assert read_all(reads) == line(0)

    def test_finish_waits_for_the_reader(self) -> None:
        """It returns when the reader has taken all lines."""
        with pipe() as (reads, writes):

            def write() -> None:
                os.close(reads)
                with closing(LogQueue(open_writer(writes))) as queue:
                    for number in range(50):
                        queue.put(line(number))
                    queue.finish(30)

            pid = os.fork()
            if not pid:
                try:
                    write()
                finally:
                    os._exit(0)
            os.close(writes)
            os.set_blocking(reads, True)
            assert read_all(reads) == b"".join(line(number) for number in range(50))
            os.waitpid(pid, 0)

    def test_after_a_fork_the_parent_keeps_what_is_the_parents(self) -> None:
        """Waiting lines are written once, by the parent; the child starts with an empty queue and no count."""
        with pipe() as (reads, writes), closing(LogQueue(open_writer(writes))) as queue, looping() as loop:
            queue.attach(loop)
            for number in range(2):
                queue.put(line(number))

            def write() -> None:
                queue.reset()
                assert os.read(reads, 1 << 20) == line(0)
                queue.put(b"child\n")
                queue.finish(0)

            in_child(write)
            assert read_all(reads) == b"child\n"
            turn(loop)
            assert read_all(reads) == line(1)

    @given(st.lists(st.integers(2, LONG), max_size=60), st.lists(st.integers(0, 60), max_size=10))
    def test_whatever_the_lines_and_whenever_they_are_read(self, sizes: list[int], reads_after: list[int]) -> None:
        """Lines of any size are written whole and in order."""
        with pipe() as (reads, writes), closing(LogQueue(open_writer(writes))) as queue, looping() as loop:
            queue.attach(loop)
            received = bytearray()
            for number, size in enumerate(sizes):
                queue.put(line(number, max(size, 8)))
                if number in reads_after:
                    received += read_all(reads)
                    turn(loop)
            expected = b"".join(line(number, max(size, 8)) for number, size in enumerate(sizes))
            while len(received) < len(expected):
                received += read_all(reads)
                turn(loop)
            assert received == expected


class TestSocket:
    def test_a_stream_takes_part_of_a_line(self) -> None:
        """The rest of a line is written before the next one, as for the journal's own stream."""
        here, there = socket.socketpair()
        with here, there, closing(LogQueue(open_writer(here.fileno()))) as queue, looping() as loop:
            here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
            there.setblocking(False)
            queue.attach(loop)
            lines = [line(number, 100_000) for number in range(5)]
            for each in lines:
                queue.put(each)
            assert here.getblocking()
            received = bytearray()
            while len(received) < 500_000:
                received += read_all(there.fileno())
                turn(loop)
            assert received == b"".join(lines)
            assert queue.take_dropped() == 0

    def test_a_reader_that_is_gone(self) -> None:
        """After a restart of the journal, lines are dropped and counted."""
        here, there = socket.socketpair()
        with here, closing(LogQueue(open_writer(here.fileno()))) as queue:
            there.close()
            queue.put(line(1))
            assert queue.take_dropped() == 1


class TestFile:
    @pytest.mark.parametrize("flags", [os.O_APPEND, 0])
    def test_it_is_written_after_what_is_there(self, tmp_path: Path, flags: int) -> None:
        """Lines follow what is in the file, whether it was opened for appending or not: the position is shared."""
        path = tmp_path / "log"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
        with closing(LogQueue(open_writer(fd))) as queue:
            os.write(fd, b"before\n")
            queue.put(line(1, 10_000))
            os.write(fd, b"between\n")
            queue.put(b"last\n")
        os.close(fd)
        assert path.read_bytes() == b"before\n" + line(1, 10_000) + b"between\n" + b"last\n"

    @pytest.mark.parametrize("flags", [os.O_APPEND, 0])
    def test_a_full_disk(self, tmp_path: Path, flags: int) -> None:
        """Lines are dropped and counted, and nothing stays of one that fitted in part; later ones follow the others."""
        path = tmp_path / "log"

        def write() -> None:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            with closing(LogQueue(open_writer(fd))) as queue, looping() as loop:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
                queue.attach(loop)
                for number in range(3):
                    queue.put(line(number, 1000))
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
                assert queue.take_dropped() == 2
                queue.put(line(3, 1000))

        in_child(write)
        assert path.read_bytes() == line(0, 1000) + line(3, 1000)


class TestDevice:
    def test_a_terminal(self) -> None:
        """It is opened once more, and does not become our controlling terminal."""
        master, slave = os.openpty()
        tty.setraw(slave)
        with closing(LogQueue(open_writer(slave))) as queue:
            assert stat.S_ISCHR(os.fstat(queue._writer.fd).st_mode)
            queue.put(b"to a person\n")
            assert os.read(master, 100) == b"to a person\n"
            assert os.get_blocking(slave)
        os.close(master)
        os.close(slave)

    @pytest.mark.parametrize(("device", "dropped"), [("/dev/null", 0), ("/dev/full", 2)])
    def test_one_that_is_never_full_and_one_that_always_is(self, device: str, dropped: int) -> None:
        """Neither /dev/null nor /dev/full can be watched by a loop, and neither has to be."""
        fd = os.open(device, os.O_WRONLY)
        with closing(LogQueue(open_writer(fd))) as queue, looping() as loop:
            queue.attach(loop)
            queue.put(line(1))
            queue.put(line(2))
            assert queue.take_dropped() == dropped
        os.close(fd)


class TestGoesToJournal:
    def test_the_stream_is_known_by_its_inode(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """JOURNAL_STREAM has the device and the inode of the descriptor (systemd.exec(5))."""
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


class TestOpenLogQueue:
    @pytest.fixture
    def journal_stream(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
        """A descriptor that systemd has connected to its journal, while journald has no socket yet."""
        ours, its = socket.socketpair()
        with ours, its:
            status = os.fstat(its.fileno())
            monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
            monkeypatch.setattr(journald, "SOCKET", str(tmp_path / "socket"))
            yield its.fileno()

    def test_standard_error(self, journal_stream: int, tmp_path: Path) -> None:
        """Any other descriptor gets lines, whether there is a journald or not."""
        reads, writes = os.pipe()
        with Journald(tmp_path / "socket"):
            queue, framing = open_log_queue(writes)
            queue.put(b"line\n")
            assert (os.read(reads, 100), framing) == (b"line\n", Framing.LINE)
            queue.close()
        os.close(reads)
        os.close(writes)

    def test_the_journal(self, journal_stream: int, tmp_path: Path) -> None:
        """The journal gets entries."""
        with Journald(tmp_path / "socket") as found:
            queue, framing = open_log_queue(journal_stream)
            queue.put(journald.encode("entry", 6, {}))
            assert ([entry["MESSAGE"] for entry in found.entries()], framing) == (["entry"], Framing.ENTRY)
            queue.close()

    def test_the_journal_without_its_socket(self, journal_stream: int) -> None:
        """Without journald's socket, the journal gets lines with priorities."""
        queue, framing = open_log_queue(journal_stream)
        assert framing is Framing.LINE_WITH_PRIORITY
        queue.close()
