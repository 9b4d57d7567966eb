"""counters: written by the workers, read by the parent and the other workers."""

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.shared.counters import Counters, Totals, WorkerCounters
from echod.shared.messages import FalseData


def test_all_begin_at_nothing() -> None:
    """At first all counters are 0, and no worker accepts."""
    counters = Counters(3)
    assert counters.totals() == Totals(0, 0, 0, 0)
    assert not any(row.accepting for row in counters.rows)


def test_rows_add_up() -> None:
    """The totals are the sums of all rows, column by column."""
    counters = Counters(2)
    for factor, row in enumerate(counters.rows, 1):
        row.clients_now = 1 * factor
        row.clients_total += 1
        row.bytes_echoed = 10**11 * factor
        row.clients_refused += 1
        row.clients_refused += 1
        row.ticks += 1
        row.accepting = True
        row.handed_over += 10 * factor
    assert [row.handed_over for row in counters.rows] == [10, 20]
    counters.clients_max = 20
    assert counters.clients_now() == 3
    assert counters.totals() == Totals(clients_now=3, clients_total=2, clients_refused=4, bytes_echoed=3 * 10**11)
    assert [(row.clients_now, row.bytes_echoed, row.ticks, row.accepting) for row in counters.rows] == [
        (1, 10**11, 1, True),
        (2, 2 * 10**11, 1, True),
    ]


def test_what_was_before() -> None:
    """Earlier totals are added, except the number of clients now, which the rows contain."""
    counters = Counters(1)
    counters.before = Totals(1, 20, 300, 4000)
    counters.rows[0].clients_total += 1
    assert counters.totals() == Totals(0, 21, 300, 4000)


def test_a_worker_counts_where_the_parent_sees_it() -> None:
    """The memory is shared over a fork, and the counts outlive the worker."""
    counters = Counters(2)
    counters.clients_max = 5
    pid = os.fork()
    if not pid:
        counters.rows[1].clients_now = 5
        counters.rows[1].bytes_echoed = 2**30
        counters.rows[1].clients_total += 1
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert counters.totals() == Totals(clients_now=5, clients_total=1, clients_refused=0, bytes_echoed=2**30)


def test_a_successor_goes_on_counting() -> None:
    """When a worker dies, its clients are cleared, but its totals stay."""
    counters = Counters(1)
    (row,) = counters.rows
    row.clients_now, row.bytes_echoed, row.accepting, row.available = 7, 1000, True, True
    row.clients_total += 1
    row.clients_refused += 1
    row.ticks += 1
    row.vacate()
    assert counters.totals() == Totals(clients_now=0, clients_total=1, clients_refused=1, bytes_echoed=1000)
    assert (row.accepting, row.available, row.ticks) == (False, False, 1)


NAMES = [name for name, _ in WorkerCounters._fields_]
FALSE: list[tuple[str, int]] = [
    ("clients_now", 12),
    ("clients_now", 2**63),
    ("clients_total", 2**32),
    ("clients_total", 6),  # fewer than before
    ("clients_refused", 2**64 - 1),
    ("bytes_echoed", 2**64 - 1),
    ("bytes_echoed", 999),
    ("bytes_live", 2**64 - 1),
    ("handed_over", 11),
    ("accepting", 2),
    ("available", 2),
]


def believed() -> Counters:
    """Counters whose numbers have been believed."""
    counters = Counters(2)
    counters.clients_max = 10
    (row, _) = counters.rows
    row.clients_now, row.clients_total, row.bytes_echoed, row.bytes_live = 5, 7, 1000, 500
    counters.check(0)
    return counters


@pytest.mark.parametrize(("name", "value"), FALSE)
def test_a_number_that_is_not_possible(name: str, value: int) -> None:
    """A number that is not possible is false data, and the parent uses the last possible numbers of that worker."""
    counters = believed()
    setattr(counters.rows[0], name, value)
    with pytest.raises(FalseData, match=f"its counter {name} is {value}, not from "):
        counters.check(0)
    assert counters.totals() == Totals(clients_now=5, clients_total=7, clients_refused=0, bytes_echoed=1000)
    counters.end(0, echoed=600)
    assert counters.totals() == Totals(clients_now=0, clients_total=7, clients_refused=0, bytes_echoed=1100)
    counters.check(0)


def test_as_many_clients_as_are_possible() -> None:
    """A worker may have as many clients as all together, and hold one place more while it accepts."""
    counters = believed()
    counters.rows[0].clients_now = 11
    counters.check(0)
    assert counters.totals().clients_now == 11


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(-(2**64), 2**65)), st.integers(0, 2**64))
def test_whatever_a_worker_writes(values: dict[str, Any], echoed: int) -> None:
    """Reading raises nothing but `FalseData`, and the totals never shrink, whatever is in a row."""
    counters = believed()
    for name, value in values.items():
        setattr(counters.rows[0], name, value)
    before = counters.totals()
    counters.end(0, min(echoed, 2**62))
    after = counters.totals()
    assert 0 <= before.clients_now <= 11
    assert after.clients_total >= before.clients_total
    assert after.bytes_echoed >= before.bytes_echoed >= 1000
