"""The processes that have a listening socket, from /proc: proc_pid_net(5), proc_pid_fd(5).

An error from bind(2) says that an address is in use, but not by which program.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from echod.net.address import Endpoint

_EVERY = {"0.0.0.0", "::"}
_TCP_LISTEN = "0A"
_UNIX_LISTENS = 0x10000
"""__SO_ACCEPTCON, the flag of a listening unix socket in /proc/net/unix."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process, with the `name` of its program as ps(1) shows it, at most 15 bytes."""

    pid: int
    name: str


@dataclass(frozen=True, slots=True)
class Held:
    """A listening socket: the user that made it, None if unknown, and those processes that this user may see."""

    uid: int | None
    processes: list[Process]


def holders(endpoint: Endpoint, port: int) -> list[Held]:
    """The listening sockets that prevent binding `endpoint`, with the processes that have them.

    A socket in another network namespace, such as a unix socket of a container, is not found.
    """
    found = _unix(endpoint.address) if endpoint.family == socket.AF_UNIX else _tcp(endpoint, port)
    held = {inode: Held(uid, []) for inode, uid in found.items()}
    for pid in filter(str.isdecimal, os.listdir("/proc") if held else ()):
        with contextlib.suppress(OSError):  # the process has ended, or belongs to another user
            for inode in held.keys() & set(_sockets(pid)):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                    held[inode].processes.append(Process(int(pid), comm.read().rstrip("\n")))
    return list(held.values())


def _sockets(pid: str) -> Iterator[str]:
    """The inodes of a process's sockets."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            kind, _, inode = os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")
            if kind == "socket":
                yield inode.strip("[]")


def _tcp(endpoint: Endpoint, port: int) -> dict[str, int | None]:
    """Inode and user of each TCP socket that listens on `port` at the endpoint, at every address, or at one it covers.

    A socket for every IPv6 address may be for every IPv4 address too; it is only considered if no other one is found.
    """
    own, other = ("tcp6", "tcp") if endpoint.family == socket.AF_INET6 else ("tcp", "tcp6")
    found: dict[str, int | None] = {
        inode: uid
        for address, inode, uid in _listening(own, port)
        if address == endpoint.address or {address, endpoint.address} & _EVERY
    }
    return found or {inode: uid for address, inode, uid in _listening(other, port) if address in _EVERY}


def _listening(table: str, port: int) -> Iterator[tuple[str, str, int]]:
    """Address, inode and user of each TCP socket that listens on `port`."""
    for fields in _lines(table):
        address, at = _decode(fields[1])
        if fields[3] == _TCP_LISTEN and at == port:
            yield address, fields[9], int(fields[7])


def _unix(path: str) -> dict[str, int | None]:
    """Inode and user of each unix socket that listens at this path, or at this abstract name, which has no user."""
    shown = path.replace("\0", "@", 1)
    uid = None
    with contextlib.suppress(OSError, ValueError):
        uid = os.lstat(path).st_uid
    return {
        fields[6]: uid for fields in _lines("unix") if int(fields[3], 16) & _UNIX_LISTENS and fields[7:8] == [shown]
    }


def _lines(table: str) -> Iterator[list[str]]:
    """The lines of a table of /proc/net, without its heading; none if the kernel does not have it."""
    with (
        contextlib.suppress(OSError),
        open(f"/proc/self/net/{table}", encoding="utf-8", errors="surrogateescape") as lines,
    ):
        next(lines, None)
        for line in lines:
            # A path may contain spaces.
            yield line.rstrip("\n").split(maxsplit=7 if table == "unix" else -1)


def _decode(text: str) -> tuple[str, int]:
    """The address and port in `0100007F:0007`: each word of the address is a number in the machine's byte order."""
    words, _, port = text.partition(":")
    data = b"".join(int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data), int(port, 16)
