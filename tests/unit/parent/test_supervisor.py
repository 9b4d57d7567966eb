"""supervisor: reloads, one at a time, and stops; with a fake pool that the test controls."""

import errno
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from echod.config.settings import Settings
from echod.config.sources import Loaded
from echod.errors import CannotListen, ConfigError, EchodError
from echod.log.events import LogOptions
from echod.net.address import endpoints
from echod.net.listeners import Listener, open_listeners
from echod.net.loop import Loop
from echod.net.sockopts import SocketOptions
from echod.parent import supervisor
from echod.parent.lifecycle import State
from echod.parent.listening import ListeningSockets
from echod.parent.pool import WorkerPool
from echod.parent.reading import Report, Work
from echod.parent.reload import Change, Configuration, Found
from echod.parent.status import ServiceManager
from echod.parent.supervisor import Supervisor
from echod.shared.counters import Counters
from echod.shared.terms import ServiceTerms, Timeouts
from echod.systemd.fdstore import DescriptorStore
from echod.systemd.notify import Notifier
from tests.unit.events import Recorder, recording

TERMS = ServiceTerms(
    1000,
    Timeouts(1, 2, 3),
    SocketOptions(4, 5, 6),
    False,
    6,
    7,
    8,
    0,
    64,
    9,
    True,
    LogOptions("info", "json", True, False),
)
CHANGE = Change(TERMS, 2, None, 0, 0o666, ["limits.drain_timeout"], ["port"], ["a warning"])


class Pool:
    """A fake pool of two workers; `steps` are the commands that it got, in order."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.terms = TERMS
        self.listeners: Sequence[Listener] = []
        self.counters = Counters(2)
        self.awaits_answers = False
        self.refusal: EchodError | None = None

    def __len__(self) -> int:
        return 2

    def serve_by(self, terms: ServiceTerms) -> None:
        """Adopt the terms when `Parent.answer` is called, or fail."""
        if self.refusal is not None:
            raise self.refusal
        self.steps.append("serve by")
        self.awaits_answers = True

    def drain(self, command: bytes) -> None:
        """End when the test says so."""
        self.steps.append(command.decode())

    def kill(self) -> None:
        """End at once."""
        self.steps.append("kill")


class Child:
    """A fake child process that reads the configuration, until the test ends it."""

    def __init__(self, work: Work, kept: Sequence[int], loop: Loop, on_end: Callable[[], None]) -> None:
        self.work = work
        self.on_end = on_end
        self.abandoned = False

    def result(self) -> dict[str, Any]:
        """What it has read, or its error."""
        return self.work(lambda problem: None)

    def abandon(self) -> None:
        """Never end."""
        self.abandoned = True


class Parent(Supervisor):
    """A supervisor that serves with such a pool, and what it has logged."""

    def __init__(self, recorder: Recorder, *, catches_up: bool = False) -> None:
        self.recorder = recorder
        self.slow = False
        """Whether reading goes on until `end_reading` is called."""
        self.change = CHANGE
        """The settings that the files contain."""
        self.failure: Exception | None = None
        """The error that reading them raises."""
        notifier = Notifier({})
        self.store = DescriptorStore(notifier)
        self.committed = 0
        configuration = SimpleNamespace(
            reader=lambda: (self.read, []), change_to=lambda found: self.change, commit=self.commit
        )
        listeners = open_listeners(endpoints(["127.0.0.1"]), 0, TERMS.socket_options)
        self.sockets = ListeningSockets(listeners, self.store, recorder.events)
        self.sockets.commit(listeners, TERMS.socket_options, 0o666)
        self.logged()
        manager = ServiceManager(notifier, self.store, None, hangup_stops=False)
        configured = cast(Configuration, configuration)
        super().__init__(CHANGE, configured, self.sockets, manager, recorder.events, catches_up=catches_up)
        self.pool = Pool()
        self._pool = cast(WorkerPool, self.pool)

    def read(self, report: Report) -> dict[str, Any]:
        """Read the files."""
        self.pool.steps.append("read")
        if self.failure is not None:
            raise self.failure
        return Found(Loaded(Settings(), {}, [], []), None).encode()

    @property
    def child(self) -> Child:
        """The child process that reads, or that has read last."""
        return cast(Child, self._reading)

    def end_reading(self) -> None:
        """Let the child process end."""
        self.child.on_end()

    def commit(self) -> None:
        """Record that the settings are in effect."""
        self.committed += 1

    def answer(self) -> None:
        """Let the workers adopt the terms."""
        self.pool.awaits_answers = False
        self.on_answered()
        self.read_on()

    def become_ready(self) -> None:
        """Let the last worker accept."""
        self.on_ready()
        self.read_on()

    def read_on(self) -> None:
        """Let the child process end, unless it is slow."""
        while self.state is State.READING and not self.slow:
            self.end_reading()

    def signal(self, signum: signal.Signals) -> None:
        """Let a signal arrive."""
        self._handle_signal(signum)
        self.read_on()

    @property
    def state(self) -> State:
        """The parent's state."""
        return self._state

    @property
    def refused(self) -> str:
        """Why the last reload failed."""
        return self._refused

    def logged(self) -> list[str]:
        """The names of the events since the last call."""
        return [event["event"] for event in self.recorder.objects()]

    def close(self) -> None:
        """Close what the supervisor opened, and the sockets."""
        self.sockets.release()
        self._signals.close()
        self._loop.close()


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parent]:
    """A parent whose workers have just been started."""
    yield from made(monkeypatch, catches_up=False)


