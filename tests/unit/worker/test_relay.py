"""relay: whatever a peer does, the bytes sent are the bytes received.

Tested by random interleavings of reads of every size, short writes, full sockets and errors, on bytes
that arrive all at once or one by one, from a fake peer, from several that share a buffer, and from the kernel.
"""

import ctypes
import errno
import mmap
import os
import select
import socket
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from echod.worker.relay import Buffer, Relay
from tests.unit.hand_loop import DEADLINE

BROKEN = -1
"""In a script: this call and all later ones of its kind fail."""

scripts = st.lists(st.integers(0, 40), max_size=30)
scripts_that_fail = st.lists(st.integers(BROKEN, 40), max_size=30)
inputs = st.binary(max_size=200)
chunk_sizes = st.one_of(st.integers(1, 50), st.just(1 << 16))


class Peer:
    """A fake socket: each call takes the next number of its script; after the last, it moves all bytes asked for.

    0 is EAGAIN, and any other number the most that a call moves.
    """

    def __init__(self, data: bytes, reads: list[int], writes: list[int]) -> None:
        self.to_come = data
        self.echoed = bytearray()
        self.owed = 0
        """Bytes that were read from it and have not been sent back yet."""
        self.failed = False
        self._reads, self._writes = list(reads), list(writes)

    def recv_into(self, buffer: memoryview, /) -> int:
        """Return as many bytes as the script says."""
        assert not self.owed, "it reads while bytes are pending"
        count = min(len(self.to_come), self._most(self._reads, len(buffer)))
        buffer[:count], self.to_come = self.to_come[:count], self.to_come[count:]
        self.owed = count
        return count

    def send(self, data: memoryview, /) -> int:
        """Accept as many bytes as the script says."""
        assert len(data) == self.owed > 0, "it does not send the pending bytes"
        count = self._most(self._writes, len(data))
        self.echoed += data[:count]
        self.owed -= count
        return count

    def _most(self, script: list[int], size: int) -> int:
        if not script:
            return size
        if script[0] == BROKEN:
            self.failed = True
            raise ConnectionResetError(errno.ECONNRESET, "as the script says")
        if not (most := script.pop(0)):
            raise BlockingIOError
        return min(most, size)


class Owner:
    """Behaves like a session: waits for one thing at a time, and for nothing after the end.  It is the clock too."""

    def __init__(self, peer: Peer | socket.socket, buffer: Buffer) -> None:
        self.now = 0.0
        self.waits_for_room = False
        self.ends: list[str] = []
        self.relay = Relay(peer, buffer, self, self)

    def on_blocked(self) -> None:
        """From now on wait for room."""
        assert not self.waits_for_room
        assert not self.ends
        self.waits_for_room = True

    def on_flushed(self) -> None:
        """From now on wait for input."""
        assert self.waits_for_room
        assert not self.ends
        self.waits_for_room = False

    def on_eof(self) -> None:
        """Keep this as the end."""
        self.ends.append("eof")

    def on_broken(self, error: OSError) -> None:
        """Keep this as the end."""
        self.ends.append(type(error).__name__)

    def turn(self) -> None:
        """One event of the loop."""
        self.now += 1
        if self.waits_for_room:
            self.relay.on_writable()
        else:
            self.relay.on_readable()


class Talk:
    """A peer and its relay; the invariants are asserted after every event."""

    def __init__(self, data: bytes, reads: list[int], writes: list[int], buffer: Buffer) -> None:
        self.data = data
        self.peer = Peer(data, reads, writes)
        self.owner = Owner(self.peer, buffer)
        self.chunk_size = len(buffer.chunk)

    def turn(self) -> None:
        """One event, unless the connection has ended."""
        if self.owner.ends:
            return
        relay, peer = self.owner.relay, self.peer
        before = relay.received, relay.sent
        self.owner.turn()
        assert self.data.startswith(peer.echoed)
        assert relay.received == len(self.data) - len(peer.to_come)
        assert relay.sent == len(peer.echoed)
        assert relay.pending == self.data[relay.sent : relay.received]
        assert len(relay.pending) <= self.chunk_size
        assert self.owner.ends or self.owner.waits_for_room == bool(relay.pending)
        assert relay.active == self.owner.now or (relay.received, relay.sent) == before

    def run(self) -> "Talk":
        """Run events until the connection has ended."""
        while not self.owner.ends:
            self.turn()
        assert len(self.owner.ends) == 1
        return self


