"""The status of echod for systemd: READY=1, WATCHDOG=1, and the sentence that `systemctl status` shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from echod.log.words import amount, enumeration, plural
from echod.shared.counters import Totals
from echod.systemd.fdstore import DescriptorStore
from echod.systemd.notify import Notifier

STATUS_EVERY = 1.0
"""Seconds between two updates of the sentence; it is sent only if it has changed."""

ADDRESSES_MAX = 8
"""Most addresses in the sentence; the path of a unix socket has up to 107 bytes."""


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """The connection to systemd, which expects WATCHDOG=1 every `watchdog` seconds, or not at all if that is None.

    With `hangup_stops` echod runs at a terminal, whose SIGHUP stops it.
    """

    notifier: Notifier
    store: DescriptorStore
    watchdog: float | None
    hangup_stops: bool


class Reloads(NamedTuple):
    """How many reloads have ended, whether one is under way, and why the last one failed; empty if it succeeded."""

    ended: int
    under_way: bool
    failure: str


class StatusReporter:
    """Sends the status to systemd by `notifier`, with the counters that `totals` returns.

    `adopted` says whether systemd passed the listening sockets.  `watchdog` is the number of seconds within which
    systemd expects WATCHDOG=1, None if it expects none; `tick` is the number of seconds between two calls of `beat`.
    """

    def __init__(
        self,
        notifier: Notifier,
        totals: Callable[[], Totals],
        *,
        adopted: bool,
        watchdog: float | None,
        tick: float,
    ) -> None:
        self._notifier = notifier
        self._totals = totals
        self._addresses: Sequence[str] = ()
        self._adopted = adopted
        self._watchdog_every = watchdog / 2 - tick / 2 if watchdog else None
        self._watchdog_at = 0.0
        # A beat less than one tick before the end of the interval sends the status, since the next one would be late.
        self._status_every = STATUS_EVERY - tick
        self._status_at = 0.0
        self._status = ""
        self._overruled: Sequence[str] = ()
        self._ready = False
        self._reloads = Reloads(0, under_way=False, failure="")
        self._stopping = ""

    def ready(self, now: float, addresses: Sequence[str], *, overruled: Sequence[str], refused: str) -> None:
        """Report that the service is ready at `addresses`, or that a reload is finished.

        `refused` is why the last reload failed, empty if it succeeded; `overruled` are the settings that the sockets
        from systemd override.
        """
        self._addresses, self._overruled = addresses, overruled
        self._reloads = Reloads(self._reloads.ended + self._ready, under_way=False, failure=refused)
        if not self._ready:
            self._ready, self._watchdog_at = True, now
        self._status, self._status_at = self.sentence(), now
        self._notifier.ready(self._status)

    def reloading(self) -> None:
        """Report that a reload has begun; `ready` reports its end."""
        self._reloads = self._reloads._replace(under_way=True)
        self._status = self.sentence()
        self._notifier.reloading(self._status)

    def beat(self, now: float, *, well: bool) -> None:
        """Send what is due: WATCHDOG=1 if all workers are `well`, and the sentence if it has changed."""
        self._notifier.send_waiting()
        due = self._watchdog_every is not None and now - self._watchdog_at >= self._watchdog_every
        if due and well and self._notifier.watchdog():
            self._watchdog_at = now
        if self._ready and now - self._status_at >= self._status_every:
            sentence = self.sentence()
            if sentence != self._status and self._notifier.status(sentence):
                self._status, self._status_at = sentence, now

    def stopping(self, seconds: float, *, hands_over: bool) -> None:
        """Report that the service stops, that this may take `seconds`, and how many connections are left."""
        self._stopping = "Restarting: handing over {}." if hands_over else "Stopping: draining {}."
        self._notifier.stopping(self.sentence(), seconds)

    def sentence(self) -> str:
        """The sentence for people, as of now."""
        totals = self._totals()
        if self._stopping:
            return self._stopping.format(plural(totals.clients_now, "connection"))
        return serving(
            self._addresses,
            totals,
            adopted=self._adopted,
            overruled=self._overruled,
            reloads=self._reloads,
        )


def serving(
    addresses: Sequence[str],
    totals: Totals,
    *,
    adopted: bool,
    overruled: Sequence[str],
    reloads: Reloads,
) -> str:
    """The sentence while echod serves: its addresses, connections and bytes, and anything that needs attention.

    `overruled` are the settings that the sockets from systemd override.  The script ask-reload reads the end.
    """
    by = " (sockets from systemd)" if adopted else ""
    if overruled:
        by = f" (sockets from systemd, which override {enumeration(overruled)})"
    # A worker takes a place before it accepts, and adds to the total afterwards; the status may be sent in between.
    total = max(totals.clients_total, totals.clients_now)
    turned_away = f", {totals.clients_refused:,} refused" if totals.clients_refused else ""
    counted = f"; {plural(reloads.ended, 'reload')}" if reloads.ended else ""
    under_way = "; reloading" if reloads.under_way else ""
    failed = f"; last reload failed: {reloads.failure}" if reloads.failure else "."
    return (
        f"Echoing on {_listed(addresses)}{by}: {plural(totals.clients_now, 'connection')} now, "
        f"{total:,} in total{turned_away}; {amount(totals.bytes_echoed)} echoed{counted}{under_way}{failed}"
    )


def _listed(addresses: Sequence[str]) -> str:
    """The addresses, or the first ones and the number of the others: what follows must not be cut off."""
    others = len(addresses) - ADDRESSES_MAX
    return enumeration([*addresses[:ADDRESSES_MAX], f"{others} more"] if others > 0 else addresses)


def failure(problems: Sequence[str]) -> str:
    """The sentence for a start or a reload that failed."""
    first, *more = problems
    return f"{first} (and {len(more)} more: see the journal)" if more else first
