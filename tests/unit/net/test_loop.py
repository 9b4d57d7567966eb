"""loop: one turn on real descriptors; and its timers, against a model that keeps a list and searches all of it."""

import math
import os
import select
import selectors
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from echod.net.loop import NOTHING, READ, WRITE, Loop, Poller, Timer, Timers
from tests.unit.hand_loop import DEADLINE, HandLoop, raises

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
    """A callback is called once a turn while its descriptor has something to read."""
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
    """Readable, then writable, then readable again with another callback."""
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


def test_rewatch_for_nothing(loop: Loop) -> None:
    """A descriptor that is watched for nothing is ready only once it has failed."""
    here, there = socket.socketpair()
    with here:
        called: list[str] = []
        loop.watch(here.fileno(), WRITE, lambda: called.append("ready"))
        loop.rewatch(here.fileno(), NOTHING, lambda: called.append("failed"))
        there.send(b"x")
        assert not loop.turn(0)
        there.close()
        once(loop)
        assert called == ["failed"]


def test_rewatch_that_fails(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """If epoll_ctl(2) has no memory, the descriptor is watched as before, and can be unwatched."""
    here, there = socket.socketpair()
    with here, there:
        called: list[str] = []
        loop.watch(here.fileno(), WRITE, lambda: called.append("write"))
        with closing(select.epoll()) as another, monkeypatch.context() as patch:
            patch.setattr(loop._poller, "_epoll", another)  # which does not know the descriptor, so that it fails
            with pytest.raises(FileNotFoundError):
                loop.rewatch(here.fileno(), READ, lambda: called.append("read"))
        once(loop)
        loop.unwatch(here.fileno())
        assert not loop.turn(0)
        assert called == ["write"]


def test_an_error_is_an_event_whatever_is_waited_for(loop: Loop) -> None:
    """After a reset, the callback's own system call raises the error."""
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


def test_a_descriptor_unwatched_in_this_turn_is_not_called(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """Three are ready, and each unwatches the others: only one is called."""
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


def test_a_descriptor_watched_in_a_turn_is_served_from_the_next(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """Until then it can be rewatched or unwatched like any other."""
    (first, _), (second, _), (third, _) = pipes
    called: list[str] = []

    def on_first() -> None:
        called.append("first")
        loop.unwatch(first)
        loop.watch(second, READ, lambda: called.append("never"))
        loop.rewatch(second, READ, lambda: called.append("second"))
        loop.watch(third, READ, lambda: called.append("third"))
        loop.unwatch(third)

    loop.watch(first, READ, on_first)
    once(loop)
    assert called == ["first"]
    once(loop)
    assert called == ["first", "second"]


def test_a_bug_does_not_end_the_others_turn(pipes: list[tuple[int, int]]) -> None:
    """The owner of the loop gets the descriptor and the error, and the rest of the turn continues."""
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


@pytest.mark.parametrize("number", [-1, 1 << 20], ids=["of a closed socket", "never used"])
def test_a_number_that_is_not_registered(pipes: list[tuple[int, int]], number: int) -> None:
    """Removing it is an error, and changes no other descriptor."""
    with Poller() as poller:
        fd = max(pipes[0])
        key = poller.register(fd, READ, "data")
        for method in (poller.remove, poller.get_key):
            with pytest.raises(KeyError):
                method(number)
        assert poller.get_key(fd) == key


@pytest.mark.parametrize("make", [Poller, selectors.EpollSelector])
def test_the_poller_is_a_selector(make: Callable[[], selectors.BaseSelector]) -> None:
    """The methods of `selectors` do the same as in its own selector."""
    here, there = socket.socketpair()
    with here, there, make() as selector:
        fd = here.fileno()
        key = selectors.SelectorKey(fd, fd, READ, "data")
        assert selector.register(fd, READ, "data") == selector.get_key(fd) == key
        assert dict(selector.get_map()) == {fd: key}
        with pytest.raises(KeyError):
            selector.register(here, READ)
        with pytest.raises(ValueError, match=r"(?i)invalid events"):
            selector.register(there, 4)
        assert selector.select(0) == selector.select(-1) == []
        there.send(b"x")
        assert selector.select() == [(key, READ)]
        both = selector.modify(fd, READ | WRITE, "other")
        assert both == selectors.SelectorKey(fd, fd, READ | WRITE, "other")
        assert selector.select(DEADLINE) == [(both, READ | WRITE)]
        assert selector.unregister(fd) == both
        with pytest.raises(KeyError):
            selector.unregister(fd)
        with pytest.raises(KeyError):
            selector.get_key(there)
        selector.register(there.fileno(), WRITE)
        assert selector.select(DEADLINE) == [(selector.get_key(there), WRITE)]
        closed = there.detach()
        os.close(closed)
        selector.unregister(closed)
        assert not selector.get_map()


def test_what_the_owner_raises_ends_the_loop(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """An error that the owner raises ends the loop."""
    reads, _ = pipes[0]
    loop.watch(reads, READ, partial(int, "no number"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no number"):
        loop.run()


def test_descriptors_come_before_timers(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """A client whose bytes have arrived is not idle, even if its time-out is due in the same turn."""
    order: list[str] = []
    loop.call_later(0, lambda now: order.append("timer"))
    loop.watch(pipes[0][0], READ, lambda: order.append("descriptor"))
    once(loop)
    assert order == ["descriptor", "timer"]


@pytest.mark.parametrize(
    ("time", "period", "due"), [(1000.0, 1.0, 1001.0), (1000.4, 1.0, 1001.0), (1000.6, 1.0, 1002.0), (6.9, 2.0, 8.0)]
)
def test_at_a_multiple(time: float, period: float, due: float) -> None:
    """A call at a multiple of a period is made at the next one that is more than half a period away."""
    called: list[float] = []
    with closing(HandLoop(time=time)) as loop:
        loop.call_at_multiple(period, called.append)
        loop.pass_time(due - time - 0.01)
        assert called == []
        loop.pass_time(0.011)
        assert len(called) == 1


def test_the_clock_is_read_once_a_turn(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """All callbacks of a turn see the same time, and the next turn's time is not earlier."""
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
    """The loop waits until a timer is due, and calls it with a time that is not before that."""
    started, called = loop.now, list[float]()
    loop.call_later(0.01, called.append)
    loop.call_later(0.02, lambda now: loop.stop())
    loop.run()
    assert called[0] >= started + 0.01


def test_a_cancelled_timer_is_not_called(loop: Loop) -> None:
    """The loop does not wake for a cancelled timer."""
    loop.call_later(0, raises_if_called).cancel()
    loop.call_later(0, lambda now: loop.stop())
    loop.run()


def raises_if_called(now: float) -> None:
    """Fail the test."""
    raise AssertionError


def test_stop_lets_the_turn_end(loop: Loop, pipes: list[tuple[int, int]]) -> None:
    """The other descriptors that are ready in the same turn are still served."""
    called: list[int] = []

    def on_readable(fd: int) -> None:
        called.append(fd)
        loop.stop()

    for reads, _ in pipes:
        loop.watch(reads, READ, partial(on_readable, reads))
    loop.run()
    assert len(called) == 3


def test_a_listener_is_shared_exclusively(loop: Loop) -> None:
    """A connection wakes only one of the processes that wait for it: the kernel has EPOLLEXCLUSIVE for the listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        loop.watch_exclusive(listener.fileno(), loop.stop)
        info = Path(f"/proc/self/fdinfo/{loop._poller._epoll.fileno()}").read_text()
        (watched,) = [line.split() for line in info.splitlines() if line.startswith("tfd:")]
        assert int(watched[1]) == listener.fileno()
        assert int(watched[3], 16) & EPOLLEXCLUSIVE
        with socket.create_connection(listener.getsockname()):
            loop.run()
        loop.unwatch(listener.fileno())
        assert "tfd:" not in Path(f"/proc/self/fdinfo/{loop._poller._epoll.fileno()}").read_text()


def test_closing_the_loop_leaves_what_it_watched_open(pipes: list[tuple[int, int]]) -> None:
    """A worker closes the parent's loop, not the parent's sockets."""
    with closing(Loop(raises)) as loop:
        loop.watch(pipes[0][0], READ, loop.stop)
    assert os.read(pipes[0][0], 1) == b"x"


delays = st.one_of(st.integers(0, 5), st.just(math.inf))


class Model:
    """The simplest implementation of timers: the time at which each is due, by its number."""

    def __init__(self) -> None:
        self.to_come: dict[int, float] = {}
        self.added = 0

    def add(self, when: float) -> int:
        """Add a timer, and return its number."""
        self.added += 1
        self.to_come[self.added] = when
        return self.added

    def next_due(self, now: float, last: int) -> int | None:
        """The number of the next timer to be called, among those up to `last`."""
        due = [(when, number) for number, when in self.to_come.items() if when <= now and number <= last]
        return min(due)[1] if due else None


class AgainstModel(RuleBasedStateMachine):
    """Timers are called as in the model and in its order; callbacks add and cancel timers too."""

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
            # Not earlier: the model must not know the next one until this one has acted.
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
        """Add a timer that does nothing."""
        self._add(delay, lambda: None)

    @rule(delay=delays, delay_of_next=delays)
    def add_one_that_adds(self, delay: float, delay_of_next: float) -> None:
        """Add a timer that adds another."""
        self._add(delay, lambda: self._add(delay_of_next, lambda: None))

    @rule(delay=delays, number=st.integers(1, 60))
    def add_one_that_cancels(self, delay: float, number: int) -> None:
        """Add a timer that cancels another, or itself."""
        self._add(delay, lambda: self._cancel(number))

    @rule(number=st.integers(1, 60))
    def cancel(self, number: int) -> None:
        """Cancel a timer, which may have been called already."""
        self._cancel(number)

    @rule(count=st.integers(65, 200), delay=delays)
    def add_and_cancel_many(self, count: int, delay: float) -> None:
        """Add and cancel enough timers for the heap to be rebuilt."""
        for timer in [self.timers.add(self.now + delay, lambda now: None) for _ in range(count)]:
            timer.cancel()
        self.model.added += count

    @rule(seconds=st.integers(0, 4))
    def run_due(self, seconds: int) -> None:
        """Let time pass."""
        self.now += seconds
        self.last = self.model.added
        self.timers.run_due(self.now)
        assert self.model.next_due(self.now, self.last) is None
        assert all(now == self.now for _, now in self.called)
        self.called.clear()

    @invariant()
    def as_many_as_the_model_has(self) -> None:
        """Cancelled timers are not counted."""
        assert len(self.timers) == len(self.model.to_come)

    @invariant()
    def the_wait_is_until_the_next(self) -> None:
        """Cancelled timers are not waited for."""
        soonest = min(self.model.to_come.values(), default=math.inf)
        assert self.timers.wait(self.now) == (None if math.isinf(soonest) else max(0.0, soonest - self.now))


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=50, stateful_step_count=40)


@given(st.lists(st.integers(0, 3), max_size=30))
def test_timers_due_together_are_called_in_the_order_of_adding(whens: list[int]) -> None:
    """Sooner timers first; of those due at the same time, older ones first."""
    timers, called = Timers(), list[tuple[int, int]]()
    for number, when in enumerate(whens):
        timers.add(when, lambda now, entry=(when, number): called.append(entry))  # type: ignore[misc]
    timers.run_due(3)
    assert called == sorted((when, number) for number, when in enumerate(whens))


def test_cancelled_timers_do_not_accumulate() -> None:
    """A hundred thousand short connections leave no trace of their three-hour timers."""
    timers = Timers()
    kept = timers.add(10800, lambda now: None)
    for _ in range(100_000):
        timers.add(10800, lambda now: None).cancel()
    assert len(timers) == 1
    assert len(timers._heap) < 200
    kept.cancel()


def test_nothing_is_called_before_its_time() -> None:
    """`run_due` passes its own `now` to the callback, and reads no clock."""
    timers, called = Timers(), list[float]()
    timers.add(1e9, called.append)
    timers.run_due(1e9 - 1)
    assert called == []
    timers.run_due(1e9)
    assert called == [1e9]


def test_a_timer_added_by_a_callback_waits_for_the_next_turn() -> None:
    """It waits even if it is due: a timer that adds itself again does not keep the loop from its descriptors."""
    timers, called = Timers(), list[float]()

    def again(now: float) -> None:
        called.append(now)
        timers.add(now, again)

    timers.add(0, again)
    for now in (1.0, 2.0):
        timers.run_due(now)
    assert called == [1.0, 2.0]
    assert timers.wait(2.0) == 0.0


def test_cancelling_twice_or_too_late_does_nothing() -> None:
    """A timer may be cancelled after its call, and again."""
    timers, called = Timers(), list[float]()
    timer = timers.add(0, called.append)
    timers.run_due(0)
    timer.cancel()
    timer.cancel()
    assert (len(timers), called) == (0, [0])


def test_a_timer_cancelled_in_its_own_turn_is_not_called() -> None:
    """Another timer, due at the same time and called first, cancels it."""
    timers, called = Timers(), list[float]()
    victims: list[Timer] = []
    timers.add(0, lambda now: victims[0].cancel())
    victims.append(timers.add(0, called.append))
    timers.run_due(0)
    assert (called, len(timers), timers.wait(0)) == ([], 0, None)


def test_a_timer_that_raises_does_not_cancel_the_others() -> None:
    """The error is raised, and the others are called in the next turn."""
    timers, called = Timers(), list[float]()
    timers.add(0, lambda now: 1 // 0)  # type: ignore[arg-type]
    timers.add(0, called.append)
    try:
        timers.run_due(0)
    except ZeroDivisionError:
        timers.run_due(1)
    assert called == [1]
    assert timers.wait(1) is None


def test_a_kernel_that_cannot_share_exclusively(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel refuses EPOLLEXCLUSIVE (EINVAL, here for a mask that it never takes), all processes wake."""
    monkeypatch.setattr(select, "EPOLLEXCLUSIVE", EPOLLEXCLUSIVE | select.EPOLLONESHOT)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        loop.watch_exclusive(listener.fileno(), loop.stop)
        with socket.create_connection(listener.getsockname()):
            loop.run()
        loop.unwatch(listener.fileno())
