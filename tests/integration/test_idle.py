"""What echod does while nothing happens: nothing, but for a sign of life once a second."""

from tests.integration.daemon import Daemon
from tests.integration.peers import connect, exchange
from tests.integration.tracing import Trace

TICKS = 2
NO_IMPORTS = "trace=!%file,%memory,read,lseek,getdents64,ioctl,fcntl,close,rt_sigaction"
"""Left out is what starting Python is made of: under coverage it is more than the trace's pipe holds unread."""


def test_wakes_for_its_tick_only() -> None:
    """While nothing happens, with or without a quiet client, each process makes one system call a second, to wait for
    its next tick; none for memory or files is looked for."""
    with (
        Trace("-e", NO_IMPORTS) as trace,
        Daemon("--workers", "2", prefix=trace.prefix, pass_fds=trace.pass_fds) as daemon,
        connect(daemon.addresses[0]) as sock,
    ):
        assert exchange(sock, b"hello", half_close=False) == b"hello"
        trace.wait_for("recvmsg", 1, pid=daemon.pid)  # the parent's copy of the connection
        for pid in (daemon.pid, *daemon.workers.values()):
            # Once it has waited in vain, what went before is over.
            waited = sum(call[:2] == (pid, "epoll_wait") and call.result == "0" for call in trace.calls)
            trace.wait_for("epoll_wait", waited + 1 + TICKS, pid=pid, result="0")
            calls = [call for call in trace.calls if call.pid == pid]
            waits = [call for call in calls if (call.name, call.result) == ("epoll_wait", "0")][-TICKS:]
            assert calls[-TICKS:] == waits
            milliseconds = [int(wait.arguments.rpartition(", ")[2]) for wait in waits]
            # A wait is shorter by as much as a busy machine delayed the tick before it.
            assert all(500 < each <= 1001 for each in milliseconds)
            assert max(milliseconds) >= 990
