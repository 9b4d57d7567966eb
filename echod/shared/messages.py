"""Every message between the parent and a worker.

They travel over two pairs of sockets (SOCK_SEQPACKET, unix(7)), so a message arrives whole or not at all:

    the command socket   parent to worker: BEGIN, then commands (DRAIN, DRAIN_ONLY_CLIENTS, HAND_OVER, new terms)
                         worker to parent: READY once, then ADOPTED or HANDED_OVER in answer to a command
    the copy socket      worker to parent only: copies of connections (`handover.copies`)

End of file on the command socket ends the other side: the worker stops when its parent is gone.  Whether a worker is
alive is not a message; its loop ticks in shared memory (`shared.counters`).
"""

BEGIN = b"begin"
"""The parent can watch the worker's process, which may start."""

READY = b"ready"
"""The worker accepts connections."""

DRAIN = b"drain"
"""Echo what has arrived, then end.  Connections in the kernel's queues are accepted first, since no process follows."""

DRAIN_ONLY_CLIENTS = b"drain only clients"
"""The same, but connections in the kernel's queues wait for a successor, which gets the listening sockets."""

ADOPTED = b"adopted"
"""The worker serves by the terms that it was sent: `ServiceTerms.encode`, and the limits' tables."""

HANDED_OVER = b"handed over"
"""The worker has sent its connections to the queue, and drains those for which there was no room."""

COMMAND_MAX = 4096
"""Bytes of a command, terms included."""
REPLY_MAX = 64
"""Bytes of a reply."""

_HAND_OVER = b"hand over "


def hand_over(room: int) -> bytes:
    """The command to send at most `room` connections to the queue whose descriptor comes with it, and to end."""
    return _HAND_OVER + b"%d" % room


def hand_over_room(command: bytes) -> int | None:
    """How many connections a worker may hand over by this command; None if it is another command."""
    return int(command.removeprefix(_HAND_OVER)) if command.startswith(_HAND_OVER) else None
