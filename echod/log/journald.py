"""systemd's journal by its own protocol: one datagram is one entry, with as many fields as one likes.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.  A line on standard error would be an entry, too, but one whose only field
of ours is the line itself.
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
"""Bytes of an entry at most, for whoever makes one.

The kernel refuses (EMSGSIZE) what is larger than the socket's send buffer: 208 KiB if nobody has changed
net.core.wmem_default.  What is larger would have to go by a memfd, which is of no use for what nobody wants to read.
And journalctl(1) by itself shows no value of more than 4096 bytes as JSON; MESSAGE takes about half of an entry.
"""

_TAKEN = 1.0
"""Seconds that journald may take for the last entry."""
_GONE = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE})
"""What send(2) says when nobody has the other end any more: the first time, and from then on."""
_ALWAYS = "SYSLOG_IDENTIFIER=echod\nSYSLOG_FACILITY=3"
"""Facility `daemon` is what systemd says for what a service writes to standard error (SyslogFacility=)."""
_ANY_TEXT = "echod.log.journald"
"""How characters become bytes that are none by UTF-8."""


def encode(message: str, priority: int, fields: Mapping[str, Any]) -> bytes:
    """An entry with MESSAGE, PRIORITY (0 to 7, syslog(3)), SYSLOG_IDENTIFIER, and each of `fields` as `ECHOD_<NAME>`.

    Text is there as it is, a number or bool as JSON has it, None not at all, and each item of a list as a field of its
    own, all with the same name.
    """
    # All is text until the end, with one encoding for it: three times as fast as one for each field.
    parts = [f"{_ALWAYS}\nPRIORITY={priority}\n", _field("MESSAGE", message)]
    parts += [
        _field(f"ECHOD_{name.upper()}", _text(item))
        for name, value in fields.items()
        if value is not None
        for item in (value if isinstance(value, list) else (value,))
    ]
    return "".join(parts).encode(errors=_ANY_TEXT)


def _text(value: str | float) -> str:
    # repr() is ten times as fast as json.dumps(), and but for the case of True it is the same.
    return value if isinstance(value, str) else repr(value).lower()


def _field(name: str, text: str) -> str:
    if "\n" not in text:
        return f"{name}={text}\n"
    size = struct.pack("<Q", len(text.encode(errors=_ANY_TEXT)))
    return f"{name}\n{size.decode(errors='surrogateescape')}{text}\n"


def _encode_surrogates(error: UnicodeError) -> tuple[str | bytes, int]:
    """As surrogateescape, which makes the bytes again that a path has, and never an error of its own."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeEncodeError:
        return codecs.backslashreplace_errors(error)


codecs.register_error(_ANY_TEXT, _encode_surrogates)


class JournaldSocket:
    """A writer for a `Sink`, of entries; `write` takes a whole one or none.

    It is connected, so that poll(2) looks at journald's queue as well as at our buffer (unix(7)), and shared with the
    processes that are forked from this one: journald is told by the kernel which of them has sent an entry.  Raises
    OSError if there is no journald at `path`.
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
        # journald's socket was made anew.  The descriptor stays the same: a loop may be watching it.
        self._sock.connect(self._path)
        return self._sock.send(data, socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Give the descriptor back, at the end of a process, when journald has taken the last entry or is stuck.

        Not before, because it finds the unit of an entry by the process that sent it: where that is gone, the sentence
        with which a start fails is not in `systemctl status`, as was seen with a journald that was late.
        """
        # A socket is writable while at most a quarter of its buffer is in use (unix_writable() in the kernel), and of
        # the smallest buffer one entry is more.  Nobody shares it any more who would miss what is taken from it.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)
        with contextlib.closing(self._sock):
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            poll.poll(_TAKEN * 1000)
