"""The plan of a load: when each message is due."""

import pytest

from echod.client.load.plan import Plan, Times
from echod.client.transport import ANYWHERE


def plan(rate: float) -> Plan:
    """A plan whose load has begun."""
    plan = Plan(("127.0.0.1", 7), ANYWHERE, 1, 1, rate, Times(10**9, 10**9, 10**9, 10**9, 10**9, 0))
    plan.begin = 1_234_567_890_123_456_789
    return plan


@pytest.mark.parametrize("rate", [0.001, 0.3, 3.0, 123.4, 70_000.0, 1e7])
def test_due_and_due_by_agree(rate: float) -> None:
    """A message counts as due from exactly the nanosecond at which it is due."""
    asked = plan(rate)
    for message in range(2000):
        due = asked.due(message)
        assert (asked.due_by(due - 1), asked.due_by(due)) == (message, message + 1)


def test_due_at_the_rate() -> None:
    """The first message is due at once, the others at equal distances, and rounding makes none early."""
    asked = plan(3.0)
    assert [asked.due(message) - asked.begin for message in range(4)] == [0, 333_333_334, 666_666_667, 10**9]
