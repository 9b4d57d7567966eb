"""status: the sentence that `systemctl status` shows."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from echod.parent.status import amount, clients, enumeration, failure, sentence
from echod.shared.counters import Totals


def test_the_sentence() -> None:
    """Where, who is there, who was there, and how much went back."""
    totals = Totals(clients_now=3, clients_total=12345, clients_refused=0, bytes_echoed=5 << 20)
    assert sentence(["127.0.0.1:7", "[::1]:7"], totals, adopted=False) == (
        "Echoing on 127.0.0.1:7 and [::1]:7: 3 clients now, 12,345 so far; 5.00 MiB echoed."
    )


def test_what_is_unusual_is_told() -> None:
    """Sockets that systemd passed, and clients that were refused."""
    totals = Totals(clients_now=1, clients_total=1, clients_refused=1000, bytes_echoed=1)
    assert sentence(["[::]:7"], totals, adopted=True) == (
        "Echoing on [::]:7 (sockets from systemd): 1 client now, 1 so far, 1,000 refused; 1 byte echoed."
    )


def test_what_somebody_should_mend_is_told() -> None:
    """Settings that sockets from systemd make idle, and a reload that was refused."""
    totals = Totals(clients_now=0, clients_total=0, clients_refused=0, bytes_echoed=0)
    assert sentence(
        ["[::]:7"], totals, adopted=True, overruled=["host", "port"], reload_refused="host does not resolve"
    ) == (
        "Echoing on [::]:7 (sockets from systemd, which overrule host and port): "
        "0 clients now, 0 so far; 0 bytes echoed; the last reload was refused: host does not resolve"
    )


@pytest.mark.parametrize(("count", "words"), [(0, "0 clients"), (1, "1 client"), (1000000, "1,000,000 clients")])
def test_clients(count: int, words: str) -> None:
    """One is singular."""
    assert clients(count) == words


@pytest.mark.parametrize(
    ("words", "expected"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_enumeration(words: list[str], expected: str) -> None:
    """The last is joined by a word."""
    assert enumeration(words) == expected


def test_a_failure_is_its_first_problem() -> None:
    """And how many more there are: all of them are in the journal."""
    assert failure(["port is wrong"]) == "port is wrong"
    assert failure(["port is wrong", "host is too", "as is this"]) == "port is wrong (and 2 more: see the journal)"


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.00 KiB"),
        (10239, "10.0 KiB"),
        (99 << 10, "99.0 KiB"),
        (999 << 10, "999 KiB"),
        ((1 << 20) - 1, "1.00 MiB"),
        (1 << 30, "1.00 GiB"),
        (1 << 40, "1.00 TiB"),
        (1 << 60, "1.00 EiB"),
        ((1 << 64) - 1, "16.0 EiB"),
        (1 << 72, "4096 EiB"),
    ],
)
def test_amounts(count: int, expected: str) -> None:
    """Up to all that the counters of all workers can hold."""
    assert amount(count) == expected


@given(st.integers(1024, (1 << 64) - 1))
@example(int(999.7 * 1024))
@example(int(9.996 * 1024))
@example(int(99.96 * 1024))
def test_amounts_have_three_digits(count: int) -> None:
    """Neither more nor less, so that the sentence doesn't dance about."""
    number, unit = amount(count).split()
    assert len(re.sub(r"\D", "", number)) == 3
    power = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB").index(unit)
    assert float(number) * 1024**power == pytest.approx(count, rel=0.006)
