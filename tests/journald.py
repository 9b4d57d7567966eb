"""A journald for tests: a socket that takes entries, and what is in them."""

import json
import socket
import struct
from pathlib import Path
from typing import Any, Self

DEADLINE = 20.0
"""Seconds within which an entry that is waited for must have come."""


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
        """The text of a field that is there once."""
        (value,) = self.fields[name]
        return value.decode()

    @property
    def event(self) -> dict[str, Any]:
        """The object that the message is."""
        event: dict[str, Any] = json.loads(self["MESSAGE"])
        return event


def decode(datagram: bytes) -> list[tuple[str, bytes]]:
    """The fields of an entry, as https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ has it."""
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
        """Nobody is there any more; what was not read is lost."""
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def restart(self) -> None:
        """Be there anew, by another socket of the same name."""
        self.stop()
        self._socket = self._open()

    def next(self) -> Entry:
        """Wait for an entry."""
        datagram, ancillary, _, _ = self._socket.recvmsg(1 << 18, socket.CMSG_SPACE(12))
        ((_, _, credentials),) = ancillary
        return Entry(datagram, struct.unpack("3i", credentials)[0])

    def entries(self) -> list[Entry]:
        """All that have come and were not read."""
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
        """Wait for that event, and return what has come up to it."""
        found = [self.next()]
        while found[-1]["ECHOD_EVENT"] != event:
            found.append(self.next())
        return found
