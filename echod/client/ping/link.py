"""The way to a server for one message after another: a connection that is made anew when it is lost."""

from __future__ import annotations

import time

from echod.client.connect import Attempt, connect_to_any
from echod.client.faults import EchoError
from echod.client.pattern import PERIOD, Pattern
from echod.client.ping.probe import Probe
from echod.client.resolver import NEVER, resolve
from echod.client.target import Target


class Link:
    """Messages of `size` bytes to `target`, of which each is from another place of a pattern than the one before, so
    that a stale or repeated echo is no good one.

    `connect_timeout` and `timeout` are seconds, for each address and for each echo.  `address` is the one connected
    to, and `connecting` how many nanoseconds that took, with the time for addresses that were tried in vain before.
    """

    def __init__(self, target: Target, size: int, connect_timeout: float, timeout: float) -> None:
        self.address = ""
        self.connecting = 0
        self.size = size
        self._target = target
        self._connect_timeout, self._timeout = connect_timeout, timeout
        self._pattern = Pattern(size)
        self._offset = 0
        self._step = size if size % PERIOD else size + 1
        self._probe: Probe | None = None

    def open(self, deadline: float = NEVER) -> None:
        """Resolve the name and connect by `deadline`, of time.monotonic(); raises ConnectError."""
        attempts: list[Attempt] = []
        addresses = resolve(self._target, deadline)
        connection = connect_to_any(addresses, self._target, self._connect_timeout, attempts.append, deadline=deadline)
        self._probe = Probe(connection)
        self.address = attempts[-1].address
        self.connecting = round(sum(attempt.seconds for attempt in attempts) * 1e9)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._probe:
            self._probe.close()
            self._probe = None

    def echo(self) -> int:
        """Send a message, over a new connection if need be; return how many nanoseconds its echo took.

        Raises ConnectError, and as Probe.echo does; then the connection is closed.
        """
        if not self._probe:
            self.open()
        assert self._probe
        message = self._pattern.part(self._offset, self.size)
        self._offset += self._step
        try:
            return self._probe.echo(message, self._timeout)
        except EchoError:
            self.close()
            raise

    def watch(self, until: int) -> None:
        """Wait until the time `until` (of perf_counter_ns); raises as Probe.watch does, and then has closed."""
        if not self._probe:
            time.sleep(max(until - time.perf_counter_ns(), 0) / 1e9)  # there is nothing that could happen
            return
        try:
            self._probe.watch(until)
        except EchoError:
            self.close()
            raise

    def segments(self) -> int | None:
        """How many TCP segments have come on this connection; None where that is not known."""
        return self._probe.segments() if self._probe else None
