"""What goes wrong in a daemon under test: faults that its process applies to itself before it starts (`faulty`).

A test calls a fault to describe it, and hands the description to the daemon, whose process calls it by its name:

    with Daemon(faults=[faults.worker_start_waits(gate.fd)], pass_fds=(gate.fd,)) as daemon:

A fault replaces a name that echod looks up at the time of the call: a constant, a class, by a subclass of it, or a
function.  It fails if what it replaces is no longer where it was.
"""

import errno
import fcntl
import itertools
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial, wraps
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, ParamSpec, TypeVar

import echod.daemon
from echod.config.settings import Settings
from echod.handover import copies
from echod.handover import queue as handover
from echod.handover.copies import CopyHolder, CopySender
from echod.handover.state import Connection, ConnectionState, TakenOver
from echod.log import output
from echod.log.events import EventLog
from echod.log.output import LogQueue
from echod.net import address
from echod.net.address import Endpoint
from echod.net.listeners import Listener
from echod.net.loop import READ
from echod.parent import pool, reading, reload, slot, supervisor
from echod.parent.pool import WorkerPool
from echod.parent.reload import Change, Configuration
from echod.parent.slot import WorkerSlot
from echod.parent.supervisor import Supervisor
from echod.shared import messages
from echod.shared.counters import Totals, WorkerCounters
from echod.shared.memory import PoolMemory
from echod.systemd import fdstore
from echod.worker import balance, process, session, stall
from echod.worker.acceptor import Acceptor
from echod.worker.process import Assignment, Channels, Worker
from echod.worker.relay import Relay
from echod.worker.session import Session

P = ParamSpec("P")
R = TypeVar("R")

TICKING_FAST = {"WATCHDOG_USEC": "1000000"}
"""Variables with which a worker ticks, and sends copies of its connections, ten times a second; see `never_hung`."""

CHATTER_SECONDS = 20
"""How long a process may go on that a worker has left behind, if nothing else ends it."""

PARENT = os.getpid()
"""In the daemon: its parent process, which applies the faults."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A function of this module, by its name, and its arguments, which are values that JSON has."""

    name: str
    arguments: Sequence[Any]
    options: dict[str, Any]


_FAULTS: dict[str, Callable[..., None]] = {}


def fault(function: Callable[P, None]) -> Callable[P, Fault]:
    """Have a call of this function describe a fault; `apply` calls the function itself."""
    _FAULTS[function.__name__] = function

    @wraps(function)
    def describe(*arguments: P.args, **options: P.kwargs) -> Fault:
        return Fault(function.__name__, arguments, options)

    return describe


def dump(faults: Sequence[Fault]) -> str:
    """Text that describes these faults to another process."""
    return json.dumps([asdict(each) for each in faults])


def apply(text: str) -> None:
    """Break this process by the faults that a text of `dump` describes."""
    for words in json.loads(text):
        each = Fault(**words)
        _FAULTS[each.name](*each.arguments, **each.options)


def _replace(module: ModuleType, old: Callable[P, R], new: Callable[P, R]) -> None:
    """Have `module` call this function, or make objects of this class, where it has `old` now."""
    if vars(module)[old.__name__] is not old:
        raise LookupError(f"{module.__name__}.{old.__name__} is not {old}")
    setattr(module, old.__name__, new)


@contextmanager
def _replaced(module: ModuleType, old: Callable[P, R], new: Callable[P, R]) -> Iterator[None]:
    """The same for as long as the block lasts."""
    _replace(module, old, new)
    try:
        yield
    finally:
        setattr(module, old.__name__, old)


def _error(name: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))


def _failing(function: Callable[P, R], error: str, calls: Container[int]) -> Callable[P, R]:
    """The function, but its calls of these numbers, from 0, fail in the parent."""
    numbers = itertools.count()

    @wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        if os.getpid() == PARENT and next(numbers) in calls:
            raise _error(error)
        return function(*arguments, **options)

    return call


def _named(name: str) -> tuple[ModuleType, Callable[..., Any]]:
    """A function of the standard library by its full name, and its module."""
    module = {"os": os, "socket": socket}[name.partition(".")[0]]
    return module, getattr(module, name.partition(".")[2])


# Other constants


@fault
def no_copies() -> None:
    """No connection gets old enough for a copy, however long a test lasts."""
    copies.AGE = 3600.0


@fault
def copies_at_once() -> None:
    """A connection gets a copy at the first tick, however young it is."""
    copies.AGE = 0.0


