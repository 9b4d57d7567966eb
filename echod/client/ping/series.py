"""One message after another at an interval, and the result of each."""

from __future__ import annotations

import time
from contextlib import suppress

from echod.client.errors import (
    BrokenConnectionError,
    ClosedError,
    ConnectError,
    EchoError,
    MismatchError,
    SurplusError,
)
from echod.client.ping.connection import Server
from echod.client.ping.report import Report
from echod.client.ping.statistics import Outage, Statistics, milliseconds, tcp_line
from echod.client.text import counted

_REMINDER = 1.0
"""Seconds between two lines of -O if there is no interval."""

_RETRY = 100_000_000
"""Nanoseconds between two attempts to connect if there is no interval, as in a load."""


class Series:
    """Sends to `server` one message after another, `interval` seconds apart, until `count` were sent or `wanted` came
    back (None: without end).

    The interval is counted from sending one message to sending the next, which waits for the previous echo or its loss.
    After a loss, or with `reconnect` each time, a new connection is made for the next message.
    """

    kind = "ping_summary"

    def __init__(
        self, server: Server, report: Report, interval: float, count: int | None, wanted: int | None, reconnect: bool
    ) -> None:
        self._server, self._report = server, report
        self._interval, self._reconnect = round(interval * 1e9), reconnect
        self._count, self._wanted = count, wanted
        self._statistics = Statistics()
        self._sequence = 0
        self._refusal: ConnectError | None = None
        if report.reminds:
            server.reminder, server.on_waiting = interval or _REMINDER, self._on_waiting

    def open(self, deadline: float) -> None:
        """Make the first connection by `deadline`, of time.monotonic(); if an address was asked, a failure is the loss
        of the first message, otherwise raises ConnectError."""
        self._statistics.on_sending(time.perf_counter_ns())
        try:
            self._server.open(deadline)
        except ConnectError as error:
            if not error.asked:
                self._statistics = Statistics()  # nothing could be sent
                raise
            self._refusal = error

    def run(self) -> None:
        """Send all messages; KeyboardInterrupt may end it at any time, and `stop` then completes the counts."""
        while not self._is_complete():
            self._sequence += 1
            began = time.perf_counter_ns()
            if self._sequence > 1:  # the first message was due when the first connection was
                self._statistics.on_sending(began)
            connected = self._ping()
            pause = self._interval if connected else self._interval or _RETRY
            self._watch(began if self._is_complete() else began + pause)

    def stop(self) -> None:
        """End the series, and with it an echo that is outstanding and an outage that lasts."""
        self._statistics.stop()

    @property
    def exit_code(self) -> int:
        """0 if every message came back identical, and nothing else arrived; otherwise 1.

        If some number of echoes was wanted, messages may have been lost before, as with ping(8).
        """
        if self._wanted is None:
            good = self._statistics.flawless
        else:
            good = self._statistics.received >= self._wanted and not self._statistics.corrupted
        return 0 if good else EchoError.exit_code

    def lines(self) -> list[str]:
        """The summary as text."""
        tcp = self._server.tcp()
        return self._statistics.lines() + ([tcp_line(tcp)] if tcp else [])

    def short_line(self) -> str:
        """The intermediate result as text."""
        return self._statistics.short_line()

    def fields(self) -> dict[str, object]:
        """The summary in the form that `--json` prints."""
        fields = {"size": self._server.size} | self._server.ends() | self._statistics.fields()
        return fields | {"tcp": self._server.tcp(), "error": None}

    def _is_complete(self) -> bool:
        return self._sequence == self._count or self._statistics.received == self._wanted

    def _ping(self) -> bool:
        """Send a message and report its echo; returns whether there was a connection."""
        refusal, self._refusal = self._refusal, None
        try:
            if refusal:
                raise refusal
            took = self._server.echo()
        except ConnectError as error:
            self._statistics.on_loss(error)
            self._print(f"no connection for seq={self._sequence}: {error.reasons}", None, error)
            return False
        except EchoError as error:
            self._statistics.on_loss(error)
            wrong = isinstance(error, (MismatchError, SurplusError))
            line = f"{'wrong' if wrong else 'no'} echo for seq={self._sequence}: {error.in_brief}"
            self._print(line, None, error)
        else:
            outage = self._statistics.on_echo(took, self._server.connecting if self._reconnect else None)
            if outage:
                self._print_outage(outage)
            size = counted(self._server.size, "byte")
            line = f"{size} from {self._report.names.line(self._server.address)}: seq={self._sequence}"
            if self._reconnect:
                line += f" connect={milliseconds(self._server.connecting)} ms"
            self._print(f"{line} time={milliseconds(took)} ms", took, None)
        return True

    def _on_waiting(self, seconds: float) -> None:
        fields = {"seq": self._sequence, **self._server.ends(), "seconds": seconds}
        self._report.bad(f"no answer yet for seq={self._sequence}", "ping_waiting", fields)

    def _watch(self, until: int) -> None:
        """Wait, and report what arrives meanwhile."""
        try:
            if self._reconnect:
                self._finish()
            self._server.watch(until)
        except EchoError as error:
            self._statistics.on_fault(error, time.perf_counter_ns())
            fields = {"after": self._sequence, **self._server.ends(), "error": error.fields()}
            self._report.bad(f"after seq={self._sequence}: {error.in_brief}", "ping_fault", fields)
            self._server.watch(until)

    def _finish(self) -> None:
        """Close a connection after its only message; it is not an error if the server has closed it first."""
        with suppress(ClosedError, BrokenConnectionError):
            self._server.watch(0)
        self._server.close()

    def _print(self, line: str, took: int | None, error: EchoError | ConnectError | None) -> None:
        connected = not isinstance(error, ConnectError)
        tcp = self._server.tcp() if connected and self._report.shows_tcp else None
        fields: dict[str, object] = {
            "seq": self._sequence,
            "ok": error is None,
            **(self._server.ends() if connected else {"address": None, "local": None}),
            "seconds": None if took is None else took / 1e9,
            "connect_seconds": self._server.connecting / 1e9 if self._reconnect and took is not None else None,
            "tcp": tcp,
            "error": error and error.fields(),
        }
        (self._report.bad if error else self._report.good)(line, "ping", fields)
        if not error:
            self._report.detail(self._server.local, tcp)

    def _print_outage(self, outage: Outage) -> None:
        source = f", now from {self._server.local}" if self._server.local else ""
        self._report.bad(f"reconnected after {outage}{source}", "ping_outage", outage.fields() | self._server.ends())
