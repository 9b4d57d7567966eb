"""echod.service inside a machine, seen from outside: processes, events, and echoes."""

import json
from collections.abc import Mapping
from typing import Any

from tests.system.machine import Machine

UNIT = "echod.service"
PORT = 10000
CONFIG = "/etc/echod.toml"

# One connection: send, half-close, read to the end, compare. Not echoc, so that a test fails for one reason.
CLIENT = """
import socket, sys
sent = b"any bytes at all: \\x00\\xff\\r\\n" * 1000
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60) as client:
    client.sendall(sent)
    client.shutdown(socket.SHUT_WR)
    received = b""
    while chunk := client.recv(65536):
        received += chunk
sys.exit(received != sent)
"""


class Service:
    """One unit of a machine."""

    def __init__(self, machine: Machine, unit: str = UNIT) -> None:
        self.machine = machine
        self.unit = unit

    def use(self, drop_in: str) -> None:
        """Put one of the drop-ins that come with echod into effect, as its first lines say."""
        self.machine.run("mkdir", "--parents", f"/etc/systemd/system/{UNIT}.d")
        self.machine.run("ln", "-s", f"/usr/share/echod/{drop_in}", f"/etc/systemd/system/{UNIT}.d/")
        self.machine.run("systemctl", "daemon-reload")

    def configure(self, **settings: str) -> None:
        """Override [Service] settings of the unit until the machine is cleaned; an empty line first empties a list."""
        lines = "\n".join(f"{name}={value}" for name, value in settings.items())
        self.machine.write(f"/run/systemd/system/{self.unit}.d/test.conf", f"[Service]\n{lines}\n")
        self.machine.run("systemctl", "daemon-reload")

    def start(self) -> None:
        """Start the unit and return once the daemon has sent READY=1, and `ready` is in the journal.

        `ready` comes later than READY=1, and a test that waits for the next `ready` must not get this one.
        """
        with self.machine.journal(f"--unit={self.unit}") as journal:
            self.machine.run("systemctl", "start", self.unit)
            journal.wait_for_event("ready")

    def wait_for_status(self, wanted: str) -> None:
        """Return when the unit's status contains this text; it may be empty while systemd restarts the unit."""
        found = self.show("StatusText")
        while wanted not in found:
            found = self.machine.wait_for_change(self.unit, "StatusText", found)

    def status(self) -> str:
        """What `systemctl status` shows, with the last entries of the journal."""
        self.machine.journaled("--lines=0")
        return self.machine.run("systemctl", "status", "--full", self.unit, check=False).stdout

    def show(self, name: str) -> str:
        """One property of the unit, see org.freedesktop.systemd1(5)."""
        return self.machine.output("systemctl", "show", "--property", name, "--value", self.unit)

    @property
    def parent(self) -> int:
        """The daemon's main process; 0 when there is none."""
        return int(self.show("MainPID"))

    def processes(self) -> set[int]:
        """Every process of the unit."""
        processes = self.machine.output("cat", f"/sys/fs/cgroup/{self.show('ControlGroup')}/cgroup.procs")
        return {int(pid) for pid in processes.split()}

    def workers(self) -> set[int]:
        """Every one but the parent."""
        return self.processes() - {self.parent}

    def events(self) -> list[dict[str, Any]]:
        """The journal's entries from the unit's last start, each JSON event with its entry's PRIORITY beside it.

        Not selected by invocation: a slow journald gives the last entries of one process the invocation of the next.
        """
        of_unit = f"_SYSTEMD_UNIT={self.unit}"
        starting = self.machine.journaled("--output=json", "--lines=1", of_unit, "ECHOD_EVENT=starting")
        since = f"--cursor={json.loads(starting)['__CURSOR']}"
        lines = self.machine.output("journalctl", "--quiet", "--output=json", "--all", since, of_unit)
        return [parse(json.loads(line)) for line in lines.splitlines()]

    def invocation(self) -> str:
        """The arguments that select the journal entries of the unit's processes since its last start."""
        return f"_SYSTEMD_INVOCATION_ID={self.show('InvocationID')}"

    def echoes(self, host: str = "127.0.0.1", port: int = PORT) -> bool:
        """Whether a client inside the machine gets back what it sends."""
        client = self.machine.run("python3", "-c", CLIENT, host, str(port), check=False)
        return client.returncode == 0


def parse(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The event in a journal entry, with its PRIORITY. Raises AssertionError if the message is no JSON object."""
    try:
        event = json.loads(entry["MESSAGE"])
    except (ValueError, TypeError):
        event = None
    assert isinstance(event, dict), f"not a JSON object: {entry['MESSAGE']!r}"
    return event | {"PRIORITY": entry["PRIORITY"]}
