"""echod with sockets that systemd opened for it."""

from tests.system.machine import Machine
from tests.system.service import UNIT, Service

SOCKET = """\
[Socket]
ListenStream=127.0.0.1:10007
ListenStream=[::1]:10007
FileDescriptorName=echo
"""


def test_the_first_connection_starts_it_and_is_served(machine: Machine, service: Service) -> None:
    """A client that connects to the socket unit is echoed by a daemon that was not running when it connected."""
    machine.write("/run/systemd/system/echod.socket", SOCKET)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "echod.socket")
    assert service.show("ActiveState") == "inactive"
    assert service.echoes("127.0.0.1", 10007)
    assert service.echoes("::1", 10007)
    assert service.show("ActiveState") == "active"


def test_passed_sockets_take_the_place_of_the_configured_ones(machine: Machine, service: Service) -> None:
    """LISTEN_FDS are adopted and nothing else is bound; `listening` and the status name what is really served."""
    machine.write("/run/systemd/system/echod.socket", SOCKET)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "echod.socket")
    with machine.journal(f"--unit={UNIT}") as journal:
        service.start()
        journal.wait_for_event("ready")
    listeners = machine.output("ss", "--no-header", "--listening", "--tcp", "--numeric")
    assert {line.split()[3] for line in listeners.splitlines()} == {"127.0.0.1:10007", "[::1]:10007"}
    messages = [event["message"] for event in service.events() if event["event"] == "listening"]
    assert len(messages) == 2
    assert "127.0.0.1:10007" in " ".join(messages)
    assert "[::1]:10007" in " ".join(messages)
    assert "127.0.0.1:10007" in service.show("StatusText")
