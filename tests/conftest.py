"""Rules for every test: it leaves nothing behind, and in CI it is not skipped.

A leak is reported as an error in the teardown of the test that made it. Fixtures of a wider scope than one
test are set up before the first check, so their resources are not blamed on the test; they must be requested
by name, not by `request.getfixturevalue` in the middle of a test.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest

CI = os.environ.get("CI", "") not in ("", "0", "false")

# No deadlines, not even for drawing examples: no test measures time. In CI each run draws the same examples, so that a
# failure can be reproduced.
hypothesis.settings.register_profile("dev", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("dev"), derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if CI else "dev")

INIT = 1  # adopts orphans, and in a container may be the very make that runs the tests
ORPHAN_GRACE = 3.0  # seconds for a process whose parent was killed to follow it


def pytest_configure() -> None:
    """Restore the handler of SIGINT: a command that a script starts by `&` ignores SIGINT, and so would every daemon.

    Each of several processes that share the tests has a process group, which shows what its own tests leave behind.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.setpgid(0, 0)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Exclude the objects of the imports from garbage collection, since no_leaks() collects after every test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail the test that leaves a descriptor, a thread or a process behind.

    Objects that the test dropped without closing them are found too: collecting the garbage here makes their
    ResourceWarning an error of this test, and not of a later one.
    """
    descriptors, threads, processes = _descriptors(), set(threading.enumerate()), _processes()
    yield
    gc.collect()
    leaks = [f"descriptor {fd} -> {name}" for fd, name in sorted(_descriptors().items() - descriptors.items())]
    leaks += [f"thread {thread.name!r}" for thread in threading.enumerate() if thread not in threads]
    for pid in sorted(_processes() - processes):
        if name := _still_there(pid):
            leaks.append(f"process {pid} {name}")
            _kill(pid)
    if leaks:
        pytest.fail("the test left behind: " + ", ".join(leaks), pytrace=False)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 on which no socket listens, and which no other socket gets meanwhile."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def _descriptors() -> dict[int, str]:
    """This process's open descriptors, and what each refers to (proc_pid_fd(5))."""
    found = {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(FileNotFoundError):  # the one that listdir() itself had open
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found


def _processes() -> set[int]:
    """The processes for which this one is responsible: its children, and the orphans of its process group.

    An orphan is a member of the group whose parent is none, as is the worker of a daemon that was killed.
    Under `make -j` other recipes' processes are in the group as well, but so are their parents.

    Rejected: reading the state of every process of the machine, twice in each test.  It took a fifth of the unit
    tests' time.
    """
    return _children() | _orphans(os.getpgrp())


def _children() -> set[int]:
    """The children of all threads of this process, including those that have exited (proc_tid_children(5))."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            found.update(map(int, Path(f"/proc/self/task/{thread}/children").read_text().split()))
    return found


def _orphans(group: int) -> set[int]:
    members = {
        pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if pid != INIT and _group(pid) == group
    }
    stats = {pid: stat for pid in members if (stat := _stat(pid))}
    return {pid for pid, stat in stats.items() if stat.parent not in members and stat.state != "Z"}


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


class Stat(NamedTuple):
    """The fields of proc_pid_stat(5) that show whether a process has been left behind."""

    state: str
    parent: int


def _stat(pid: int) -> Stat | None:
    try:
        words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Stat(words[0], int(words[1]))


def _still_there(pid: int) -> str:
    """The command of a process; '' if it has exited, or is an orphan that exits within ORPHAN_GRACE."""
    stat = _stat(pid)
    if stat and stat.parent == os.getpid():
        return "(exited, but was not waited for)" if stat.state == "Z" else _command(pid)
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return ""
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return "" if poll.poll(ORPHAN_GRACE * 1000) else _command(pid)
    finally:
        os.close(pidfd)


def _command(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return "(" + os.fsdecode(b" ".join(words).strip()) + ")"


def _kill(pid: int) -> None:
    """End a leaked process, so that it cannot disturb later tests."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI is set, a skipped test fails: everything that it needs must be there."""
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Where CI is set, a file that is skipped as a whole fails too."""
    report = yield
    _forbid_skip(report)
    return report


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    expected_to_fail = hasattr(report, "wasxfail")  # pytest reports these as skipped
    if CI and report.skipped and not expected_to_fail:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}: nothing may be skipped where CI is set"
