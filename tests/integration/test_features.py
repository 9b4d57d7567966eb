"""What a kernel or a sandbox may lack: without an improvement echod serves; without a required feature it exits and
says why."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration import faults
from tests.integration.daemon import Daemon, send_and_get
from tests.integration.passing import prefix as passed
from tests.integration.peers import echoes
from tests.integration.tracing import Trace

IPPROTO_MPTCP = 262


@contextmanager
def without(call: str, error: str, *arguments: str, wait: bool = True) -> Iterator[Daemon]:
    """A daemon in which this system call fails in every process."""
    with (
        Trace("-e", f"trace={call}", "-e", f"inject={call}:error={error}") as trace,
        Daemon(*arguments, prefix=trace.prefix, pass_fds=trace.pass_fds, wait=wait) as daemon,
    ):
        yield daemon


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("pidfd_open", "EPERM", "this system refuses pidfd_open(2): Operation not permitted; echod needs it to "),
        ("pidfd_open", "ENOSYS", "this system refuses pidfd_open(2): Function not implemented; echod needs it to "),
        ("pidfd_send_signal", "EPERM", "this system refuses pidfd_send_signal(2): Operation not permitted; "),
        ("eventfd2", "EPERM", "this system refuses eventfd(2): Operation not permitted; echod needs it to "),
    ],
)
def test_indispensable(call: str, error: str, words: str) -> None:
    """Without a call that echod needs it ends at once, before it listens, with one sentence and status 71."""
    with without(call, error, wait=False) as daemon:
        assert daemon.read_to_end() == os.EX_OSERR
        assert daemon.events == []
        (sentence,) = daemon.words
        assert sentence.startswith(f"echod: {words}")


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_without_memfd(error: str) -> None:
    """Without memfds echod serves, and one event for all processes says what does not work."""
    with without("memfd_create", error, "--workers", "2") as daemon:
        assert echoes(daemon.addresses[0])
        assert daemon.stop() == 0
    (lack,) = daemon.of("feature_missing")
    assert (lack["feature"], lack["effect"]) == (
        "memfd_create(2)",
        "a restart drains connections, and sources cannot be limited",
    )


def test_limited_sources() -> None:
    """A limit that cannot be enforced is an error."""
    with without("memfd_create", "EPERM", "--limits-max-connections-per-source", "3", wait=False) as daemon:
        assert daemon.read_to_end() == os.EX_OSERR
        assert not daemon.of("bug")
        (sentence,) = daemon.words
        assert sentence.startswith("echod: limits.max_connections_per_source needs memfd_create(2), which this system ")


@pytest.mark.parametrize("error", ["ENOPROTOOPT", "EPERM"])
def test_without_options(error: str) -> None:
    """echod serves even if all these socket options are refused, and logs one event for each option, not for each
    process or connection."""
    options = ["TCP_NOTSENT_LOWAT", "TCP_NODELAY", "TCP_KEEPCNT", "SO_OOBINLINE", "SO_LINGER"]
    with Daemon("--workers", "2", faults=[faults.options_are_refused(error, *options)]) as daemon:
        for address in daemon.addresses:
            assert echoes(address)
        assert daemon.stop() == 0
    assert sorted(event["feature"] for event in daemon.of("feature_missing")) == sorted(options)


@pytest.mark.parametrize("option", ["SO_REUSEADDR", "IPV6_V6ONLY"])
def test_required_option(option: str) -> None:
    """An option that a listening socket cannot do without is an error, which does not blame the address."""
    with Daemon("--host", "::1", faults=[faults.options_are_refused("ENOPROTOOPT", option)], wait=False) as daemon:
        assert daemon.read_to_end() == os.EX_UNAVAILABLE
        (sentence,) = daemon.words
        assert sentence.startswith(f"echod: cannot listen on [::1]:0: this system refuses the socket option {option}: ")
        assert "choose another address" not in sentence


def test_mptcp() -> None:
    """A listening socket for MPTCP, which lacks some options, serves clients with and without MPTCP."""
    try:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    except OSError:
        pytest.skip("this kernel has no MPTCP")
    with listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with Daemon(prefix=passed((listener.fileno(),)), pass_fds=(listener.fileno(),)) as daemon:
            for protocol in (0, IPPROTO_MPTCP):
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as client:
                    client.settimeout(20)
                    client.connect(listener.getsockname())
                    send_and_get(client, b"by one path or many")
            assert daemon.stop() == 0
