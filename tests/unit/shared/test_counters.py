"""counters: written by the workers, read by the parent and the other workers."""

import os

from echod.shared.counters import Counters, Totals


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
        row.bytes_echoed = 10**12 * factor
        row.clients_refused += 1
        row.clients_refused += 1
        row.ticks += 1
        row.accepting = True
        row.handed_over += 10 * factor
    assert [row.handed_over for row in counters.rows] == [10, 20]
    assert counters.clients_now() == 3
    assert counters.totals() == Totals(clients_now=3, clients_total=2, clients_refused=4, bytes_echoed=3 * 10**12)
    assert [(row.clients_now, row.bytes_echoed, row.ticks, row.accepting) for row in counters.rows] == [
        (1, 10**12, 1, True),
        (2, 2 * 10**12, 1, True),
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
    pid = os.fork()
    if not pid:
        counters.rows[1].clients_now = 5
        counters.rows[1].bytes_echoed = 2**60
        counters.rows[1].clients_total += 1
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert counters.totals() == Totals(clients_now=5, clients_total=1, clients_refused=0, bytes_echoed=2**60)


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
