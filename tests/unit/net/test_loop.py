"""loop: one turn, on real descriptors."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from echod.net.loop import READ, WRITE, Loop

EPOLLEXCLUSIVE = 1 << 28


def raises(fd: int, error: Exception) -> None:
    """What a loop of these tests does with a bug."""
    raise error


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop that is closed again."""
    with closing(Loop(raises)) as loop:
        yield loop


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    """Three pipes with a byte in each: ready to be read from at once."""
    pipes = [os.pipe2(os.O_NONBLOCK) for _ in range(3)]
    for _, writes in pipes:
        os.write(writes, b"x")
    yield pipes
    for pipe in pipes:
        for fd in pipe:
            os.close(fd)


def once(loop: Loop) -> None:
    """One turn, which has something to do or would wait for ever."""
    loop.stop()
    loop._turn()


def test_a_callback_is_called_while_its_descriptor_is_ready(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """Once a turn, until it has read; then another one's turn comes."""
    (reads, writes), (other, _), _ = pipes
    called: list[str] = []
    loop.watch(reads, READ, lambda: called.append("read"))
    loop.watch(other, READ, lambda: called.append("other"))
    once(loop)
    os.read(reads, 10)
    once(loop)
    assert sorted(called) == ["other", "other", "read"]
    loop.rewatch(reads, READ, loop.stop)
    os.write(writes, b"y")
    loop.run()


def test_rewatch_changes_what_is_waited_for(loop: Loop) -> None:
    """Readable, then writable, then readable again by another callback."""
    here, there = socket.socketpair()
    with here, there:
        called: list[str] = []
        loop.watch(here.fileno(), READ, lambda: called.append("read"))
        loop.rewatch(here.fileno(), WRITE, lambda: called.append("write"))
        once(loop)
        there.send(b"x")
        loop.rewatch(here.fileno(), READ, lambda: called.append("read again"))
        once(loop)
        assert called == ["write", "read again"]


def test_an_error_is_an_event_whatever_is_waited_for(loop: Loop) -> None:
    """A reset comes to light by the call that the callback makes anyway."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            server, _ = listener.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with server:
            errors: list[type[Exception]] = []

            def on_readable() -> None:
                try:
                    server.recv(1)
                except OSError as error:
                    errors.append(type(error))
                loop.stop()

            loop.watch(server.fileno(), READ, on_readable)
            loop.run()
    assert errors == [ConnectionResetError]


def test_who_was_unwatched_in_this_turn_is_not_called(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """Of three that are ready, each unwatches the others: only one is called."""
    fds = [reads for reads, _ in pipes]
    called: list[int] = []

    def on_readable(own: int) -> None:
        called.append(own)
        for fd in fds:
            if fd != own:
                loop.unwatch(fd)

    for fd in fds:
        loop.watch(fd, READ, partial(on_readable, fd))
    once(loop)
    assert len(called) == 1


def test_a_bug_does_not_end_the_others_turn(pipes: list[tuple[int, int]]) -> None:
    """The owner of the loop is told which descriptor it was, and the rest of the turn goes on."""
    bugs: list[tuple[int, str]] = []
    called: list[int] = []
    with closing(Loop(lambda fd, error: bugs.append((fd, repr(error))))) as loop:
        (bad, _), (good, _), (last, _) = pipes

        def on_bad() -> None:
            raise ValueError("no")

        loop.watch(good, READ, lambda: called.append(good))
        loop.watch(bad, READ, on_bad)
        loop.watch(last, READ, lambda: called.append(last))
        once(loop)
    assert bugs == [(bad, "ValueError('no')")]
    assert sorted(called) == sorted((good, last))


def test_what_the_owner_raises_ends_the_loop(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """For it is the owner who decides."""
    reads, _ = pipes[0]
    loop.watch(reads, READ, partial(int, "no number"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no number"):
        loop.run()


def test_descriptors_come_before_timers(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """A client whose bytes have come is not idle, even if its time-out is due in the same turn."""
    order: list[str] = []
    loop.call_later(0, lambda now: order.append("timer"))
    loop.watch(pipes[0][0], READ, lambda: order.append("descriptor"))
    once(loop)
    assert order == ["descriptor", "timer"]


def test_the_clock_is_read_once_a_turn(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """All callbacks of a turn are told the same time, and the next turn's is not before it."""
    times: list[float] = []
    for reads, _ in pipes:
        loop.watch(reads, READ, lambda: times.append(loop.now))
    loop.call_later(0, times.append)
    once(loop)
    assert len(times) == 4
    assert len(set(times)) == 1
    once(loop)
    assert times[-1] >= times[0]


def test_a_timer_is_not_early(loop: Loop) -> None:
    """It is called with a time that is at least the one asked for, and the loop waits till then by itself."""
    started, called = loop.now, list[float]()
    loop.call_later(0.01, called.append)
    loop.call_later(0.02, lambda now: loop.stop())
    loop.run()
    assert called[0] >= started + 0.01


def test_a_timer_can_be_taken_back(loop: Loop) -> None:
    """And does not wake the loop."""
    loop.call_later(0, raises_if_called).cancel()
    loop.call_later(0, lambda now: loop.stop())
    loop.run()


def raises_if_called(now: float) -> None:
    """Fail the test."""
    raise AssertionError


def test_stop_lets_the_turn_end(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """Whoever is ready in the same turn is served still."""
    called: list[int] = []

    def on_readable(fd: int) -> None:
        called.append(fd)
        loop.stop()

    for reads, _ in pipes:
        loop.watch(reads, READ, partial(on_readable, reads))
    loop.run()
    assert len(called) == 3


def test_a_listener_is_shared_exclusively(loop: Loop) -> None:
    """The kernel knows: a connection wakes one of the processes that wait for it (EPOLLEXCLUSIVE)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        loop.watch_exclusive(listener.fileno(), loop.stop)
        info = Path(f"/proc/self/fdinfo/{loop._poller.fileno()}").read_text()
        (watched,) = [line.split() for line in info.splitlines() if line.startswith("tfd:")]
        assert int(watched[1]) == listener.fileno()
        assert int(watched[3], 16) & EPOLLEXCLUSIVE
        with socket.create_connection(listener.getsockname()):
            loop.run()
        loop.unwatch(listener.fileno())
        assert "tfd:" not in Path(f"/proc/self/fdinfo/{loop._poller.fileno()}").read_text()


def test_closing_the_loop_leaves_what_it_watched_open(pipes: list[tuple[int, int]]) -> None:
    """A worker closes the parent's loop, not the parent's sockets."""
    with closing(Loop(raises)) as loop:
        loop.watch(pipes[0][0], READ, loop.stop)
    assert os.read(pipes[0][0], 1) == b"x"
