"""echod serves: every byte comes back, to each client its own, and the events say what has happened."""

import collections
import contextlib
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon import Daemon, Event
from tests.integration.peers import about, clients, connect, echoes, exchange, exchange_all, name, send_until_blocked

SENTENCE = b"This is the message.  It will be repeated."
CHUNK = 64 << 10


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A daemon with the default settings."""
    with Daemon() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def talkative() -> Iterator[Daemon]:
    """A daemon that logs each chunk, of at most 16 bytes."""
    with Daemon("--log-level", "debug", "--chunk-size", "16") as daemon:
        yield daemon


def chunks(daemon: Daemon, connection: str, event: str) -> list[Event]:
    """The events of that name of one connection, in their order."""
    return [found for found in daemon.of(event) if found["connection"] == connection]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5_000_003])
def test_echo(daemon: Daemon, size: int) -> None:
    """A client that ends its side gets all that it sent, byte for byte, and then the end."""
    data = random.Random(size).randbytes(size)
    with connect(daemon.addresses[0]) as sock:
        assert exchange(sock, data) == data


def test_echo_at_once(daemon: Daemon) -> None:
    """What was sent comes back without the client having to end or to send more, time and again."""
    with connect(daemon.addresses[0]) as sock:
        for size in (1, 5, 1000, 3 * CHUNK, 1):
            data = random.Random(size).randbytes(size)
            assert exchange(sock, data, half_close=False) == data


def test_a_worker_has_a_name_of_its_own(daemon: Daemon) -> None:
    """ps(1) and top(1) show a name of its own for each worker; the parent has its program's."""
    names = {number: Path(f"/proc/{pid}/comm").read_text() for number, pid in daemon.workers.items()}
    assert names == {number: f"echod-worker{number}\n" for number in daemon.workers}
    assert not Path(f"/proc/{daemon.pid}/comm").read_text().startswith("echod-worker")


def test_many_clients(daemon: Daemon) -> None:
    """500 clients at once, on both addresses, each get their own bytes back, and no others."""
    with clients(daemon.addresses[0], 250) as some, clients(daemon.addresses[1], 250) as others:
        talks = {sock: random.Random(name(sock)).randbytes(20_000) for sock in some + others}
        assert exchange_all(talks) == talks


def test_byte_by_byte(talkative: Daemon) -> None:
    """A client that sends one byte at a time gets each of them at once, as a chunk of its own."""
    with connect(talkative.addresses[0]) as sock:
        for byte in range(256):
            sock.sendall(bytes([byte]))
            assert sock.recv(2) == bytes([byte])
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
        closed = about(talkative, sock, "connection_closed")
    assert [event["bytes"] for event in chunks(talkative, closed["connection"], "chunk_received")] == [1] * 256


def test_tutorial_chunks(talkative: Daemon) -> None:
    """With a chunk size of 16 the tutorial's sentence is received, and sent back, as 16, 16 and 10 bytes."""
    with connect(talkative.addresses[0]) as sock:
        assert exchange(sock, SENTENCE) == SENTENCE
        closed = about(talkative, sock, "connection_closed")
    for event in ("chunk_received", "chunk_sent"):
        assert [found["bytes"] for found in chunks(talkative, closed["connection"], event)] == [16, 16, 10]


def test_no_payload_unless_wanted(talkative: Daemon) -> None:
    """At debug the events have the sizes of chunks, but not their contents."""
    with connect(talkative.addresses[0]) as sock:
        assert exchange(sock, SENTENCE) == SENTENCE
        about(talkative, sock, "connection_closed")
    assert not any("payload" in event for event in talkative.events)


def test_payload() -> None:
    """With log.payload the events show each chunk, every byte as the character of that number."""
    data = bytes(range(256))
    with Daemon("--log-level", "debug", "--log-payload", "true") as daemon:
        assert echoes(daemon.addresses[0], data)
        for event in ("chunk_received", "chunk_sent"):
            assert daemon.wait_for(event)["payload"] == data.decode("latin-1")


def test_one_chunk_at_most() -> None:
    """Of a client that sends 8 MiB and does not read at first, never more than one chunk is held; in the end it has
    everything."""
    data = random.Random(8).randbytes(8 << 20)
    with Daemon("--log-level", "debug") as daemon:
        with connect(daemon.addresses[0], receive_buffer=CHUNK) as sock:
            sent, told = send_until_blocked(sock, data), 0
            # A write of less than was read says that the daemon is stuck with the rest.
            while not any(
                received["bytes"] > short["bytes"]
                for received, short in zip(daemon.of("chunk_received"), daemon.of("chunk_sent"), strict=False)
            ):
                told += 1
                daemon.wait_for("chunk_sent", told)
                sent += send_until_blocked(sock, data[sent:])
            assert sent < len(data)
            received = bytearray()
            while len(received) < sent:
                received += sock.recv(CHUNK)
            assert received + exchange(sock, data[sent:]) == data
            about(daemon, sock, "connection_closed")
        daemon.stop()
    pending = 0
    for event in daemon.events:
        if event["event"] == "chunk_received":
            assert pending == 0
            pending = event["bytes"]
        elif event["event"] == "chunk_sent":
            pending -= event["bytes"]
    assert pending == 0


