"""slot: a worker slot, with a real process and real sockets."""

import errno
import os
import select
import signal
import socket
from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from echod.daemon import TICKS_PER_WATCHDOG
from echod.parent.slot import HUNG, UNANSWERED, UNWELL, WorkerSlot
from echod.shared import messages
from echod.shared.messages import FalseData


@pytest.fixture
def pair() -> Iterator[tuple[WorkerSlot, socket.socket]]:
    """A slot without a process, and the worker's end of its command socket."""
    slot = WorkerSlot(0)
    slot.commands, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with worker:
        yield slot, worker
    slot.close()


@pytest.fixture
def occupied() -> Iterator[WorkerSlot]:
    """A slot with a process that waits to be killed."""
    pid = os.fork()
    if not pid:
        signal.pause()
        os._exit(0)
    slot = WorkerSlot(0, pid=pid, pidfd=os.pidfd_open(pid))
    yield slot
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    slot.close()


def refuse(*_: object) -> None:
    """Make a system call fail for lack of descriptors."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def fork(slot: WorkerSlot) -> None:
    """Fork a worker that exits at once."""
    if slot.fork() is not None:
        os._exit(0)


class TestFork:
    def test_the_two_ends(self) -> None:
        """A message from either side arrives at the other, and each side has only its own end of the socket."""
        slot = WorkerSlot(0)
        theirs = slot.fork()
        if theirs is not None:
            try:
                theirs.send(theirs.recv(10).upper())
                theirs.recv(10)
            finally:
                os._exit(0)
        try:
            slot.due = [b"HELLO"]
            slot.send(b"hello")
            assert slot.commands is not None
            select.select([slot.commands], [], [])
            assert slot.receive() == b"HELLO"
            slot.close_commands()
        finally:
            os.waitpid(slot.pid, 0)
            slot.close()

    @pytest.mark.parametrize(("module", "name"), [(socket, "socketpair"), (os, "fork")])
    def test_what_the_system_refuses(self, monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
        """The slot stays empty, and no descriptor is left behind."""
        monkeypatch.setattr(module, name, refuse)
        slot = WorkerSlot(0)
        with pytest.raises(OSError, match="Too many open files"):
            fork(slot)
        assert slot == WorkerSlot(0)

    def test_a_child_without_a_pidfd_is_reaped_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A child without a pidfd is killed at once, and no call waits for its exit."""
        monkeypatch.setattr(os, "pidfd_open", refuse)
        slot = WorkerSlot(0)
        with pytest.raises(OSError, match="Too many open files"):
            fork(slot)
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        slot.beat(0)
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


