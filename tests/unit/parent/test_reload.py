"""reload: one reload at a time, and over when everybody serves by it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from echod.errors import CannotListen, ConfigError, EchodError
from echod.log.events import LogOptions
from echod.net.sockopts import SocketOptions
from echod.parent.reload import Reload
from echod.shared.terms import Change, ServiceTerms, Timeouts
from tests.unit.events import Recorder, recording

TERMS = ServiceTerms(
    1000, Timeouts(1, 2, 3), SocketOptions(4, 5), False, 6, 7, 8, 0, True, LogOptions("info", "json", True, False)
)
CHANGE = Change(TERMS, 2, None, 0, ["limits.drain_timeout"], ["port"], ["a warning"])


class Parent:
    """Who reloads, and the staff; `steps` is what happened, in its order."""

    def __init__(self, told: Recorder) -> None:
        self.told = told
        self.steps: list[str] = []
        self.busy = False
        self.able: Callable[[], None] = lambda: None
        """Raises what keeps the staff from serving by a change."""
        self.read: Callable[[], Change] = lambda: CHANGE
        """What the files have to say."""
        self.reloading = Reload(
            CHANGE,
            lambda: self.read(),  # noqa: PLW0108  the function that is there then
            lambda: self.steps.append("taken"),
            self,
            told.events,
            lambda: self.steps.append("begun"),
            lambda: self.steps.append("ended"),
        )

    def change(self, change: Change) -> None:
        """Serve by it, later."""
        self.able()
        self.steps.append("changing")
        self.busy = True

    def reload(self) -> None:
        """Want a reload, and let it begin."""
        self.reloading.want()
        self.reloading.advance()

    def done(self) -> None:
        """Serve by the last change."""
        self.busy = False
        self.reloading.advance()


@pytest.fixture
def parent() -> Iterator[Parent]:
    """One that has not reloaded yet."""
    with recording(level="info") as told:
        yield Parent(told)


def raising(error: Exception) -> Callable[[], Any]:
    """A function that does nothing else."""

    def fail() -> None:
        raise error

    return fail


def test_nothing_is_wanted(parent: Parent) -> None:
    """Then nothing happens."""
    parent.reloading.advance()
    assert parent.steps == []
    assert parent.told.objects() == []


def test_over_when_everybody_serves_by_it(parent: Parent) -> None:
    """Then it is told, and not before."""
    parent.reload()
    parent.reloading.advance()
    assert parent.steps == ["begun", "changing", "taken"]
    assert (parent.reloading.overruled, parent.reloading.refused) == (["port"], "")
    assert [event["event"] for event in parent.told.objects()] == ["config_warning"]
    parent.done()
    assert parent.steps == ["begun", "changing", "taken", "ended"]
    (event,) = parent.told.objects()
    assert (event["event"], event["changed"]) == ("reloaded", ["limits.drain_timeout"])
    parent.reloading.advance()
    assert parent.told.objects() == []


def test_not_before_the_staff_is_there(parent: Parent) -> None:
    """What is wanted earlier waits."""
    parent.busy = True
    parent.reload()
    assert parent.steps == []
    parent.done()
    assert parent.steps == ["begun", "changing", "taken"]


def test_wanted_again_meanwhile(parent: Parent) -> None:
    """However often that is, it is done once, afterwards, by what is read then."""
    parent.reload()
    for _ in range(3):
        parent.reload()
    parent.read = lambda: replace(CHANGE, overruled=[])
    parent.done()
    assert parent.steps == ["begun", "changing", "taken", "ended", "begun", "changing", "taken"]
    assert parent.reloading.overruled == []
    parent.done()
    assert parent.steps[-1] == "ended"


@pytest.mark.parametrize("error", [ConfigError, CannotListen])
@pytest.mark.parametrize("where", ["read", "able"])
def test_refused(parent: Parent, error: type[EchodError], where: str) -> None:
    """Each problem is told, nothing is taken, and a good one makes up for it."""
    good = getattr(parent, where)
    setattr(parent, where, raising(error("one thing", "another")))
    parent.reload()
    assert [(event["event"], event["problem"]) for event in parent.told.objects()] == (
        [("reload_refused", "one thing"), ("reload_refused", "another")]
    )
    assert (parent.steps, parent.reloading.refused) == (["begun", "ended"], "one thing (and 1 more: see the journal)")
    setattr(parent, where, good)
    parent.reload()
    assert not parent.reloading.refused


def test_bug(parent: Parent) -> None:
    """Whatever else goes wrong while it is read is told with its traceback, and everything stays."""
    parent.read = raising(RuntimeError("nobody thought of this"))
    parent.reload()
    (event,) = parent.told.objects()
    assert (event["event"], event["error"]) == ("bug", "RuntimeError('nobody thought of this')")
    assert (parent.steps, parent.reloading.refused) == (["begun", "ended"], "a bug in echod: see the journal")
