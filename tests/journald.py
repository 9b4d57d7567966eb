"""A journald for tests: a socket that receives entries, and functions to read them."""

import json
import socket
import struct
from pathlib import Path
from typing import Any, Self

DEADLINE = 20.0
"""Seconds within which an awaited entry must arrive."""


class Entry:
    """One entry: its fields by name, each with all its values, and the process that sent it."""

    def __init__(self, datagram: bytes, pid: int = 0) -> None:
        self.size = len(datagram)
        self.pid = pid
        self.fields: dict[str, list[bytes]] = {}
        for name, value in decode(datagram):
            self.fields.setdefault(name, []).append(value)

    def __repr__(self) -> str:
        return f"{self.pid}: {self.fields}"

    def __getitem__(self, name: str) -> str:
        """The text of a field that occurs once."""
        (value,) = self.fields[name]
        return value.decode()

    @property
    def event(self) -> dict[str, Any]:
        """The JSON object in the message."""
        event: dict[str, Any] = json.loads(self["MESSAGE"])
        return event


def decode(datagram: bytes) -> list[tuple[str, bytes]]:
    """The fields of an entry, by https://systemd.io/JOURNAL_NATIVE_PROTOCOL/."""
    fields = []
    while datagram:
        line, end, datagram = datagram.partition(b"\n")
        assert end, f"no end of {line!r}"
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", datagram)
            value, datagram = datagram[8 : 8 + size], datagram[8 + size :]
            assert datagram[:1] == b"\n", f"no end of {name!r}, which has {size} bytes"
            datagram = datagram[1:]
        fields.append((name.decode("ascii"), value))
    return fields


class Journald:
    """The socket at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = self._open()

    def _open(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        sock.settimeout(DEADLINE)
        sock.bind(str(self.path))
        return sock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the socket, so that there is no journald; unread entries are lost."""
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def restart(self) -> None:
        """Open another socket at the same path, as after a restart of journald."""
        self.stop()
        self._socket = self._open()

    def next(self) -> Entry:
        """Wait for an entry."""
        datagram, ancillary, _, _ = self._socket.recvmsg(1 << 18, socket.CMSG_SPACE(12))
        ((_, _, credentials),) = ancillary
        return Entry(datagram, struct.unpack("3i", credentials)[0])

    def entries(self) -> list[Entry]:
        """All entries that have arrived and were not read yet."""
        found: list[Entry] = []
        self._socket.setblocking(False)
        try:
            while True:
                found.append(self.next())
        except BlockingIOError:
            return found
        finally:
            self._socket.settimeout(DEADLINE)

    def wait_for(self, event: str) -> list[Entry]:
        """Wait for that event, and return all entries up to it."""
        found = [self.next()]
        while found[-1]["ECHOD_EVENT"] != event:
            found.append(self.next())
        return found
