"""The restrictions of the unit, tested by a program that runs in the daemon's place."""

import json
from typing import Any

import pytest

from tests.system.service import Service

# Each attempt must fail: with OSError, or by finding nothing. What succeeds is printed.
PROBE = """\
import ctypes, json, mmap, os, socket, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))

def places_to_write():
    found = [top for top, below, _ in os.walk("/") if not top.startswith("/proc") and os.access(top, os.W_OK)]
    for place in ("/", "/tmp", "/var/tmp", "/run", "/dev/shm", "/etc", "/usr/lib/echod", "/home", "/root"):
        try:
            os.close(os.open(os.path.join(place, "left"), os.O_WRONLY | os.O_CREAT))
            found.append(place)
        except OSError:
            pass
    return [place for place in found if place != "/dev/mqueue"]

def programs_to_run():
    found = []
    for program in ("/bin/sh", "/usr/bin/env", "/usr/bin/systemctl", "/bin/mount", "/usr/bin/perl"):
        try:
            subprocess.run([program], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            found.append(program)
        except OSError:
            pass
    return found

def families():
    found = []
    for family in socket.AddressFamily:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            try:
                socket.socket(family, kind).close()
                found.append(family.name)
            except OSError:
                pass
    return sorted(set(found) - set(sys.argv[1:]))

def sockets_of_services():
    found = set()
    for line in open("/proc/self/net/unix").read().splitlines()[1:]:
        path = "".join(line.split()[7:8])
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            try:
                with socket.socket(socket.AF_UNIX, kind) as sock:
                    sock.connect(path)
                found.add(path)
            except OSError:
                pass
    return sorted(path for path in found if path != "/run/systemd/notify" and "/journal/" not in path)

def programs_by_the_dynamic_loader():
    import glob
    return [
        program
        for program in ("/bin/sh", "/usr/bin/env", "/usr/bin/systemctl", "/bin/mount", "/usr/bin/perl")
        if subprocess.run(
            [(glob.glob("/lib64/ld-linux*") + glob.glob("/lib/ld-linux*"))[0], program, "--version"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ).returncode != 127
    ]

def raw_sockets():
    return [socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno()]

def capabilities():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return [name for name in status if name.startswith("Cap") and int(status[name], 16)]

def other_users():
    return [str(os.setuid(user)) for user in (0, 1)]

def secrets():
    return [open(name).read(1) for name in ("/etc/shadow", "/root/.profile", "/etc/ssh/ssh_host_rsa_key")]

def other_homes():
    found = []
    for place in ("/root", "/home", "/var/lib", "/var/log", "/boot", "/srv", "/opt"):
        try:
            found += os.listdir(place)
        except OSError:
            pass
    return found

def other_processes():
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and os.stat("/proc/" + pid).st_uid != os.getuid()]

def kernel_settings():
    return [open("/proc/sys/kernel/hostname", "w").fileno()]

def namespaces():
    call("unshare", 0x10000000)
    return ["a user namespace"]

def mounts():
    call("mount", b"none", b"/tmp", b"tmpfs", 0, None)
    return ["a mount"]

def code_that_was_written():
    return [str(mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC))]

def traced_processes():
    call("ptrace", 16, os.getppid(), None, None)
    return ["a process"]

def priorities():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return ["real time"]

def clocks():
    import time
    time.clock_settime(time.CLOCK_REALTIME, time.time())
    return ["the clock"]

def devices():
    return [name for name in os.listdir("/dev") if name in ("mem", "kmsg", "sda", "kvm", "fuse")]

def keys():
    call("syscall", 248, b"user", b"name", b"payload", 7, -3)
    return ["a key"]

found = {}
for attempt in (
    places_to_write, programs_to_run, programs_by_the_dynamic_loader, families, sockets_of_services, raw_sockets,
    capabilities, other_users, secrets, other_homes,
    other_processes, kernel_settings, namespaces, mounts, code_that_was_written, traced_processes, priorities, clocks,
    devices, keys,
):
    try:
        found[attempt.__name__] = attempt()
    except (OSError, ValueError):
        found[attempt.__name__] = []
print(json.dumps(found), file=sys.stderr, flush=True)
"""

PROBE_FILE = "/usr/lib/echod/probe.py"


def probe(service: Service, *families: str) -> dict[str, Any]:
    """The attempts of the probe that succeed, without `families`; empty lists for the others."""
    service.machine.write(PROBE_FILE, PROBE)
    command = " ".join(("/usr/bin/python3", "-IS", PROBE_FILE, *families))
    try:
        service.configure(
            Type="oneshot", Restart="no", RestartForceExitStatus="", WatchdogSec="0", ExecStart=f"\nExecStart={command}"
        )
        with service.machine.journal(f"--unit={service.unit}", "--identifier=echod") as journal:
            service.machine.run("systemctl", "start", service.unit)
            entry = journal.wait_for(lambda entry: True)
    finally:
        service.machine.run("rm", PROBE_FILE)
    found: dict[str, Any] = json.loads(entry["MESSAGE"])
    return found


@pytest.mark.parametrize(
    ("drop_in", "families"),
    [(None, ("AF_INET", "AF_INET6", "AF_UNIX")), ("socket-activated.conf", ("AF_UNIX",))],
    ids=["by itself", "with sockets from systemd"],
)
def test_no_attempt_succeeds(service: Service, drop_in: str | None, families: tuple[str, ...]) -> None:
    """All attempts fail: writing files, running programs, other families, capabilities, other users' files, etc."""
    if drop_in is not None:
        service.use(drop_in)
    found = probe(service, *families)
    assert found
    assert {attempt: result for attempt, result in found.items() if result} == {}


def test_the_probe_finds_what_is_not_taken_away(service: Service) -> None:
    """Without the sandbox the same attempts succeed, so it is the unit that makes them fail."""
    service.machine.write("/run/probe.py", PROBE)
    done = service.machine.run("python3", "-IS", "/run/probe.py", check=False)
    found = json.loads(done.stderr)
    # The other attempts fail for every process of a machine without a kernel of its own.
    assert {attempt for attempt, result in found.items() if result} >= {
        "places_to_write",
        "programs_to_run",
        "programs_by_the_dynamic_loader",
        "families",
        "sockets_of_services",
        "capabilities",
        "other_homes",
        "namespaces",
        "code_that_was_written",
        "keys",
    }
