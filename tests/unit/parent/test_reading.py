"""reading: a child process and its outcome, with real processes, and a clock that the test moves."""

import contextlib
import errno
import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from echod.errors import CannotListen, ConfigError, EchodError
from echod.parent import reading
from echod.parent.reading import DEADLINE, OUTCOMES_MAX, Reading, ReadingBug, Report, Work, inherited, wait_for
from tests.unit.hand_loop import HandLoop

FOUND = {"host": "unix:/\udcff", "timeout": float("inf")}


@pytest.fixture
def loop() -> Iterator[HandLoop]:
    """A loop whose clock the test moves."""
    with contextlib.closing(HandLoop()) as loop:
        yield loop


class Child(Reading):
    """A reading, and whether it has ended."""

    def __init__(self, work: Work, loop: HandLoop, kept: Sequence[int] = ()) -> None:
        self.ends = 0
        super().__init__(work, kept, loop, self.count)

    def count(self) -> None:
        """Count the calls."""
        self.ends += 1


@pytest.fixture
def child(loop: HandLoop) -> Iterator[Callable[..., Child]]:
    """Start a child that is closed after the test."""
    with contextlib.ExitStack() as stack:

        def start(work: Work, kept: Sequence[int] = ()) -> Child:
            return stack.enter_context(contextlib.closing(Child(work, loop, kept)))

        yield start


def hang(report: Report) -> dict[str, Any]:
    """Report two steps, and never end the second."""
    report(ConfigError("the first"))
    report(CannotListen("the second"))
    signal.pause()
    return {}


def test_found(loop: HandLoop, child: Callable[..., Child]) -> None:
    """The result is what the work returns, with any text and any number."""
    begun = child(lambda report: FOUND)
    loop.until(lambda: bool(begun.ends))
    assert (begun.result(), begun.ends) == (FOUND, 1)
    assert loop.due_in() is None


def test_long(loop: HandLoop, child: Callable[..., Child]) -> None:
    """A result that is longer than a pipe holds arrives whole."""
    found = {"text": "x" * (1 << 20)}
    begun = child(lambda report: found)
    loop.until(lambda: bool(begun.ends))
    assert begun.result() == found


def test_too_long(loop: HandLoop, child: Callable[..., Child]) -> None:
    """A child that sends without end is killed, and the parent does not store what it sends."""
    begun = child(lambda report: {"text": "x" * (OUTCOMES_MAX + 1)})
    loop.until(lambda: bool(begun.ends))
    with pytest.raises(ConfigError, match=f"over {OUTCOMES_MAX} bytes"):
        begun.result()


@pytest.mark.parametrize("kind", [ConfigError, CannotListen])
def test_problems(loop: HandLoop, child: Callable[..., Child], kind: type[EchodError]) -> None:
    """The problems of an error that a user can fix arrive one by one, with the kind of the error."""

    def work(report: Report) -> dict[str, Any]:
        raise kind("one", "another")

    begun = child(work)
    loop.until(lambda: bool(begun.ends))
    with pytest.raises(kind) as raised:
        begun.result()
    assert raised.value.problems == ("one", "another")


def test_bug(loop: HandLoop, child: Callable[..., Child]) -> None:
    """An exception that nothing expects arrives with its traceback."""

    def work(report: Report) -> dict[str, Any]:
        raise RuntimeError("unforeseen")

    begun = child(work)
    loop.until(lambda: bool(begun.ends))
    with pytest.raises(ReadingBug) as raised:
        begun.result()
    assert repr(raised.value) == "RuntimeError('unforeseen')"
    assert "in work" in raised.value.__notes__[0]


def test_deadline(loop: HandLoop, child: Callable[..., Child]) -> None:
    """A child that takes too long is killed, and the problem is the step that it reported last."""
    begun = child(hang)
    while b"second" not in begun._received:
        loop.turn()
    loop.pass_time(DEADLINE - 0.1)
    assert begun.ends == 0
    loop.pass_time(0.1)
    assert begun.ends == 1
    with pytest.raises(CannotListen, match="^the second$"):
        begun.result()
    loop.turn()
    assert begun._pid == 0, "the loop reaps it"


