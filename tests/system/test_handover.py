"""Restarts of echod on a booted system: connections stay open, and get every byte back, in order."""

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system import package
from tests.system.machine import PATIENCE, Machine, kill
from tests.system.service import CONFIG, PORT, UNIT, Service

# Connections on which messages of 1 byte to 300 kB go out and are compared as they come back, one after the other with
# pauses, so that this is not the bottleneck; and a new connection every 20 ms, until a line arrives. Then each is
# half-closed, and must end. The output has the number of errors of each kind, the connections that broke, those by a
# reset, and quantiles (in thousandths) of the longest time, in milliseconds, that each connection had to wait.
EXCHANGING = """
import asyncio, collections, json, os, random, sys, time
POOL = os.urandom(1 << 20)
served = 0
counts, lost, reset, waits, over = collections.Counter(), [], [], [], asyncio.Event()
async def exchange(reader, writer, longest=0.0):
    size = int(10 ** random.uniform(0, 5.477))
    start = random.randrange(len(POOL) - size)
    sent, begun = POOL[start:start + size], time.monotonic()
    writer.write(sent)
    counts["messages"] += 1
    if await reader.readexactly(size) != sent:
        counts["wrong"] += 1
    return max(longest, time.monotonic() - begun)
async def end(reader, writer):
    writer.write_eof()
    if await reader.read():
        counts["more than was sent"] += 1
    writer.close()
    counts["ended"] += 1
async def attempt(work):
    name = None
    try:
        begun = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", 10000)
        name = "{}:{}".format(*writer.get_extra_info("sockname"))
        waits.append(max(time.monotonic() - begun, await work(reader, writer)))
        await asyncio.wait_for(end(reader, writer), 30)
    except (OSError, EOFError, asyncio.TimeoutError) as error:
        counts[type(error).__name__] += 1
        lost.append(name)
        if isinstance(error, ConnectionResetError):
            reset.append(name)
async def long(reader, writer):
    global served
    longest = await asyncio.wait_for(exchange(reader, writer), 30)
    served += 1
    while not over.is_set():
        await asyncio.sleep(random.uniform(0.1, 0.6))
        longest = await asyncio.wait_for(exchange(reader, writer, longest), 30)
    return longest
async def short(reader, writer):
    return await asyncio.wait_for(exchange(reader, writer), 30)
async def main():
    tasks = [asyncio.ensure_future(attempt(long)) for _ in range(200)]
    while served < len(tasks):
        await asyncio.sleep(0.05)
    print("begun", flush=True)
    asyncio.get_running_loop().add_reader(0, over.set)
    while not over.is_set():
        tasks.append(asyncio.ensure_future(attempt(short)))
        await asyncio.sleep(0.02)
    await asyncio.gather(*tasks)
    waits.sort()
    quantiles = {str(part): round(1000 * waits[int(part / 1000 * (len(waits) - 1))]) for part in (500, 900, 990, 1000)}
    told = {"connections": len(tasks), "lost": lost, "reset": reset, "waits": quantiles}
    print(json.dumps(counts | told), flush=True)
asyncio.run(main())
"""

# Many connections that are mostly idle: one exchange on each, then on one after the other until a line arrives, then
# on each again. The output has the number of live ones, and the longest exchange in between, in milliseconds.
MANY = """
import itertools, resource, select, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
clients = [socket.create_connection(("127.0.0.1", int(sys.argv[2])), 60) for _ in range(int(sys.argv[1]))]
def alive(client):
    try:
        client.sendall(b"hello")
        return client.recv(100) == b"hello"
    except OSError:
        return False
print(sum(map(alive, clients)), flush=True)
longest, turns = 0, itertools.cycle(clients)
while not select.select([0], [], [], 0)[0]:
    begun = time.monotonic()
    alive(next(turns))
    longest = max(longest, time.monotonic() - begun)
print(sum(map(alive, clients)), round(1000 * longest), flush=True)
"""


PATIENT = "limits.drain_timeout = 100\n"
"""Settings with which a wait for a worker that does not exit lasts longer than these clients wait, which is long enough
for any machine."""


SEED = os.environ.get("ECHOD_TEST_SEED", "0")

