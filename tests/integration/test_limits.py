"""The limits on connections: in total, per source, and those of the machine."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon import DEADLINE, Configured, Daemon, freeze, receive_all
from tests.integration.faults import TICKING_FAST, never_hung
from tests.integration.network import inside, own_network
from tests.integration.peers import (
    about,
    clients,
    connect,
    echoes,
    exchange,
    is_refused,
    most_at_once,
    send_until_blocked,
)
from tests.integration.tracing import Trace, injected

EVERYWHERE = ("--log-level", "debug", "--host", "127.0.0.1")


def test_one_too_many_waits() -> None:
    """Above the limit for all workers together a client is not refused, but waits until another has left."""
    with (
        Daemon(*EVERYWHERE, "--workers", "3", "--limits-max-connections", "5") as daemon,
        contextlib.ExitStack() as stack,
    ):
        socks = stack.enter_context(clients(daemon.addresses[0], 5))
        for sock in socks:
            assert exchange(sock, b"in", half_close=False) == b"in"
        # Often, because whichever worker is told of the late one, it must get to that which has room for it.
        for _ in range(10):
            late = stack.enter_context(connect(daemon.addresses[0]))
            late.sendall(b"late")
            daemon.wait_for("accept_paused")
            socks.pop(0).close()
            assert late.recv(10) == b"late"
            socks.append(late)
        assert {event["reason"] for event in daemon.of("accept_paused")} == {"max_connections"}
        daemon.wait_for("accept_resumed")
        stack.close()
        assert daemon.stop() == 0
        assert most_at_once(daemon.events) == 5
        told = [(event["event"], event["worker"]) for event in daemon.events if event["event"].startswith("accept_")]
        assert len(told) == len(set(told)), "no worker says anything twice"


def test_crowd() -> None:
    """When 20 clients come at once to four workers that may have three together, there are never more than three, and
    everyone has their turn."""
    with Daemon(*EVERYWHERE, "--workers", "4", "--limits-max-connections", "3") as daemon:
        with clients(daemon.addresses[0], 20) as socks:
            for sock in socks:
                sock.sendall(b"me")
            daemon.wait_for("connection_opened", 3)
            for sock in socks:
                assert exchange(sock, b" too") == b"me too"
            daemon.wait_for("connection_closed", 20)
        daemon.stop()
    assert most_at_once(daemon.events) == 3
    assert daemon.of("stopped")[0]["clients_total"] == 20


def test_per_source() -> None:
    """A source at its limit is refused by a reset, others are served, and it may connect again when one has left."""
    with Daemon(*EVERYWHERE, "--limits-max-connections-per-source", "2") as daemon:
        address = daemon.addresses[0]
        with clients(address, 2) as socks:
            for sock in socks:
                assert exchange(sock, b"in", half_close=False) == b"in"
            assert is_refused(address)
            refused = daemon.wait_for("client_refused")
            assert refused["peer"].startswith("127.0.0.1:")
            assert refused["count"] == 1
            assert echoes(address, source="127.0.0.2")
            assert exchange(socks[0], b"bye") == b"bye"
            about(daemon, socks[0], "connection_closed")
            assert echoes(address)
        assert daemon.stop() == 0
    stopped = daemon.of("stopped")[0]
    assert (stopped["clients_total"], stopped["clients_refused"]) == (4, 1)


def test_clients_that_never_read() -> None:
    """Clients that send and never read are reset when they occupy too much memory in the kernel; others are served."""
    budget = ("--limits-kernel-memory", "4MiB", "--workers", "2")
    with Daemon(*EVERYWHERE, *budget, environment=TICKING_FAST, faults=[never_hung()]) as daemon:
        address = daemon.addresses[0]
        with clients(address, 5) as honest, contextlib.ExitStack() as stack:
            for sock in honest:
                assert exchange(sock, b"in", half_close=False) == b"in"
            greedy = [stack.enter_context(connect(address, receive_buffer=4096)) for _ in range(40)]
            for sock in greedy:
                send_until_blocked(sock, bytes(1 << 20))
            # Each occupies 128 KiB at least, so that no more than 32 of them are within the budget.
            daemon.wait_for("connection_closed", 8)
            for sock in honest:
                assert exchange(sock, b"still in") == b"still in"
                assert about(daemon, sock, "connection_closed")["reason"] == "eof"
            reset = [event for event in daemon.of("connection_closed") if event["reason"] == "memory"]
            assert len(reset) == len(daemon.of("connection_closed")) - len(honest) >= 8
            (one, *_) = [sock for sock in greedy if "{}:{}".format(*sock.getsockname()) == reset[0]["peer"]]
            with pytest.raises(ConnectionResetError):
                receive_all(one)


def test_per_source_over_all_workers() -> None:
    """Of 20 clients of one source that connect at once to four workers, exactly as many are accepted as allowed."""
    with Daemon(*EVERYWHERE, "--workers", "4", "--limits-max-connections-per-source", "3") as daemon:
        for worker in daemon.workers.values():
            freeze(worker)
        with clients(daemon.addresses[0], 20) as socks:
            for worker in daemon.workers.values():
                os.kill(worker, signal.SIGCONT)
            served = 0
            for sock in socks:
                try:
                    sock.sendall(b"x")
                    served += sock.recv(1) == b"x"
                except (ConnectionResetError, BrokenPipeError):
                    pass
            assert served == 3
        assert daemon.stop() == 0
    assert most_at_once(daemon.events) == 3
    stopped = daemon.of("stopped")[0]
    assert (stopped["clients_total"], stopped["clients_refused"]) == (3, 17)


def test_link_local_neighbours() -> None:
    """Each link-local neighbour is a source of its own, and events name its zone, as the daemon's network names it."""
    addresses = [f"ip address add fe80::{host}/64 dev lo nodad" for host in (1, 2)]
    limit = ("--limits-max-connections-per-source", "1")
    with Daemon("--host", "::", *limit, prefix=own_network(*addresses)) as daemon, inside(daemon.pid):

        def neighbour(host: str) -> socket.socket:
            sock = stack.enter_context(socket.socket(socket.AF_INET6))
            sock.settimeout(DEADLINE)
            sock.bind((host, 0, 0, socket.if_nametoindex("lo")))
            sock.connect(("fe80::1", daemon.port, 0, socket.if_nametoindex("lo")))
            return sock

        with contextlib.ExitStack() as stack:
            for host in ("fe80::1", "fe80::2"):
                assert exchange(neighbour(host), b"in", half_close=False) == b"in"
                opened = daemon.of("connection_opened")
                assert daemon.wait_for("connection_opened", len(opened) + 1)["peer"].startswith(f"[{host}%lo]:")
            with pytest.raises(ConnectionResetError):
                neighbour("fe80::2").recv(1)
            refused = daemon.wait_for("client_refused")
            assert refused["peer"].startswith("[fe80::2%lo]:")


