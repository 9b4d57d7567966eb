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
from echod.client.ping.statistics import Outage, Statistics, milliseconds
from echod.client.text import counted


class Series:
    """Sends to `server`, whose connection is open, `count` messages (None: without end), `interval` seconds apart.

    The interval is counted from sending one message to sending the next, which waits for the previous echo or its loss.
    After a loss, or with `reconnect` each time, a new connection is made for the next message.
    """

    kind = "ping_summary"

    def __init__(self, server: Server, report: Report, interval: float, count: int | None, reconnect: bool) -> None:
        self._server, self._report = server, report
        self._interval, self._count, self._reconnect = round(interval * 1e9), count, reconnect
        self._statistics = Statistics()

    def run(self) -> None:
        """Send all messages; KeyboardInterrupt may end it at any time, and `stop` then completes the counts."""
        sequence = 0
        while sequence != self._count:
            sequence += 1
            began = time.perf_counter_ns()
            self._ping(sequence, began)
            until = began + self._interval if sequence != self._count else began
            self._watch(sequence, until)

    def stop(self) -> None:
        """End the series, and with it an echo that is outstanding and an outage that lasts."""
        self._statistics.stop()

    @property
    def exit_code(self) -> int:
        """0 if every message came back identical, and nothing else arrived; otherwise 1."""
        return 0 if self._statistics.flawless else EchoError.exit_code

    def lines(self) -> list[str]:
        """The summary as text."""
        return self._statistics.lines()

    def short_line(self) -> str:
        """The intermediate result as text."""
        return self._statistics.short_line()

    def fields(self) -> dict[str, object]:
        """The summary in the form that `--json` prints."""
        return {"address": self._server.address or None} | self._statistics.fields() | {"error": None}

    def _ping(self, sequence: int, began: int) -> None:
        self._statistics.on_sending(began)
        try:
            took = self._server.echo()
        except ConnectError as error:
            self._statistics.on_loss(error)
            self._print(f"no connection for seq={sequence}: {error.reasons}", sequence, None, error)
        except EchoError as error:
            self._statistics.on_loss(error)
            wrong = isinstance(error, (MismatchError, SurplusError))
            line = f"{'wrong' if wrong else 'no'} echo for seq={sequence}: {error.in_brief}"
            self._print(line, sequence, None, error)
        else:
            outage = self._statistics.on_echo(took, self._server.connecting if self._reconnect else None)
            if outage:
                self._print_outage(outage)
            size = counted(self._server.size, "byte")
            line = f"{size} from {self._report.names.line(self._server.address)}: seq={sequence}"
            if self._reconnect:
                line += f" connect={milliseconds(self._server.connecting)} ms"
            self._print(f"{line} time={milliseconds(took)} ms", sequence, took, None)

    def _watch(self, sequence: int, until: int) -> None:
        """Wait, and report what arrives meanwhile."""
        try:
            if self._reconnect:
                self._finish()
            self._server.watch(until)
        except EchoError as error:
            self._statistics.on_fault(error, time.perf_counter_ns())
            fields = {"after": sequence, "address": self._server.address, "error": error.fields()}
            self._report.bad(f"after seq={sequence}: {error.in_brief}", "ping_fault", fields)
            self._server.watch(until)

    def _finish(self) -> None:
        """Close a connection after its only message; it is not an error if the server has closed it first."""
        with suppress(ClosedError, BrokenConnectionError):
            self._server.watch(0)
        self._server.close()

    def _print(self, line: str, sequence: int, took: int | None, error: EchoError | ConnectError | None) -> None:
        fields: dict[str, object] = {
            "seq": sequence,
            "ok": error is None,
            "address": None if isinstance(error, ConnectError) else self._server.address,
            "seconds": None if took is None else took / 1e9,
            "connect_seconds": self._server.connecting / 1e9 if self._reconnect and took is not None else None,
            "error": error and error.fields(),
        }
        (self._report.bad if error else self._report.good)(line, "ping", fields)

    def _print_outage(self, outage: Outage) -> None:
        self._report.bad(f"reconnected after {outage}", "ping_outage", outage.fields())