def made(monkeypatch: pytest.MonkeyPatch, *, catches_up: bool) -> Iterator[Parent]:
    """Such a parent, until the test is over."""
    handlers = {signum: signal.getsignal(signum) for signum in signal.valid_signals()}
    monkeypatch.setattr(supervisor, "Reading", Child)
    with recording(level="info") as recorder:
        parent = Parent(recorder, catches_up=catches_up)
        yield parent
        parent.close()
    for signum, handler in handlers.items():
        if signal.getsignal(signum) is not handler:
            signal.signal(signum, handler)


@pytest.fixture
def serving(parent: Parent) -> Parent:
    """A parent whose workers all accept."""
    parent.on_ready()
    assert parent.logged() == ["ready"]
    return parent


def test_ready(parent: Parent) -> None:
    """Once every worker accepts, and not before, echod is ready."""
    parent.on_answered()
    assert (parent.state, parent.logged()) == (State.STARTING, [])
    parent.on_ready()
    assert (parent.state, parent.logged()) == (State.SERVING, ["ready"])


def test_over_when_every_worker_serves_by_it(serving: Parent) -> None:
    """A reload is logged when the last worker has adopted the terms, and only then."""
    serving.signal(signal.SIGHUP)
    serving.on_answered()
    assert (serving.state, serving.pool.steps, serving.committed) == (State.RELOADING, ["read", "serve by"], 1)
    assert serving.logged() == ["config_warning"]
    serving.answer()
    (event,) = serving.recorder.objects()
    assert (event["event"], event["changed"]) == ("reloaded", ["limits.drain_timeout"])
    serving.on_answered()
    assert (serving.state, serving.logged()) == (State.SERVING, [])


def test_no_worker_to_wait_for(serving: Parent) -> None:
    """A reload is over at once if no worker owes an answer."""
    serving.pool.serve_by = lambda terms: None  # type: ignore[method-assign]
    serving.signal(signal.SIGHUP)
    assert (serving.state, serving.logged()) == (State.SERVING, ["config_warning", "reloaded"])


def test_not_before_the_workers_are_there(parent: Parent) -> None:
    """A SIGHUP that arrives while echod starts takes effect once echod is ready."""
    parent.signal(signal.SIGHUP)
    assert parent.pool.steps == []
    parent.become_ready()
    assert parent.pool.steps == ["read", "serve by"]


def test_requested_again_meanwhile(serving: Parent) -> None:
    """After any number of SIGHUPs during a reload, one more reload follows, with the files as they are then."""
    for _ in range(4):
        serving.signal(signal.SIGHUP)
    assert serving.pool.steps == ["read", "serve by"]
    serving.change = replace(CHANGE, changed=["log.level"])
    serving.answer()
    assert serving.pool.steps == ["read", "serve by"] * 2
    serving.answer()
    assert [event["changed"] for event in serving.recorder.objects() if event["event"] == "reloaded"] == (
        [["limits.drain_timeout"], ["log.level"]]
    )
    assert len(serving.pool.steps) == 4


@pytest.mark.parametrize("error", [ConfigError, CannotListen])
@pytest.mark.parametrize("where", ["read", "apply"])
def test_refused(serving: Parent, error: type[EchodError], where: str) -> None:
    """Each problem of a failed reload is logged, nothing is committed, and a later reload succeeds."""
    problem = error("one thing", "another")
    serving.failure, serving.pool.refusal = (problem, None) if where == "read" else (None, problem)
    serving.signal(signal.SIGHUP)
    assert [(event["event"], event["problem"]) for event in serving.recorder.objects()] == (
        [("reload_refused", "one thing"), ("reload_refused", "another")]
    )
    assert (serving.state, serving.committed) == (State.SERVING, 0)
    assert serving.refused == "one thing (and 1 more: see the journal)"
    serving.failure = serving.pool.refusal = None
    serving.signal(signal.SIGHUP)
    serving.answer()
    assert (serving.state, serving.committed, serving.refused) == (State.SERVING, 1, "")


def test_bug(serving: Parent) -> None:
    """A bug in reading the configuration is logged with its traceback, and the workers continue to serve."""
    serving.failure = RuntimeError("unforeseen")
    serving.signal(signal.SIGHUP)
    (event,) = serving.recorder.objects()
    assert (event["event"], event["error"]) == ("bug", "RuntimeError('unforeseen')")
    assert serving.state is State.SERVING


