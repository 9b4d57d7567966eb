"""The largest message that passes: an echo of the smallest size, one of the largest, and a search by halving between.

A path can drop long packets without the ICMP message that would shorten them ("path-MTU black hole", RFC 2923): the
connection is established, short messages pass, and a long one is lost with all its retransmissions.  TCP sends a
message in segments of at most the MSS, so above that every size meets the same limit.
"""

from __future__ import annotations

from echod.client.errors import (
    ConnectError,
    EchoError,
    MismatchError,
    OverdueError,
    SurplusError,
    UntestableError,
)
from echod.client.ping.connection import GONE, Server
from echod.client.ping.report import Report
from echod.client.ping.statistics import milliseconds
from echod.client.text import counted
from echod.client.transport import ARRIVED


class SizeSearch:
    """Sends to `server` one message of `smallest` bytes, one of `largest`, and if only the former comes back, others
    until two that differ by one byte have shown the limit.  After a loss a new connection is made."""

    kind = "ping_sweep"

    def __init__(self, server: Server, report: Report, smallest: int, largest: int) -> None:
        self._server, self._report, self._smallest, self._largest = server, report, smallest, largest
        self._tried = 0
        self._passed: int | None = None
        self._lost: int | None = None
        self._loss: EchoError | None = None
        self._arrived = False
        """Whether the lost message, but not its echo, is known to have arrived."""
        self._error: EchoError | ConnectError | None = None

    def open(self, deadline: float) -> None:
        """Make the first connection by `deadline`, of time.monotonic(); raises ConnectError."""
        self._server.open(deadline)

    def run(self) -> None:
        """Search; KeyboardInterrupt may end it at any time."""
        try:
            while size := self._next():
                self._try(size)
        except (ConnectError, EchoError) as error:
            self._error = error
            wrong = isinstance(error, (MismatchError, SurplusError))
            fields = {"after": self._tried, **self._server.ends(), "error": error.fields()}
            self._report.bad(f"{'wrong echo: ' if wrong else ''}{error.in_brief}", "ping_fault", fields)

    def stop(self) -> None:
        """Nothing to do: a size whose echo is outstanding does not count."""

    @property
    def exit_code(self) -> int:
        """0 if the largest message passed, 1 if one was lost or an echo wrong, 2 if there is no result."""
        if self._lost is not None or self._error:
            return EchoError.exit_code
        return 0 if self._passed == self._largest else UntestableError.exit_code

    def lines(self) -> list[str]:
        """The result as text."""
        lines = [f"{counted(self._tried, 'size')} tried"]
        tcp = self._server.tcp()
        path = f" (mss {tcp['mss']:.0f}, pmtu {tcp['pmtu']:.0f})" if tcp else ""
        if self._passed is None:
            lines.append(f"no size passes{path}" if self._lost else f"no result{path}")
        elif self._lost is None and self._passed < self._largest:
            lines.append(f"no result above {counted(self._passed, 'byte')}{path}")
        else:
            least = "at least " if self._next() else ""
            lines.append(f"largest size that passes: {least}{counted(self._passed, 'byte')}{path}")
        if self._loss:
            lines.append(f"{counted(self._lost or 0, 'byte')}: {self._loss.in_brief}")
        if self._arrived and self._passed:
            lines.append("shorter echoes come back: the way back drops longer ones, or the server returns none")
        return lines

    def short_line(self) -> str:
        """The intermediate result as text."""
        return f"{counted(self._tried, 'size')}, passed {self._passed or 0}, lost {self._lost or 'none'}"

    def fields(self) -> dict[str, object]:
        """The result in the form that `--json` prints."""
        return {
            **self._server.ends(),
            "smallest": self._smallest,
            "largest": self._largest,
            "sizes": self._tried,
            "passed": self._passed,
            "lost": self._lost,
            "loss": self._loss and self._loss.fields(),
            "tcp": self._server.tcp(),
            "error": self._error and self._error.fields(),
        }

    def _next(self) -> int:
        """The size to try next; 0 when there is none."""
        if self._passed is None:
            return 0 if self._lost else self._smallest
        if self._lost is None:
            return self._largest if self._passed < self._largest else 0
        tcp = self._server.tcp()
        if tcp and self._passed < tcp["mss"] < self._lost:
            return int(tcp["mss"])  # above it every size meets the same limit, so this one is likely to be lost as well
        return (self._passed + self._lost) // 2 if self._lost - self._passed > 1 else 0

    def _try(self, size: int) -> None:
        """Send a message; raises ConnectError, MismatchError and SurplusError, which say nothing about its size, and
        OverdueError if a part of the echo is back, so that the time was too short, and not the message too long."""
        took: int | None = None
        loss: EchoError | None = None
        self._server.size = size
        try:
            took = self._server.echo()
        except GONE as error:
            if isinstance(error, OverdueError) and error.received:
                raise
            loss = error
        self._tried += 1
        if loss:
            self._lost, self._loss = size, loss
            self._arrived = isinstance(loss, OverdueError) and loss.cause.startswith(ARRIVED)
        else:
            self._passed = size
        self._print(size, took, loss)

    def _print(self, size: int, took: int | None, loss: EchoError | None) -> None:
        fields = {
            "number": self._tried,
            "size": size,
            "ok": loss is None,
            **self._server.ends(),
            "seconds": None if took is None else took / 1e9,
            "tcp": self._server.tcp(),
            "error": loss and loss.fields(),
        }
        if took is None:
            self._report.bad(f"size={size}: {loss}", "ping_size", fields)
        else:
            self._report.good(f"size={size}: passes, time={milliseconds(took)} ms", "ping_size", fields)
            self._report.detail(self._server.local, self._server.tcp())