def test_deadline_of_a_stopped_process(loop: HandLoop, child: Callable[..., Child]) -> None:
    """The end does not wait for the child, even if it has reported nothing."""

    def work(report: Report) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGSTOP)
        return {}

    begun = child(work)
    loop.pass_time(DEADLINE)
    assert begun.ends == 1
    with pytest.raises(ReadingBug, match="no outcome"):
        begun.result()


def test_killed(loop: HandLoop, child: Callable[..., Child]) -> None:
    """A child that dies before its result, as for lack of memory, is a problem of its own."""
    begun = child(hang)
    os.kill(begun._pid, signal.SIGKILL)
    loop.until(lambda: bool(begun.ends))
    with pytest.raises(ConfigError, match="the process that reads the configuration was killed by signal 9"):
        begun.result()


@pytest.mark.parametrize(
    "sent",
    [b"", b"nonsense\n", b"[]\n", b'{"found": 1}\n', b'{"problems": ["x"], "status": 1}\n', b'{"problems": [1]}\n'],
)
def test_nonsense(loop: HandLoop, child: Callable[..., Child], sent: bytes) -> None:
    """Whatever the child sends, the result is an error, and never a crash."""
    begun = child(hang)
    begun._received[:] = sent
    begun._end()
    with pytest.raises(Exception, match="."):
        begun.result()


def test_abandoned(loop: HandLoop, child: Callable[..., Child]) -> None:
    """An abandoned child is killed and reaped, and its end is not reported."""
    begun = child(hang)
    begun.abandon()
    loop.until(lambda: begun._pid == 0)
    loop.pass_time(DEADLINE)
    assert begun.ends == 0


def test_descriptors(loop: HandLoop, child: Callable[..., Child]) -> None:
    """The child has standard input, output and error, its pipe, and the descriptors that it keeps."""
    kept, other = os.pipe()
    try:
        begun = child(lambda report: {"fds": os.listdir("/proc/self/fd")}, [kept])
        loop.until(lambda: bool(begun.ends))
        fds = set(map(int, begun.result()["fds"]))
        assert {0, 1, 2, kept} <= fds
        assert len(fds) == len({0, 1, 2, kept}) + 2, "the pipe, and the one that listdir has open"
    finally:
        os.close(kept)
        os.close(other)


def test_dies_with_its_parent() -> None:
    """If the parent is killed, the child does not outlive it."""
    read, write = os.pipe()
    parent = os.fork()
    if not parent:
        try:
            with contextlib.closing(HandLoop()) as loop:
                Child(hang, loop, [write])
                os.write(write, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    poll = select.poll()
    poll.register(read, select.POLLIN)
    assert poll.poll(20_000)
    assert os.read(read, 1) == b"", "the child has closed its end"
    os.close(read)


@pytest.mark.parametrize("call", ["fork", "pidfd_open"])
def test_cannot_start(loop: HandLoop, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Without a process or a descriptor left, nothing is left behind."""

    def fail(*_: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(reading.os, call, fail)  # type: ignore[attr-defined]
    with pytest.raises(OSError):
        Reading(hang, (), loop, lambda: None)
    assert loop.due_in() is None


def test_waiting() -> None:
    """A process without a loop gets the result, or the error."""
    assert wait_for(lambda report: FOUND, ()) == FOUND

    def work(report: Report) -> dict[str, Any]:
        raise ConfigError("a problem")

    with pytest.raises(ConfigError, match="a problem"):
        wait_for(work, ())


def test_waiting_ends_at_a_signal() -> None:
    """An exception from a signal handler ends the wait, and the child."""
    ours = os.getpid()

    def work(report: Report) -> dict[str, Any]:
        while ") S " not in Path(f"/proc/{ours}/stat").read_text():  # until it waits
            os.sched_yield()
        os.kill(ours, signal.SIGINT)
        return hang(report)

    with pytest.raises(KeyboardInterrupt):
        wait_for(work, ())


def test_inherited() -> None:
    """A descriptor that an exec would pass on counts as one with which the process was started."""
    read, write = os.pipe()
    os.set_inheritable(read, True)
    try:
        assert read in inherited()
        assert write not in inherited()
    finally:
        os.close(read)
        os.close(write)