def test_unix_socket(tmp_path: Path) -> None:
    """A unix socket, in the file system or abstract, echoes as TCP does, and tells its clients by their process."""
    hosts = [f"unix:{tmp_path}/socket", f"unix:@echod-test-{os.getpid()}"]
    with Daemon("--host", hosts[0], "--host", hosts[1]) as daemon:
        assert daemon.addresses == hosts
        for host in hosts:
            assert echoes(host, random.Random(1).randbytes(1 << 20))
        daemon.wait_for("connection_closed", 2)
        assert [(event["peer"], event["local"]) for event in daemon.of("connection_closed")] == [
            (f"unix:pid={os.getpid()},uid={os.getuid()}", host) for host in hosts
        ]


@pytest.mark.parametrize(("workers", "least", "most"), [(2, 30, 34), (4, 12, 20)])
def test_workers_share(workers: int, least: int, most: int) -> None:
    """64 clients that stay are spread evenly over the workers."""
    with (
        Daemon("--workers", str(workers)) as daemon,
        clients(daemon.addresses[0], 64) as socks,
    ):
        talks = {sock: name(sock).encode() for sock in socks}
        assert exchange_all(talks, half_close=False) == talks
        daemon.wait_for("connection_opened", 64)
        share = collections.Counter(event["worker"] for event in daemon.of("connection_opened"))
        assert all(least <= share[worker] <= most for worker in range(workers)), share
        for sock in socks:
            sock.close()
        daemon.stop()
        assert {event["worker"]: event["pid"] for event in daemon.of("connection_closed")} == daemon.workers


def test_opened_at_the_first_byte(talkative: Daemon) -> None:
    """At the level debug `connection_opened` is logged when a client begins to send, not when it connects."""
    with connect(talkative.addresses[0]) as sock:
        accepted = about(talkative, sock, "connection_accepted")
        assert echoes(talkative.addresses[0])
        assert not chunks(talkative, accepted["connection"], "connection_opened")
        assert exchange(sock, b"x", half_close=False) == b"x"
        assert about(talkative, sock, "connection_opened")["connection"] == accepted["connection"]


@pytest.mark.parametrize("index", [0, 1], ids=["IPv4", "IPv6"])
def test_closed_counts(talkative: Daemon, index: int) -> None:
    """`connection_closed` has the peer, the bytes received and sent, the number of chunks, and the reason."""
    address = talkative.addresses[index]
    with connect(address) as sock:
        assert exchange(sock, SENTENCE) == SENTENCE
        closed = about(talkative, sock, "connection_closed")
        expected = {"peer": name(sock), "local": address, "bytes_received": 42, "bytes_sent": 42, "chunks": 3}
        assert closed == closed | expected | {"reason": "eof", "level": "info", "worker": 0}
    assert closed["pid"] == talkative.workers[0]


def test_silent_clients_at_debug_only() -> None:
    """A client that sends nothing, as a health check, leaves no event at the level info, but is counted."""
    with Daemon() as daemon:
        for _ in range(3):
            connect(daemon.addresses[0]).close()
        assert echoes(daemon.addresses[0])
        assert daemon.stop() == 0
    assert [len(daemon.of(f"connection_{what}")) for what in ("accepted", "opened", "closed")] == [0, 0, 1]
    assert daemon.of("stopped")[0]["clients_total"] == 4


def test_silent_client_at_debug(talkative: Daemon) -> None:
    """At the level debug a client that sent nothing is accepted and closed, and never opened."""
    with connect(talkative.addresses[0]) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
        closed = about(talkative, sock, "connection_closed")
    events = [event for event in talkative.events if event.get("connection") == closed["connection"]]
    assert [(event["event"], event["level"]) for event in events] == [
        ("connection_accepted", "debug"),
        ("connection_closed", "debug"),
    ]


def test_without_connections() -> None:
    """With log.connections off connections are not logged at info."""
    with Daemon("--log-connections", "false") as daemon:
        assert echoes(daemon.addresses[0])
        assert daemon.stop() == 0
    assert not [event for event in daemon.events if "connection" in event]


def test_totals() -> None:
    """`stopped` has the number of clients and of echoed bytes, over all workers."""
    with Daemon("--workers", "2") as daemon, contextlib.ExitStack() as stack:
        socks = stack.enter_context(clients(daemon.addresses[0], 8))
        talks = {sock: bytes(1000) for sock in socks}
        assert exchange_all(talks) == talks
        daemon.wait_for("connection_closed", 8)
        assert daemon.stop() == 0
        stopped = daemon.of("stopped")[0]
    assert (stopped["clients_total"], stopped["clients_refused"], stopped["bytes_echoed"]) == (8, 0, 8000)