COMMANDS = {
    "reload": f"systemctl --no-block reload {UNIT}",
    "restart": f"systemctl --no-block restart {UNIT}",
    "try-restart": f"systemctl --no-block try-restart {UNIT}",
    "daemon-reload": "systemctl daemon-reload",
    "daemon-reexec": "systemctl daemon-reexec",
    "kill": f"systemctl kill --kill-whom=main --signal=TERM {UNIT}",
}


def every_pair(things: list[str], pieces: random.Random) -> list[str]:
    """A sequence in which each thing follows each one, itself too, just once: an Eulerian circuit (Hierholzer)."""
    following = {thing: pieces.sample(things, len(things)) for thing in things}
    path, circuit = [things[0]], []
    while path:
        if following[path[-1]]:
            path.append(following[path[-1]].pop())
        else:
            circuit.append(path.pop())
    return circuit[::-1]


def at_once(service: Service, *steps: str | float) -> None:
    """Run the commands without waiting for one before the next, except for the given pauses, in seconds.

    Some of them fail: systemd does not answer while it executes itself again, and a process to kill may be missing.
    A stop is repeated until systemd has accepted it.
    """
    commands = COMMANDS | {"stop": f"until systemctl stop {UNIT}; do sleep 0.1; done"}
    lines = [f"sleep {step}" if isinstance(step, float | int) else f"{commands[step]} &" for step in steps]
    no_more_jobs = f'until jobs=$(systemctl list-jobs --no-legend {UNIT}) && [ -z "$jobs" ]; do sleep 0.1; done'
    service.machine.run("sh", "-c", "\n".join([*lines, "wait", no_more_jobs]))


class Told:
    """The output of the clients at their end."""

    counts: dict[str, Any]

    def check(self) -> list[str]:
        """Assert that nothing was wrong, refused or delayed by a time-out (PATIENT); return the broken connections."""
        print(self.counts)
        # A broken connection ended before its bytes had come back, and never with an end that looks complete.
        expected = {"messages", "connections", "lost", "reset", "waits", "ended", "ConnectionResetError"}
        assert self.counts.keys() <= expected, self.counts
        lost: list[str] = self.counts["lost"]
        assert self.counts["ended"] + len(lost) == self.counts["connections"], self.counts
        return lost


@contextmanager
def exchanging(machine: Machine) -> Iterator[Told]:
    """Clients that exchange bytes during the block; each has completed an exchange when it is entered."""
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
    """The events with that name since the last start."""
    return [event for event in service.events() if event["event"] == name]


@pytest.mark.parametrize("workers", [1, 4])
def test_restarts_drop_nobody(service: Service, workers: int) -> None:
    """Three restarts, with one worker and with four, close no connection; afterwards only the listeners are stored."""
    service.machine.write(CONFIG, f"workers = {workers}\n{PATIENT}")
    service.start()
    with exchanging(service.machine) as clients:
        for _ in range(3):
            service.machine.run("systemctl", "restart", UNIT)
            (taken,) = of(service, "taken_over")
            assert taken["count"] >= 200
            assert (taken["forgotten"], taken["lost"]) == (0, 0)
    assert clients.check() == []
    assert service.show("NFileDescriptorStore") == "3"  # two listening sockets, and the settings
    assert max(event["restarts"] for event in of(service, "connection_closed")) == 3


def test_reloads_drop_nobody(service: Service) -> None:
    """Reloads of terms, of the number of workers and of addresses close and refuse no connection."""
    service.machine.write(CONFIG, PATIENT)
    service.start()
    parent = service.parent
    configurations = ["workers = 4\n", "workers = 4\nchunk_size = 1000\n", "workers = 1\nhost = '0.0.0.0'\n", ""]
    with exchanging(service.machine) as clients, service.machine.journal(f"--unit={UNIT}") as journal:
        for configuration in configurations:
            service.machine.write(CONFIG, configuration + PATIENT)
            service.machine.run("systemctl", "reload", UNIT)
            journal.wait_for_event("reloaded")
    assert clients.check() == []
    changed = [event["changed"] for event in of(service, "reloaded")]
    assert changed == [["workers"], ["chunk_size"], ["host", "chunk_size", "workers"], ["host"]]
    assert service.parent == parent
    assert service.show("NFileDescriptorStore") == "3"
    assert max(event["restarts"] for event in of(service, "connection_closed")) == 0


