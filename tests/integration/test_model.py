"""The daemon beside a model of it: what each client has sent, which is what each client must get back."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.integration import faults, peers
from tests.integration.daemon import DEADLINE, Configured
from tests.integration.faults import COPYING, TICKING_FAST

POOL = os.urandom(1 << 21)
RECEIVE_BUFFER = 1 << 16
"""Bytes; larger ones would hold all that a client does not read, and the daemon would never owe it anything."""
PLACES = 4

places = st.integers(0, PLACES - 1)
sizes = st.sampled_from([1, 100, 65_536, 300_000, 1 << 20])
ERROR = "workers = 0\n"
configurations = st.just(ERROR) | st.builds(
    "workers = {}\nchunk_size = {}\n".format, st.integers(1, 3), st.sampled_from([100, 65_536])
)


class Client:
    """A connection, and its model: the bytes that the kernel has accepted from it, and whether it has half-closed."""

    def __init__(self, sock: socket.socket, kills: int) -> None:
        self.sock = sock
        self.kills = kills
        """How many workers had been killed when it connected."""
        self.sent = bytearray()
        self.received = bytearray()
        self.half_closed = False
        self.end = ""
        """How the connection has ended: eof or reset; empty if it has not."""

    @property
    def is_unix(self) -> bool:
        """Whether it is a connection to a unix socket."""
        return self.sock.family == socket.AF_UNIX

    def send(self, size: int) -> None:
        """Send this number of bytes, or as many of them as the kernel takes at once."""
        data = POOL[len(self.sent) % 1000 :][:size]
        self.sock.setblocking(False)
        try:
            self.sent += data[: self.sock.send(data)]
        except BlockingIOError:
            pass
        except OSError:
            self.end = "reset"
        self.sock.settimeout(DEADLINE)

    def half_close(self) -> None:
        """End its side."""
        if not self.end and not self.half_closed:
            with contextlib.suppress(OSError):  # the connection has ended, as it will see when it reads
                self.sock.shutdown(socket.SHUT_WR)
            self.half_closed = True

    def read(self) -> None:
        """Read all that has been sent, after a half-close the end too, or until the connection ends otherwise."""
        while not self.end and (self.half_closed or len(self.received) < len(self.sent)):
            try:
                data = self.sock.recv(1 << 18)
            except ConnectionResetError:
                self.end = "reset"
            else:
                self.received += data
                self.end = "" if data else "eof"

    def check(self, kills: int) -> None:
        """Assert that the daemon has kept the rule: an end without a reset means that every byte was sent back.

        Only a killed worker ends a connection otherwise; on a unix socket, where the kernel has no reset for it, that
        may be without one.
        """
        assert self.sent.startswith(self.received), "bytes that were not sent, or a gap"
        may_be_cut = kills > self.kills
        if self.end == "reset" or (self.end == "eof" and self.is_unix and self.received != self.sent):
            assert may_be_cut
        elif self.end == "eof" and not (self.is_unix and may_be_cut):
            assert self.half_closed
            assert self.received == self.sent
        else:
            assert len(self.received) == len(self.sent) or self.end


class Model(RuleBasedStateMachine):
    """What clients and the administrator do, in any order.  There are always `PLACES` clients."""

    daemon: Configured
    """One for all examples; a subclass has it, because each example makes an object of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.clients = [self.connect(place) for place in range(PLACES)]

    def connect(self, place: int) -> Client:
        """A new client, over TCP or by the unix socket."""
        address = self.daemon.addresses[place % 2]
        return Client(peers.connect(address, receive_buffer=RECEIVE_BUFFER), self.kills)

    @property
    def kills(self) -> int:
        """How many workers have been killed."""
        return sum("SIGKILL" in event["reason"] for event in self.daemon.of("worker_exited"))

    @rule(place=places, size=sizes)
    def send(self, place: int, size: int) -> None:
        """A client sends, without reading."""
        client = self.clients[place]
        if not client.end and not client.half_closed and len(client.sent) + size <= len(POOL):
            client.send(size)

    @rule(place=places)
    def read(self, place: int) -> None:
        """A client reads what is due to it."""
        self.clients[place].read()
        self.clients[place].check(self.kills)

    @rule(place=places)
    def half_close(self, place: int) -> None:
        """A client ends its side; it reads to the end later."""
        self.clients[place].half_close()

    @rule(place=places, resets=st.booleans())
    def leave(self, place: int, resets: bool) -> None:
        """A client leaves by a reset, whatever is under way, or at the end of its connection; another one connects."""
        with self.clients[place].sock as sock:
            if resets:
                peers.reset(sock)
            else:
                self.half_close(place)
                self.read(place)
        self.clients[place] = self.connect(place)

    @rule(text=configurations)
    def reload(self, text: str) -> None:
        """The administrator reloads: the workers adopt the settings, or others replace them, or there is an error."""
        event = "reload_refused" if text == ERROR else "reloaded"
        before = len(self.daemon.of(event))
        self.daemon.hang_up_on(text)
        self.daemon.wait_for(event, before + 1)

    @rule(place=places, size=sizes, choice=st.integers(0, 2), copied=st.booleans())
    def kill(self, place: int, size: int, choice: int, copied: bool) -> None:
        """The administrator kills a worker, with or without copies of its connections, while a client sends."""
        if copied:
            wait_for_copies(self.daemon)
        self.send(place, size)
        started = self.daemon.of("worker_started")
        exited = {event["worker_pid"] for event in self.daemon.of("worker_exited")}
        alive = [event["worker_pid"] for event in started if event["worker_pid"] not in exited]
        os.kill(alive[choice % len(alive)], signal.SIGKILL)
        self.daemon.wait_for("worker_started", len(started) + 1)

    def teardown(self) -> None:
        """At the end each client reads to the end of its connection."""
        try:
            for place in range(PLACES):
                self.half_close(place)
                self.read(place)
        finally:
            for client in self.clients:
                client.sock.close()


def wait_for_copies(daemon: Configured) -> None:
    """Wait until the parent has a copy of each established TCP connection (/proc/net/tcp: state 01, inode)."""
    port, deadline = f":{daemon.port:04X}", time.monotonic() + DEADLINE
    while True:
        held = set()
        for descriptor in Path(f"/proc/{daemon.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                held.add(os.readlink(descriptor))
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        served = [line[9] for line in lines if line[1].endswith(port) and line[3] == "01"]
        if all(f"socket:[{inode}]" in held for inode in served):
            return
        assert time.monotonic() < deadline, "there are connections without a copy"
        os.sched_yield()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Configured]:
    """A daemon whose parent soon has copies, and replaces a dead worker at once."""
    injected = [*COPYING, faults.no_death_is_early(), faults.replaced_after(0)]
    hosts = ("--host", "127.0.0.1", "--host", f"unix:{tmp_path}/echo")
    with Configured(tmp_path / "echod.toml", "", *hosts, faults=injected, environment=TICKING_FAST) as configured:
        yield configured


def test_every_byte_comes_back(daemon: Configured) -> None:
    """Whatever clients and administrator do, only sent bytes come back, and all of them unless there is a reset."""
    model = type("ModelOfDaemon", (Model,), {"daemon": daemon})
    bounded = settings(max_examples=20, stateful_step_count=25, database=None)
    run_state_machine_as_test(model, settings=bounded)
    assert not daemon.of("bug")
