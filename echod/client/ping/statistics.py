"""The statistics of a ping: counted while it runs, and printed at its end in the format of ping(8)."""

from __future__ import annotations

import time

from echod.client.errors import ConnectError, EchoError, MismatchError, OverdueError, SurplusError
from echod.client.histogram import Histogram
from echod.client.text import counted

_RETRANSMISSION = 250_000_000
"""Nanoseconds: Linux retransmits a lost segment after the round trip and 200 ms (TCP_RTO_MIN in net/tcp.h)."""


class Outage:
    """From sending the first lost message, or from when the end of the connection was seen, to the next echo.

    `began` is of perf_counter_ns; `lost` is the number of messages lost meanwhile.
    """

    def __init__(self, began: int) -> None:
        self.began = began
        self.lost = 0
        self.nanoseconds = 0

    def __str__(self) -> str:
        return f"an outage of {self.nanoseconds / 1e9:.3f} s ({counted(self.lost, 'message')} lost)"

    def fields(self) -> dict[str, object]:
        """The outage in the form that `--json` prints."""
        return {"seconds": self.nanoseconds / 1e9, "lost": self.lost}


class Statistics:
    """Counts of messages, times and outages; times are nanoseconds, and points in time those of perf_counter_ns."""

    def __init__(self) -> None:
        self.transmitted = 0
        self.received = 0
        self.corrupted = 0
        self.errors = 0
        self.rtt = Histogram()
        self.connecting = Histogram()
        self.outage: Outage | None = None
        """The outage that has not ended."""
        self._outages = 0
        self._outage_total = 0
        self._outage_longest = 0
        self._outstanding_since: int | None = None
        self._began = time.perf_counter_ns()

    @property
    def flawless(self) -> bool:
        """Whether something was sent, all of it came back, and nothing else arrived."""
        return 0 < self.transmitted == self.received and not (self.corrupted or self.errors)

    def on_sending(self, now: int) -> None:
        """A message is sent, or would be if there were a connection."""
        if not self.transmitted:
            self._began = now
        self.transmitted += 1
        self._outstanding_since = now

    def on_echo(self, nanoseconds: int, connecting: int | None) -> Outage | None:
        """The echo arrived, `nanoseconds` after its message was sent; returns the outage that this ends.

        `connecting` is how many nanoseconds it took to make the connection, if it was made for this message.
        """
        self._outstanding_since = None
        self.received += 1
        self.rtt.record(nanoseconds)
        if connecting is not None:
            self.connecting.record(connecting)
        return self._end_outage()

    def on_loss(self, error: EchoError | ConnectError) -> None:
        """The echo did not arrive, or was wrong."""
        began, self._outstanding_since = self._outstanding_since, None
        self.on_fault(error, time.perf_counter_ns() if began is None else began)
        if self.outage:
            self.outage.lost += 1

    def on_fault(self, error: EchoError | ConnectError, now: int) -> None:
        """The connection is unusable; that alone loses no message."""
        if isinstance(error, (MismatchError, SurplusError)):
            self.corrupted += 1
        elif not isinstance(error, OverdueError):
            self.errors += 1
        if self.outage is None:
            self.outage = Outage(now)

    def stop(self) -> None:
        """End the ping, which may be while an echo is outstanding or an outage lasts.

        An outstanding echo counts as lost if it took longer than twice the longest time so far, which is how long
        ping(8) waits for its last echoes, and the time in which TCP repairs a loss.  Otherwise its message counts as
        not sent: Ctrl-C at `-i 0`, when an echo is always outstanding, shows no loss.  If nothing has come back at all,
        the message is lost at once.
        """
        now = time.perf_counter_ns()
        began, self._outstanding_since = self._outstanding_since, None
        enough = 2 * (self.rtt.greatest + self.connecting.greatest) + _RETRANSMISSION if self.received else 0
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
        """The summary as text, without its title."""
        counts = f"{counted(self.transmitted, 'message')} transmitted, {self.received} received"
        if self.corrupted:
            counts += f", +{self.corrupted} corrupted"
        if self.errors:
            counts += f", +{counted(self.errors, 'error')}"
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
                f"{counted(self._outages, 'outage')}, {self._outage_total / 1e9:.3f} s in total, "
                f"longest {self._outage_longest / 1e9:.3f} s"
            )
        if self.outage:
            lines.append(f"{self.outage} had not ended")
        return lines

    def short_line(self) -> str:
        """The intermediate result as text."""
        line = f"{self.received}/{self.transmitted} messages"
        if self.transmitted:
            line += f", {100 * (self.transmitted - self.received) // self.transmitted}% loss"
        if self.rtt.count:
            times = _joined(self.rtt.least, self.rtt.mean, self.rtt.percentile(50), self.rtt.greatest)
            line += f", min/avg/p50/max = {times}"
        return line

    def fields(self) -> dict[str, object]:
        """The summary in the form that `--json` prints."""
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
    """A time in milliseconds with the precision of ping(8): at least three digits, at most three decimals."""
    value = nanoseconds / 1e6
    for limit, decimals in ((0.9995, 3), (9.995, 2), (99.95, 1)):
        if value < limit:
            return f"{value:.{decimals}f}"
    return f"{value:.0f}"


def tcp_line(fields: dict[str, float]) -> str:
    """What TCP knows about the path (transport.statistics), in short."""
    return (
        f"tcp rtt/rttvar = {_joined(fields['rtt'] * 1e9, fields['rttvar'] * 1e9)}, {fields['retransmits']:.0f} "
        f"retransmits, {fields['lost']:.0f} lost, mss {fields['mss']:.0f}, pmtu {fields['pmtu']:.0f}"
    )


def _spread(times: Histogram) -> str:
    return "min/avg/max/mdev = " + _joined(times.least, times.mean, times.greatest, times.deviation)


def _joined(*nanoseconds: float) -> str:
    return "/".join(f"{value / 1e6:.3f}" for value in nanoseconds) + " ms"
