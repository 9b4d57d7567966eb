"""The listening sockets in systemd's descriptor store: no connection is refused, whatever happens to the daemon."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.machine import kill
from tests.system.service import CONFIG, UNIT, Service
from tests.system.test_failures import journal_of, send

# One connection after the other, a fresh one every 5 ms, until a line comes: each sends, half-closes, reads to the end.
# Then it says how many were right, and what went wrong how often.
CLIENTS = """
import collections, json, select, socket, sys
counts = collections.Counter()
family, address = (socket.AF_UNIX, sys.argv[1]) if "/" in sys.argv[1] else (socket.AF_INET, (sys.argv[1], 10000))
told = False
while not told or not select.select([sys.stdin], [], [], 0.005)[0]:
    try:
        with socket.socket(family) as client:
            client.settimeout(60)
            client.connect(address)
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            counts["right" if b"".join(iter(lambda: client.recv(100), b"")) == b"hello" else "wrong"] += 1
    except OSError as error:
        counts[type(error).__name__] += 1
    if not told:
        print("begun", flush=True)
        told = True
print(json.dumps(counts), flush=True)
"""


class Clients:
    """The results of the clients, when the block is left."""

    counts: dict[str, int]


@contextmanager
def connecting(service: Service, address: str = "127.0.0.1") -> Iterator[Clients]:
    """Clients that come all the time, until the block is left; the first has been served when it is entered."""
    clients = Clients()
    process = service.machine.start("python3", "-c", CLIENTS, address, stdin=-1)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield clients
        process.stdin.write("enough\n")
        process.stdin.flush()
        clients.counts = json.loads(process.stdout.readline())
    finally:
        kill(process)


def stored(service: Service) -> int:
    """The number of descriptors that systemd stores for the unit."""
    return int(service.show("NFileDescriptorStore"))


def test_restarts_refuse_nobody(served: Service) -> None:
    """Each client that connects during three restarts gets its echo, from the old daemon or the new one."""
    with connecting(served) as clients:
        for _ in range(3):
            served.machine.run("systemctl", "restart", UNIT)
    assert clients.counts.keys() == {"right"}, clients.counts


def test_killing_the_parent_refuses_nobody(served: Service) -> None:
    """kill -9: connections may be lost, but none is refused."""
    with connecting(served) as clients, journal_of(served) as journal:
        send(served, signal.SIGKILL, served.parent)
        journal.wait_for_event("ready")
    assert clients.counts.keys() <= {"right", "wrong", "ConnectionResetError"}, clients.counts
    assert clients.counts.get("wrong", 0) + clients.counts.get("ConnectionResetError", 0) <= 1


def test_a_unix_socket_survives_a_restart(service: Service) -> None:
    """A unix socket survives a restart, with its file if the directory does (RuntimeDirectoryPreserve=restart)."""
    service.machine.write(CONFIG, "host = ['unix:/run/echod/socket']\n")
    service.configure(RuntimeDirectory="echod", RuntimeDirectoryPreserve="restart")
    service.start()
    with connecting(service, "/run/echod/socket") as clients:
        service.machine.run("systemctl", "restart", UNIT)
    assert clients.counts.keys() == {"right"}, clients.counts
    service.machine.run("systemctl", "stop", UNIT)
    assert service.machine.run("test", "-e", "/run/echod/socket", check=False).returncode == 1
    service.start()


def test_a_stop_leaves_nothing_in_the_store(served: Service) -> None:
    """After a stop the store is empty, and clients are refused."""
    assert stored(served) == 3  # the settings, too
    served.machine.run("systemctl", "stop", UNIT)
    assert stored(served) == 0
    assert not served.echoes()


def test_500_addresses(service: Service) -> None:
    """With 500 addresses echod becomes ready, its status says so, and a restart refuses and closes no connection."""
    hosts = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(500)]
    service.machine.write(CONFIG, f"host = {hosts}\n")
    service.start()
    assert stored(service) == 501
    with connecting(service, hosts[-1]) as clients:
        service.machine.run("systemctl", "restart", UNIT)
    assert clients.counts.keys() == {"right"}, clients.counts
    assert "127.1.0.8:10000 and 492 more: " in service.show("StatusText")
    assert [event["lost"] for event in service.events() if event["event"] == "taken_over"] == [0]


def test_a_long_wrong_value_delays_no_restart(served: Service) -> None:
    """A restart with a wrong value of 4,200 characters refuses no connection, and the status begins to name it."""
    served.machine.write(CONFIG, f'chunk_size = "{"x" * 4200}"\n')
    with connecting(served) as clients:
        served.machine.run("systemctl", "restart", UNIT)
    assert clients.counts.keys() == {"right"}, clients.counts
    assert "last reload failed: /etc/echod.toml: chunk_size is 'xxx" in served.show("StatusText")


def test_a_restart_into_a_wrong_configuration_loses_nobody(served: Service) -> None:
    """A restart with an invalid configuration continues with the last settings, and reports the error."""
    served.machine.write(CONFIG, "prot = 7\n")
    with connecting(served) as clients:
        served.machine.run("systemctl", "restart", UNIT)
    assert clients.counts.keys() == {"right"}, clients.counts
    (refused,) = (event for event in served.events() if event["event"] == "reload_refused")
    assert "unknown key 'prot'" in refused["problem"]
    assert "last reload failed: /etc/echod.toml: unknown key 'prot'" in served.show("StatusText")
    served.machine.write(CONFIG, "")
    served.machine.run("systemctl", "reload", UNIT)
    assert "refused" not in served.show("StatusText")
