"""timers: against a model that keeps a list and looks through all of it."""

import math
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from echod.net.timers import Timer, Timers

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
