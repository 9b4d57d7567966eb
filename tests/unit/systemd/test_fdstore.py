"""fdstore: the messages that store and remove descriptors, and the test whether systemd stores them."""

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from echod.systemd.fdstore import ANSWER_WAIT, Answer, DescriptorStore
from echod.systemd.notify import Notifier
from tests.unit.hand_loop import HandLoop


@pytest.fixture
def notifier(systemd: socket.socket) -> Iterator[Notifier]:
    """A notifier of that socket."""
    with closing(Notifier(os.environ)) as notifier:
        yield notifier


@pytest.fixture
def loop() -> Iterator[HandLoop]:
    """A loop."""
    with closing(HandLoop()) as loop:
        yield loop


def received(systemd: socket.socket) -> tuple[bytes, int]:
    """The next message, and the number of its descriptors."""
    data, fds, _, _ = socket.recv_fds(systemd, 4096, 253)
    for fd in fds:
        os.close(fd)
    return data, len(fds)


def test_putting_and_removing(systemd: socket.socket, notifier: Notifier) -> None:
    """Descriptors are stored under a name, with FDPOLL=0, and removed by that name."""
    store = DescriptorStore(notifier)
    store.put("echod-test", [0, 1])
    store.remove("echod-test")
    assert received(systemd) == (b"FDSTORE=1\nFDNAME=echod-test\nFDPOLL=0", 2)
    assert received(systemd) == (b"FDSTOREREMOVE=1\nFDNAME=echod-test", 0)
    assert notifier.failed is None


def test_more_than_a_message_holds(systemd: socket.socket, notifier: Notifier) -> None:
    """Many descriptors are sent in several messages, with at most 253 in each (unix(7))."""
    DescriptorStore(notifier).put("echod-test", [0] * 254)
    assert [received(systemd)[1] for _ in range(2)] == [253, 1]


def test_none(systemd: socket.socket, notifier: Notifier) -> None:
    """Without descriptors no message is sent."""
    DescriptorStore(notifier).put("echod-test", [])
    with pytest.raises(BlockingIOError):
        systemd.recv(4096)


def ask(store: DescriptorStore, loop: HandLoop) -> list[Answer]:
    """Ask, and return the list to which the answer will be added."""
    answers: list[Answer] = []
    store.ask(loop, answers.append)
    return answers


def receive_question(systemd: socket.socket) -> tuple[list[int], list[int]]:
    """Receive the messages of a question; returns the descriptors of the probe, and of the barrier."""
    received_ = [socket.recv_fds(systemd, 4096, 253)[:2] for _ in range(3)]
    assert [data for data, _ in received_] == [
        b"FDSTOREREMOVE=1\nFDNAME=echod-probe",
        b"FDSTORE=1\nFDNAME=echod-probe\nFDPOLL=0",
        b"BARRIER=1",
    ]
    return received_[1][1], received_[2][1]


def test_kept(systemd: socket.socket, notifier: Notifier, loop: HandLoop) -> None:
    """If the probe is still open when systemd has processed everything, it stores descriptors; the probe is removed."""
    answers = ask(DescriptorStore(notifier), loop)
    (probe,), (barrier,) = receive_question(systemd)
    assert loop.turn(0) == 0
    assert answers == []
    os.close(barrier)
    loop.turn()
    assert answers == [Answer.KEPT]
    assert received(systemd) == (b"FDSTOREREMOVE=1\nFDNAME=echod-probe", 0)
    os.close(probe)
    loop.pass_time(ANSWER_WAIT)
    assert answers == [Answer.KEPT]


def test_refused(systemd: socket.socket, notifier: Notifier, loop: HandLoop) -> None:
    """If systemd has closed the probe, it does not store descriptors."""
    answers = ask(DescriptorStore(notifier), loop)
    (probe,), (barrier,) = receive_question(systemd)
    os.close(probe)
    assert loop.turn(0) == 0
    os.close(barrier)
    loop.turn()
    assert answers == [Answer.REFUSED]


