"""copies: what the parent makes of an honest worker's messages."""

import socket
from contextlib import closing

import pytest

from echod.handover.copies import CopyHolder
from echod.handover.state import Connection, ConnectionState
from echod.net.loop import Loop
from echod.shared import messages
from tests.unit.handover.queues import NOW, Queue


def test_all_connections_end_at_once(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many connections a worker closes at once, the ends of known copies are no flood."""
    monkeypatch.setattr(messages, "COPY_LINES_MAX", 10)
    false: list[str] = []
    with closing(Loop(lambda fd, error: None, clock=lambda: NOW)) as loop:
        holder = CopyHolder(100, loop, false.append)
        with holder.open() as worker_end:
            for _ in range(30):
                _, sock, sockaddr = queue.connection(socket.AF_UNIX)
                holder.keep([Connection(sock.dup(), ConnectionState("1.1", sockaddr, NOW, NOW))])
            numbers = sorted(holder._copies)
            worker_end.send(messages.copy_message([messages.forget_copy(number) for number in numbers]))
            loop.turn(0)
            assert (false, holder._copies) == ([], {})
            worker_end.send(messages.copy_message([messages.forget_copy(number) for number in numbers]))
            loop.turn(0)
        assert false == ["more than 10 lines about copies in a second"]
