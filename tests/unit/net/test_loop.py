"""loop: one turn on real descriptors; and its timers, against a model that keeps a list and searches all of it."""

import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from echod.net.loop import READ, WRITE, Loop, Timer, Timers
from tests.unit.hand_loop import DEADLINE, raises

EPOLLEXCLUSIVE = 1 << 28


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
    """One turn, in which at least one descriptor is ready."""
    assert loop.turn(DEADLINE)


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


def test_a_reused_descriptor_gets_no_readiness_of_the_old_one(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """Two descriptors are ready in one turn; the first closes the second, whose number a new socket gets at once."""
    fds = [reads for reads, _ in pipes[:2]]
    called: list[str] = []
    with ExitStack() as stack:

        def on_readable(own: int) -> None:
            called.append("old")
            (other,) = {*fds} - {own}
            loop.unwatch(own)
            loop.unwatch(other)
            ours, _ = (stack.enter_context(sock) for sock in socket.socketpair())
            os.dup2(ours.fileno(), other)
            loop.watch(other, READ, lambda: called.append("new"))

        for fd in fds:
            loop.watch(fd, READ, partial(on_readable, fd))
        once(loop)
    assert called == ["old"]


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


delays = st.one_of(st.integers(0, 5), st.just(math.inf))


class Model:
    """Timers as one would write them without a thought to cost: `(when, number)` of those to come."""

    def __init__(self) -> None:
        self.to_come: dict[int, float] = {}
        self.added = 0

    def add(self, when: float) -> int:
        """Add one, and return its number."""
        self.added += 1
        self.to_come[self.added] = when
        return self.added

    def next_due(self, now: float, last: int) -> int | None:
        """The number of the next to be called, of those up to `last`."""
        due = [(when, number) for number, when in self.to_come.items() if when <= now and number <= last]
        return min(due)[1] if due else None


class AgainstModel(RuleBasedStateMachine):
    """Every call and its order are those of the model; callbacks add and cancel timers themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.timers = Timers()
        self.model = Model()
        self.known: dict[int, Timer] = {}
        self.called: list[tuple[int, float]] = []

    def _add(self, delay: float, then: Callable[[], None]) -> None:
        number = self.model.add(self.now + delay)

        def callback(now: float) -> None:
            self.called.append((number, now))
            # Here, and not before: the model must not know who is next until this one has acted.
            assert self.model.next_due(self.now, self.last) == number
            del self.model.to_come[number]
            then()

        self.known[number] = self.timers.add(self.now + delay, callback)

    def _cancel(self, number: int) -> None:
        if number in self.known:
            self.known[number].cancel()
            self.model.to_come.pop(number, None)

    @rule(delay=delays)
    def add(self, delay: float) -> None:
        """Add one that does nothing."""
        self._add(delay, lambda: None)

    @rule(delay=delays, delay_of_next=delays)
    def add_one_that_adds(self, delay: float, delay_of_next: float) -> None:
        """Add one that adds another."""
        self._add(delay, lambda: self._add(delay_of_next, lambda: None))

    @rule(delay=delays, number=st.integers(1, 60))
    def add_one_that_cancels(self, delay: float, number: int) -> None:
        """Add one that cancels another, or itself."""
        self._add(delay, lambda: self._cancel(number))

    @rule(number=st.integers(1, 60))
    def cancel(self, number: int) -> None:
        """Cancel one, whether it was called already or not."""
        self._cancel(number)

    @rule(count=st.integers(65, 200), delay=delays)
    def add_and_cancel_many(self, count: int, delay: float) -> None:
        """Enough for the heap to be built anew."""
        for timer in [self.timers.add(self.now + delay, lambda now: None) for _ in range(count)]:
            timer.cancel()
        self.model.added += count

    @rule(seconds=st.integers(0, 4))
    def run_due(self, seconds: int) -> None:
        """Let time go by."""
        self.now += seconds
        self.last = self.model.added
        self.timers.run_due(self.now)
        assert self.model.next_due(self.now, self.last) is None
        assert all(now == self.now for _, now in self.called)
        self.called.clear()

    @invariant()
    def as_many_as_the_model_has(self) -> None:
        """The dead are not counted."""
        assert len(self.timers) == len(self.model.to_come)

    @invariant()
    def the_wait_is_until_the_next(self) -> None:
        """Nor waited for."""
        soonest = min(self.model.to_come.values(), default=math.inf)
        assert self.timers.wait(self.now) == (None if math.isinf(soonest) else max(0.0, soonest - self.now))


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=50, stateful_step_count=40)


@given(st.lists(st.integers(0, 3), max_size=30))
def test_equals_come_in_the_order_in_which_they_were_added(whens: list[int]) -> None:
    """Sooner first; at the same time, older first."""
    timers, called = Timers(), list[tuple[int, int]]()
    for number, when in enumerate(whens):
        timers.add(when, lambda now, entry=(when, number): called.append(entry))  # type: ignore[misc]
    timers.run_due(3)
    assert called == sorted((when, number) for number, when in enumerate(whens))


def test_cancelled_ones_do_not_accumulate() -> None:
    """A hundred thousand short connections leave no trace of their three-hour timers."""
    timers = Timers()
    kept = timers.add(10800, lambda now: None)
    for _ in range(100_000):
        timers.add(10800, lambda now: None).cancel()
    assert len(timers) == 1
    assert len(timers._heap) < 200
    kept.cancel()


def test_nothing_is_called_before_its_time() -> None:
    """`now` is what `run_due` is told, and what the callback is told; no clock is looked at."""
    timers, called = Timers(), list[float]()
    timers.add(1e9, called.append)
    timers.run_due(1e9 - 1)
    assert called == []
    timers.run_due(1e9)
    assert called == [1e9]


def test_one_added_by_a_callback_waits_for_the_next_turn() -> None:
    """Even if it is due: a timer that adds itself does not keep the loop from its descriptors."""
    timers, called = Timers(), list[float]()

    def again(now: float) -> None:
        called.append(now)
        timers.add(now, again)

    timers.add(0, again)
    for now in (1.0, 2.0):
        timers.run_due(now)
    assert called == [1.0, 2.0]
    assert timers.wait(2.0) == 0.0


def test_cancelling_twice_or_too_late_is_nothing() -> None:
    """After it was called, and again; what it held is let go."""
    timers, called = Timers(), list[float]()
    timer = timers.add(0, called.append)
    timers.run_due(0)
    timer.cancel()
    timer.cancel()
    assert (len(timers), called) == (0, [0])


def test_one_that_is_taken_back_in_its_own_turn_is_not_called() -> None:
    """By another that is due with it, and comes first."""
    timers, called = Timers(), list[float]()
    victims: list[Timer] = []
    timers.add(0, lambda now: victims[0].cancel())
    victims.append(timers.add(0, called.append))
    timers.run_due(0)
    assert (called, len(timers), timers.wait(0)) == ([], 0, None)


def test_one_that_raises_does_not_take_the_others_along() -> None:
    """The error gets out; the rest is called at the next turn."""
    timers, called = Timers(), list[float]()
    timers.add(0, lambda now: 1 // 0)  # type: ignore[arg-type]
    timers.add(0, called.append)
    try:
        timers.run_due(0)
    except ZeroDivisionError:
        timers.run_due(1)
    assert called == [1]
    assert timers.wait(1) is None
