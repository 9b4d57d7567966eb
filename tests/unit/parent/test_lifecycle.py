"""lifecycle: the table of transitions, each of them, and nothing else."""

import itertools

import pytest

from echod.parent.lifecycle import TRANSITIONS, Lifecycle, State, Trigger

LISTED = [(state, trigger, following) for state, row in TRANSITIONS.items() for trigger, following in row.items()]
UNLISTED = [pair for pair in itertools.product(State, Trigger) if pair[1] not in TRANSITIONS[pair[0]]]


def in_state(state: State) -> Lifecycle:
    """A parent that has reached this state."""
    lifecycle = Lifecycle()
    lifecycle.state = state
    return lifecycle


def test_every_state_has_its_row() -> None:
    """The table names each state, and each trigger somewhere."""
    assert list(TRANSITIONS) == list(State)
    assert {trigger for _, trigger, _ in LISTED} == set(Trigger)


@pytest.mark.parametrize(("state", "trigger", "following"), LISTED)
def test_every_transition(state: State, trigger: Trigger, following: State) -> None:
    """The trigger moves the parent to the state that the table says."""
    lifecycle = in_state(state)
    lifecycle.on(trigger)
    assert lifecycle.state is following


@pytest.mark.parametrize(("state", "trigger"), UNLISTED)
def test_every_other_pair_is_a_bug(state: State, trigger: Trigger) -> None:
    """A trigger without a transition raises, and leaves the state as it was."""
    lifecycle = in_state(state)
    with pytest.raises(ValueError, match=f"{trigger.name} in {state.name}"):
        lifecycle.on(trigger)
    assert lifecycle.state is state


def test_every_state_can_be_reached() -> None:
    """Every state can be reached from STARTING by transitions of the table."""
    reached, new = set[State](), {State.STARTING}
    while new:
        reached |= new
        new = {following for state in new for following in TRANSITIONS[state].values()} - reached
    assert reached == set(State)


@pytest.mark.parametrize("state", [state for state in State if state is not State.STOPPED])
def test_no_state_is_a_trap(state: State) -> None:
    """STOPPED can be reached from every state."""
    reached, new = set[State](), {state}
    while new:
        reached |= new
        new = {following for each in new for following in TRANSITIONS[each].values()} - reached
    assert State.STOPPED in reached
