"""How long an idle connection lives: an echo, silence, another echo, and a search by halving the silence.

A NAT, a firewall or a load balancer keeps a connection on which it sees any segment.  So echoc sends nothing at all
during a silence, not even a keepalive (tcp(7); a socket sends none by default), and the kernel's count of received
segments shows whether the server was silent as well.
"""

from __future__ import annotations

import time

from echod.client.errors import (
    ConnectError,
    EchoError,
    LostError,
    MismatchError,
    OverdueError,
    SurplusError,
    UntestableError,
)
from echod.client.ping.connection import GONE, Server
from echod.client.ping.report import Report
from echod.client.ping.statistics import milliseconds
from echod.client.text import counted

_PRECISION = 0.1
"""The search ends when the longest silence survived and the shortest not survived differ by at most this fraction of
the latter..."""

_NARROWEST = 0.05
"""...or by this many seconds, below which a busy machine would only measure its own delays."""

_JUST_BEFORE = 1 - _PRECISION / 2
"""The fraction of a silence to try next if the end of the connection was seen in it: the connection lived until then,
and it only remains to see an echo after a slightly shorter silence."""


class IdleSearch:
    """Tries a silence of `longest` seconds on the connection to `server`; if the connection does not
    survive it, tries shorter ones until its lifetime is known, or `limit` silences are over (None: no limit)."""

    kind = "ping_idle"

    def __init__(self, server: Server, report: Report, longest: float, limit: int | None) -> None:
        self._server, self._report, self._longest, self._limit = server, report, longest, limit
        self._silences = 0
        self._survived = 0.0
        self._lost: float | None = None
        self._quiet = True
        self._error: EchoError | ConnectError | None = None

    def open(self, deadline: float) -> None:
        """Make the first connection by `deadline`, of time.monotonic(); raises ConnectError."""
        self._server.open(deadline)

    def run(self) -> None:
        """Search; KeyboardInterrupt may end it at any time."""
        silence = self._longest
        try:
            while silence and self._silences != self._limit:
                self._server.echo()
                silence = self._next(self._try(silence))
        except (ConnectError, EchoError) as error:
            self._error = error
            wrong = isinstance(error, (MismatchError, SurplusError))
            self._report.bad(
                f"{'wrong echo' if wrong else 'no echo before the silence'}: {error.in_brief}",
                "ping_fault",
                {"after": self._silences, **self._server.ends(), "error": error.fields()},
            )

    def stop(self) -> None:
        """End the search; a silence that was not waited for does not count."""

    @property
    def exit_code(self) -> int:
        """0 if the connection survived the silence, 1 if it was lost or an echo wrong, 2 if there is no result."""
        if self._lost is not None or self._error:
            return EchoError.exit_code
        return 0 if self._survived else UntestableError.exit_code

    def lines(self) -> list[str]:
        """The result as text."""
        count = counted(self._silences, "silence")
        if self._lost is None and not self._survived:
            return [f"{count}, no result"]
        lines = [f"{count}, {self._verdict()}"]
        if not self._quiet:
            lines.append("the server was not silent; its segments may be what kept the connection open")
        return lines

    def short_line(self) -> str:
        """The intermediate result as text."""
        return self.lines()[0]

    def fields(self) -> dict[str, object]:
        """The result in the form that `--json` prints."""
        return {
            "size": self._server.size,
            **self._server.ends(),
            "wanted": self._longest,
            "silences": self._silences,
            "outlived": self._survived or None,
            "lost": self._lost,
            "quiet": self._quiet,
            "tcp": self._server.tcp(),
            "error": self._error and self._error.fields(),
        }

    def _verdict(self) -> str:
        if self._lost is None:
            return f"the connection survived {_seconds(self._survived)} of silence"
        if not self._survived:
            shorter = "; nothing shorter was tried" if self._silences == 1 else ", and survived nothing shorter"
            return f"an idle connection was lost after {_seconds(self._lost)}{shorter}"
        but = ", but another was lost after" if self._lost < self._survived else " and was lost after"
        return f"an idle connection survived {_seconds(self._survived)}{but} {_seconds(self._lost)}"

    def _try(self, wanted: float) -> bool:
        """Be silent; returns whether the connection's end was seen meanwhile.

        Raises MismatchError and SurplusError: the connection still exists, but its lifetime is unknown.
        """
        before = self._server.segments()
        began = time.perf_counter_ns()
        error: LostError | OverdueError | None = None
        took: int | None = None
        segments: int | None = None
        try:
            self._server.watch(began + round(wanted * 1e9))
        except GONE as ended:
            error = ended
        lasted = (time.perf_counter_ns() - began) / 1e9
        seen = error is not None
        if not seen:
            after = self._server.segments()
            segments = None if before is None or after is None else after - before
            try:
                took = self._server.echo()
            except GONE as lost:
                error = lost
        self._silences += 1
        if segments:
            self._quiet = False
        if error is None:
            self._survived = lasted  # longer than all before, or it would not have been tried
        else:
            self._lost = lasted if self._lost is None else min(self._lost, lasted)
        self._print(lasted, took, segments, seen, error)
        return seen

    def _next(self, seen: bool) -> float:
        """The silence to try next; 0 when there is none."""
        if self._lost is None or self._lost - self._survived <= max(_PRECISION * self._lost, _NARROWEST):
            return 0.0
        just_before = _JUST_BEFORE * self._lost
        return just_before if seen and just_before > self._survived else (self._survived + self._lost) / 2

    def _print(
        self, lasted: float, took: int | None, segments: int | None, seen: bool, error: EchoError | None
    ) -> None:
        line = f"silence={self._silences} lasted={_seconds(lasted)}"
        if took is not None:
            line += f": still connected, time={milliseconds(took)} ms"
        else:
            line += f": {'then' if seen else 'then no echo:'} {error}"
        fields = {
            "number": self._silences,
            "ok": error is None,
            **self._server.ends(),
            "silence": lasted,
            "segments": segments,
            "seconds": None if took is None else took / 1e9,
            "error": error and error.fields(),
        }
        (self._report.bad if error else self._report.good)(line, "ping_silence", fields)
        if segments:
            self._report.remark(
                f"silence={self._silences} was broken: the server sent {counted(segments, 'segment')} meanwhile, "
                "perhaps a keepalive"
            )


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value < 10 else f"{value:.1f} s"
