"""parent.status: the sentence for `systemctl status`, and when it is sent."""

import pytest

from echod.parent.status import Reloads, StatusReporter, failure, serving
from echod.shared.counters import Totals
from echod.systemd.notify import Notifier

NONE = Reloads(0, under_way=False, failure="")
NOTHING = Totals(clients_now=0, clients_total=0, clients_refused=0, bytes_echoed=0)


def test_the_sentence() -> None:
    """It says where echod listens, how many connections there are and were, and how many bytes were echoed."""
    totals = Totals(clients_now=3, clients_total=12345, clients_refused=0, bytes_echoed=5 << 20)
    assert serving(["127.0.0.1:7", "[::1]:7"], totals, adopted=False, overruled=[], reloads=NONE) == (
        "Echoing on 127.0.0.1:7 and [::1]:7: 3 connections now, 12,345 in total; 5.00 MiB echoed."
    )


def test_what_is_unusual() -> None:
    """It names sockets that systemd passed, and counts refused connections."""
    totals = Totals(clients_now=1, clients_total=1, clients_refused=1000, bytes_echoed=1)
    assert serving(["[::]:7"], totals, adopted=True, overruled=[], reloads=NONE) == (
        "Echoing on [::]:7 (sockets from systemd): 1 connection now, 1 in total, 1,000 refused; 1 byte echoed."
    )


def test_what_needs_attention() -> None:
    """It names the settings that sockets from systemd override, and why the last reload failed."""
    failed = Reloads(0, under_way=False, failure="host does not resolve")
    assert serving(["[::]:7"], NOTHING, adopted=True, overruled=["host", "port"], reloads=failed) == (
        "Echoing on [::]:7 (sockets from systemd, which override host and port): "
        "0 connections now, 0 in total; 0 bytes echoed; last reload failed: host does not resolve"
    )


@pytest.mark.parametrize(("count", "end"), [(8, "6, 7 and 8:"), (9, "7, 8 and 1 more:"), (500, "7, 8 and 492 more:")])
def test_many_addresses(count: int, end: str) -> None:
    """Of many addresses it has the first ones, so that the rest of the sentence is not cut off."""
    sentence = serving(
        [str(number) for number in range(1, count + 1)], NOTHING, adopted=False, overruled=[], reloads=NONE
    )
    assert (
        sentence
        == f"Echoing on 1, 2, 3, 4, 5, {'6, ' * (count > 8)}{end} 0 connections now, 0 in total; 0 bytes echoed."
    )


def test_the_counters_do_not_contradict_each_other() -> None:
    """A worker takes a place before it accepts: the total is never below the number of connections now."""
    totals = Totals(clients_now=1, clients_total=0, clients_refused=0, bytes_echoed=0)
    assert serving(["[::1]:7"], totals, adopted=False, overruled=[], reloads=NONE) == (
        "Echoing on [::1]:7: 1 connection now, 1 in total; 0 bytes echoed."
    )


def test_a_failure_is_its_first_problem() -> None:
    """A failure with several problems has the first, and the number of the others."""
    assert failure(["port is wrong"]) == "port is wrong"
    assert failure(["port is wrong", "host is too", "as is this"]) == "port is wrong (and 2 more: see the journal)"


class Recorded(Notifier):
    """A notifier that records messages instead of sending them."""

    def __init__(self) -> None:
        super().__init__({})
        self.sent: list[str] = []

    def ready(self, status: str) -> None:
        """Keep the sentence of READY=1."""
        self.sent.append(status)

    def status(self, status: str) -> bool:
        """Keep the sentence of STATUS=."""
        self.sent.append(status)
        return True

    def reloading(self, status: str) -> None:
        """Keep the sentence of RELOADING=1."""
        self.sent.append(status)

    def stopping(self, status: str, seconds: float) -> None:
        """Keep the sentence of STOPPING=1."""
        self.sent.append(status)


class Reporting:
    """A reporter, and the totals that it reports."""

    def __init__(self, tick: float) -> None:
        self.notifier = Recorded()
        self.totals = NOTHING
        self.reporter = StatusReporter(self.notifier, lambda: self.totals, adopted=False, watchdog=None, tick=tick)

    def beat(self, now: float, bytes_echoed: int) -> bool:
        """Whether the status is sent at this time, with that many bytes echoed."""
        self.totals = Totals(clients_now=0, clients_total=0, clients_refused=0, bytes_echoed=bytes_echoed)
        before = len(self.notifier.sent)
        self.reporter.beat(now, well=True)
        return len(self.notifier.sent) > before


def test_the_status_is_sent_when_it_has_changed() -> None:
    """If beats are a second apart, the status is sent at each beat, even at one soon after a reload."""
    reporting = Reporting(tick=1.0)
    assert not reporting.beat(99.0, 0)  # not ready yet
    reporting.reporter.ready(100.0, ["[::1]:7"], overruled=[], refused="")
    assert [reporting.beat(now, count) for now, count in [(100.25, 1), (101.25, 1), (102.24, 2)]] == [True, False, True]


def test_the_status_is_not_sent_at_every_beat() -> None:
    """When a watchdog makes beats more frequent than once a second, a status that always changes skips some of them."""
    reporting = Reporting(tick=0.25)
    reporting.reporter.ready(10.0, ["[::1]:7"], overruled=[], refused="")
    beats = [10.0 + number / 4 for number in range(1, 8)]
    assert [now for now in beats if reporting.beat(now, round(now * 4))] == [10.75, 11.5]


def test_reloads_are_counted() -> None:
    """The sentence counts the reloads that have ended, failed ones too, and says when one is under way."""
    reporting = Reporting(tick=1.0)
    sent = reporting.notifier.sent
    for refused, end in (("", "."), ("a reason", "; last reload failed: a reason"), ("", ".")):
        reporting.reporter.ready(10.0, ["[::1]:7"], overruled=[], refused=refused)
        reporting.reporter.reloading()
        assert [sentence.partition(" echoed")[2] for sentence in sent[-2:]] == [
            f"{['', '; 1 reload', '; 2 reloads'][len(sent) // 2 - 1]}{under_way}{end}"
            for under_way in ("", "; reloading")
        ]


@pytest.mark.parametrize(
    ("count", "hands_over", "sentence"),
    [
        (1, False, "Stopping: draining 1 connection."),
        (2, False, "Stopping: draining 2 connections."),
        (2000, True, "Restarting: handing over 2,000 connections."),
    ],
)
def test_stopping(count: int, hands_over: bool, sentence: str) -> None:
    """While echod stops, the sentence says what it does with the connections."""
    reporting = Reporting(tick=1.0)
    reporting.totals = Totals(clients_now=count, clients_total=count, clients_refused=0, bytes_echoed=0)
    reporting.reporter.stopping(5.0, hands_over=hands_over)
    assert reporting.notifier.sent == [sentence]