def talk(data: bytes, reads: list[int], writes: list[int], chunk_size: int) -> Talk:
    """A conversation with a buffer of its own."""
    return Talk(data, reads, writes, Buffer(chunk_size))


@given(inputs, scripts, scripts, chunk_sizes)
@example(b"ab", [], [1, 0], 2)
def test_at_the_end_all_has_come_out(data: bytes, reads: list[int], writes: list[int], chunk_size: int) -> None:
    """The end of input is reported once, when everything before it has been sent."""
    done = talk(data, reads, writes, chunk_size).run()
    assert done.owner.ends == ["eof"]
    assert done.peer.echoed == data
    assert done.owner.relay.sent == done.owner.relay.received == len(data)
    assert not done.owner.relay.pending


@given(inputs, scripts_that_fail, scripts_that_fail, chunk_sizes)
@example(b"ab", [BROKEN], [], 2)
@example(b"ab", [], [BROKEN], 2)
@example(b"ab", [], [1, BROKEN], 2)
def test_a_failure_is_reported_once(data: bytes, reads: list[int], writes: list[int], chunk_size: int) -> None:
    """Before an error, the output is a prefix of the input; after it, the bytes received and sent are still counted."""
    done = talk(data, reads, writes, chunk_size).run()
    assert done.owner.ends == ["ConnectionResetError" if done.peer.failed else "eof"]