def test_no_answer(systemd: socket.socket, notifier: Notifier, loop: HandLoop) -> None:
    """A manager that does not answer in time has not refused; it can be asked again, and its late answer is ignored."""
    store = DescriptorStore(notifier)
    answers = ask(store, loop)
    (probe,), (barrier,) = receive_question(systemd)
    loop.pass_time(ANSWER_WAIT - 1)
    assert answers == []
    loop.pass_time(1)
    assert answers == [Answer.NONE]
    os.close(probe)
    os.close(barrier)
    assert loop.turn(0) == 0
    again = ask(store, loop)
    (probe,), (barrier,) = receive_question(systemd)
    os.close(barrier)
    loop.turn()
    assert (answers, again) == ([Answer.NONE], [Answer.KEPT])
    os.close(probe)


def test_a_full_queue(systemd: socket.socket, notifier: Notifier, loop: HandLoop) -> None:
    """If systemd takes no message in time, it has not got the descriptors, so they are not stored."""
    while notifier.watchdog():
        pass
    answers = ask(DescriptorStore(notifier), loop)
    loop.pass_time(ANSWER_WAIT)
    assert answers == [Answer.REFUSED]
    assert notifier.failed is None


def test_a_full_queue_for_a_while(systemd: socket.socket, notifier: Notifier, loop: HandLoop) -> None:
    """A question waits for room in systemd's queue, like every message."""
    notifier.attach(loop)
    while notifier.watchdog():
        pass
    answers = ask(DescriptorStore(notifier), loop)
    with contextlib.suppress(BlockingIOError):
        while systemd.recv(4096):
            pass
    loop.turn()
    (probe,), (barrier,) = receive_question(systemd)
    os.close(barrier)
    loop.turn()
    assert answers == [Answer.KEPT]
    os.close(probe)


def test_a_descriptor_that_could_not_be_sent(systemd: socket.socket, notifier: Notifier, loop: HandLoop) -> None:
    """If any descriptor could not be sent since its name was last removed, not everything is stored."""
    store = DescriptorStore(notifier)
    store.put("echod-test", [1 << 20])
    answers = ask(store, loop)
    (probe,), (barrier,) = receive_question(systemd)
    os.close(barrier)
    loop.turn()
    assert answers == [Answer.REFUSED]
    os.close(probe)
    store.remove("echod-test")
    assert received(systemd)[0] == b"FDSTOREREMOVE=1\nFDNAME=echod-test"
    answers = ask(store, loop)
    (probe,), (barrier,) = receive_question(systemd)
    os.close(barrier)
    loop.turn()
    assert answers == [Answer.KEPT]
    os.close(probe)


@pytest.mark.parametrize("free", [0, 1])
def test_no_pipe(notifier: Notifier, loop: HandLoop, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Without a descriptor for the question there is no answer, and nothing is left open."""
    pipes = [os.pipe() for _ in range(free)]
    monkeypatch.setattr(os, "pipe", lambda: pipes.pop() if pipes else os.dup(1 << 20))
    assert ask(DescriptorStore(notifier), loop) == [Answer.NONE]


def test_closed_while_a_question_is_open(systemd: socket.socket, notifier: Notifier, loop: HandLoop) -> None:
    """A worker closes the descriptors of the parent's question right after the fork."""
    store = DescriptorStore(notifier)
    ask(store, loop)
    ends = receive_question(systemd)
    store.close()
    store.close()
    for (fd,) in ends:
        with pytest.raises(BrokenPipeError):
            os.write(fd, b"x")
        os.close(fd)


def test_without_systemd(loop: HandLoop) -> None:
    """Without systemd, nothing is stored, nothing fails, and the answer is known at once."""
    notifier = Notifier({})
    store = DescriptorStore(notifier)
    store.put("echod-test", [0])
    store.remove("echod-test")
    assert ask(store, loop) == [Answer.REFUSED]
    assert notifier.failed is None