@fault
def never_hung() -> None:
    """A worker may miss any number of ticks, since the test or the machine may be what keeps it waiting."""
    balance.SILENT = slot.HUNG = slot.UNANSWERED = 1000


COPYING = (never_hung(), copies_at_once())
"""With `TICKING_FAST`: each connection soon has a copy."""


@fault
def slow_is(bytes_per_second: int) -> None:
    """A client must read this much to count as slow and not as stalled."""
    stall.FLOOR = bytes_per_second


@fault
def lingers_long() -> None:
    """A client may take any time to close its side after the server has closed its own."""
    reload.LINGER = 3600.0


@fault
def patient_with_systemd(seconds: float) -> None:
    """The answer of systemd may take this long."""
    fdstore.ANSWER_WAIT = seconds


@fault
def patient_with_stopping_workers(seconds: float) -> None:
    """Workers may take this long to exit after the time for draining."""
    supervisor.GRACE = seconds


@fault
def reading_takes_at_most(seconds: float) -> None:
    """Files and host names must be read within this time."""
    reading.DEADLINE = seconds


@fault
def replaced_after(seconds: float) -> None:
    """Each worker that has died is replaced after the same time, however many have died before."""
    slot.DELAYS = (seconds,) * 7


@fault
def no_death_is_early() -> None:
    """A worker that has just started counts as one that has lived long."""
    slot.STABLE_AFTER = 0.0


# The parent


@fault
def ports_are_forbidden() -> None:
    """No socket may be bound."""

    class Forbidden(socket.socket):
        def bind(self, address: object, /) -> None:
            raise _error("EACCES")

    _replace(socket, socket.socket, Forbidden)


@fault
def options_are_refused(error: str, *names: str) -> None:
    """Every socket refuses the options of these names."""

    class Without(socket.socket):
        def setsockopt(self, level: int, option: int, *value: Any) -> None:
            if (level, option) in refused:
                raise _error(error)
            super().setsockopt(level, option, *value)

    levels = {"SO": socket.SOL_SOCKET, "TCP": socket.IPPROTO_TCP, "IPV6": socket.IPPROTO_IPV6}
    refused = {(levels[name.partition("_")[0]], getattr(socket, name)) for name in names}
    _replace(socket, socket.socket, Without)


@fault
def files_stay() -> None:
    """No file may be removed."""

    def unlink(*_: object, **__: object) -> NoReturn:
        raise _error("EACCES")

    _replace(os, os.unlink, unlink)


@fault
def no_memory_files() -> None:
    """No memfd can be made, for lack of memory."""

    def memfd_create(*_: object, **__: object) -> NoReturn:
        raise _error("ENOMEM")

    _replace(os, os.memfd_create, memfd_create)


@fault
def name_resolution_waits(gate: int) -> None:
    """Host names are resolved only when the gate with this descriptor opens."""

    def resolve(host: str) -> list[Endpoint]:
        os.read(gate, 1)
        return real(host)

    real = address.resolve
    _replace(address, real, resolve)


@fault
def every_name_is(host: str) -> None:
    """Every host resolves to this address."""
    real = address.resolve

    def resolve(name: str) -> list[Endpoint]:
        return real(host)

    _replace(address, real, resolve)


@fault
def reload_is_a_bug() -> None:
    """What is read at a reload leads to an exception that nothing expects."""

    class Broken(Configuration):
        def _moves(self, new: Settings) -> bool:
            if super()._moves(new):
                return True
            raise RuntimeError("this can not be")

    _replace(echod.daemon, Configuration, Broken)


@fault
def reload_fails_at(function: str, number: int) -> None:
    """At each reload this function's call of this number, from 0, fails for lack of descriptors."""

    class Refusing(Supervisor):
        def _apply(self, change: Change) -> Any:
            module, real = _named(function)
            with _replaced(module, real, _failing(real, "EMFILE", [number])):
                return super()._apply(change)

    _replace(echod.daemon, Supervisor, Refusing)


@fault
def forks_fail_at(function: str, error: str, calls: list[int]) -> None:
    """Of the calls of this function by which the parent forks workers, those with these numbers, from 0, fail."""
    module, real = _named(function)
    failing = _failing(real, error, calls)

    class Failing(WorkerSlot):
        def fork(self) -> socket.socket | None:
            with _replaced(module, real, failing):
                return super().fork()

    _replace(pool, WorkerSlot, Failing)