def test_ipv6_prefix_at_a_reload(tmp_path: Path) -> None:
    """After a reload the connected clients are counted by the new prefix."""
    addresses = [f"ip address add 2001:db8:0:{net}::1/64 dev lo nodad" for net in (1, 2)]
    text = "host = '::'\nlimits.max_connections_per_source = 1"
    with (
        Configured(tmp_path / "echod.toml", text, prefix=own_network(*addresses)) as daemon,
        inside(daemon.pid),
    ):
        address = f"[2001:db8:0:1::1]:{daemon.port}"
        with connect(address, source="2001:db8:0:1::1") as first:
            assert exchange(first, b"in", half_close=False) == b"in"
            assert echoes(address, source="2001:db8:0:2::1")
            daemon.reload(text + "\nlimits.ipv6_source_prefix = 48")
            assert is_refused(address, source="2001:db8:0:2::1")


def test_per_ipv6_network() -> None:
    """The addresses of one IPv6 /64 are one source, those of another are not."""
    addresses = [f"ip address add 2001:db8:0:{net}::{host}/64 dev lo nodad" for net in (1, 2) for host in (1, 2)]
    limit = ("--limits-max-connections-per-source", "2")
    with Daemon("--host", "::", *limit, prefix=own_network(*addresses)) as daemon, inside(daemon.pid):
        address = f"[2001:db8:0:1::1]:{daemon.port}"
        with clients(address, 1, source="2001:db8:0:1::1") as one, clients(address, 1, source="2001:db8:0:1::2") as two:
            for sock in one + two:
                assert exchange(sock, b"in", half_close=False) == b"in"
            assert is_refused(address, source="2001:db8:0:1::2")
            assert daemon.wait_for("client_refused")["peer"].startswith("[2001:db8:0:1::2]:")
            assert echoes(address, source="2001:db8:0:2::1")
        assert daemon.stop() == 0