@pytest.mark.parametrize(("first", "pause", "second"), [("reload", 0.1, "restart"), ("restart", 0, "daemon-reexec")])
def test_two_commands_drop_nobody(service: Service, first: str, pause: float, second: str) -> None:
    """A restart during a reload, and a manager that executes itself again during a restart, close no connection."""
    service.machine.write(CONFIG, PATIENT)
    service.start()
    with exchanging(service.machine) as clients:
        for _ in range(3):
            at_once(service, first, pause, second)
    assert clients.check() == []


def test_commands_in_any_order_drop_nobody(service: Service) -> None:
    """Each command after each other one, up to a second later, closes and refuses no connection."""
    service.machine.write(CONFIG, PATIENT)
    service.start()
    pieces = random.Random(SEED)
    steps = [step for command in every_pair(list(COMMANDS), pieces) for step in (command, pieces.random() ** 2)]
    print(f"seed {SEED}: {steps}")
    with exchanging(service.machine) as clients:
        at_once(service, *steps)
    assert clients.check() == []


@pytest.mark.parametrize("first", sorted(COMMANDS.keys() - {"try-restart"}))  # which is the same job as a restart
def test_a_stop_after_another_command(service: Service, first: str) -> None:
    """A stop is a stop, up to a second after any other command: no echod starts again, and nothing stays in the store.

    No client waits for an echo that never comes.
    """
    service.machine.write(CONFIG, PATIENT)
    service.start()
    with exchanging(service.machine) as clients:
        at_once(service, first, random.Random(f"{SEED} {first}").random() ** 2, "stop")
        # systemd takes the end of the ExecReload= that it kills itself for a failure.
        assert service.show("ActiveState") in {"inactive", "failed" if first == "reload" else "inactive"}
        assert service.show("NFileDescriptorStore") == "0"
    assert not {"wrong", "TimeoutError"} & clients.counts.keys(), clients.counts


def test_a_restart_into_a_reload_drops_nobody(service: Service) -> None:
    """A restart during a reload closes no connection."""
    service.machine.write(CONFIG, PATIENT)
    service.machine.write(NEVER_HUNG_FILE, NEVER_HUNG.read_text())
    service.configure(ExecStart=f"\nExecStart=/usr/bin/python3 -IS {NEVER_HUNG_FILE}")
    try:
        restart_into_reloads(service)
    finally:
        service.machine.run("rm", NEVER_HUNG_FILE)


NEVER_HUNG = Path(__file__).parent / "faulty" / "never_hung.py"
"""In place of the daemon, whose workers may be stopped for long on a slow machine."""
NEVER_HUNG_FILE = "/usr/lib/echod/never-hung.py"


def restart_into_reloads(service: Service) -> None:
    """Restart three times during a reload."""
    service.start()
    with exchanging(service.machine) as clients, service.machine.journal(f"--unit={UNIT}") as journal:
        for size in range(100, 103):
            service.machine.write(CONFIG, f"chunk_size = {size}\n{PATIENT}")
            (worker,) = service.workers()
            # The reload lasts until the worker has answered, which it must not do before systemd has sent its signal.
            reloads = f"until systemctl show --property=StatusText {UNIT} | grep reloading; do :; done"
            stops = f"until systemctl show --property=SubState {UNIT} | grep =stop; do :; done"
            reload, restart = (f"systemctl --no-block {verb} {UNIT}" for verb in ("reload", "restart"))
            steps = (f"kill -STOP {worker}", reload, reloads, restart, stops, f"kill -CONT {worker}")
            service.machine.run("sh", "-c", "; ".join(steps))
            assert journal.wait_for_event("taken_over")["count"] >= 200
            journal.wait_for_event("ready")
    assert clients.check() == []


