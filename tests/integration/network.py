"""Networks of the tests' own: a namespace that a daemon is started in, and into which the tests follow it; and two
namespaces joined by a cable, which loses and delays what the tests tell it to."""

import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest

_CLONE_NEWNET = 0x40000000


class Network(NamedTuple):
    """A namespace with one end of the cable: `pid` is a process in it, for inside(), and `address` its IPv4 address."""

    pid: int
    address: str

    def run(self, command: str) -> str:
        """Run a command of ip(8) or tc(8) there, and return what it prints; the cable's end is the device "cable"."""
        with inside(self.pid):
            return subprocess.run(command.split(), check=True, stdout=subprocess.PIPE, text=True).stdout

    def lose_all(self) -> None:
        """From now on nothing that is sent from here arrives, and there is no error."""
        self.run("tc qdisc replace dev cable root pfifo limit 0")

    def has_lost(self) -> bool:
        """Whether anything was lost since then."""
        return "dropped 0," not in self.run("tc -s qdisc show dev cable")

    def lose_nothing(self) -> None:
        """From now on what is sent from here arrives again."""
        self.run("tc qdisc del dev cable root")


def own_network(*commands: str) -> tuple[str, ...]:
    """A prefix for a daemon's command: its own network namespace, with nothing but the loopback device, in which the
    shell's `commands` are run first.

    Skips the test where that is not permitted.
    """
    if not _may_have_one():
        pytest.skip("this user may not make a network namespace")
    script = " && ".join(("ip link set lo up", *commands, 'exec "$@"'))
    return ("unshare", "--net", "sh", "-c", script, "sh")


@contextlib.contextmanager
def inside(pid: int) -> Iterator[None]:
    """Be in the network namespace of a process; the sockets made here stay there (setns(2))."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path: str) -> None:
        with open(path) as file:
            if libc.setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)

    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(f"/proc/{pid}/ns/net")
        try:
            yield
        finally:
            enter(f"/proc/self/fd/{own}")
    finally:
        os.close(own)


@contextlib.contextmanager
def joined_networks() -> Iterator[tuple[Network, Network]]:
    """Two namespaces with a cable between them (veth(4)); the addresses are of a network for documentation (RFC 5737).

    Skips the test where that is not permitted.
    """
    with held_network() as near, held_network() as far:
        one, other = Network(near, "192.0.2.1"), Network(far, "192.0.2.2")
        one.run(f"ip link add cable type veth peer name cable netns {far}")
        for end in (one, other):
            end.run(f"ip address add {end.address}/24 dev cable")
            end.run("ip link set cable up")
        yield one, other


def swallow(sender: Network, receiver: Network, longest: int) -> None:
    """From now on an IPv4 packet to `receiver` of more than `longest` bytes is lost, and no ICMP message says so."""
    sender.run("ip link set dev cable gso_max_segs 1")  # otherwise several segments pass the cable as one packet
    receiver.run("nft add table ip hole")
    receiver.run("nft add chain ip hole in { type filter hook prerouting priority 0 ; }")
    receiver.run(f"nft add rule ip hole in meta length > {longest} drop")


@contextlib.contextmanager
def held_network() -> Iterator[int]:
    """A process that only keeps a namespace; it ends when its input does."""
    command = (*own_network("echo ready"), "cat")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process.pid
        finally:
            process.stdin.close()
            process.wait()


@functools.cache
def _may_have_one() -> bool:
    command = ["unshare", "--net", "ip", "link", "set", "lo", "up"]
    return all(map(shutil.which, ("unshare", "ip"))) and subprocess.run(command, capture_output=True).returncode == 0