def test_refusals_are_told_together() -> None:
    """Of many refused clients the first is logged at once, and the others as a number."""
    with Daemon("--limits-max-connections-per-source", "1") as daemon, connect(daemon.addresses[0]) as only:
        assert exchange(only, b"x", half_close=False) == b"x"
        for _ in range(100):
            assert is_refused(daemon.addresses[0])
        only.close()
        assert daemon.stop() == 0
        assert len(daemon.of("client_refused")) == 1
        assert daemon.of("stopped")[0]["clients_refused"] == 100


def test_unix_clients_have_no_source(tmp_path: Path) -> None:
    """The limit per source does not apply to unix sockets, whose clients have no address."""
    with Daemon("--host", f"unix:{tmp_path}/s", "--limits-max-connections-per-source", "1") as daemon:
        with clients(daemon.addresses[0], 3) as socks:
            for sock in socks:
                assert exchange(sock, b"x", half_close=False) == b"x"
        assert daemon.stop() == 0
    assert daemon.of("stopped")[0]["clients_refused"] == 0


def test_out_of_descriptors() -> None:
    """Without a descriptor left the other clients wait; one event says so; the worker asks the kernel again now and
    then, but does not spin; and when some have left the others are served."""
    with (
        Trace("-e", "trace=accept4,epoll_wait") as trace,
        Daemon(*EVERYWHERE, prefix=("prlimit", "--nofile=40", *trace.prefix), pass_fds=trace.pass_fds) as daemon,
        clients(daemon.addresses[0], 60) as socks,
    ):
        assert daemon.wait_for("accept_paused")["reason"] == "EMFILE"
        worker = daemon.workers[0]
        trace.wait_for("accept4", 4, pid=worker, result="-1 EMFILE")
        calls = [call for call in trace.calls if call.pid == worker]
        first, *others = [index for index, call in enumerate(calls) if call.result.startswith("-1 EMFILE")]
        for index in others:
            assert ("epoll_wait", "0") in {(call.name, call.result) for call in calls[first:index]}, "it did not wait"
            first = index
        for sock in socks:  # not before: then it would have had something to do besides
            sock.sendall(b"me")
        for sock in socks:
            assert exchange(sock, b" too") == b"me too"
        daemon.wait_for("accept_resumed")
        assert daemon.stop() == 0
        assert len(daemon.of("accept_paused")) == 1
        assert not daemon.of("bug")
        assert daemon.of("stopped")[0]["clients_total"] == 60


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EPERM"])
def test_kernel_has_no_more(error: str) -> None:
    """When the kernel says that it has no room for a client, accepting pauses, and the client is served soon."""
    with failing_accepts(error) as (daemon, trace):
        assert echoes(daemon.addresses[0])
        assert daemon.wait_for("accept_paused")["reason"] == error
        trace.wait_for("accept4", 3, pid=daemon.workers[0], result=f"-1 {error}")
        assert daemon.stop() == 0
        assert len(daemon.of("accept_paused")) == 1


def test_client_is_gone() -> None:
    """When the kernel says that a client is gone already, or that there is none, the next is served, without a pause
    or a word."""
    with Daemon() as daemon:
        for error in ("ECONNABORTED", "EPROTO", "EHOSTUNREACH", "EAGAIN", "ETIMEDOUT"):
            with injected(daemon.workers[0], "accept4", error, "1..3"):
                assert echoes(daemon.addresses[0]), error  # by the fourth call at the earliest
        assert daemon.stop() == 0
        assert {event["level"] for event in daemon.events} == {"info"}
        assert not daemon.of("accept_paused")


@contextlib.contextmanager
def failing_accepts(error: str) -> Iterator[tuple[Daemon, Trace]]:
    """A daemon whose worker's first three calls of accept4(2) fail with `error`."""
    with (
        Trace("-e", "trace=accept4", "-e", f"inject=accept4:error={error}:when=1..3") as trace,
        Daemon(prefix=trace.prefix, pass_fds=trace.pass_fds) as daemon,
    ):
        yield daemon, trace
