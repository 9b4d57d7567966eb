"""echod.client.ping.connection, over a real connection."""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from echod.client.errors import MismatchError, OverdueError, ShortfallError, SurplusError
from echod.client.ping.connection import Connection
from tests.unit.client.clock import Clock
from tests.unit.client.peers import (
    DEADLINE,
    Behaviour,
    answering,
    faithful,
    followed_by,
    greeting,
    mute,
    paired,
    serving,
)


@contextmanager
def probing(behaviour: Behaviour) -> Iterator[tuple[Connection, socket.socket]]:
    """A connection to a server of that behaviour, and its socket."""
    with serving(behaviour) as port:
        connection = socket.create_connection(("127.0.0.1", port))
        with closing(Connection(connection)) as probe:
            yield probe, connection


def test_options_of_the_connection() -> None:
    """A message is sent without delay, and no keepalive is sent, which would break a silence."""
    with probing(faithful()) as (_, connection):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_echo() -> None:
    """An echo is timed and counted."""
    with probing(faithful()) as (probe, _):
        assert probe.echo(b"message", 10) > 0
        probe.watch(time.perf_counter_ns() + 1_000_000)
        assert probe.echoed == 7


def test_server_that_speaks_first() -> None:
    """What has arrived before the first message is not its echo."""
    with probing(greeting) as (probe, connection):
        assert select.select([connection], [], [], DEADLINE)[0]
        with pytest.raises(SurplusError, match='^the server sent 11 bytes before anything was sent: "220 ready'):
            probe.echo(b"message", DEADLINE)


def test_part_of_an_echo(clock: Clock) -> None:
    """The bytes received of a late echo are counted."""
    clock.leap_after_a_part(DEADLINE)
    with probing(followed_by(answering(lambda data: data[:3], size=7), mute)) as (probe, _):
        with pytest.raises(OverdueError) as caught:
            probe.echo(b"message", DEADLINE)
        assert (caught.value.sent, caught.value.received) == (7, 3)


def test_offset_in_the_stream() -> None:
    """The offset of a wrong byte counts from the start of the connection."""
    with probing(followed_by(answering(bytes, bytes.upper, size=7), mute)) as (probe, _):
        probe.echo(b"message", 10)
        with pytest.raises(MismatchError) as caught:
            probe.echo(b"Message", 10)
        assert caught.value.offset == 8


def test_answer_before_the_end_of_the_message() -> None:
    """A server that returns more than was sent so far is found in the middle of a message."""

    def greedy(connection: socket.socket, over: object) -> None:
        data = connection.recv(1, socket.MSG_WAITALL)
        connection.sendall(data * 20_000_000)

    with probing(greedy) as (probe, _), pytest.raises(SurplusError):
        probe.echo(b"x" * 16_000_000, 10)


class Narrow(socket.socket):
    """A socket that accepts ten bytes and then no more."""

    taken = False

    def send(self, data: Any, flags: int = 0) -> int:
        """Send the first ten bytes."""
        if self.taken:
            raise BlockingIOError
        self.taken = True
        return super().send(memoryview(data)[:10], flags)


def test_end_in_the_middle_of_a_message() -> None:
    """If the server closes after returning all that was sent so far, the rest of the message is missing."""
    with paired(answering(bytes, size=10)) as near:
        connection = Narrow(fileno=near.detach())
        with closing(Connection(connection)) as probe, pytest.raises(ShortfallError) as caught:
            probe.echo(b"x" * 56, 10)
        assert (caught.value.sent, caught.value.received) == (56, 10)


def test_segments() -> None:
    """The server's segments are counted."""
    with probing(faithful()) as (probe, _):
        before = probe.segments()
        probe.echo(b"message", 10)
        after = probe.segments()
        assert before is not None
        assert after is not None
        assert after > before
