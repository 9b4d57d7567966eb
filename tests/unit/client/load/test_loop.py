"""The event loop of a load process."""

import socket
from collections.abc import Iterator

import pytest

from echod.client.load.loop import READ, WRITE, Loop, clock


@pytest.fixture(params=[True, False], ids=["precise", "plain"])
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    """A loop of each kind."""
    loop = Loop(request.param)
    yield loop
    loop.close()


def test_times_come_in_order(loop: Loop) -> None:
    """Callbacks are called in the order of their times, equal times in the order of the requests, and none early."""
    now, done = clock(), []
    for name, when in (("c", now + 2000), ("a", now), ("b", now), ("d", now + 2_000_000)):
        loop.call_at(when, lambda at, name=name, when=when: done.append((name, at >= when)))  # type: ignore[misc]
    while len(done) < 4:
        loop.turn()
    assert done == [("a", True), ("b", True), ("c", True), ("d", True)]


def test_a_turn_ends(loop: Loop) -> None:
    """A callback that requests a past time is called in the next turn, after all that are due in this one."""
    now, done = clock(), []

    def again(at: int) -> None:
        done.append("again")
        loop.call_at(now, again)

    loop.call_at(now, again)
    loop.call_at(now + 1, lambda at: done.append("other"))
    loop.turn()
    loop.turn()
    assert done == ["again", "other", "again"]


def test_it_tells_what_a_descriptor_is_ready_for(loop: Loop) -> None:
    """A callback gets the events for which its descriptor is ready, also after they were changed."""
    near, far = socket.socketpair()
    reported: list[int] = []
    with near, far:
        loop.watch(near.fileno(), READ | WRITE, reported.append)
        loop.turn()
        far.send(b"x")
        loop.turn()
        loop.rewatch(near.fileno(), READ, reported.append)
        loop.turn()
        loop.unwatch(near.fileno())
    assert reported == [WRITE, READ | WRITE, READ]


def test_unwatched_in_the_same_turn(loop: Loop) -> None:
    """Of two ready descriptors, the second is not reported when the first one's callback has unwatched it."""
    one, other = socket.socketpair()
    reported = []

    def on_one(events: int) -> None:
        reported.append("one")
        loop.unwatch(other.fileno())

    def on_other(events: int) -> None:
        reported.append("other")
        loop.unwatch(one.fileno())

    with one, other:
        loop.watch(one.fileno(), WRITE, on_one)
        loop.watch(other.fileno(), WRITE, on_other)
        loop.turn()
    assert len(reported) == 1
