"""copies: what the parent makes of an honest worker's messages."""

import socket
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.handover.copies import CopyHolder
from echod.handover.state import Connection, ConnectionState, pack, unpack
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


words = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=64)
counts = st.integers(0, 2**63 - 1)
addresses = {
    socket.AF_INET: st.tuples(st.just("127.0.0.1"), counts),
    socket.AF_INET6: st.tuples(st.just("fe80::1%" + "x" * 15), counts, counts, counts),
    socket.AF_UNIX: st.just(""),
}


@given(st.data(), st.sampled_from(list(addresses)))
def test_a_packed_state(data: st.DataObject, family: socket.AddressFamily) -> None:
    """Any state is the same after packing and unpacking, and fits into a line about a copy."""
    times = st.floats(0, NOW)
    sockaddr, lingers = data.draw(addresses[family]), data.draw(words)
    state = ConnectionState(
        data.draw(words.filter(bool)),
        sockaddr,
        data.draw(times),
        data.draw(times),
        data.draw(counts),
        data.draw(counts),
        b"",
        lingers,
        data.draw(counts),
    )
    line = pack(state)
    assert len(line) <= messages.STATE_MAX
    assert unpack(line, family, NOW) == state


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b"[7]", b'["1.1"]', pack(ConnectionState("1.1", "", 0, 0))[:-1] + b",0]"]
)
def test_what_is_no_packed_state(line: bytes) -> None:
    """A line that is not a list of as many values as a state has is none."""
    with pytest.raises(ValueError, match="."):
        unpack(line, socket.AF_UNIX, NOW)
