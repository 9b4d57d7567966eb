"""The unit file itself, and the restrictions of a running daemon."""

from tests.system.machine import Machine
from tests.system.service import UNIT, Service

# systemd-analyze's exposure level, 0 to 10, times ten. What is left of it: the network (8), AF_UNIX (1), the host's
# root directory (1), and the clock device that ProtectClock= itself allows to be read (1).
EXPOSURE = 11


def test_systemd_accepts_the_units_without_a_warning(machine: Machine) -> None:
    """systemd-analyze verify prints nothing about any of the units (without the man pages: there is no man(1) here)."""
    verified = machine.run("systemd-analyze", "verify", "--man=no", UNIT, "echod@any.service", "echod.socket")
    assert verified.stdout + verified.stderr == ""


def test_exposure_stays_as_low_as_it_is(machine: Machine) -> None:
    """systemd-analyze security rates the unit no higher than the lowest exposure that was reached."""
    machine.run("systemd-analyze", "security", "--no-pager", f"--threshold={EXPOSURE}", UNIT)


def test_enabling_starts_it_at_boot(machine: Machine) -> None:
    """systemctl enable makes it part of multi-user.target."""
    machine.run("systemctl", "enable", UNIT)
    wants = machine.output("systemctl", "show", "--property=Wants", "--value", "multi-user.target")
    machine.run("systemctl", "disable", UNIT)
    assert UNIT in wants.split()


def test_no_process_has_any_privilege(served: Service) -> None:
    """Parent and workers have their own user, no capability, no way to get one, and a filter of system calls."""
    for pid in {served.parent} | served.workers():
        lines = served.machine.output("cat", f"/proc/{pid}/status").splitlines()
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[capabilities][0], 16) == 0, capabilities
        assert "0" not in status["Uid"] + status["Gid"]
        assert status["NoNewPrivs"] == ["1"]
        assert status["Seccomp"] == ["2"]


# As the user nobody: connect to the unix socket, which requires write permission for it, and get a byte back.
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
    """The directives in the comment before UMask= open a unix socket to which every user can connect."""
    service.configure(RuntimeDirectory="echod", Environment="ECHOD_HOST=unix:/run/echod/socket")
    service.start()
    assert service.machine.output("python3", "-c", UNIX_CLIENT) == "b'x'"
