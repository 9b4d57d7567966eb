"""Restarts of a booted system's echod: whoever is connected stays so, and gets every byte back, in order."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system import package
from tests.system.machine import Machine, kill
from tests.system.service import CONFIG, PORT, UNIT, Service

# Connections on which messages of 1 byte to 300 kB go out and are compared as they come back, one after the other with
# pauses, so that this is not the bottleneck; and a fresh connection every 20 ms. Until a line comes; then each is
# half-closed, and the end must come. It says what went wrong how often, and the longest time that a message took.
EXCHANGING = """
import asyncio, collections, json, os, random, sys, time
POOL = os.urandom(1 << 20)
counts, longest, over = collections.Counter(), 0.0, asyncio.Event()
async def exchange(reader, writer):
    global longest
    size = int(10 ** random.uniform(0, 5.477))
    start = random.randrange(len(POOL) - size)
    sent, begun = POOL[start:start + size], time.monotonic()
    writer.write(sent)
    counts["messages"] += 1
    if await reader.readexactly(size) != sent:
        counts["wrong"] += 1
    longest = max(longest, time.monotonic() - begun)
async def end(reader, writer):
    writer.write_eof()
    if await reader.read():
        counts["more than was sent"] += 1
    writer.close()
    counts["ended"] += 1
async def attempt(work):
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", 10000)
        await work(reader, writer)
        await asyncio.wait_for(end(reader, writer), 20)
    except (OSError, EOFError, asyncio.TimeoutError) as error:
        counts[type(error).__name__] += 1
async def long(reader, writer):
    while not over.is_set():
        await asyncio.wait_for(exchange(reader, writer), 20)
        await asyncio.sleep(random.uniform(0.1, 0.6))
async def short(reader, writer):
    await asyncio.wait_for(exchange(reader, writer), 20)
async def main():
    global longest
    tasks = [asyncio.ensure_future(attempt(long)) for _ in range(200)]
    while counts["messages"] < 400:
        await asyncio.sleep(0.05)
    longest = 0.0
    print("begun", flush=True)
    asyncio.get_running_loop().add_reader(0, over.set)
    while not over.is_set():
        tasks.append(asyncio.ensure_future(attempt(short)))
        await asyncio.sleep(0.02)
    await asyncio.gather(*tasks)
    print(json.dumps(counts | {"connections": len(tasks), "longest": longest}), flush=True)
asyncio.run(main())
"""

# Many connections that are quiet: one exchange on each, then, when a line comes, another.
MANY = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
clients = [socket.create_connection(("127.0.0.1", int(sys.argv[2])), 30) for _ in range(int(sys.argv[1]))]
def alive(client):
    try:
        client.sendall(b"hello")
        return client.recv(100) == b"hello"
    except OSError:
        return False
print(sum(map(alive, clients)), flush=True)
sys.stdin.readline()
print(sum(map(alive, clients)), flush=True)
"""


class Told:
    """What the clients said at their end."""

    counts: dict[str, Any]

    def check(self) -> None:
        """Assert that nothing was wrong, lost, refused or held up for long."""
        print(f"{self.counts}, longest stall {1000 * self.counts['longest']:.0f} ms")
        longest = self.counts.pop("longest")
        assert self.counts.keys() == {"messages", "connections", "ended"}, self.counts
        assert self.counts["ended"] == self.counts["connections"]
        # What the machine needs for a start, many times over: only what waits for a time-out takes longer.
        assert longest < 5


@contextmanager
def exchanging(machine: Machine) -> Iterator[Told]:
    """Clients that exchange bytes all the while; each has done so when the block is entered."""
    told = Told()
    process = machine.start("python3", "-c", EXCHANGING, stdin=-1)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield told
        process.stdin.write("enough\n")
        process.stdin.flush()
        told.counts = json.loads(process.stdout.readline())
    finally:
        kill(process)


def of(service: Service, name: str) -> list[dict[str, Any]]:
    """The events of that name since the last start."""
    return [event for event in service.events() if event["event"] == name]


@pytest.mark.parametrize("workers", [1, 4])
def test_restarts_drop_nobody(service: Service, workers: int) -> None:
    """Three of them in a row, with one worker and with four; systemd keeps the listening sockets only afterwards."""
    service.machine.write(CONFIG, f"workers = {workers}\n")
    service.start()
    with exchanging(service.machine) as clients:
        for _ in range(3):
            service.machine.run("systemctl", "restart", UNIT)
            (taken,) = of(service, "taken_over")
            assert taken["count"] >= 200
            assert (taken["forgotten"], taken["lost"]) == (0, 0)
    clients.check()
    assert service.show("NFileDescriptorStore") == "3"  # two listening sockets, and the settings
    assert max(event["restarts"] for event in of(service, "connection_closed")) == 3


def test_an_upgrade_and_a_downgrade_drop_nobody(fresh: Machine, packages: list[Path], newer: list[Path]) -> None:
    """The package's own restarts are no different."""
    package.install(fresh, packages)
    with exchanging(fresh) as clients:
        package.install(fresh, newer)
        package.install(fresh, packages, "--allow-downgrades")
    clients.check()
    assert max(event["restarts"] for event in of(Service(fresh), "connection_closed")) == 2


def test_thousands_of_clients(served: Service) -> None:
    """All of them are alive after a restart."""
    assert alive_after_a_restart(served, 5000, PORT)


def test_behind_echod_socket(service: Service) -> None:
    """Connections by sockets of systemd's own are alive too, in a service without a network."""
    service.use("socket-activated.conf")
    service.start()
    assert alive_after_a_restart(service, 10, 7)


def alive_after_a_restart(service: Service, count: int, port: int) -> bool:
    """Whether so many clients, which are quiet meanwhile, are echoed before and after it."""
    process = service.machine.start("python3", "-c", MANY, str(count), str(port), stdin=-1)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == f"{count}\n"
        service.machine.run("systemctl", "restart", UNIT)
        assert of(service, "taken_over")[0]["count"] == count
        process.stdin.write("again\n")
        process.stdin.flush()
        return process.stdout.readline() == f"{count}\n"
    finally:
        kill(process)