class TestCommands:
    def test_an_order_arrives_with_its_descriptors(self, pair: tuple[WorkerSlot, socket.socket]) -> None:
        """A command arrives whole, with its descriptors; an answer is awaited if one is requested."""
        slot, worker = pair
        reads, writes = os.pipe()
        slot.send(b"look at this", [reads], answer=b"seen")
        assert (slot.owes_answer, slot.due) == (True, [b"seen"])
        order, fds, _, _ = socket.recv_fds(worker, 100, 1)
        os.write(writes, b"seen")
        assert (order, os.read(fds[0], 10)) == (b"look at this", b"seen")
        for fd in (reads, writes, *fds):
            os.close(fd)

    @pytest.mark.parametrize("unread", [True, False])
    def test_nobody_takes_an_order(self, pair: tuple[WorkerSlot, socket.socket], unread: bool) -> None:
        """After a worker's death nothing is sent to it or received from it, whether or not it left commands unread."""
        slot, worker = pair
        if unread:
            slot.send(b"first")
        worker.close()
        slot.send(b"second", answer=b"done")
        assert (slot.owes_answer, slot.receive()) == (False, b"")

    def test_an_empty_place_takes_none(self) -> None:
        """Without a worker nothing is sent."""
        slot = WorkerSlot(0)
        slot.send(b"anybody there?", answer=b"I am")
        assert (slot.owes_answer, slot.receive()) == (False, b"")

    def test_words(self, pair: tuple[WorkerSlot, socket.socket]) -> None:
        """The worker's messages are received, and then the end of its socket."""
        slot, worker = pair
        slot.due = [messages.READY]
        slot.send(b"new terms", answer=messages.ADOPTED)
        assert worker.recv(100) == b"new terms"
        for message in (messages.READY, messages.ADOPTED):
            worker.send(message)
        worker.close()
        assert [slot.receive() for _ in range(3)] == [messages.READY, messages.ADOPTED, b""]
        assert not slot.owes_answer

    @given(
        st.one_of(
            st.sampled_from([messages.READY, messages.HANDED_OVER, b"adopted."]), st.binary(min_size=1, max_size=100)
        )
    )
    def test_a_message_that_is_not_due(self, message: bytes) -> None:
        """Any message but the next one that the worker has to send is false data, whatever is in it."""
        assume(message != messages.ADOPTED)
        slot = WorkerSlot(0, due=[messages.ADOPTED])
        slot.commands, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with slot.commands, worker:
            worker.send(message)
            with pytest.raises(FalseData, match="was due"):
                slot.receive()
            assert slot.owes_answer

    def test_a_full_socket(self, occupied: WorkerSlot) -> None:
        """A worker that reads no commands is killed, and the parent does not wait for it."""
        occupied.commands, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        occupied.commands.setblocking(False)
        with worker:
            while occupied.commands.fileno() >= 0 and not occupied.owes_answer:
                occupied.send(b"x" * 4096)
                if os.waitid(os.P_PID, occupied.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                    break
            info = os.waitid(os.P_PID, occupied.pid, os.WEXITED | os.WNOWAIT)
        assert info is not None
        assert info.si_status == signal.SIGKILL

    def test_no_message(self, pair: tuple[WorkerSlot, socket.socket]) -> None:
        """If the worker has sent nothing, the result is None, not the end of its socket; nothing waits."""
        slot, _ = pair
        assert slot.commands is not None
        slot.commands.setblocking(False)
        assert slot.receive() is None


class TestLife:
    @pytest.mark.parametrize("due", [[messages.READY], [messages.HANDED_OVER]])
    def test_a_worker_that_ticks_but_does_not_answer(self, occupied: WorkerSlot, due: list[bytes]) -> None:
        """A worker that ticks, but leaves a command without an answer, is killed after `UNANSWERED` beats."""
        occupied.commands, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with worker:
            for ticks in range(UNANSWERED):
                occupied.due = due if ticks else []
                occupied.beat(ticks)
            assert os.waitid(os.P_PID, occupied.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
            occupied.beat(UNANSWERED)
            os.waitid(os.P_PID, occupied.pid, os.WEXITED | os.WNOWAIT)
        assert occupied.reason(signal.SIGKILL, stopping=False) == "killed because it did not answer"

    def test_a_worker_that_ticks_is_well(self, occupied: WorkerSlot) -> None:
        """A worker that ticks late, but before `UNWELL` beats, is well."""
        for ticks in range(1, 10):
            for _ in range(UNWELL):
                occupied.beat(ticks)
            assert occupied.well
        occupied.beat(ticks)
        assert not occupied.well

    def test_a_worker_that_hangs_is_killed(self, occupied: WorkerSlot) -> None:
        """The reason of its exit is that its loop hung."""
        for _ in range(HUNG):
            occupied.beat(0)
        info = os.waitid(os.P_PID, occupied.pid, os.WEXITED | os.WNOWAIT)
        assert info is not None
        assert info.si_status == signal.SIGKILL
        assert occupied.reason(signal.SIGKILL, stopping=False) == "killed because its loop hung"

    def test_one_that_hangs_is_replaced_before_the_watchdog_bites(self) -> None:
        """WATCHDOG=1 is sent twice a period, not while a worker is unwell, and again a beat after its replacement."""
        assert TICKS_PER_WATCHDOG // 2 + (HUNG - UNWELL) + 1 < TICKS_PER_WATCHDOG

    def test_the_next_has_not_hung(self, occupied: WorkerSlot) -> None:
        """The missed beats of one worker do not count for its successor."""
        for _ in range(UNWELL):
            occupied.beat(0)
        occupied.reset(1.0)
        assert occupied.well

    @pytest.mark.parametrize(
        ("wait_status", "stopping", "reason"),
        [
            (0, True, "stopped"),
            (0, False, "exit status 0"),
            (70 << 8, True, "exit status 70"),
            (signal.SIGKILL, False, "killed by SIGKILL"),
            (signal.SIGRTMIN + 1, False, f"killed by signal {signal.SIGRTMIN + 1}"),
        ],
    )
    def test_reasons(self, wait_status: int, stopping: bool, reason: str) -> None:
        """The reason depends on the wait status, and on whether the pool was stopping."""
        assert WorkerSlot(0).reason(wait_status, stopping=stopping) == reason

    def test_an_empty_place(self) -> None:
        """An empty slot is not well, and killing it does nothing."""
        slot = WorkerSlot(0)
        slot.kill()
        slot.close()
        assert not slot.well
