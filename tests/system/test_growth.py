"""The resources of echod do not grow with the number of connections served or of restarts."""

import faulthandler
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.figures import figures
from tests.system.machine import RUN_TIMEOUT, kill, readable
from tests.system.service import CONFIG, UNIT, Service

STAYING = 50
"""Clients that stay connected."""
RESTARTS = 100
PER_RESTART = 500
"""Connections during a restart and after it."""
PER_LIFE = 50_000
"""Connections to one process of echod: a leak per connection would end with the process."""
WARM_UP_RESTARTS = 5
WARM_UP = 5_000
"""Connections served before the first measurement: by then echod has allocated everything that they need."""
VARYING = {"memory", "descriptors of systemd", "unix sockets"}
"""Figures that depend on garbage collection or other programs: compared within `TOLERANCE`, others exactly."""
TOLERANCE = 0.05

# Clients that stay, and for each line with a number, as many that come and go. Ten of them connect at once; each
# compares its echo, and then closes, or resets, or closes its sending direction and reads to the end. One in a hundred
# resets while an unread echo fills its buffers. After them, each client that stays must get an echo on its first
# connection. The output is the number of successful clients of both kinds.
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


class Clients:
    """The process of CLIENTS."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def come_and_go(self, count: int) -> None:
        """Open and close this number of connections, then check that those that stay are alive."""
        with self.coming_and_going(count):
            pass

    @contextmanager
    def coming_and_going(self, count: int) -> Iterator[None]:
        """Do so during the block. Raises AssertionError if one is not served, or one that stays is lost."""
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
    """Clients that are connected until the block is left."""
    process = service.machine.start("python3", "-c", CLIENTS, str(STAYING), stdin=-1)
    try:
        yield Clients(process)
    finally:
        kill(process)


def restart(service: Service, clients: Clients, times: int) -> None:
    """Restart this number of times while clients come and go; those that stay continue with each new process."""
    parents = {service.parent}
    for _ in range(times):
        with clients.coming_and_going(PER_RESTART):
            service.machine.run("systemctl", "restart", UNIT)
        clients.come_and_go(0)
        parents.add(service.parent)
    assert len(parents) == times + 1


def wait_until_the_others_are_gone(service: Service) -> None:
    """Return when echod counts only the clients that stay."""
    found = service.show("StatusText")
    while not re.search(f": {STAYING} connections now", found):
        found = service.machine.wait_for_change(UNIT, "StatusText", found)


def changed(service: Service, before: dict[str, int]) -> dict[str, tuple[int, int]]:
    """The figures that have changed, with old and new values, once processes that are about to end have ended."""
    deadline = time.monotonic() + RUN_TIMEOUT
    while True:
        after = figures(service)
        differing = {name: (old, after[name]) for name, old in before.items() if not is_same(name, old, after[name])}
        if not differing or time.monotonic() > deadline:
            print(f"after:  {after}")
            return differing


def is_same(name: str, before: int, after: int) -> bool:
    """Whether a figure is unchanged."""
    return abs(after - before) <= (TOLERANCE * before if name in VARYING else 0)


def test_nothing_grows(served: Service) -> None:
    """After 100 restarts and 100,000 connections, half of them to one process, all figures are unchanged."""
    faulthandler.cancel_dump_traceback_later()  # this takes a minute, and each of its steps has a time limit of its own
    # The journal would drop the unit's events for a while, including those for which the next tests wait.
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
