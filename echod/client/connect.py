"""From a target to a connected stream socket: resolve its name, and race its addresses (Happy Eyeballs, RFC 8305)."""

from __future__ import annotations

import errno
import os
import select
import socket
import time

from echod.client.errors import NO_SERVER, ConnectError, NameLookupError, UntestableError, reason
from echod.client.output import Screen
from echod.client.target import UNIX, Target, is_address
from echod.client.text import endpoint, printable
from echod.client.transport import SockAddr, begin_connecting, connected_to_itself, failure_of

NEVER = float("inf")
"""No deadline.  math.inf is the same, in a module that takes a quarter of a millisecond to import."""

_LOOPBACK = ("127.0.0.1", "::1")

_STAGGER = 0.25
"""Seconds after which the next address is tried beside those that have not answered (RFC 8305, section 5)."""

_QUEUE_FULL = 0.01
"""Seconds between two attempts to connect to a unix socket whose accept queue is full: connect(2) does not wait for
room on a non-blocking socket."""

_REPORT = 1.0
"""Seconds between two reports of what is being waited for."""


class Attempt:
    """One attempt to connect: `where` to, `address` as text, and its `failure` ("" for none).

    It began at `began` (of time.monotonic()), `after` seconds after the first attempt, and took `seconds`.
    """

    def __init__(self, where: SockAddr, began: float, after: float) -> None:
        self.where, self.address = where, endpoint(where)
        self.began, self.after = began, after
        self.seconds = 0.0
        self.failure = ""
        self.connection: socket.socket | None = None
        """The socket while it connects; None as well while the accept queue of a unix socket is full."""

    @property
    def total(self) -> float:
        """Seconds from the first attempt to the end of this one."""
        return self.after + self.seconds

    def __str__(self) -> str:
        outcome = self.failure or "connected"
        return f"{self.address}: {outcome} after {self.seconds * 1000:.3f} ms"

    def fields(self) -> dict[str, object]:
        """The attempt in the form that `--json` prints."""
        failure = self.failure or None
        return {"address": self.address, "after": self.after, "seconds": self.seconds, "failure": failure}


