"""echod.renewal: one reload at a time, and over when the last worker has answered or is gone."""

import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from echod.errors import ConfigError
from echod.limits import Limits
from echod.renewal import Renewal
from echod.session import Timeouts
from echod.slot import Slot
from echod.stats import Stats
from echod.terms import Change, Telling, Terms
from echod.tuning import Tuning
from tests.unit.events import telling

TERMS = Terms(1000, Timeouts(1, 2, 3), Tuning(4, 5), False, 6, 7, 8, 0, True, Telling("info", "json", True, False))


def change(terms: Terms) -> Change:
    """New terms, and something to say about them."""
    return Change(terms, ["limits.drain_timeout"], ["host"], ["port"], ["a warning"])


class Parent:
    """A renewal with two workers, of which there are only the sockets; `steps` is what happened, in its order."""

    def __init__(self, stack: ExitStack) -> None:
        self.told = stack.enter_context(telling(level="info"))
        self.steps: list[str] = []
        self.slots = [Slot(0), Slot(1)]
        self.workers = []
        for slot in self.slots:
            slot.orders, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.workers.append(stack.enter_context(worker))
            stack.callback(slot.close)
            worker.setblocking(False)
        stats = Stats(2)
        self.limits = Limits(stats, 8, 0)
        stack.callback(self.limits.close)
        self.read: Callable[[], Change] = lambda: change(TERMS)
        """What the files have to say."""
        self.renewal = Renewal(
            change(TERMS),
            lambda: self.read(),  # noqa: PLW0108  the function that is there then
            lambda: self.steps.append("taken"),
            self.slots,
            [],
            self.told.journal,
            self.limits,
            lambda: self.steps.append("begun"),
            lambda: self.steps.append("ended"),
        )

    def reload(self) -> None:
        """Want a reload, and let it begin."""
        self.renewal.want()
        self.renewal.advance()

    def answer(self, number: int) -> bytes:
        """Have a worker read its order and answer."""
        order = self.workers[number].recv(4096)
        self.slots[number].owes_answer = False
        self.renewal.advance()
        return order

    def events(self) -> list[str]:
        """The names of the events since this was last asked."""
        return [event["event"] for event in self.told.objects()]


@pytest.fixture
def parent() -> Iterator[Parent]:
    """One that has not reloaded yet."""
    with ExitStack() as stack:
        yield Parent(stack)


def test_nothing_is_wanted(parent: Parent) -> None:
    """Then nothing happens."""
    parent.renewal.advance()
    assert parent.steps == parent.events() == []


def test_all_must_answer(parent: Parent) -> None:
    """The reload is over when the last has; then it is told."""
    new = replace(TERMS, drain=60)
    parent.read = lambda: change(new)
    parent.reload()
    assert (parent.renewal.terms, parent.renewal.overruled) == (new, ["port"])
    assert (parent.steps, parent.events()) == (["begun", "taken"], ["config_warning"])
    assert Terms.decode(parent.answer(1)) == new
    assert (parent.steps, parent.events()) == (["begun", "taken"], [])
    assert Terms.decode(parent.answer(0)) == new
    assert (parent.steps, parent.events()) == (["begun", "taken", "ended"], ["reloaded"])


def test_who_is_gone_need_not_answer(parent: Parent) -> None:
    """Before the order, or after it."""
    parent.workers[0].close()
    parent.reload()
    parent.slots[1].close()
    parent.renewal.advance()
    assert parent.steps == ["begun", "taken", "ended"]


def test_wanted_again_meanwhile(parent: Parent) -> None:
    """However often that is, it is done once, afterwards, by what is read then."""
    parent.reload()
    for _ in range(3):
        parent.reload()
    parent.read = lambda: change(replace(TERMS, drain=60))
    assert [Terms.decode(parent.answer(number)).drain for number in (0, 1)] == [6, 6]
    assert parent.steps == ["begun", "taken", "ended", "begun", "taken"]
    assert [Terms.decode(parent.answer(number)).drain for number in (0, 1)] == [60, 60]
    assert parent.steps == ["begun", "taken", "ended"] * 2


def test_refused(parent: Parent) -> None:
    """Each problem is told, no worker hears of it, and a good one makes up for it."""

    def read() -> Change:
        raise ConfigError("one thing", "another")

    good, parent.read = parent.read, read
    parent.reload()
    assert [event["problem"] for event in parent.told.objects()] == ["one thing", "another"]
    assert (parent.steps, parent.renewal.refused) == (["begun", "ended"], True)
    for worker in parent.workers:
        with pytest.raises(BlockingIOError):
            worker.recv(10)
    parent.read = good
    parent.reload()
    assert not parent.renewal.refused


@contextmanager
def no_memory() -> Iterator[None]:
    """For a moment no file may be as long as the tables are; the signal that a longer one brings is ignored."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_limits_that_cannot_be_had(parent: Parent) -> None:
    """They are refused before anything is told or changed; those that there are still count."""
    with no_memory():
        parent.read = lambda: change(replace(TERMS, drain=60, max_per_source=1))
        parent.reload()
    (event,) = parent.told.objects()
    assert (event["event"], event["problem"].partition(": ")[0]) == (
        ("reload_refused", "limits.max_connections_per_source is 1, but clients can't be counted")
    )
    assert (parent.steps, parent.renewal.refused, parent.renewal.terms) == (["begun", "ended"], True, TERMS)
    assert [parent.limits.take_place(0) for _ in range(9)] == [True] * 8 + [False]
    parent.reload()
    assert parent.steps == ["begun", "ended", "begun", "taken"]


def test_bug(parent: Parent) -> None:
    """Whatever else goes wrong while it is read is told with its traceback, and everything stays."""

    def read() -> Change:
        raise RuntimeError("nobody thought of this")

    parent.read = read
    parent.reload()
    (event,) = parent.told.objects()
    assert (event["event"], event["error"]) == ("bug", "RuntimeError('nobody thought of this')")
    assert (parent.steps, parent.renewal.refused, parent.renewal.terms) == (["begun", "ended"], True, TERMS)


def test_descriptors_go_with_the_order(parent: Parent) -> None:
    """When there are tables of sources to share."""
    parent.read = lambda: change(replace(TERMS, max_per_source=1))
    parent.reload()
    for worker in parent.workers:
        _, fds, _, _ = socket.recv_fds(worker, 4096, 2)
        limits = Limits(Stats(2), 8, 0)
        limits.follow(0, 8, 1, fds, [7])
        limits.close()
    assert not parent.limits.admit(1, 7)


def test_the_journal_follows(parent: Parent) -> None:
    """At once, so that what is told about the reload is told by the new terms."""
    parent.read = lambda: change(replace(TERMS, telling=Telling("error", "json", True, False)))
    parent.reload()
    for number in (0, 1):
        parent.answer(number)
    assert parent.events() == []
