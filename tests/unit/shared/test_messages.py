"""messages: one side reads what the other writes."""

from hypothesis import given
from hypothesis import strategies as st

from echod.shared import messages


def test_copies() -> None:
    """The lines of a message of copies arrive with their numbers and states, in their order."""
    lines = [messages.forget_copy(7), messages.keep_copy(7, b'{"name": "1.1"}'), messages.forget_copy(1234)]
    message = messages.copy_message(lines)
    assert message == b'-7\n+7 {"name": "1.1"}\n-1234'
    assert list(messages.copy_lines(message)) == [(7, None), (7, b'{"name": "1.1"}'), (1234, None)]


def test_what_is_no_line_of_a_copy() -> None:
    """Lines without a sign or a number are skipped, and the others are read."""
    nonsense = [b"", b"-", b"+", b"?", b"7", b"- 7", b"+x {}", b"-" + b"9" * 5000, b"\xff"]
    message = messages.copy_message([*nonsense, messages.forget_copy(7), *nonsense])
    assert list(messages.copy_lines(message)) == [(7, None)]


@given(st.binary())
def test_any_bytes(message: bytes) -> None:
    """Reading raises nothing, whatever a worker has sent."""
    for number, state in messages.copy_lines(message):
        assert isinstance(number, int)
        assert state is None or isinstance(state, bytes)


def test_handing_over() -> None:
    """The command to hand over carries the number of connections, and no other command looks like it."""
    assert messages.hand_over_room(messages.hand_over(12)) == 12
    assert [messages.hand_over_room(other) for other in (messages.DRAIN, messages.BEGIN, b"")] == [None] * 3
