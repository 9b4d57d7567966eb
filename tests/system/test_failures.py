"""Processes that die or hang under systemd, and how the service comes back."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.machine import PATIENCE, Journal
from tests.system.service import PORT, UNIT, Service

WATCHDOG = "60s"
"""For a worker that hangs: replacing it takes up to 8 of the unit's 10 s, and on a slow machine more."""


@contextmanager
def journal_of(service: Service) -> Iterator[Journal]:
    """The unit's entries from now on: its own, and systemd's about it."""
    with service.machine.journal(f"--unit={UNIT}") as journal:
        yield journal


def send(service: Service, signal_: signal.Signals, pid: int) -> None:
    """Send a signal inside the machine."""
    service.machine.run("sh", "-c", f"kill -{signal_.value} {pid}")


def alive(service: Service, pids: set[int]) -> set[int]:
    """The processes among these that exist."""
    return pids & {int(name) for name in service.machine.output("ls", "/proc").split() if name.isdigit()}


@pytest.fixture
def two_workers(service: Service) -> Service:
    """The service with two workers, of which a test strikes one."""
    service.configure(Environment="ECHOD_WORKERS=2", WatchdogSec=WATCHDOG)
    service.start()
    return service


def test_killed_parent(served: Service) -> None:
    """kill -9 of the parent kills its workers too; systemd restarts the service, which serves again."""
    parent, workers = served.parent, served.workers()
    with journal_of(served) as journal:
        send(served, signal.SIGKILL, parent)
        journal.wait_for_event("ready")
    assert served.show("NRestarts") == "1"
    assert not alive(served, workers | {parent})
    assert served.echoes()


def test_killing_a_worker_is_the_parents_business(two_workers: Service) -> None:
    """kill -9 of a worker: the parent replaces this worker alone, and systemd notices nothing."""
    check_replacement(two_workers, signal.SIGKILL)


def test_a_hung_worker_is_replaced(two_workers: Service) -> None:
    """SIGSTOP of a worker: the parent kills and replaces it before systemd's watchdog would restart the service."""
    check_replacement(two_workers, signal.SIGSTOP)


HANG = Path(__file__).parent / "faulty" / "hang.py"
"""In place of the daemon."""
HANG_FILE = "/usr/lib/echod/hang.py"


def test_a_hung_loop_is_replaced(service: Service) -> None:
    """A worker whose loop hangs, though the process is well: the parent sees it, and its successor serves."""
    service.machine.write(HANG_FILE, HANG.read_text())
    try:
        service.configure(ExecStart=f"\nExecStart=/usr/bin/python3 -IS {HANG_FILE}", WatchdogSec=WATCHDOG)
        service.start()
        parent, workers = service.parent, service.workers()
        with journal_of(service) as journal:
            # The client's connection ends with the worker.
            service.machine.run("nc", "-N", "-p", "40007", "127.0.0.1", str(PORT), check=False)
            exited = journal.wait_for_event("worker_exited")
            journal.wait_for_event("worker_started")
        assert exited["reason"] == "killed because its loop hung"
        assert not alive(service, workers)
        assert (service.parent, service.show("NRestarts")) == (parent, "0")
        assert service.echoes()
    finally:
        service.machine.run("rm", HANG_FILE)


def check_replacement(service: Service, blow: signal.Signals) -> None:
    """Strike one worker; another must replace it, and every other process must be unchanged."""
    parent, (struck, spared) = service.parent, sorted(service.workers())
    with journal_of(service) as journal:
        send(service, blow, struck)
        journal.wait_for_event("worker_exited")
        journal.wait_for_event("worker_started")
    assert not alive(service, {struck})
    assert spared in service.workers()
    assert len(service.workers()) == 2
    assert (service.parent, service.show("NRestarts")) == (parent, "0")
    assert all(service.echoes() for _ in range(4))


def test_hung_parent(service: Service) -> None:
    """SIGSTOP of the parent: no more WATCHDOG=1 is sent, so systemd restarts the service."""
    service.start()
    parent, workers = service.parent, service.workers()
    with journal_of(service) as journal:
        send(service, signal.SIGSTOP, parent)
        journal.wait_for(lambda entry: "Watchdog timeout" in str(entry.get("MESSAGE")))
        journal.wait_for_event("ready")
    assert service.show("NRestarts") == "1"
    assert not alive(service, workers | {parent})
    assert service.echoes()


def test_a_healthy_daemon_keeps_the_watchdog_fed(service: Service) -> None:
    """WATCHDOG=1 is sent for three of systemd's periods, although there is nothing to do."""
    service.start()
    # As in the unit: on a slow machine a shorter period would end before the daemon can send it.
    period = service.show("WatchdogUSec")
    assert period == "10s"
    stamp = "WatchdogTimestampMonotonic"
    first = last = service.show(stamp)
    while int(last) - int(first) < 3 * int(period.removesuffix("s")) * 1_000_000:
        last = service.machine.wait_for_change(UNIT, stamp, last)
    assert service.show("NRestarts") == "0"
    assert service.show("ActiveState") == "active"


def test_a_crash_loop_backs_off(service: Service) -> None:
    """A daemon that can't start, here because its port is taken, is started ever later, and waits between without
    work."""
    taken = f"--socket-property=ListenStream=127.0.0.1:{PORT}"
    service.machine.run("systemd-run", "--unit=taker", taken, "sleep", "infinity")
    try:
        assert service.machine.run("systemctl", "start", UNIT, check=False).returncode != 0
        restarts = "0"
        while int(restarts) < 4:
            restarts = service.machine.wait_for_change(UNIT, "NRestarts", restarts)
        # The fourth restart has failed meanwhile, or will fail: from then on only the waiting script runs.
        wait_for_back_off(service)
    finally:
        service.machine.run("systemctl", "stop", "taker.socket", UNIT)


def test_a_start_by_hand_ends_the_waiting(service: Service) -> None:
    """After a crash loop, a start by hand resets the number of restarts."""
    taken = f"--socket-property=ListenStream=127.0.0.1:{PORT}"
    service.machine.run("systemd-run", "--unit=taker", taken, "sleep", "infinity")
    try:
        service.machine.run("systemctl", "start", UNIT, check=False)
        service.machine.wait_for_change(UNIT, "NRestarts", "0")
    finally:
        service.machine.run("systemctl", "stop", "taker.socket")
    service.machine.run("systemctl", "restart", UNIT)
    assert service.show("NRestarts") == "0"
    assert service.echoes()


def test_restarts_by_hand_never_trip_a_limit(served: Service) -> None:
    """systemd's own limit of five starts in ten seconds does not hold here."""
    for _ in range(12):
        served.machine.run("systemctl", "restart", UNIT)
    assert served.echoes()


def wait_for_back_off(service: Service) -> None:
    """Return when the waiting script is the only process of the unit.

    The check is repeated if the process has exited meanwhile, or has not executed the script yet.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        found = service.machine.properties(UNIT, "SubState", "ControlPID", "MainPID")
        if found["SubState"] == "stop-post":
            assert found["MainPID"] == "0"
            command = service.machine.run("cat", f"/proc/{found['ControlPID']}/cmdline", check=False).stdout
            if "back-off" in command or "sleep" in command:
                return
        assert time.monotonic() < deadline, found
