"""What an echod holds does not grow: not with the connections that it has served, nor with the restarts behind it."""

import faulthandler
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.machine import RUN_TIMEOUT, kill, readable
from tests.system.service import CONFIG, UNIT, Service

STAYING = 50
"""Clients that are connected all the while."""
RESTARTS = 100
PER_RESTART = 500
"""Connections during a restart and after it."""
PER_LIFE = 50_000
"""Connections to one echod: what grew with these would be gone with it."""
WARM_UP_RESTARTS = 5
WARM_UP = 5_000
"""Connections that an echod has served before it is looked at: by then all that it needs for them is there."""
VARYING = {"memory", "descriptors of systemd", "unix sockets"}
"""What depends on the collector of garbage, or on others: within `TOLERANCE` it is the same. All else is, or is not."""
TOLERANCE = 0.05

# Clients that stay, and for each line with a number so many that come and go: ten at once, each of which compares what
# it gets back, and then closes, or resets, or ends its side and reads to the end; and of a hundred one that resets with
# an echo unread that fills its buffers. After these, each of those that stay must be echoed, by the connection that it
# had at first. It says how many were right of both.
CLIENTS = """
import socket, struct, sys
ADDRESS, RESET = ("127.0.0.1", 10000), struct.pack("ii", 1, 0)
SENT, MUCH = bytes(range(256)) * 4, bytes(1 << 20)
def connect():
    client = socket.socket()
    client.settimeout(60)
    client.connect(ADDRESS)
    return client
def is_echoed(client):
    received = b""
    while len(received) < len(SENT) and (chunk := client.recv(len(SENT) - len(received))):
        received += chunk
    return received == SENT
def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
def leave(client, number):
    right, ended = is_echoed(client), True
    if number < 2:
        reset(client)
    elif number > 5:
        client.shutdown(socket.SHUT_WR)
        ended = client.recv(1) == b""
    client.close()
    return right and ended
def come_and_go(first):
    clients = [connect() for _ in range(10)]
    for client in clients:
        client.sendall(SENT)
    if first % 100 == 0:
        much = clients.pop()
        much.setblocking(False)
        much.send(MUCH)
        reset(much)
    return 10 - len(clients) + sum(leave(client, number) for number, client in enumerate(clients))
def is_alive(client):
    client.sendall(SENT)
    return is_echoed(client)
staying = [connect() for _ in range(int(sys.argv[1]))]
for line in sys.stdin:
    right = sum(come_and_go(first) for first in range(0, int(line), 10))
    print(right, sum(map(is_alive, staying)), flush=True)
"""

# Of the unit: processes, threads, descriptors, and KiB of memory that is nobody else's, what parent and workers share
# counted once. Of systemd: its descriptors, and which of them are echod's files in memory. Of the kernel: sockets,
# which are there even if nobody has a descriptor of them, because they are in a queue. argv: the unit's control group.
FIGURES = """
import contextlib, json, os, sys
def lines(path):
    with open(path) as file:
        return file.read().splitlines()
def numbers(path, *names):
    return sum(int(line.split()[1]) for line in lines(path) if line.partition(":")[0] in names)
def opened(pid):
    names = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return names
pids = lines(f"/sys/fs/cgroup{sys.argv[1]}/cgroup.procs")
tcp = next(line.split() for line in lines("/proc/net/sockstat") if line.startswith("TCP:"))
print(json.dumps({
    "processes": len(pids),
    "threads": sum(numbers(f"/proc/{pid}/status", "Threads") for pid in pids),
    "descriptors": sum(len(opened(pid)) for pid in pids),
    "memory": sum(numbers(f"/proc/{pid}/smaps_rollup", "Pss_Anon", "Pss_Shmem", "SwapPss") for pid in pids),
    "descriptors of systemd": len(opened(1)),
    "files in memory of systemd": sum(name.startswith("/memfd:echod") for name in opened(1)),
    "unix sockets": len(lines("/proc/net/unix")),
    "TCP sockets": int(tcp[tcp.index("inuse") + 1]),
}))
"""


class Clients:
    """Those of CLIENTS, by the process that they are in."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def come_and_go(self, count: int) -> None:
        """Have so many come and go, and those that stay say that they are alive."""
        with self.coming_and_going(count):
            pass

    @contextmanager
    def coming_and_going(self, count: int) -> Iterator[None]:
        """Have that done meanwhile. Raises AssertionError if one of them is not served, or one that stays is lost."""
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        stdin.write(f"{count}\n")
        stdin.flush()
        yield
        assert readable(stdout.fileno(), time.monotonic() + RUN_TIMEOUT), "no answer"
        answer = stdout.readline()
        assert answer == f"{count} {STAYING}\n", answer or stderr.read()


@contextmanager
def connected(service: Service) -> Iterator[Clients]:
    """Clients that are there until the block is left."""
    process = service.machine.start("python3", "-c", CLIENTS, str(STAYING), stdin=-1)
    try:
        yield Clients(process)
    finally:
        kill(process)


def restart(service: Service, clients: Clients, times: int) -> None:
    """Restart so many times while clients come and go; each time those that stay go on with another process."""
    parents = {service.parent}
    for _ in range(times):
        with clients.coming_and_going(PER_RESTART):
            service.machine.run("systemctl", "restart", UNIT)
        clients.come_and_go(0)
        parents.add(service.parent)
    assert len(parents) == times + 1


def wait_until_the_others_are_gone(service: Service) -> None:
    """Return when echod, too, knows that only those are connected that stay."""
    found = service.show("StatusText")
    while not re.search(f": {STAYING} connections now", found):
        found = service.machine.wait_for_change(UNIT, "StatusText", found)


def figures(service: Service) -> dict[str, int]:
    """How much there is of what may grow."""
    held: dict[str, int] = json.loads(service.machine.output("python3", "-c", FIGURES, service.show("ControlGroup")))
    return held | {"stored": int(service.show("NFileDescriptorStore"))}


def changed(service: Service, before: dict[str, int]) -> dict[str, tuple[int, int]]:
    """What is not as it was, and how much there was and is of it, once whatever is about to end has ended."""
    deadline = time.monotonic() + RUN_TIMEOUT
    while True:
        after = figures(service)
        differing = {name: (old, after[name]) for name, old in before.items() if not is_same(name, old, after[name])}
        if not differing or time.monotonic() > deadline:
            print(f"after:  {after}")
            return differing


def is_same(name: str, before: int, after: int) -> bool:
    """Whether a figure is as it was."""
    return abs(after - before) <= (TOLERANCE * before if name in VARYING else 0)


def test_nothing_grows(served: Service) -> None:
    """After 100 restarts and 100,000 connections, half of them to one echod, it holds as much as before."""
    faulthandler.cancel_dump_traceback_later()  # this takes a minute, and each of its steps has a time limit of its own
    # The journal would take no more of the unit's events for a while, those that the next tests wait for included.
    served.machine.write(CONFIG, "[log]\nconnections = false\n")
    with connected(served) as clients:
        restart(served, clients, WARM_UP_RESTARTS)
        clients.come_and_go(WARM_UP)
        wait_until_the_others_are_gone(served)
        before = figures(served)
        print(f"before: {before}")
        restart(served, clients, RESTARTS)
        clients.come_and_go(WARM_UP)
        assert not changed(served, before)
        for _ in range(PER_LIFE // WARM_UP - 1):
            clients.come_and_go(WARM_UP)
        assert not changed(served, before)