@fault
def second_worker_cannot_be_watched() -> None:
    """The second worker gets as far as it can before the parent finds that there is no descriptor to watch it by."""
    # Before it come two trials at the start, the process that reads the configuration, and the first worker.
    failing = _failing(os.pidfd_open, "ENFILE", [4])

    def pidfd_open(pid: int, flags: int = 0) -> int:
        try:
            return failing(pid, flags)
        except OSError:
            while ") S " not in Path(f"/proc/{pid}/stat").read_text():
                os.sched_yield()
            raise

    _replace(os, os.pidfd_open, pidfd_open)


@fault
def parent_is_at_a_loss() -> None:
    """The parent raises an exception when a worker exits."""

    class Lost(WorkerPool):
        def _on_exit(self, slot: WorkerSlot) -> None:
            raise RuntimeError("the parent is at a loss")

    _replace(supervisor, WorkerPool, Lost)


@fault
def workers_die_at_a_signal() -> None:
    """All workers die in the instant in which the parent is to handle a signal."""

    class Late(Supervisor):
        def _handle_signal(self, signum: signal.Signals) -> None:
            for each in self._pool._slots:
                os.kill(each.pid, signal.SIGKILL)
                os.waitid(os.P_PID, each.pid, os.WEXITED | os.WNOWAIT)
            super()._handle_signal(signum)

    _replace(echod.daemon, Supervisor, Late)


@fault
def parent_stops_as_workers_start() -> None:
    """SIGTERM comes just before the first worker is forked."""

    class Stopped(WorkerPool):
        def start(self, connections: Sequence[Connection], before: Totals) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            super().start(connections, before)

    _replace(supervisor, WorkerPool, Stopped)


@fault
def parent_stops_as_it_takes_over() -> None:
    """SIGTERM comes just after the parent has taken its predecessor's connections over."""
    real = handover.take_over

    def take_over(fds: Any, now: float, *, restarts: int, room: int) -> TakenOver:
        taken = real(fds, now, restarts=restarts, room=room)
        os.kill(os.getpid(), signal.SIGTERM)
        return taken

    _replace(handover, real, take_over)


@fault
def parents_clock_is_late() -> None:
    """Connections that are taken over were sent after the moment that the parent takes for now."""
    real = handover.take_over

    def take_over(fds: Any, now: float, *, restarts: int, room: int) -> TakenOver:
        return real(fds, now - 1, restarts=restarts, room=room)

    _replace(handover, real, take_over)


@fault
def orders_to_hand_over_cannot_be_sent() -> None:
    """The kernel takes no descriptor with an order to hand connections over."""

    def send_fds(*_: object, **__: object) -> NoReturn:
        raise _error("ETOOMANYREFS")

    class Unheard(WorkerSlot):
        def send(self, command: bytes, fds: Sequence[int] = (), *, answer: bytes = b"") -> None:
            if messages.hand_over_room(command) is None:
                super().send(command, fds, answer=answer)
            else:
                with _replaced(socket, socket.send_fds, send_fds):
                    super().send(command, fds, answer=answer)

    _replace(pool, WorkerSlot, Unheard)


@fault
def parent_asks_no_more_than(calls: int) -> None:
    """The parent fails when it has received this many messages with copies, as it would if it received without end."""
    left = iter(range(calls))

    class Limited(CopyHolder):
        def _receive(self) -> int:
            next(left)
            return super()._receive()

    _replace(pool, CopyHolder, Limited)


@fault
def last_events_wait(gate: int) -> None:
    """The parent writes its last events only when the gate with this descriptor opens."""

    class Waiting(LogQueue):
        def finish(self, seconds: float) -> None:
            if os.getpid() == PARENT:
                os.read(gate, 1)
            super().finish(seconds)

    _replace(output, LogQueue, Waiting)


# Workers


@fault
def worker_start_waits(gate: int, number: int | None = None) -> None:
    """A worker, or only the one with this number, starts only when the gate with this descriptor opens."""

    class Waiting(Worker):
        def __init__(self, assignment: Assignment, shared: PoolMemory, channels: Channels, events: EventLog) -> None:
            if number in (None, assignment.number):
                os.read(gate, 1)
            super().__init__(assignment, shared, channels, events)

    _replace(pool, Worker, Waiting)


@fault
def worker_start_is_a_bug() -> None:
    """No worker can start."""

    class Broken(Worker):
        def __init__(self, *_: object) -> None:
            raise RuntimeError("not today")

    _replace(pool, Worker, Broken)