class Observer:
    """Follows how a connection is made; subclasses show it."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        """The attempts that have ended; the last one is the one that succeeded, if any did."""

    def on_trying(self, address: SockAddr) -> None:
        """An attempt begins."""

    def on_attempt(self, attempt: Attempt) -> None:
        """An attempt has ended."""

    def on_waiting(self, what: str) -> None:
        """Another second has passed without a connection; `what` says what is being waited for."""


class ShownAttempts(Observer):
    """Shows on the status line what is being waited for, and if `is_verbose`, prints each attempt."""

    def __init__(self, screen: Screen, is_verbose: bool) -> None:
        super().__init__()
        self._status = screen.status
        self._note = screen.message if is_verbose else lambda text: None

    def on_trying(self, address: SockAddr) -> None:
        """Print the address."""
        self._status.erase()
        self._note(f"trying {endpoint(address)}")

    def on_attempt(self, attempt: Attempt) -> None:
        """Print the result."""
        self._status.erase()
        self._note(str(attempt))

    def on_waiting(self, what: str) -> None:
        """Replace the status line."""
        self._status.show(what)


def open_connection(target: Target, timeout: float, observer: Observer, deadline: float = NEVER) -> socket.socket:
    """Resolve `target` and connect to it, by `resolve` and `connect_to_any`; raises their errors."""
    return connect_to_any(resolve(target, observer, deadline), target, timeout, observer, deadline)


def resolve(target: Target, observer: Observer, deadline: float = NEVER) -> list[SockAddr]:
    """The addresses of `target`, in the order in which to try them, with alternating families; at least one.

    "localhost" is 127.0.0.1 and ::1 without a query (RFC 6761, section 6.3), because a system without /etc/hosts does
    not know the name.  Any other name takes as long as the system's resolver is configured to wait, but not longer than
    until `deadline` (of time.monotonic()).  Raises NameLookupError if the name has no address or takes longer,
    UntestableError if the resolver cannot be started.
    """
    if target.host.startswith(UNIX):
        path = os.fsencode(target.host.removeprefix(UNIX))
        return [b"\0" + path[1:] if path.startswith(b"@") else path]
    found: list[SockAddr] = []
    failure = ""
    for name in _LOOPBACK if target.host.lower() == "localhost" else (target.host,):
        try:
            found += (
                _look_up(name, target) if is_address(name) else _look_up_in_thread(name, target, observer, deadline)
            )
        except OSError as error:
            failure = reason(error)
        except UnicodeError:
            failure = "not a valid host name"
    if not found:
        raise NameLookupError(str(target), failure)
    return _interleaved(found)


def connect_to_any(
    addresses: list[SockAddr], target: Target, timeout: float, observer: Observer, deadline: float = NEVER
) -> socket.socket:
    """Connect to the one of `addresses` that accepts first; the socket is non-blocking.

    The next address is tried as soon as one has failed, and beside those that have not answered within 250 ms.  Each
    has `timeout` seconds, but only until `deadline` (of time.monotonic()).  Raises ConnectError, which names `target`
    and every reason.
    """
    race = _Race(addresses, target, timeout, observer, deadline)
    try:
        while not race.winner:
            race.turn()
        return race.winner
    finally:
        race.close()


class _Race:
    """The attempts to connect to `addresses`: those in `_left` have not begun, those in `_running` have not ended."""

    def __init__(
        self, addresses: list[SockAddr], target: Target, timeout: float, observer: Observer, deadline: float
    ) -> None:
        self.winner: socket.socket | None = None
        self._left = list(addresses)
        self._running: list[Attempt] = []
        self._failures: list[tuple[str, str]] = []
        self._target, self._timeout, self._deadline = target, timeout, deadline
        self._observer = observer
        self._asked = False
        self._began = self._next = time.monotonic()  # when the first attempt began, when the next one may begin
        self._next_report = self._began + _REPORT

    def turn(self) -> None:
        """Begin what is due, and wait until something happens; raises ConnectError when every attempt has failed."""
        now = time.monotonic()
        for attempt in self._running[:]:
            if attempt.connection is None:
                self._start(attempt)
        if self._left and (now >= self._next or now >= self._deadline):
            # A deadline leaves time for all that are left.
            self._next = now + min(_STAGGER, (self._deadline - now) / (len(self._left) + 1))
            self._begin(self._left.pop(0), now)
        self._wait()
        self._end_late(time.monotonic())
        if not (self._left or self._running or self.winner):
            raise ConnectError(str(self._target), self._failures, self._asked)

    def close(self) -> None:
        """End the attempts that still run."""
        for attempt in self._running:
            if attempt.connection:
                attempt.connection.close()

    def _begin(self, address: SockAddr, now: float) -> None:
        attempt = Attempt(address, now, now - self._began)
        self._running.append(attempt)
        if now >= self._deadline:
            self._end(attempt, "no time left")
        else:
            self._observer.on_trying(address)
            self._start(attempt)

    def _start(self, attempt: Attempt) -> None:
        try:
            connection, code = begin_connecting(attempt.where, self._target.origin)
        except OSError as error:
            self._end(attempt, reason(error))
            return
        # Without a free local port nothing is sent.
        self._asked = self._asked or code != errno.EADDRNOTAVAIL
        if code == errno.EAGAIN:
            connection.close()
            return
        attempt.connection = connection
        if code == 0:
            self._on_connected(attempt)
        elif code != errno.EINPROGRESS:
            self._end(attempt, failure_of(code))

    def _wait(self) -> None:
        """Wait until an attempt has an answer, or something else is due."""
        if self.winner or not self._running:
            return
        poll = select.poll()
        connecting = {attempt.connection.fileno(): attempt for attempt in self._running if attempt.connection}
        for number in connecting:
            poll.register(number, select.POLLOUT)
        now = time.monotonic()
        due = [self._deadline, self._next_report, *(attempt.began + self._timeout for attempt in self._running)]
        due += [self._next] if self._left else []
        due += [now + _QUEUE_FULL] if len(connecting) < len(self._running) else []
        for number, _ in poll.poll(max(min(due) - now, 0) * 1000):
            if not self.winner:
                self._on_answer(connecting[number])

    def _on_answer(self, attempt: Attempt) -> None:
        assert attempt.connection
        if code := attempt.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._end(attempt, failure_of(code))
        else:
            self._on_connected(attempt)

    def _on_connected(self, attempt: Attempt) -> None:
        assert attempt.connection
        if connected_to_itself(attempt.connection):
            self._end(attempt, NO_SERVER)
            return
        self.winner, attempt.connection = attempt.connection, None
        for other in [each for each in self._running if each is not attempt]:
            self._end(other, "given up, because another address was faster")
        self._conclude(attempt, "")

    def _end_late(self, now: float) -> None:
        """End the attempts whose time is over, and report once a second what is being waited for."""
        for attempt in self._running[:]:
            if now >= min(attempt.began + self._timeout, self._deadline):
                self._end(attempt, "timed out")
        if self._running and now >= self._next_report:
            self._next_report += _REPORT
            self._observer.on_waiting(f"connecting to {', '.join(attempt.address for attempt in self._running)}")

    def _end(self, attempt: Attempt, failure: str) -> None:
        if attempt.connection:
            attempt.connection.close()
            attempt.connection = None
        self._failures.append((attempt.address, failure))
        self._next = time.monotonic()  # for the next address there is no reason to wait
        self._conclude(attempt, failure)

    def _conclude(self, attempt: Attempt, failure: str) -> None:
        self._running.remove(attempt)
        attempt.seconds, attempt.failure = time.monotonic() - attempt.began, failure
        self._observer.attempts.append(attempt)
        self._observer.on_attempt(attempt)


def _interleaved(addresses: list[SockAddr]) -> list[SockAddr]:
    """The addresses in the same order, but with alternating families (RFC 8305, section 4)."""
    first = [address for address in addresses if len(address) == len(addresses[0])]
    others = [address for address in addresses if len(address) != len(addresses[0])]
    pairs = min(len(first), len(others))
    alternating = [address for pair in zip(first, others, strict=False) for address in pair]
    return alternating + first[pairs:] + others[pairs:]


def _look_up(name: str, target: Target) -> list[SockAddr]:
    # typeshed allows for a Python that was built without IPv6.
    answers = socket.getaddrinfo(name, target.port, target.family, socket.SOCK_STREAM)
    return [address for *_, address in answers]  # type: ignore[misc]


def _look_up_in_thread(name: str, target: Target, observer: Observer, deadline: float) -> list[SockAddr]:
    """Look up a name in a thread, which ends with the process.

    getaddrinfo(3) cannot be interrupted, not even by Ctrl-C; a thread that waits for it can.
    """
    import _thread  # importing threading would take longer than all the rest of the start

    found: list[SockAddr] = []
    failures: list[Exception] = []
    done = _thread.allocate_lock()
    done.acquire()

    def look_up() -> None:
        try:
            found.extend(_look_up(name, target))
        except (OSError, UnicodeError) as error:
            failures.append(error)
        finally:
            done.release()

    try:
        _thread.start_new_thread(look_up, ())
    except RuntimeError as error:  # pthread_create(3) failed
        raise UntestableError("cannot start a thread to resolve the name; check the limit on tasks") from error
    while not done.acquire(timeout=max(min(deadline - time.monotonic(), _REPORT), 0)):
        if time.monotonic() >= deadline:
            raise TimeoutError("the name was not resolved in time")
        observer.on_waiting(f"resolving {printable(name)}")
    if failures:
        raise failures[0]
    return found