@pytest.mark.parametrize("act", [Parent.on_ready, lambda parent: None])
def test_stop(parent: Parent, act: Callable[[Parent], Any]) -> None:
    """SIGTERM drains, the second one kills, and once the last worker has exited the parent has stopped."""
    act(parent)
    parent.signal(signal.SIGTERM)
    assert (parent.state, parent.pool.steps, parent.logged()[-1]) == (State.DRAINING, ["drain"], "draining")
    parent.signal(signal.SIGHUP)
    parent.signal(signal.SIGTERM)
    assert parent.pool.steps == ["drain", "kill"]
    parent.on_gone()
    assert parent.state is State.STOPPED


def test_stop_during_a_reload(serving: Parent) -> None:
    """A stop does not wait for the workers to adopt the terms, and the reload is not reported any more."""
    serving.signal(signal.SIGHUP)
    serving.signal(signal.SIGTERM)
    serving.answer()
    assert (serving.state, serving.pool.steps[-1]) == (State.DRAINING, "drain")
    assert "reloaded" not in serving.logged()


def test_ready_too_late(parent: Parent) -> None:
    """Workers that accept only after a stop do not make echod ready."""
    parent.signal(signal.SIGTERM)
    parent.on_ready()
    assert "ready" not in parent.logged()
    assert parent.state is State.DRAINING


class TestReading:
    """While the configuration is being read."""

    @pytest.fixture
    def reading(self, serving: Parent) -> Parent:
        """A parent whose child process reads, for as long as the test wants."""
        serving.slow = True
        serving.signal(signal.SIGHUP)
        assert serving.state is State.READING
        return serving

    def test_a_stop_wins(self, reading: Parent) -> None:
        """A stop does not wait for the child, which is killed, and the reload is not reported."""
        reading.signal(signal.SIGTERM)
        assert (reading.state, reading.pool.steps, reading.child.abandoned) == (State.DRAINING, ["drain"], True)
        assert reading.logged() == ["draining"]

    def test_a_second_reload_waits(self, reading: Parent) -> None:
        """After any number of SIGHUPs, another reading follows, also if this one fails."""
        for _ in range(3):
            reading.signal(signal.SIGHUP)
        assert reading.pool.steps == []
        first, reading.failure = reading.child, ConfigError("a problem")
        reading.end_reading()
        assert (reading.state, reading.logged()) == (State.READING, ["reload_refused"])
        reading.failure = None
        assert reading.child is not first
        reading.end_reading()
        reading.answer()
        assert (reading.state, reading.logged()) == (State.SERVING, ["config_warning", "reloaded"])

    def test_a_worker_that_dies(self, reading: Parent) -> None:
        """The death of a worker does not end the reading, and the reload follows it."""
        reading.on_answered()
        assert reading.pool.steps == []
        reading.end_reading()
        reading.answer()
        assert reading.state is State.SERVING

    def test_no_process_left(self, serving: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the system has no process for the child, the reload fails, and echod serves on."""

        def fail(*_: object) -> Child:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        monkeypatch.setattr(supervisor, "Reading", fail)
        serving.signal(signal.SIGHUP)
        assert serving.refused.startswith("cannot start a process that reads the configuration: Resource temporarily ")


class TestCatchingUp:
    """A start with the settings and sockets of an earlier echod."""

    @pytest.fixture
    def behind(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parent]:
        """A parent whose workers all accept, and whose child reads for as long as the test wants."""
        yield from made(monkeypatch, catches_up=True)

    def test_the_configuration_is_read_first(self, behind: Parent) -> None:
        """echod is ready when its workers serve by the configuration, and logs the change if there is one."""
        behind.slow = True
        behind.on_ready()
        assert (behind.state, behind.logged()) == (State.READING, [])
        behind.end_reading()
        assert behind.logged() == ["config_warning"]
        behind.answer()
        assert (behind.state, behind.logged()) == (State.SERVING, ["reloaded", "ready"])

    def test_nothing_has_changed(self, behind: Parent) -> None:
        """Without a change, nothing but the readiness is logged."""
        behind.change = replace(CHANGE, changed=[], warnings=[])
        behind.become_ready()
        behind.answer()
        assert behind.logged() == ["ready"]

    def test_what_is_wrong(self, behind: Parent) -> None:
        """A configuration that is wrong is refused, and echod is ready with the settings of the earlier one."""
        behind.failure = CannotListen("the address is in use")
        behind.become_ready()
        assert (behind.state, behind.logged()) == (State.SERVING, ["reload_refused", "ready"])
        assert behind.refused == "the address is in use"

    def test_a_later_reload(self, behind: Parent) -> None:
        """A SIGHUP meanwhile is followed by a reload, which is logged even if it changes nothing."""
        behind.change = replace(CHANGE, changed=[], warnings=[])
        behind.signal(signal.SIGHUP)
        behind.become_ready()
        behind.answer()
        behind.answer()
        assert behind.logged() == ["ready", "reloaded"]
