"""How long a quiet connection lives: after an echo silence, then another echo, and the silence by halving.

Any segment on a connection makes a NAT, a firewall or a balancer keep it.  So nothing at all is sent meanwhile, no
keepalive either (tcp(7); a socket has none unless it is asked for), and how many segments the kernel has received
tells whether the other end was as quiet.
"""

from __future__ import annotations

import time

from echod.client.faults import (
    ConnectError,
    EchoError,
    LostError,
    MismatchError,
    OverdueError,
    SurplusError,
    UntestableError,
)
from echod.client.ping.link import Link
from echod.client.ping.outcome import milliseconds
from echod.client.ping.report import Report

_PRECISION = 0.1
"""The search ends when what was outlived and what was not are no further apart than this part of the latter..."""

_NARROWEST = 0.05
"""...or so many seconds, where a busy machine would only find its own delays."""

_GONE = (LostError, OverdueError)
"""The errors of a connection that a silence has ended.  With any other there was one, but no echo."""

_JUST_BEFORE = 1 - _PRECISION / 2
"""Of a silence during which the connection ended, the part that is tried next: its end was seen, so it lived until
then, and what remains is to see an echo after not much less."""


class Search:
    """Tries over `link`, which is open, a silence of `longest` seconds, and where the connection does not outlive that
    shorter ones, until it is known how long it lives, or `limit` silences are over (None: however many it takes)."""

    kind = "ping_idle"

    def __init__(self, link: Link, report: Report, longest: float, limit: int | None) -> None:
        self._link, self._report, self._longest, self._limit = link, report, longest, limit
        self._silences = 0
        self._outlived = 0.0
        self._lost: float | None = None
        self._quiet = True
        self._error: EchoError | ConnectError | None = None

    def run(self) -> None:
        """Search; KeyboardInterrupt may end it at any time."""
        silence = self._longest
        try:
            while silence and self._silences != self._limit:
                self._link.echo()
                silence = self._next(self._try(silence))
        except (ConnectError, EchoError) as error:
            self._error = error
            wrong = isinstance(error, (MismatchError, SurplusError))
            self._report.bad(
                f"{'wrong echo' if wrong else 'no silence without an echo before it'}: {error.in_brief}",
                "ping_fault",
                {"after": self._silences, "address": self._link.address, "error": error.fields()},
            )

    def stop(self) -> None:
        """A silence that was not waited for does not count."""

    @property
    def exit_code(self) -> int:
        """0 where the connection outlived the silence, 1 where it was lost or wrong, 2 where nothing is known."""
        if self._lost is not None or self._error:
            return EchoError.exit_code
        return 0 if self._outlived else UntestableError.exit_code

    def lines(self) -> list[str]:
        """What is known, for people."""
        count = f"{self._silences} silence" if self._silences == 1 else f"{self._silences} silences"
        if self._lost is None and not self._outlived:
            return [f"{count}, nothing is known"]
        lines = [f"{count}, {self._verdict()}"]
        if not self._quiet:
            lines.append("the other end was not silent; its segments may be what kept the connection")
        return lines

    def short_line(self) -> str:
        """How it goes so far."""
        return self.lines()[0]

    def fields(self) -> dict[str, object]:
        """What is known, for programs."""
        return {
            "address": self._link.address or None,
            "wanted": self._longest,
            "silences": self._silences,
            "outlived": self._outlived or None,
            "lost": self._lost,
            "quiet": self._quiet,
            "error": self._error and self._error.fields(),
        }

    def _verdict(self) -> str:
        if self._lost is None:
            return f"the connection was still there after {_seconds(self._outlived)} of it"
        if not self._outlived:
            shorter = "; nothing shorter was tried" if self._silences == 1 else ", and outlived nothing shorter"
            return f"a quiet connection was gone after {_seconds(self._lost)}{shorter}"
        if self._lost < self._outlived:
            return (
                f"a quiet connection outlived {_seconds(self._outlived)}, "
                f"but another was gone after {_seconds(self._lost)}"
            )
        return f"a quiet connection lived for {_seconds(self._outlived)} and was gone after {_seconds(self._lost)}"

    def _try(self, wanted: float) -> bool:
        """Be silent; returns whether the connection's end was seen meanwhile.

        Raises MismatchError and SurplusError: the connection is still there, but what it is worth is not known.
        """
        before = self._link.segments()
        began = time.perf_counter_ns()
        error: LostError | OverdueError | None = None
        took: int | None = None
        segments: int | None = None
        try:
            self._link.watch(began + round(wanted * 1e9))
        except _GONE as ended:
            error = ended
        lasted = (time.perf_counter_ns() - began) / 1e9
        seen = error is not None
        if not seen:
            after = self._link.segments()
            segments = None if before is None or after is None else after - before
            try:
                took = self._link.echo()
            except _GONE as lost:
                error = lost
        self._silences += 1
        if segments:
            self._quiet = False
        if error is None:
            self._outlived = lasted  # longer than those before, or it would not have been tried
        else:
            self._lost = lasted if self._lost is None else min(self._lost, lasted)
        self._tell(lasted, took, segments, seen, error)
        return seen

    def _next(self, seen: bool) -> float:
        """The silence to try next; 0 when there is none."""
        if self._lost is None or self._lost - self._outlived <= max(_PRECISION * self._lost, _NARROWEST):
            return 0.0
        just_before = _JUST_BEFORE * self._lost
        return just_before if seen and just_before > self._outlived else (self._outlived + self._lost) / 2

    def _tell(self, lasted: float, took: int | None, segments: int | None, seen: bool, error: EchoError | None) -> None:
        line = f"silence={self._silences} lasted={_seconds(lasted)}"
        if took is not None:
            line += f": still there, time={milliseconds(took)} ms"
        else:
            line += f": {'then' if seen else 'then no echo,'} {error}"
        fields = {
            "number": self._silences,
            "ok": error is None,
            "address": self._link.address,
            "silence": lasted,
            "segments": segments,
            "seconds": None if took is None else took / 1e9,
            "error": error and error.fields(),
        }
        (self._report.bad if error else self._report.good)(line, "ping_silence", fields)
        if segments:
            count = f"{segments} segment" if segments == 1 else f"{segments} segments"
            self._report.remark(
                f"silence={self._silences} was none: the other end sent {count} meanwhile, a keepalive perhaps"
            )


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value < 10 else f"{value:.1f} s"
