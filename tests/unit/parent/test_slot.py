"""slot: a worker's place, with a real process and real sockets in it."""

import errno
import os
import select
import signal
import socket
from collections.abc import Iterator

import pytest

from echod.daemon import TICKS_PER_WATCHDOG
from echod.parent.slot import HUNG, UNWELL, WorkerSlot


@pytest.fixture
def pair() -> Iterator[tuple[WorkerSlot, socket.socket]]:
    """A place with a worker's end of its socket, and no process."""
    slot = WorkerSlot(0)
    slot.commands, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with worker:
        yield slot, worker
    slot.close()


@pytest.fixture
def occupied() -> Iterator[WorkerSlot]:
    """A place with a process that waits to be killed."""
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
    """A system call that fails for want of descriptors."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def fork(slot: WorkerSlot) -> None:
    """Have a worker there, which ends at once."""
    if slot.fork() is not None:
        os._exit(0)


class TestFork:
    def test_the_two_ends(self) -> None:
        """What one side says the other hears, and each has no end but its own."""
        slot = WorkerSlot(0)
        theirs = slot.fork()
        if theirs is not None:
            try:
                theirs.send(theirs.recv(10).upper())
                theirs.recv(10)
            finally:
                os._exit(0)
        try:
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
        """It is killed at once, but no call waits for its end."""
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
        """One message, whole; an answer is due if one is asked for."""
        slot, worker = pair
        reads, writes = os.pipe()
        slot.send(b"look at this", [reads], answer=b"seen")
        assert slot.awaited == b"seen"
        order, fds, _, _ = socket.recv_fds(worker, 100, 1)
        os.write(writes, b"seen")
        assert (order, os.read(fds[0], 10)) == (b"look at this", b"seen")
        for fd in (reads, writes, *fds):
            os.close(fd)

    @pytest.mark.parametrize("unread", [True, False])
    def test_nobody_takes_an_order(self, pair: tuple[WorkerSlot, socket.socket], unread: bool) -> None:
        """A worker that has just died, having left orders unread or not, is told nothing, and says nothing."""
        slot, worker = pair
        if unread:
            slot.send(b"first")
        worker.close()
        slot.send(b"second", answer=b"done")
        assert (slot.awaited, slot.receive()) == (b"", b"")

    def test_an_empty_place_takes_none(self) -> None:
        """There is nobody to take it."""
        slot = WorkerSlot(0)
        slot.send(b"anybody there?", answer=b"I am")
        assert (slot.awaited, slot.receive()) == (b"", b"")

    def test_words(self, pair: tuple[WorkerSlot, socket.socket]) -> None:
        """What the worker says is heard, and then that it hangs up."""
        slot, worker = pair
        worker.send(b"ready")
        worker.close()
        assert [slot.receive(), slot.receive()] == [b"ready", b""]

    def test_a_full_socket(self, occupied: WorkerSlot) -> None:
        """A worker that reads no commands is killed, and the parent does not wait for it."""
        occupied.commands, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        occupied.commands.setblocking(False)
        with worker:
            while occupied.commands.fileno() >= 0 and occupied.awaited == b"":
                occupied.send(b"x" * 4096)
                if os.waitid(os.P_PID, occupied.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                    break
            info = os.waitid(os.P_PID, occupied.pid, os.WEXITED | os.WNOWAIT)
        assert info is not None
        assert info.si_status == signal.SIGKILL

    def test_no_message(self, pair: tuple[WorkerSlot, socket.socket]) -> None:
        """A worker that has sent nothing has not closed its socket either, and the parent does not wait for it."""
        slot, _ = pair
        assert slot.commands is not None
        slot.commands.setblocking(False)
        assert slot.receive() is None


class TestLife:
    def test_a_worker_that_ticks_is_well(self, occupied: WorkerSlot) -> None:
        """However seldom, if it is often enough."""
        for ticks in range(1, 10):
            for _ in range(UNWELL):
                occupied.beat(ticks)
            assert occupied.well
        occupied.beat(ticks)
        assert not occupied.well

    def test_a_worker_that_hangs_is_killed(self, occupied: WorkerSlot) -> None:
        """And that is the reason of its end."""
        for _ in range(HUNG):
            occupied.beat(0)
        info = os.waitid(os.P_PID, occupied.pid, os.WEXITED | os.WNOWAIT)
        assert info is not None
        assert info.si_status == signal.SIGKILL
        assert occupied.reason(signal.SIGKILL, stopping=False) == "killed because its loop hung"

    def test_one_that_hangs_is_replaced_before_the_watchdog_bites(self) -> None:
        """It is fed twice in its period, not while a worker is unwell, and again a beat after that was replaced."""
        assert TICKS_PER_WATCHDOG // 2 + (HUNG - UNWELL) + 1 < TICKS_PER_WATCHDOG

    def test_the_next_has_not_hung(self, occupied: WorkerSlot) -> None:
        """What was counted against one worker is not held against its successor."""
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
        """By how the process ended, and whether it was to."""
        assert WorkerSlot(0).reason(wait_status, stopping=stopping) == reason

    def test_an_empty_place(self) -> None:
        """It is not well, and there is nobody to kill."""
        slot = WorkerSlot(0)
        slot.kill()
        slot.close()
        assert not slot.well
