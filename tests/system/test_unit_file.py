"""The unit file by itself, and what it takes away from a running daemon."""

from tests.system.machine import Machine
from tests.system.service import UNIT, Service

# systemd-analyze's exposure level, 0 to 10, times ten. What is left of it: the network (8), AF_UNIX (1), the host's
# root directory (1), and the clock device that ProtectClock= itself allows to be read (1).
EXPOSURE = 11


def test_systemd_accepts_the_unit_without_a_warning(machine: Machine) -> None:
    """systemd-analyze verify has nothing to say about the unit."""
    verified = machine.run("systemd-analyze", "verify", UNIT)
    assert verified.stdout + verified.stderr == ""


def test_exposure_stays_as_low_as_it_is(machine: Machine) -> None:
    """systemd-analyze security rates the unit at no more than what was reached once."""
    machine.run("systemd-analyze", "security", "--no-pager", f"--threshold={EXPOSURE}", UNIT)


def test_enabling_starts_it_at_boot(machine: Machine) -> None:
    """systemctl enable makes it part of multi-user.target."""
    machine.run("systemctl", "enable", UNIT)
    wants = machine.output("systemctl", "show", "--property=Wants", "--value", "multi-user.target")
    machine.run("systemctl", "disable", UNIT)
    assert UNIT in wants.split()


def test_no_process_has_any_privilege(served: Service) -> None:
    """Parent and workers run as a user of their own, hold no capability and can get none, and are filtered."""
    for pid in {served.parent} | served.workers():
        lines = served.machine.output("cat", f"/proc/{pid}/status").splitlines()
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[capabilities][0], 16) == 0, capabilities
        assert "0" not in status["Uid"] + status["Gid"]
        assert status["NoNewPrivs"] == ["1"]
        assert status["Seccomp"] == ["2"]


def test_no_shell_can_be_run(served: Service) -> None:
    """In the daemon's file system nothing is executable but Python: no shell, no other program."""
    inside = ("nsenter", "--target", str(served.parent), "--mount", "--")
    for program in ("/bin/sh", "/usr/bin/env", "/usr/bin/systemctl"):
        assert "Permission denied" in served.machine.run(*inside, program, check=False).stderr
    served.machine.run(*inside, "/usr/bin/python3", "-c", "")


# Run in the daemon's file system as its user. /proc belongs to the process that looks; /dev/mqueue holds no files.
WRITABLE = """
import os, sys
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
for directory, below, _ in os.walk("/"):
    if directory in ("/proc", "/dev/mqueue"):
        below.clear()
    elif os.access(directory, os.W_OK):
        print(directory)
"""


def test_there_is_nowhere_to_leave_a_file(served: Service) -> None:
    """No directory that the daemon sees can be written to by its user."""
    user = served.machine.output("stat", "--format=%u", f"/proc/{served.parent}")
    inside = ("nsenter", "--target", str(served.parent), "--mount", "--")
    assert served.machine.output(*inside, "/usr/bin/python3", "-c", WRITABLE, user) == ""


def test_a_port_below_1024_takes_what_the_unit_says(service: Service) -> None:
    """The drop-in that the unit's comment describes lets the daemon listen on port 7."""
    capability = "CAP_NET_BIND_SERVICE"
    service.configure(
        CapabilityBoundingSet=capability, AmbientCapabilities=capability, PrivateUsers="no", Environment="ECHOD_PORT=7"
    )
    service.start()
    assert service.echoes(port=7)


# As nobody: connect to the unix socket, which takes the right to write to it, and get a byte back.
UNIX_CLIENT = """
import os, socket
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(20)
    client.connect("/run/echod/socket")
    client.sendall(b"x")
    print(client.recv(1))
"""


def test_a_unix_socket_for_all_takes_what_the_unit_says(service: Service) -> None:
    """The drop-in that the unit's comment describes opens a unix socket to which every user can connect."""
    service.configure(RuntimeDirectory="echod", UMask="0", Environment="ECHOD_HOST=unix:/run/echod/socket")
    service.start()
    assert service.machine.output("python3", "-c", UNIX_CLIENT) == "b'x'"