@pytest.mark.parametrize(("workers", "kills"), [(1, 3), (4, 8)])
def test_killed_workers(service: Service, workers: int, kills: int) -> None:
    """kill -9 of one after the other: no byte is wrong, and each connection that is lost has its event.

    A connection old enough for a copy has an event of its own; the others are counted in the worker's event.
    """
    service.machine.write(CONFIG, f"workers = {workers}\n{PATIENT}")
    service.start()
    pieces = random.Random(workers)
    with exchanging(service.machine) as clients, service.machine.journal(f"--unit={UNIT}") as journal:
        wait_for_copies(service, 200)
        for _ in range(kills):
            service.machine.run("sh", "-c", f"kill -9 {pieces.choice(sorted(service.workers()))}")
            journal.wait_for_event("worker_exited")
            journal.wait_for_event("worker_started")
    lost = clients.check()
    exits = of(service, "worker_exited")
    told = {event["peer"] for event in of(service, "connection_closed") if event["reason"] == "worker_died"}
    assert sum(event["kept"] for event in exits) > 0
    uncounted = [name for name in lost if name not in told]
    assert len(uncounted) <= sum(event["clients"] - event["kept"] for event in exits) - len(told)


def wait_for_copies(service: Service, count: int) -> None:
    """Wait until the parent has this number of sockets more than at first."""
    deadline = time.monotonic() + PATIENCE
    while len(service.machine.output("ls", f"/proc/{service.parent}/fd").split()) < count:
        assert time.monotonic() < deadline, "there are no copies"


def test_a_stop_ends_everything_in_good_order(machine: Machine, service: Service) -> None:
    """A stop echoes what had arrived and then closes, without a reset, and leaves nothing in the store."""
    machine.write(CONFIG, PATIENT)
    service.start()
    with exchanging(machine) as clients:
        machine.run("systemctl", "stop", UNIT)
        peers = {event["peer"] for event in of(service, "connection_closed")}
        service.start()
    print(clients.counts)
    assert "wrong" not in clients.counts
    # The kernel resets a connection that arrives between the last accept from a queue and the end of its socket.
    assert peers
    assert not peers & set(clients.counts["reset"])
    assert service.show("NFileDescriptorStore") == "3"


def test_an_upgrade_and_a_downgrade(fresh: Machine, packages: list[Path], newer: list[Path]) -> None:
    """The restarts by an upgrade and a downgrade of the package, to versions that differ, close no connection."""
    fresh.write(CONFIG, PATIENT)
    package.install(fresh, packages)
    service = Service(fresh)
    with exchanging(fresh) as clients:
        for versions, options in ((newer, ()), (packages, ("--allow-downgrades",))):
            package.install(fresh, versions, *options)
            (taken,) = of(service, "taken_over")
            assert taken["count"] >= 200
            assert (taken["forgotten"], taken["lost"]) == (0, 0)
    assert clients.check() == []
    assert max(event["restarts"] for event in of(service, "connection_closed")) == 2


# A client without a unit, so that it outlives all units at a shutdown: one exchange, and how the connection ends.
WITNESS = """
import socket
with socket.create_connection(("127.0.0.1", 10000), 60) as client:
    client.sendall(b"hello")
    assert client.recv(5) == b"hello"
    print("begun", flush=True)
    try:
        print("end" if client.recv(1) == b"" else "more", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.mark.parametrize("command", ["apt-get remove --yes echod", "systemctl poweroff"])
def test_the_last_stops_drain(fresh: Machine, packages: list[Path], command: str) -> None:
    """The removal of the package and the machine's shutdown end a connection in good order, without a reset."""
    package.install(fresh, packages)
    process = fresh.start("python3", "-c", WITNESS)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        fresh.run(*command.split(), check=False)
        assert process.stdout.readline() == "end\n"
    finally:
        kill(process)


def test_thousands_of_clients(served: Service) -> None:
    """Thousands of connections are alive after a restart."""
    assert alive_after_a_restart(served, 5000, PORT)


def test_behind_echod_socket(service: Service) -> None:
    """Connections to sockets of echod.socket, in a service without a network, are alive after a restart."""
    service.use("socket-activated.conf")
    service.start()
    assert alive_after_a_restart(service, 10, 7)


def alive_after_a_restart(service: Service, count: int, port: int) -> bool:
    """Whether this number of clients, idle meanwhile, get their echo before and after a restart."""
    process = service.machine.start("python3", "-c", MANY, str(count), str(port), stdin=-1)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == f"{count}\n"
        service.machine.run("systemctl", "restart", UNIT)
        assert of(service, "taken_over")[0]["count"] == count
        process.stdin.write("again\n")
        process.stdin.flush()
        alive, longest = map(int, process.stdout.readline().split())
        print(f"{count} clients, longest stall {longest} ms")
        return alive == count
    finally:
        kill(process)
