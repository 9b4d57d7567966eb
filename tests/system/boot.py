"""A Debian root booted with systemd as its process 1.

The recipe is systemd-nspawn with a volatile overlay: the root below stays as it is, changes live in memory and go with
the machine. It boots in less than a second and needs no systemd on the host.
"""

import os
import secrets
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.machine import Machine, readable

BOOT_TIMEOUT = 120.0  # seconds
POWER_OFF_TIMEOUT = 30.0

# However this process ends, even by kill -9, nspawn gets SIGTERM and powers the machine off. $0 is the cgroup to join.
LAUNCH = ("setpriv", "--pdeathsig", "TERM", "--", "sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"')

NSPAWN = (
    *("systemd-nspawn", "--quiet", "--boot", "--console=pipe"),
    # Shared lock on the root (otherwise only one machine at a time could use it), overlay in memory on top.
    *("--read-only", "--volatile=overlay"),
    # Loopback and nothing else, so the tests also prove that nothing needs a network.
    "--private-network",
    # The host need not run systemd: nspawn requests no name from machined and no scope from systemd.
    *("--register=no", "--keep-unit"),
    # The inner systemd must be able to load the BPF programs of IPAddressDeny= and to set up every namespace of a
    # hardened unit, as it could on a real machine.
    "--capability=all",
    # READY=1 comes when the inner systemd has finished booting, not when nspawn has started it.
    "--notify-ready=yes",
    # The signal that means "halt" to systemd; nspawn sends it when it gets SIGTERM.
    "--kill-signal=SIGRTMIN+3",
)

NSPAWN_ENVIRONMENT = {
    # cgroup v2 inside, even on a host with v1: there systemd 257 refuses to boot, and 252 ignores IPAddressDeny=.
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    # nspawn's own system call filter would forbid bpf() and the keyring to the inner systemd.
    "SYSTEMD_SECCOMP": "0",
}


@contextmanager
def boot(suite: str, root: Path, scratch: Path) -> Iterator[Machine]:
    """Boot `root`; powered off at the end, at the latest by force. `scratch` gets the console's output.

    Raises AssertionError with the console's last lines if the boot is not finished within BOOT_TIMEOUT.
    """
    console, notify = scratch / f"{suite}.console", scratch / f"{suite}.notify"
    # Unique on the host: nspawn keeps state under this name.
    name = f"echod-{suite}-{secrets.token_hex(4)}"
    environment = os.environ | NSPAWN_ENVIRONMENT | {"NOTIFY_SOCKET": str(notify)}
    with (
        own_cgroup(name) as cgroup,
        console.open("wb") as log,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications,
    ):
        notifications.bind(str(notify))
        nspawn = subprocess.Popen(
            (*LAUNCH, str(cgroup), *NSPAWN, f"--machine={name}", f"--directory={root}"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            leader = wait_until_booted(nspawn, notifications, console)
            # The inner systemd sends READY=1 again after every daemon-reload. Left open but unread, the socket would
            # fill up, and after ten of them block first nspawn and then process 1.
            notifications.close()
            yield Machine(leader)
        finally:
            power_off(nspawn)


@contextmanager
def own_cgroup(name: str) -> Iterator[Path]:
    """A cgroup at the top of the v2 hierarchy, wherever that is mounted; what is left in it at the end is killed.

    nspawn puts the machine into the cgroup `payload` below its own. Two machines that were started from one cgroup
    would have that in common, and with it all units of the same name: each would kill the other's processes.
    """
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    hierarchy = next((Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"), None)
    assert hierarchy is not None, "no cgroup v2 hierarchy is mounted"
    cgroup = hierarchy / name
    cgroup.mkdir()
    try:
        yield cgroup
    finally:
        (cgroup / "cgroup.kill").write_text("1")
        wait_until_empty(cgroup)
        for directory, _, _ in os.walk(cgroup, topdown=False):
            Path(directory).rmdir()


def wait_until_empty(cgroup: Path) -> None:
    """Return when the last process in the cgroup and below has exited, but after POWER_OFF_TIMEOUT at the latest."""
    with (cgroup / "cgroup.events").open() as events:
        changes = select.poll()
        changes.register(events, select.POLLPRI)
        while "populated 1" in events.read() and changes.poll(POWER_OFF_TIMEOUT * 1000):
            events.seek(0)


def wait_until_booted(nspawn: subprocess.Popen[bytes], notifications: socket.socket, console: Path) -> int:
    """The PID, on the host, of the machine's process 1, once it says READY=1."""
    leader, ready = 0, False
    deadline = time.monotonic() + BOOT_TIMEOUT
    while not (leader and ready):
        # Wait for a datagram, and check once a second whether nspawn has given up.
        if readable(notifications.fileno(), min(deadline, time.monotonic() + 1.0)):
            for line in notifications.recv(8192).decode().splitlines():
                key, _, value = line.partition("=")
                leader = int(value) if key == "X_NSPAWN_LEADER_PID" else leader
                ready = ready or (key, value) == ("READY", "1")
        elif nspawn.poll() is not None or time.monotonic() > deadline:
            last = console.read_text(errors="replace").splitlines()[-15:]
            raise AssertionError("the machine did not boot:\n" + "\n".join(last))
    return leader


def power_off(nspawn: subprocess.Popen[bytes]) -> None:
    """Power the machine off in an orderly way; at once if that takes longer than POWER_OFF_TIMEOUT."""
    for _ in ("orderly", "at once"):
        nspawn.terminate()
        try:
            nspawn.wait(POWER_OFF_TIMEOUT)
            return
        except subprocess.TimeoutExpired:
            pass
    nspawn.kill()
    nspawn.wait()
