"""The number of system calls that an echo and a connection cost: unlike times, the same on every machine."""

import os
import signal
import statistics
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from tests.integration.daemon import Daemon, freeze, send_and_get, wait_for_state
from tests.integration.peers import clients, connect
from tests.integration.tracing import Call, attached

MESSAGE = bytes(range(64))
ECHOES = 50
CLIENTS = 16
CONNECTIONS = 30
MOST_FOR_A_CONNECTION = 14
"""System calls of a worker from accept(2) to the next accept(2), with the event of the connection."""


def count(calls: Iterable[Call]) -> Counter[str]:
    """The calls by name, without the waits that a timer ends, which depend on how long the test takes."""
    return Counter(call.name for call in calls if (call.name, call.result) != ("epoll_wait", "0"))


def test_of_an_echo() -> None:
    """A message costs one wait, one recv and one send."""
    with Daemon("--workers", "1") as daemon, connect(daemon.addresses[0]) as sock:
        worker = daemon.workers[0]
        send_and_get(sock, MESSAGE)
        with attached(worker) as calls:
            for _ in range(ECHOES):
                send_and_get(sock, MESSAGE)
            wait_for_state(worker, "S")  # the client may get the echo before the trace gets the call
        echoes = count(calls)
        assert (echoes["recvfrom"], echoes["sendto"]) == (ECHOES, ECHOES)
        assert echoes["epoll_wait"] <= ECHOES + 1


def test_of_a_batch() -> None:
    """Messages that arrive together on many connections share one wait."""
    with Daemon("--workers", "1") as daemon, clients(daemon.addresses[0], CLIENTS) as socks:
        worker = daemon.workers[0]
        for sock in socks:
            send_and_get(sock, MESSAGE)
        freeze(worker)
        with attached(worker) as calls:
            for sock in socks:
                sock.sendall(MESSAGE)
            os.kill(worker, signal.SIGCONT)
            for sock in socks:
                assert sock.recv(len(MESSAGE)) == MESSAGE
            wait_for_state(worker, "S")
        batch = count(call for call in calls if not call.result.startswith("-1"))
        assert (batch["recvfrom"], batch["sendto"], batch["epoll_wait"]) == (CLIENTS, CLIENTS, 1)


def test_of_a_connection() -> None:
    """A connection that sends a message, gets its echo and closes costs at most 14 calls, with its event."""
    with Daemon("--workers", "1") as daemon:
        address = daemon.addresses[0]
        with attached(daemon.workers[0]) as calls:
            for _ in range(CONNECTIONS + 1):
                with connect(address) as sock:
                    send_and_get(sock, MESSAGE)
            wait_for_state(daemon.workers[0], "S")
        accepts = [place for place, call in enumerate(calls) if call.name == "accept4" and call.result.isdigit()]
        each = [calls[begin:end] for begin, end in pairwise(accepts)]
        assert len(each) == CONNECTIONS
        # The median, because a tick may fall into some of them.
        assert statistics.median(map(len, each)) <= MOST_FOR_A_CONNECTION, count(each[0])
