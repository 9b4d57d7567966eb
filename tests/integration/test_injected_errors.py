"""A system call that fails on one client costs at most that client: neither another one, nor a process.

strace(1) makes the calls fail, in a worker or in the parent that already serves a client, the innocent one.
"""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.integration.daemon import Daemon, send_and_get
from tests.integration.faults import COPYING, TICKING_FAST
from tests.integration.peers import descriptors, wait_for_descriptors
from tests.integration.tracing import injected

SERVED, RESET = "served", "reset"

WORKER = [
    # The call, its error, and what happens to the client that it is for.
    ("accept4", "ETIMEDOUT", SERVED),
    ("accept4", "EPIPE", SERVED),
    ("accept4", "ECONNRESET", SERVED),
    ("accept4", "ENOSR", SERVED),
    ("ioctl", "ENOMEM", RESET),
    ("fcntl", "ENOLCK", RESET),
    ("epoll_ctl", "ENOSPC", RESET),
    ("epoll_ctl", "ENOMEM", RESET),
    ("recvfrom", "ENOMEM", SERVED),
    ("recvfrom", "ENOBUFS", SERVED),
    ("sendto", "ENOBUFS", SERVED),
    ("sendto", "ENOMEM", SERVED),
    ("sendto", "EPERM", RESET),
    ("getsockname", "ENOBUFS", SERVED),
    ("setsockopt", "ENOMEM", SERVED),
]
"""In a worker, the first of these calls after it has accepted its first client."""


def fate(daemon: Daemon) -> str:
    """Whether a new client is served or reset; an end of file fails the test."""
    try:
        with daemon.connect() as sock:
            send_and_get(sock, b"hello")
    except (ConnectionResetError, BrokenPipeError):
        return RESET
    return SERVED


@pytest.fixture(scope="module")
def shared() -> Iterator[Daemon]:
    """The daemon for all calls of a worker: the same worker survives them all, and stops in good order."""
    with Daemon("--limits-max-connections-per-source", "100") as daemon:
        yield daemon
        assert daemon.stop() == os.EX_OK
        assert [event["reason"] for event in daemon.of("worker_exited")] == ["stopped"]
        assert not daemon.of("bug")


@pytest.mark.parametrize(("call", "error", "expected"), WORKER)
def test_in_a_worker(shared: Daemon, call: str, error: str, expected: str) -> None:
    """The client that the call is for is served or reset; all others are served, by the same worker, which closes
    every socket in the end."""
    worker, before = shared.workers[0], descriptors(shared.workers[0])
    with shared.connect() as innocent:
        send_and_get(innocent, b"before")
        with injected(worker, call, error):
            assert fate(shared) == expected
            send_and_get(innocent, b"still served")
            with shared.connect() as other:
                send_and_get(other, b"served too")
    wait_for_descriptors(worker, before)


@pytest.mark.parametrize("error", ["ENOMEM", "EMFILE"])
def test_in_the_parent(error: str) -> None:
    """A parent that cannot receive the copy of a connection goes on, and receives the copy later."""
    with Daemon(faults=COPYING, environment=TICKING_FAST) as daemon, daemon.connect() as innocent:
        before = descriptors(daemon.pid)
        with injected(daemon.pid, "recvmsg", error, "1..3"):
            send_and_get(innocent, b"before")
            wait_for_descriptors(daemon.pid, before + 1)
        os.kill(daemon.workers[0], signal.SIGKILL)
        daemon.wait_for("worker_started", 2)
        send_and_get(innocent, b"after")
        assert daemon.of("worker_exited")[0]["kept"] == 1
