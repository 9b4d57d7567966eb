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
from tests.unit.client.peers import Behaviour, serving_all, silent


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
            connection.give_up()
            loop.close()


def test_given_up() -> None:
    """An echo that is incomplete when the load gives up is late, not silent."""
    with driven(silent) as (connection, loop, tally):
        connection.begin(clock())
        while not tally.sent:
            loop.turn()
        connection.give_up()
    assert tally.errors == {("late", ""): 1}
    assert tally.examples["late"].startswith("the echo was not complete in time: 0 of 64 bytes sent came back")
    assert tally.lost == 1


def test_closed_with_nothing_outstanding() -> None:
    """A server that closes an idle connection is counted as such, and loses no message."""
    with driven(leaves) as (_, loop, tally):
        while not tally.errors:
            loop.turn()
    assert (tally.errors, tally.lost) == ({("closed", ""): 1}, 0)
    assert tally.examples["closed"] == "the server closed the idle connection: nothing had been sent"