@given(inputs, chunk_sizes)
def test_fed_byte_by_byte_and_taken_byte_by_byte(data: bytes, chunk_size: int) -> None:
    """The output is the same as when all bytes arrive at once; only the number of chunks differs."""
    whole = talk(data, [], [], chunk_size).run()
    bytewise = talk(data, [1] * len(data), [1] * len(data), chunk_size).run()
    assert bytewise.peer.echoed == whole.peer.echoed == data
    assert whole.owner.relay.chunks == -(-len(data) // chunk_size)
    assert bytewise.owner.relay.chunks == len(data)


@given(
    st.lists(st.tuples(inputs, scripts, scripts), min_size=2, max_size=4),
    st.lists(st.integers(0, 3), max_size=60),
    chunk_sizes,
)
def test_relays_that_share_a_buffer(
    clients: list[tuple[bytes, list[int], list[int]]], schedule: list[int], chunk_size: int
) -> None:
    """Peers that share a buffer never get each other's bytes, in any order of events: pending bytes are not in it."""
    buffer = Buffer(chunk_size)
    talks = [Talk(data, reads, writes, buffer) for data, reads, writes in clients]
    for number in schedule:
        talks[number % len(talks)].turn()
        buffer.chunk[:] = b"\xaa" * chunk_size
    for one in talks:
        assert one.run().peer.echoed == one.data


@given(inputs, scripts, scripts, st.lists(st.integers(1, 50), max_size=60), chunk_sizes)
def test_chunk_sizes_that_change(
    data: bytes, reads: list[int], writes: list[int], sizes: list[int], chunk_size: int
) -> None:
    """A new size of the buffer, longer or shorter, loses nothing, whatever is pending at that moment."""
    buffer = Buffer(chunk_size)
    one = Talk(data, reads, writes, buffer)
    one.chunk_size = max(chunk_size, *sizes, 1)
    for size in sizes:
        one.turn()
        buffer.resize(size)
        buffer.chunk[:] = b"\xaa" * size
    assert one.run().peer.echoed == data


def test_an_old_buffer_is_never_sent_from() -> None:
    """The old buffer is never sent, even if the next chunk has the size of the last one, whose window is kept."""
    buffer = Buffer(10)
    one = Talk(b"oldnew", [3, 3], [], buffer)
    one.turn()
    buffer.resize(10)
    one.turn()
    assert one.peer.echoed == b"oldnew"


def test_nothing_read_is_nothing_done() -> None:
    """A wake-up without input counts nothing, and does not count the client as active."""
    one = talk(b"x", [0], [], 10)
    one.turn()
    relay = one.owner.relay
    assert (relay.received, relay.chunks, relay.active, one.owner.ends) == (0, 0, 0.0, [])


def test_a_wake_up_without_room_is_no_activity() -> None:
    """Only bytes that move make the client active."""
    one = talk(b"x", [], [0, 0], 10)
    one.turn()
    one.turn()
    assert (one.owner.relay.active, one.owner.relay.sent) == (1.0, 0)


def test_what_is_pending_is_copied_once() -> None:
    """A client that takes a byte at a time costs one copy of the rest of its chunk, which is released at the end."""
    one = talk(b"abcd", [], [1, 1, 1], 10)
    one.turn()
    copy = one.owner.relay.pending.obj
    assert copy == b"bcd"
    one.turn()
    assert one.owner.relay.pending.obj is copy
    one.turn()
    one.turn()
    assert one.owner.relay.pending.nbytes == 0
    assert one.owner.relay.pending.obj is not copy


@pytest.mark.parametrize("size", [1, 64 << 10, 128 << 10, 256 << 10, (1 << 20) + 1])
def test_the_buffer_begins_with_a_page(size: int) -> None:
    """Its address is a multiple of the page size, whatever its own size is."""
    buffer = Buffer(size).chunk
    assert len(buffer) == size
    assert ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % mmap.PAGESIZE == 0


steps = st.lists(st.tuples(st.sampled_from(["send", "take", "turn", "turn"]), st.integers(1, 20_000)), max_size=40)


@given(steps, st.sampled_from([1, 16, 4096, 65536]))
def test_through_a_real_socket(steps: list[tuple[str, int]], chunk_size: int) -> None:
    """The invariant holds on real sockets, whose buffers fill and whose sends are partial."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        owner = Owner(ours, Buffer(chunk_size))
        relay = owner.relay
        sent, echoed = bytearray(), bytearray()
        for what, size in steps:
            with suppress(BlockingIOError):
                match what:
                    case "send":
                        data = os.urandom(size)
                        sent += data[: theirs.send(data)]
                    case "take":
                        echoed += theirs.recv(size)
                    case "turn":
                        owner.turn()
            assert sent.startswith(echoed)
            assert len(relay.pending) <= chunk_size
            assert not owner.ends
        theirs.shutdown(socket.SHUT_WR)
        while not owner.ends:
            owner.turn()
            with suppress(BlockingIOError):
                echoed += theirs.recv(1 << 20)
        assert owner.ends == ["eof"]
        assert echoed == sent
        assert relay.sent == relay.received == len(sent)


@pytest.mark.parametrize("writing", [False, True])
def test_a_real_reset(writing: bool) -> None:
    """A reset is reported as a failure, whether the relay waits for input or for room."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server:
        owner = Owner(server, Buffer(1 << 16))
        for sock in (server, client):
            sock.setblocking(False)
        while writing and not owner.waits_for_room:
            with suppress(BlockingIOError):
                client.send(bytes(1 << 16))
            owner.turn()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        poll = select.poll()
        poll.register(server, 0)
        assert poll.poll(DEADLINE * 1000)  # the reset may not have arrived yet
        owner.turn()
        assert owner.ends == ["ConnectionResetError"]
        assert owner.relay.sent + len(owner.relay.pending) == owner.relay.received
