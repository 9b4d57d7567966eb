"""The native protocol of systemd's journal: one datagram is one entry, with any number of fields.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.  A line on standard error becomes an entry as well, but that entry has no
fields of echod besides the line.
"""

import codecs
import contextlib
import errno
import select
import socket
import struct
from collections.abc import Mapping
from typing import Any

SOCKET = "/run/systemd/journal/socket"
ENTRY_MAX = 2 * select.PIPE_BUF
"""Most bytes of an entry.

The kernel refuses (EMSGSIZE) a datagram larger than the socket's send buffer, which is 208 KiB by default
(net.core.wmem_default).  Larger entries would need a memfd: rejected, because they would be too long to read anyway.
Besides, `journalctl -o json` leaves out values above 4096 bytes by default, and MESSAGE takes about half of an entry.
"""

_TAKEN = 1.0
"""Seconds to wait until journald has received the last entry."""
_GONE = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE})
"""Errors of send(2) when the other end is closed, at the first call and at later ones."""
_ALWAYS = "SYSLOG_IDENTIFIER=echod\nSYSLOG_FACILITY=3"
"""3 is the facility `daemon`, as for lines that a service writes to standard error (SyslogFacility=)."""
_ANY_TEXT = "echod.log.journald"
"""The error handler for characters that UTF-8 cannot encode."""


def encode(message: str, priority: int, fields: Mapping[str, Any]) -> bytes:
    """An entry with MESSAGE, PRIORITY (0 to 7, syslog(3)), SYSLOG_IDENTIFIER, and each of `fields` as `ECHOD_<NAME>`.

    Text is left as it is, a number or bool is written as in JSON, None is left out, and each text of a list becomes a
    field of its own, all with the same name.
    """
    # Everything stays text until the end and is encoded once: three times as fast as encoding each field.
    parts = [f"{_ALWAYS}\nPRIORITY={priority}\n", _field("MESSAGE", message)]
    for key, value in fields.items():
        name = f"ECHOD_{key.upper()}"
        if isinstance(value, str):
            parts.append(_field(name, value))
        elif isinstance(value, list):
            parts += [_field(name, item) for item in value]
        elif value is not None:
            # repr() is ten times as fast as json.dumps(), and gives the same, apart from the case of True and False.
            parts.append(f"{name}={repr(value).lower()}\n")
    return "".join(parts).encode(errors=_ANY_TEXT)


def _field(name: str, text: str) -> str:
    if "\n" not in text:
        return f"{name}={text}\n"
    size = struct.pack("<Q", len(text.encode(errors=_ANY_TEXT)))
    return f"{name}\n{size.decode(errors='surrogateescape')}{text}\n"


def _encode_surrogates(error: UnicodeError) -> tuple[str | bytes, int]:
    """Like surrogateescape, which restores the bytes of a path, but escapes what that cannot encode."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeEncodeError:
        return codecs.backslashreplace_errors(error)


codecs.register_error(_ANY_TEXT, _encode_surrogates)


class JournaldSocket:
    """The socket for entries; `write` sends a whole entry or none of it.

    It is connected, so that poll(2) considers journald's queue as well as our buffer (unix(7)).  Forked processes share
    it: journald gets the sender of each entry from the kernel.  Raises OSError if there is no journald at `path`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._sock.connect(path)
        except OSError:
            self._sock.close()
            raise
        self.fd = self._sock.fileno()

    def write(self, data: bytes) -> int:
        """Send one entry.  Raises BlockingIOError if there is no room now, OSError if it is lost."""
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except OSError as error:
            if error.errno not in _GONE:
                raise
        # journald was restarted and has a new socket.  Keep our descriptor: a loop may be watching it.
        self._sock.connect(self._path)
        return self._sock.send(data, socket.MSG_DONTWAIT)

    def close(self) -> None:
        """At the end of a process: close the descriptor once journald has received the last entry, or after a time-out.

        Not earlier, because journald finds the unit of an entry by the process that sent it.  If that process has
        exited, `systemctl status` lacks the reason for a failed start; observed with a slow journald.
        """
        # A socket is writable while at most a quarter of its buffer is in use (unix_writable() in the kernel), and one
        # entry is more than a quarter of the smallest buffer.  No other process shares the socket by now.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)
        with contextlib.closing(self._sock):
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            poll.poll(_TAKEN * 1000)
