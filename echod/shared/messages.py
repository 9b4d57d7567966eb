"""Every message between the parent and a worker.

They travel over two pairs of sockets (SOCK_SEQPACKET, unix(7)), so a message arrives whole or not at all:

    the command socket   parent to worker: BEGIN, then commands (DRAIN, DRAIN_ONLY_CLIENTS, HAND_OVER, new terms)
                         worker to parent: READY once, then ADOPTED or HANDED_OVER in answer to a command
    the copy socket      worker to parent only: which copies of connections to keep and to close (`handover.copies`)

A message on the copy socket consists of lines.  A line of `+`, a number and JSON means: keep a copy of the connection
whose descriptor has this number in the worker; the JSON is its state, and the descriptor comes with the message.  A
line of `-` and a number means: close that copy.

The parent trusts none of it, because a worker is exposed to the network.  Each of the two channels is checked in one
place, `parent.slot.WorkerSlot.receive` and `handover.copies.CopyHolder`, and the counters in `counters.Counters.check`.
What no worker of echod sends is `FalseData`, and the worker that has sent it is killed.

At end of file on the command socket the worker stops, because its parent has died.  No message shows that a worker is
alive; its loop ticks in shared memory instead (`shared.counters`).
"""

import re
from collections.abc import Iterable, Sequence

BEGIN = b"begin"
"""The worker may start: the parent can watch its process now."""

READY = b"ready"
"""The worker accepts connections."""

DRAIN = b"drain"
"""Serve each client until it is quiet, then exit.  First accept what is in the kernel's queues: no successor will."""

DRAIN_ONLY_CLIENTS = b"drain only clients"
"""As DRAIN, but leave the connections in the kernel's queues to a successor, which gets the listening sockets."""

ADOPTED = b"adopted"
"""The worker serves by the new terms (`ServiceTerms.encode`, with the descriptor of the limits' tables)."""

HANDED_OVER = b"handed over"
"""The worker has sent its connections to the queue, and drains those for which there was no room."""

COMMAND_MAX = 4096
"""Bytes of a command, including terms."""
REPLY_MAX = 64
"""Bytes of a reply."""

COPIES_MAX = 128
"""Copies in a message: at most 253 (SCM_MAX_FD, unix(7)), and all of their lines must fit into `COPY_MESSAGE_MAX`."""
FORGOTTEN_MAX = 4096
"""Copies to close in a message."""
COPY_MESSAGE_MAX = 64 << 10
"""Bytes of a message on the copy socket."""
STATE_MAX = 512
"""Bytes of a connection's state in such a message; the longest has some 350."""
COPY_LINES_MAX = 100_000
"""Lines about copies in a second; a worker of echod needs longer for as many, since it also serves the connections."""

_HAND_OVER = b"hand over "
_KEEP = b"+"
_FORGET = b"-"
_COPY_LINE = re.compile(rb"\+([0-9]{1,10}) (.{1,%d})|-([0-9]{1,10})" % STATE_MAX)


class FalseData(Exception):
    """A worker has sent what no worker of echod sends; the text says what, in at most a few hundred characters."""


def hand_over(room: int) -> bytes:
    """The command to send at most `room` connections to the queue whose descriptor comes with it, and then to exit."""
    return _HAND_OVER + b"%d" % room


def hand_over_room(command: bytes) -> int | None:
    """How many connections a worker may hand over by this command; None if it is another command."""
    return int(command.removeprefix(_HAND_OVER)) if command.startswith(_HAND_OVER) else None


def keep_copy(number: int, state: bytes) -> bytes:
    """The line to keep a copy of a connection: its descriptor in the worker, and its state in one line of JSON."""
    return b"%b%d %b" % (_KEEP, number, state)


def forget_copy(number: int) -> bytes:
    """The line to close the copy of a connection."""
    return b"%b%d" % (_FORGET, number)


def copy_message(lines: Iterable[bytes]) -> bytes:
    """A message of such lines; the descriptors of those to keep are sent with it, in the same order."""
    return b"\n".join(lines)


def copy_lines(message: bytes) -> Sequence[tuple[int, bytes | None]]:
    """The number and the state of each line of a message; no state for a copy to close.

    Raises `FalseData` if any line has another form.
    """
    lines: list[tuple[int, bytes | None]] = []
    for line in message.split(b"\n"):
        match = _COPY_LINE.fullmatch(line)
        if match is None:
            raise FalseData(f"a line about a copy is {line[:50]!r}, of {len(line)} bytes")
        kept, state, forgotten = match.groups()
        lines.append((int(kept or forgotten), state))
    return lines
