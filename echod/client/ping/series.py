"""One message after another at an interval, and what became of each."""

from __future__ import annotations

import time
from contextlib import suppress

from echod.client.faults import (
    BrokenConnectionError,
    ClosedError,
    ConnectError,
    EchoError,
    MismatchError,
    SurplusError,
)
from echod.client.ping.link import Link
from echod.client.ping.outcome import Outage, Outcome, milliseconds
from echod.client.ping.report import Report


class Series:
    """Sends over `link`, which is open, `count` messages (None: for ever), `interval` seconds apart.

    A message is due so long after the one before was sent, and is not sent before that one's echo has come or is
    lost.  After a loss the connection is made anew for the next message.  With `reconnect` that is done each time.
    """

    kind = "ping_summary"

    def __init__(self, link: Link, report: Report, interval: float, count: int | None, reconnect: bool) -> None:
        self._link, self._report = link, report
        self._interval, self._count, self._reconnect = round(interval * 1e9), count, reconnect
        self._outcome = Outcome()

    def run(self) -> None:
        """Send them all; KeyboardInterrupt may end it at any time.  `stop` then makes the counts true."""
        sequence = 0
        while sequence != self._count:
            sequence += 1
            began = time.perf_counter_ns()
            self._ping(sequence, began)
            until = began + self._interval if sequence != self._count else began
            self._watch(sequence, until)

    def stop(self) -> None:
        """It is over, also for the echo that may be out and for the outage that may not have ended."""
        self._outcome.stop()

    @property
    def exit_code(self) -> int:
        """0 where all came back identical, and nothing else did; else 1."""
        return 0 if self._outcome.flawless else EchoError.exit_code

    def lines(self) -> list[str]:
        """The summary, for people."""
        return self._outcome.lines()

    def short_line(self) -> str:
        """How it goes so far."""
        return self._outcome.short_line()

    def fields(self) -> dict[str, object]:
        """The summary, for programs."""
        return {"address": self._link.address or None} | self._outcome.fields() | {"error": None}

    def _ping(self, sequence: int, began: int) -> None:
        self._outcome.on_sending(began)
        try:
            took = self._link.echo()
        except ConnectError as error:
            self._outcome.on_loss(error)
            self._tell(f"no connection for seq={sequence}: {error.reasons}", sequence, None, error)
        except EchoError as error:
            self._outcome.on_loss(error)
            wrong = isinstance(error, (MismatchError, SurplusError))
            self._tell(f"{'wrong' if wrong else 'no'} echo for seq={sequence}: {error.in_brief}", sequence, None, error)
        else:
            outage = self._outcome.on_echo(took, self._link.connecting if self._reconnect else None)
            if outage:
                self._tell_of(outage)
            line = f"{self._link.size} bytes from {self._report.names.line(self._link.address)}: seq={sequence}"
            if self._reconnect:
                line += f" connect={milliseconds(self._link.connecting)} ms"
            self._tell(f"{line} time={milliseconds(took)} ms", sequence, took, None)

    def _watch(self, sequence: int, until: int) -> None:
        """Wait, and see what comes unasked."""
        try:
            if self._reconnect:
                self._finish()
            self._link.watch(until)
        except EchoError as error:
            self._outcome.on_fault(error, time.perf_counter_ns())
            fields = {"after": sequence, "address": self._link.address, "error": error.fields()}
            self._report.bad(f"after seq={sequence}: {error.in_brief}", "ping_fault", fields)
            self._link.watch(until)

    def _finish(self) -> None:
        """Close a connection that has done its service; that the other end was first with that is no fault."""
        with suppress(ClosedError, BrokenConnectionError):
            self._link.watch(0)
        self._link.close()

    def _tell(self, line: str, sequence: int, took: int | None, error: EchoError | ConnectError | None) -> None:
        fields: dict[str, object] = {
            "seq": sequence,
            "ok": error is None,
            "address": None if isinstance(error, ConnectError) else self._link.address,
            "seconds": None if took is None else took / 1e9,
            "connect_seconds": self._link.connecting / 1e9 if self._reconnect and took is not None else None,
            "error": error and error.fields(),
        }
        (self._report.bad if error else self._report.good)(line, "ping", fields)

    def _tell_of(self, outage: Outage) -> None:
        self._report.bad(f"reconnected after {outage}", "ping_outage", outage.fields())