@fault
def worker_start_lacks_descriptors(once: str) -> None:
    """A worker cannot start for lack of descriptors if there is a file with this name, which it removes."""

    class Poor(Worker):
        def __init__(self, assignment: Assignment, shared: PoolMemory, channels: Channels, events: EventLog) -> None:
            if _there_was(once):
                raise _error("EMFILE")
            super().__init__(assignment, shared, channels, events)

    _replace(pool, Worker, Poor)


@fault
def accepting_is_a_bug(once: str) -> None:
    """A worker raises an exception where it accepts if there is a file with this name, which it removes."""

    class Broken(Acceptor):
        def _accept(self, listener: Listener) -> bool:
            if _there_was(once):
                raise RuntimeError("accepting is too hard")
            return super()._accept(listener)

    _replace(process, Acceptor, Broken)


def _there_was(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


@fault
def exclamation_mark_is_a_bug() -> None:
    """A worker raises an exception where it is to read an exclamation mark."""

    class Broken(Relay):
        def on_readable(self) -> None:
            if _next_byte(self) == b"!":
                raise RuntimeError("the magic byte")
            super().on_readable()

    _replace(session, Relay, Broken)


@fault
def exclamation_mark_kills() -> None:
    """A worker dies where it is to read an exclamation mark."""

    class Deadly(Relay):
        def on_readable(self) -> None:
            if _next_byte(self) == b"!":
                os.kill(os.getpid(), signal.SIGKILL)
            super().on_readable()

    _replace(session, Relay, Deadly)


def _next_byte(relay: Relay) -> bytes:
    assert isinstance(relay._owner, Session)
    return relay._owner.sock.recv(1, socket.MSG_PEEK)


@fault
def worker_dies_handing_over(*, after: bool) -> None:
    """A worker dies just before, or just after, it sends the first of its connections to the queue."""
    real = handover.hand_over

    def hand_over(queue: socket.socket, batch: Sequence[tuple[ConnectionState, int]]) -> bool:
        if os.getpid() == PARENT:
            return real(queue, batch)
        if after:
            real(queue, batch)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("SIGKILL did not end this process")

    _replace(handover, real, hand_over)


@fault
def worker_dies_forgetting() -> None:
    """A worker dies when it has closed a connection and is to have the parent close the copy."""

    class Dying(CopySender):
        def _on_turn(self, now: float) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    _replace(process, CopySender, Dying)


@fault
def copies_come_with_nonsense() -> None:
    """What a worker says of a connection when it sends a copy of it is not what echod's workers say."""

    def pack(state: ConnectionState) -> bytes:
        return b"[7]"

    _replace(copies, copies.pack, pack)  # type: ignore[attr-defined]


_starts = itertools.count(1)
"""The numbers of the workers that were started, over all slots."""
_latest = 0
"""The last of these: in a worker, its own."""


def _count_workers() -> None:
    class Counting(WorkerPool):
        def _start(self, slot: WorkerSlot) -> None:
            global _latest
            _latest = next(_starts)
            super()._start(slot)

    _replace(supervisor, WorkerPool, Counting)


@fault
def only_the_first_worker_sends_copies() -> None:
    """The successors of the first worker send no copies."""

    class Selfish(CopySender):
        def look(self) -> None:
            if _latest == 1:
                super().look()

    _count_workers()
    _replace(process, CopySender, Selfish)


def _first_worker_begins_with(action: Callable[[socket.socket], None]) -> None:
    """The first worker does this with its copy socket before it serves."""

    class First(Worker):
        def run(self) -> None:
            if _latest == 1:
                action(self._copies._sock)
            super().run()

    _count_workers()
    _replace(pool, Worker, First)


@fault
def first_worker_hangs_up() -> None:
    """The first worker shuts its copy socket down."""
    _first_worker_begins_with(lambda sock: sock.shutdown(socket.SHUT_RDWR))


@fault
def first_worker_leaves_a_chatterer() -> None:
    """The first worker has a child, which sends messages about copies without end."""

    def chatter(sock: socket.socket) -> None:
        if not os.fork():
            signal.alarm(CHATTER_SECONDS)
            sock.setblocking(True)
            message = messages.copy_message([messages.forget_copy(1)] * 20_000)
            with suppress(OSError):
                while True:
                    sock.send(message)
            os._exit(os.EX_OK)

    _first_worker_begins_with(chatter)


NO_CONNECTIONS: dict[str, Callable[[], socket.socket | Any]] = {
    "datagram socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    "unconnected socket": lambda: socket.socket(socket.AF_INET6),
    "listening socket": lambda: socket.create_server(("127.0.0.1", 0)),
    "device": partial(open, "/dev/zero", "rb"),
}
"""What a worker may send in place of a connection."""


@fault
def first_worker_gives(what: str) -> None:
    """The first worker sends one of `NO_CONNECTIONS` in place of a connection, in a message that is half nonsense."""

    def give(sock: socket.socket) -> None:
        with NO_CONNECTIONS[what]() as something:
            lines = [messages.keep_copy(1, b"[[["), b"-", b"?", b"\xff"]
            socket.send_fds(sock, [messages.copy_message(lines)], [something.fileno()])

    _first_worker_begins_with(give)


# A worker that an attacker controls


def _row(**values: int) -> Callable[[Worker], None]:
    def write(worker: Worker) -> None:
        for name, value in values.items():
            setattr(worker._row, name, value)

    return write


def _copies(*messages_: tuple[bytes, int], repeat: int = 1) -> Callable[[Worker], None]:
    """Messages on the copy socket, each with a number of descriptors of a connection."""

    def send(worker: Worker) -> None:
        sock, fd = worker._copies._sock, next(iter(worker._sessions))
        sock.setblocking(True)
        with suppress(OSError):  # the parent receives nothing more
            for data, count in messages_ * repeat:
                socket.send_fds(sock, [data], [fd] * count)
        sock.setblocking(False)

    return send


def _descriptor(what: str) -> Callable[[Worker], None]:
    def send(worker: Worker) -> None:
        with NO_CONNECTIONS[what]() as something:
            state = copies.pack(next(iter(worker._sessions.values())).snapshot())  # type: ignore[attr-defined]
            socket.send_fds(worker._copies._sock, [messages.keep_copy(1, state)], [something.fileno()])

    return send


def _answers(message: bytes, count: int = 1) -> Callable[[Worker], None]:
    def send(worker: Worker) -> None:
        with suppress(OSError):
            for _ in range(count):
                worker._commands.send(message)

    return send


def _counts_then_exits(worker: Worker) -> None:
    worker._row.bytes_live, worker._row.bytes_echoed = 0, 2**64 - 1
    os._exit(0)


FALSE_DATA: dict[str, tuple[Callable[[Worker], None], str]] = {
    "bytes echoed": (_row(bytes_live=0, bytes_echoed=2**64 - 1), "its counter bytes_echoed is 18446744073709551615"),
    "bytes echoed, at its end": (_counts_then_exits, "its counter bytes_echoed is"),
    "clients": (_row(clients_now=2**63), "its counter clients_now is 9223372036854775808"),
    "long lines": (_copies((b"+7 " + b"x" * 30_000, 1), repeat=6000), "a line about a copy is"),
    "too many descriptors": (_copies((b"-1000", 100)), "a message with 100 descriptors has 0 lines for them"),
    "descriptors in an empty message": (_copies((b"", 100), (b"-1000", 0)), "a line about a copy is b'', of 0 bytes"),
    "too few descriptors": (_copies((b"+7 {}\n+8 {}", 1)), "a message with 1 descriptors has 2 lines for them"),
    "no state": (_copies((b"+7 [7]", 1)), "the state of a connection is"),
    "no JSON": (_copies((b"+7 [[[", 1)), "the state of a connection is"),
    "a flood": (_copies((b"-1000\n" * 9000 + b"-1", 0), repeat=1000), "more than 10000 lines about copies"),
    "ready again": (_answers(messages.READY, 20_000), "it sent b'ready' when b'nothing' was due"),
    "an answer to no command": (_answers(messages.HANDED_OVER), "it sent b'handed over' when b'nothing' was due"),
    "a long answer": (_answers(b"x" * 30_000), "it sent b'xxxxx"),
    "datagram socket": (_descriptor("datagram socket"), "a descriptor is not one of a connection"),
    "listening socket": (_descriptor("listening socket"), "a descriptor is not one of a connection"),
    "device": (_descriptor("device"), "a descriptor is not one of a connection"),
}
"""What a worker may send to its parent, and what the parent logs about it."""


def _take_lock(worker: Worker, command: int = fcntl.F_SETLK) -> None:
    fcntl.fcntl(worker._limits._fd, command, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    worker._events.config_warning(problem="the lock is taken")


def _keeps_lock(worker: Worker) -> None:
    """Takes the lock of the limits, and accepts no clients, which would release it; its loop runs on."""
    worker._acceptor.close(has_successor=True)
    _take_lock(worker)


def _hangs_with_lock(worker: Worker) -> None:
    _take_lock(worker)
    signal.pause()


def _leaves_lock_behind(worker: Worker) -> None:
    if not os.fork():
        signal.alarm(CHATTER_SECONDS)
        _take_lock(worker)
        signal.pause()


def _keeps_shared_lock(worker: Worker) -> None:
    _take_lock(worker, fcntl.F_OFD_SETLK)


LOCKS: dict[str, Callable[[Worker], None]] = {
    "by a worker that ticks": _keeps_lock,
    "by a worker that hangs": _hangs_with_lock,
    "by a process that a worker has left behind": _leaves_lock_behind,
    "by the file description": _keeps_shared_lock,
}
"""How the lock of the limits may be kept."""


def _fills_tables(worker: Worker) -> None:
    """Write into the tables of all workers, and try to cut them off."""
    for table in worker._limits._tables:
        for cells in (table._keys, table._counts):
            cells.cast("B")[:] = b"\xff" * cells.nbytes
    with suppress(PermissionError):
        os.ftruncate(worker._limits._fd, 0)
    worker._events.config_warning(problem="the tables are full")


def _wakes_without_end(worker: Worker) -> None:
    """Fill the counters of all wake-ups, and empty them whenever another worker may want to read them."""
    wakeups = [wakeup for _, wakeup in worker._acceptor._balance._others]
    worker._events.config_warning(problem="the others are woken")
    if not os.fork():
        signal.alarm(CHATTER_SECONDS)
        parent = os.getppid()
        while os.getppid() == parent:
            for wakeup in wakeups:
                with suppress(BlockingIOError):
                    os.eventfd_write(wakeup, 2**64 - 2)
                with suppress(BlockingIOError):
                    os.eventfd_read(wakeup)
        os._exit(os.EX_OK)


SHARED: dict[str, Callable[[Worker], None]] = {"tables": _fills_tables, "wake-ups": _wakes_without_end}
"""What a worker may do to memory and descriptors that all of them share, and the others survive."""


@fault
def worker_is_false(gate: int, group: str, name: str) -> None:
    """When the gate with this descriptor opens, the first worker 0 begins one of the attacks of this group."""
    messages.COPY_LINES_MAX = 10_000  # of which a slow machine receives more in a second
    attack = {"FALSE_DATA": {key: each for key, (each, _) in FALSE_DATA.items()}, "LOCKS": LOCKS, "SHARED": SHARED}

    class False_(Worker):
        def run(self) -> None:
            if self._number == 0 and _latest == 1:
                self._loop.watch(gate, READ, self._on_gate)
            super().run()

        def _on_gate(self) -> None:
            self._loop.unwatch(gate)
            attack[group][name](self)

    _count_workers()
    _replace(pool, Worker, False_)


@fault
def worker_spoils_queue() -> None:
    """Worker 0 sends nonsense before its connections when it hands over, and leaves a process that goes on sending."""
    real = handover.hand_over
    others: list[WorkerCounters] = []

    class Numbered(Worker):
        def _hand_over(self, queue: socket.socket, room: int) -> None:
            if self._number == 0:
                others[:] = self._acceptor._counters.rows[1:]
                with _replaced(handover, real, hand_over):
                    super()._hand_over(queue, room)
            else:
                super()._hand_over(queue, room)

    def hand_over(queue: socket.socket, batch: Sequence[tuple[ConnectionState, int]]) -> bool:
        queue.send(b"")
        queue.send(b"nonsense")
        socket.send_fds(queue, [b""], [queue.fileno()])
        sent = real(queue, batch)
        if not os.fork():
            signal.alarm(CHATTER_SECONDS)
            while not others[0].handed_over:  # there would be no room for the other worker's connections
                os.sched_yield()
            queue.setblocking(True)
            with suppress(OSError):
                while True:
                    queue.send(b"")
            os._exit(os.EX_OK)
        return sent

    _replace(pool, Worker, Numbered)


@fault
def worker_does_not_hand_over(beats: int) -> None:
    """Worker 0 ignores the command to hand over, and ticks; the parent waits for this number of beats."""
    slot.UNANSWERED = beats

    class Deaf(Worker):
        def _hand_over(self, queue: socket.socket, room: int) -> None:
            if self._number != 0:
                super()._hand_over(queue, room)

    _replace(pool, Worker, Deaf)
