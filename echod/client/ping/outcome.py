"""What a ping has seen: counted while it runs, and told at its end in ping(8)'s words."""

from __future__ import annotations

import time

from echod.client.faults import ConnectError, EchoError, MismatchError, OverdueError, SurplusError
from echod.client.histogram import Histogram

_REPAIR = 250_000_000
"""Nanoseconds: Linux sends a lost segment again after the round trip and 200 ms (TCP_RTO_MIN in net/tcp.h)."""


class Outage:
    """The time from the first message that was lost, or from when the connection was seen to end, to the next echo.

    `began` is of perf_counter_ns; `lost` is how many messages were lost meanwhile.
    """

    def __init__(self, began: int) -> None:
        self.began = began
        self.lost = 0
        self.nanoseconds = 0

    def __str__(self) -> str:
        lost = f"{self.lost} message" if self.lost == 1 else f"{self.lost} messages"
        return f"an outage of {self.nanoseconds / 1e9:.3f} s ({lost} lost)"

    def fields(self) -> dict[str, object]:
        """The outage as `--json` tells it."""
        return {"seconds": self.nanoseconds / 1e9, "lost": self.lost}


class Outcome:
    """Counts of messages, times and outages; times are nanoseconds, and points in time those of perf_counter_ns."""

    def __init__(self) -> None:
        self.transmitted = 0
        self.received = 0
        self.corrupted = 0
        self.errors = 0
        self.rtt = Histogram()
        self.connecting = Histogram()
        self.outage: Outage | None = None
        """The one that has not ended."""
        self._outages = 0
        self._outage_total = 0
        self._outage_longest = 0
        self._awaited_since: int | None = None
        self._began = time.perf_counter_ns()

    @property
    def flawless(self) -> bool:
        """Whether something was sent, all of it came back, and nothing else did."""
        return 0 < self.transmitted == self.received and not (self.corrupted or self.errors)

    def on_sending(self, now: int) -> None:
        """A message is sent, or would be if there were a connection."""
        if not self.transmitted:
            self._began = now
        self.transmitted += 1
        self._awaited_since = now

    def on_echo(self, nanoseconds: int, connecting: int | None) -> Outage | None:
        """Its echo came; with `connecting`, over a connection that it took so long to make.  Returns the outage that
        this ends."""
        self._awaited_since = None
        self.received += 1
        self.rtt.record(nanoseconds)
        if connecting is not None:
            self.connecting.record(connecting)
        return self._end_outage()

    def on_loss(self, error: EchoError | ConnectError) -> None:
        """Its echo did not come, or was wrong."""
        began, self._awaited_since = self._awaited_since, None
        self.on_fault(error, time.perf_counter_ns() if began is None else began)
        if self.outage:
            self.outage.lost += 1

    def on_fault(self, error: EchoError | ConnectError, now: int) -> None:
        """The connection can't be used any more; no message need be lost by that."""
        if isinstance(error, (MismatchError, SurplusError)):
            self.corrupted += 1
        elif not isinstance(error, OverdueError):
            self.errors += 1
        if self.outage is None:
            self.outage = Outage(now)

    def stop(self) -> None:
        """Nobody waits any longer, for the echo that may be out or the end of an outage.

        As ping(8) waits for its last ones for twice the longest time so far, it is lost only after that, and after the
        time that TCP takes to repair a loss; before, it is as if the message had not been sent.  So Ctrl-C at `-i 0`,
        when there always is one out, finds no loss.  Where nothing has come back at all, everything is lost at once.
        """
        now = time.perf_counter_ns()
        began, self._awaited_since = self._awaited_since, None
        enough = 2 * (self.rtt.greatest + self.connecting.greatest) + _REPAIR if self.received else 0
        if began is not None and now - began < enough:
            self.transmitted -= 1
        elif began is not None:
            self.outage = self.outage or Outage(began)
            self.outage.lost += 1
        if self.outage:
            self.outage.nanoseconds = now - self.outage.began

    def _end_outage(self) -> Outage | None:
        ended, self.outage = self.outage, None
        if ended:
            ended.nanoseconds = time.perf_counter_ns() - ended.began
            self._outages += 1
            self._outage_total += ended.nanoseconds
            self._outage_longest = max(self._outage_longest, ended.nanoseconds)
        return ended

    def lines(self) -> list[str]:
        """The summary, without its title."""
        counts = f"{self.transmitted} messages transmitted, {self.received} received"
        if self.corrupted:
            counts += f", +{self.corrupted} corrupted"
        if self.errors:
            counts += f", +{self.errors} errors"
        if self.transmitted:
            loss = 100 * (self.transmitted - self.received) / self.transmitted
            counts += f", {loss:g}% loss, time {round(self._elapsed / 1e6)}ms"
        lines = [counts]
        if self.rtt.count:
            lines.append(f"rtt {_spread(self.rtt)}")
            lines.append(f"rtt p50/p99 = {_joined(self.rtt.percentile(50), self.rtt.percentile(99))}")
        if self.connecting.count:
            lines.append(f"connect {_spread(self.connecting)}")
        if self._outages:
            lines.append(
                f"{self._outages} outage{'s' * (self._outages > 1)}, {self._outage_total / 1e9:.3f} s in all, "
                f"the longest {self._outage_longest / 1e9:.3f} s"
            )
        if self.outage:
            lines.append(f"{self.outage} had not ended")
        return lines

    def short_line(self) -> str:
        """How it goes so far."""
        line = f"{self.received}/{self.transmitted} messages"
        if self.transmitted:
            line += f", {100 * (self.transmitted - self.received) // self.transmitted}% loss"
        if self.rtt.count:
            times = _joined(self.rtt.least, self.rtt.mean, self.rtt.percentile(50), self.rtt.greatest)
            line += f", min/avg/p50/max = {times}"
        return line

    def fields(self) -> dict[str, object]:
        """The summary as `--json` tells it."""
        lost = self.transmitted - self.received
        return {
            "transmitted": self.transmitted,
            "received": self.received,
            "corrupted": self.corrupted,
            "errors": self.errors,
            "loss": lost / self.transmitted if self.transmitted else None,
            "seconds": self._elapsed / 1e9,
            "rtt": self.rtt.fields(),
            "connect": self.connecting.fields(),
            "outages": {
                "count": self._outages,
                "seconds": self._outage_total / 1e9,
                "longest": self._outage_longest / 1e9,
                "unended": self.outage.fields() if self.outage else None,
            },
        }

    @property
    def _elapsed(self) -> int:
        return time.perf_counter_ns() - self._began


def milliseconds(nanoseconds: int) -> str:
    """A time in milliseconds with ping(8)'s precision: three digits or more, no more than three decimals."""
    value = nanoseconds / 1e6
    for limit, decimals in ((0.9995, 3), (9.995, 2), (99.95, 1)):
        if value < limit:
            return f"{value:.{decimals}f}"
    return f"{value:.0f}"


def _spread(times: Histogram) -> str:
    return "min/avg/max/mdev = " + _joined(times.least, times.mean, times.greatest, times.deviation)


def _joined(*nanoseconds: float) -> str:
    return "/".join(f"{value / 1e6:.3f}" for value in nanoseconds) + " ms"
