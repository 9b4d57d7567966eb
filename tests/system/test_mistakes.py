"""Mistakes of an administrator, and name servers that do not answer: neither costs a connection."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.system.machine import Machine, kill
from tests.system.service import CONFIG, UNIT, Service
from tests.system.test_handover import PATIENT, exchanging

# Two name servers that never answer, and a third that has 127.0.0.1 for each name (RFC 1035).
NAME_SERVERS = """
import socket, struct
silent = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
for number, sock in enumerate(silent):
    sock.bind((f"127.0.0.{11 + number}", 53))
answering = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
answering.bind(("127.0.0.13", 53))
print("ready", flush=True)
while True:
    query, client = answering.recvfrom(2000)
    end = query.index(b"\\0", 12) + 5
    ipv4 = struct.unpack("!H", query[end - 4 : end - 2])[0] == 1
    record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4" + socket.inet_aton("127.0.0.1") if ipv4 else b""
    answering.sendto(query[:2] + struct.pack("!5H", 0x8180, 1, ipv4, 0, 0) + query[12:end] + record, client)
"""
RESOLVER = "nameserver 127.0.0.11\nnameserver 127.0.0.12\nnameserver 127.0.0.13\noptions timeout:3\n"

LISTENER = """
import socket, signal
with socket.create_server(("127.0.0.1", 10001)):
    print("ready", flush=True)
    signal.pause()
"""


@contextmanager
def running(machine: Machine, script: str) -> Iterator[None]:
    """A script that runs in the machine during the block; it has printed a line when the block is entered."""
    process = machine.start("python3", "-c", script)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        kill(process)


@pytest.fixture
def slowly(service: Service) -> Iterator[Service]:
    """The service with a watchdog that expires before its name servers answer."""
    before = service.machine.output("cat", "/etc/resolv.conf")
    service.machine.write("/etc/resolv.conf", RESOLVER)
    service.configure(WatchdogSec="5s")
    service.machine.write(CONFIG, PATIENT)
    service.start()
    with running(service.machine, NAME_SERVERS):
        yield service
    service.machine.write("/etc/resolv.conf", before)


def test_silent_name_servers(slowly: Service) -> None:
    """A reload and a restart that wait 6 s for a name lose no connection and refuse none."""
    parent = slowly.parent
    with exchanging(slowly.machine) as told:
        slowly.machine.write(CONFIG, f"{PATIENT}host = 'echo.example'\n")
        slowly.machine.run("systemctl", "reload", UNIT)
        assert slowly.parent == parent
        slowly.machine.run("systemctl", "restart", UNIT)
    assert told.check() == []
    assert slowly.show("NRestarts") == "0", "the watchdog did not end it"
    warnings = [event["problem"] for event in slowly.events() if event["event"] == "config_warning"]
    assert any(warning.startswith("resolving host 'echo.example' took ") for warning in warnings), warnings


def test_restart_where_it_cannot_listen(served: Service) -> None:
    """A restart with an address that cannot be bound, or a name without one, continues and shows the reason."""
    machine = served.machine
    machine.write("/etc/hosts", "127.0.0.1 echo.example\n")
    machine.write(CONFIG, f"{PATIENT}host = 'echo.example'\n")
    machine.run("systemctl", "reload", UNIT)
    machine.run("rm", "/etc/hosts")
    mistakes = [
        ("host = 'echo.example'\n", "'echo.example' does not resolve"),
        ("port = 7\n", "port 7 is privileged"),
        ("port = 10001\n", "the address is in use by another program"),
    ]
    with exchanging(machine) as told, running(machine, LISTENER):
        for text, problem in mistakes:
            machine.write(CONFIG, PATIENT + text)
            machine.run("systemctl", "restart", UNIT)
            assert problem in served.show("StatusText")
            assert problem in served.status()
        machine.write(CONFIG, PATIENT)
        machine.run("systemctl", "reload", UNIT)
        assert "failed" not in served.show("StatusText")
    assert told.check() == []
