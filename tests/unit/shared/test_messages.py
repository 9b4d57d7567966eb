"""messages: one side reads what the other writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.shared import messages
from echod.shared.messages import FalseData


def test_copies() -> None:
    """The lines of a message of copies arrive with their numbers and states, in their order."""
    lines = [messages.forget_copy(7), messages.keep_copy(7, b'{"name": "1.1"}'), messages.forget_copy(1234)]
    message = messages.copy_message(lines)
    assert message == b'-7\n+7 {"name": "1.1"}\n-1234'
    assert list(messages.copy_lines(message)) == [(7, None), (7, b'{"name": "1.1"}'), (1234, None)]


NO_LINES = [
    b"-",
    b"+",
    b"?",
    b"7",
    b"- 7",
    b"-7 ",
    b"+7",
    b"+7 ",
    b"+x {}",
    b"-" + b"9" * 11,
    b"\xff",
    b"-1\n",
    b"\n-1",
]


@pytest.mark.parametrize("line", [*NO_LINES, b"+7 " + b"x" * (messages.STATE_MAX + 1)])
def test_what_is_no_line_of_a_copy(line: bytes) -> None:
    """A message with a line of any other form, or with a longer state, is false data."""
    message = messages.copy_message([messages.forget_copy(7), line, messages.forget_copy(7)])
    with pytest.raises(FalseData, match="a line about a copy is b'.*, of [0-9]+ bytes"):
        messages.copy_lines(message)


@given(st.one_of(st.binary(), st.lists(st.sampled_from([b"-", b"+", b"1", b" ", b"\n", b"{}"])).map(b"".join)))
def test_any_bytes(message: bytes) -> None:
    """A message is read completely, so that its lines give the same message again, or it is false data."""
    try:
        lines = messages.copy_lines(message)
    except FalseData:
        return
    numbers = [int(line[1:].partition(b" ")[0]) for line in message.split(b"\n")]
    assert [number for number, _ in lines] == numbers
    assert all(state is None or len(state) <= messages.STATE_MAX for _, state in lines)


def test_handing_over() -> None:
    """The command to hand over carries the number of connections, and no other command looks like it."""
    assert messages.hand_over_room(messages.hand_over(12)) == 12
    assert [messages.hand_over_room(other) for other in (messages.DRAIN, messages.BEGIN, b"")] == [None] * 3
