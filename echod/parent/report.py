"""How things are, for systemd: when echod is ready, whether it is well, and a sentence for `systemctl status`."""

from collections.abc import Callable, Sequence

from echod.parent import status
from echod.shared.counters import Totals
from echod.systemd.notify import Notifier

STATUS_EVERY = 1.0
"""Seconds between two updates of the sentence, at least; there is none while nothing changes."""


class Report:
    """Tells `notifier` of an echod whose `totals` these are, and which listens where systemd says if `adopted`.

    `watchdog` is how many seconds systemd waits for a sign of life, if it does; `tick` how many there are between two
    calls of `beat`.
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
        self._status = ""
        self._status_at = 0.0
        self._overruled: Sequence[str] = ()
        self._refused = ""
        self._ready = False
        self._stopping = ""

    def ready(self, now: float, addresses: Sequence[str], *, overruled: Sequence[str], refused: str) -> None:
        """Say that the service is up at `addresses`, or that it is done with reloading.

        `refused` is why it has not taken what it was to reload, if it has not.
        `overruled` are the settings that the sockets from systemd make idle.
        """
        self._addresses, self._overruled, self._refused = addresses, overruled, refused
        if not self._ready:
            self._ready, self._watchdog_at = True, now
        self._status, self._status_at = self._sentence(), now
        self._notifier.ready(self._status)

    def beat(self, now: float, *, well: bool) -> None:
        """Say what it is time to say."""
        self._notifier.send_late()
        due = self._watchdog_every is not None and now - self._watchdog_at >= self._watchdog_every
        if due and well and self._notifier.watchdog():
            self._watchdog_at = now
        if self._ready and now - self._status_at >= STATUS_EVERY:
            sentence = self._sentence()
            if sentence != self._status and self._notifier.status(sentence):
                self._status, self._status_at = sentence, now

    def stopping(self, seconds: float, *, hands_over: bool) -> None:
        """Say that the service is going down, which may take so long, and who is still there."""
        self._stopping = "Restarting: {} to hand over." if hands_over else "Stopping: {} to finish."
        self._notifier.stopping(self._sentence(), seconds)

    def _sentence(self) -> str:
        totals = self._totals()
        if self._stopping:
            return self._stopping.format(status.clients(totals.clients_now))
        return status.sentence(
            self._addresses,
            totals,
            adopted=self._adopted,
            overruled=self._overruled,
            reload_refused=self._refused,
        )
