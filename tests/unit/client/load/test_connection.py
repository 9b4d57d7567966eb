"""One connection of a load, against servers in this process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from echod.client.compare import Pattern
from echod.client.load.connection import StateCounts
from echod.client.load.loop import Loop, clock
from echod.client.load.modes import ClosedLoop
from echod.client.load.tally import Tally
from echod.client.load.transfer import PIECE
from tests.unit.client.load.test_generator import plan
from tests.unit.client.peers import DEADLINE, Behaviour, faithful, serving_all, silent


def leaves(connection: socket.socket, over: threading.Event) -> None:
    """Close cleanly, with nothing outstanding."""


@contextmanager
def driven(behaviour: Behaviour) -> Iterator[tuple[ClosedLoop, Loop, Tally]]:
    """A connection to a server of that behaviour, and the loop that drives it."""
    loop, tally = Loop(precise=False), Tally()
    with serving_all(behaviour) as port:
        connection = ClosedLoop(0, plan(port), Pattern(PIECE), loop, tally, StateCounts())
        connection.open(clock())
        try:
            yield connection, loop, tally
        finally:
            connection.give_up(is_late=False)
            loop.close()


def test_given_up() -> None:
    """An echo that is incomplete when the load gives up is outstanding; an example says which side failed."""
    with driven(silent) as (connection, loop, tally):
        connection.begin(clock())
        while not tally.sent:
            loop.turn()
        connection.finish(clock())
        connection.give_up(is_late=True)
    assert (tally.outstanding, tally.lost, tally.errors) == (1, 0, {})
    assert tally.examples["late"][0].startswith(
        "the echo was not complete in time: all acknowledged, nothing came back"
    )


def test_closed_with_nothing_outstanding() -> None:
    """A server that closes an idle connection is counted as such, and loses no message."""
    with driven(leaves) as (_, loop, tally):
        while not tally.errors:
            loop.turn()
    assert (tally.errors, tally.lost) == ({("closed", ""): 1}, 0)
    assert tally.examples["closed"][0] == "the server closed the idle connection: nothing had been sent"


def test_cut_short() -> None:
    """The end of a load cuts a message short: no byte is sent after it, and what was sent comes back in order."""
    stopped = threading.Event()

    def stalled(connection: socket.socket, over: threading.Event) -> None:
        assert stopped.wait(DEADLINE)
        faithful()(connection, over)

    counts = StateCounts()
    loop, tally = Loop(precise=False), Tally()
    with serving_all(stalled) as port:
        large = plan(port)
        large.size = 1 << 30
        connection = ClosedLoop(0, large, Pattern(PIECE), loop, tally, counts)
        connection.open(clock())
        connection.begin(clock())
        while not tally.sent:
            loop.turn()
        sent = tally.sent
        connection.finish(clock())
        stopped.set()
        while not counts.finished:
            loop.turn()
        loop.close()
    assert (tally.sent, tally.received) == (sent, sent)
    assert (tally.messages, tally.lost, tally.outstanding, tally.errors) == (0, 0, 0, {})
