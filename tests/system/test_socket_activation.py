"""echod.socket and its drop-in: the hardest way to run echod, without any network of its own."""

import pytest

from tests.system.machine import Machine
from tests.system.service import CONFIG, UNIT, Service

ADDRESSES = {"127.0.0.1:7", "[::1]:7"}

# systemd-analyze's exposure level, 0 to 10, times ten. What is left: AF_UNIX, the host's root directory, the clock.
EXPOSURE = 2


@pytest.fixture
def activated(machine: Machine, service: Service) -> Service:
    """echod.socket instead of the daemon's own sockets, enabled by the commands in its comment."""
    machine.run("systemctl", "start", UNIT)
    service.use("socket-activated.conf")
    machine.run("systemctl", "enable", "echod.socket")
    machine.run("systemctl", "stop", UNIT)
    machine.run("systemctl", "start", UNIT)
    return service


def test_port_7_without_any_capability(activated: Service) -> None:
    """It echoes on the port of RFC 862, and listens nowhere else."""
    assert activated.machine.listening() == ADDRESSES
    assert activated.echoes("127.0.0.1", 7)
    assert activated.echoes("::1", 7)
    status = activated.machine.output("cat", f"/proc/{activated.parent}/status")
    assert "CapBnd:\t0000000000000000" in status


def test_exposure_is_next_to_nothing(activated: Service) -> None:
    """systemd-analyze security reports only three remaining exposures."""
    activated.machine.run("systemd-analyze", "security", "--no-pager", f"--threshold={EXPOSURE}", UNIT)


def test_the_daemon_has_no_network(activated: Service) -> None:
    """The only interface that its processes see is a loopback of their own, on which nothing listens."""
    inside = ("nsenter", "--target", str(activated.parent), "--net", "--")
    # ip(8) and ss(8) would load the names of the host's files; what the kernel says is enough.
    interfaces = activated.machine.output(*inside, "cat", "/proc/self/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    assert activated.machine.output(*inside, "cat", "/proc/self/net/tcp").splitlines()[1:] == []


def test_the_first_connection_starts_it_and_is_served(activated: Service) -> None:
    """A client that connects while only the socket is there is echoed by a daemon that was not running then."""
    activated.machine.run("systemctl", "stop", UNIT)
    assert activated.show("ActiveState") == "inactive"
    assert activated.echoes("127.0.0.1", 7)
    # A worker may have served before the parent has said that it is ready.
    state = activated.show("ActiveState")
    if state == "activating":
        state = activated.machine.wait_for_change(UNIT, "ActiveState", state)
    assert state == "active"


def test_a_restart_refuses_nobody(activated: Service) -> None:
    """The socket belongs to systemd, so a client that connects while the daemon is down is served afterwards."""
    activated.machine.run("sh", "-c", f"systemctl restart --no-block {UNIT}; exec echoc 127.0.0.1 7 -m now")
    activated.machine.run("systemctl", "start", UNIT)  # joins the restart, wherever that is: either may have served it
    assert activated.show("ActiveState") == "active"


def test_host_and_port_are_overridden(activated: Service) -> None:
    """The sockets from systemd override the addresses of the configuration; `systemctl status` and an event say so."""
    activated.machine.write(CONFIG, 'host = "192.0.2.1"\nport = 10001\n')
    activated.machine.run("systemctl", "restart", UNIT)
    assert activated.machine.listening() == ADDRESSES
    assert "sockets from systemd" in activated.show("StatusText")
    warnings = [event["problem"] for event in activated.events() if event["event"] == "config_warning"]
    assert len(warnings) == 1
    assert "host" in warnings[0]
    assert CONFIG in warnings[0]
    assert "overridden" in warnings[0]


def test_reload_works_without_a_network(activated: Service) -> None:
    """The check before the reload ignores addresses that it cannot bind, but fails for an invalid configuration."""
    activated.machine.run("systemctl", "reload", UNIT)
    activated.machine.write(CONFIG, "prot = 10001\n")
    assert activated.machine.run("systemctl", "reload", UNIT, check=False).returncode != 0
    assert activated.echoes("127.0.0.1", 7)


def test_it_starts_at_boot(activated: Service) -> None:
    """Enabled, the socket is part of sockets.target."""
    wants = activated.machine.output("systemctl", "show", "--property=Wants", "--value", "sockets.target")
    assert "echod.socket" in wants.split()
