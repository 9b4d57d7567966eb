"""The listening sockets in systemd's descriptor store."""

from collections.abc import Iterable

from echod.net.listeners import Listener
from echod.systemd.fdstore import DescriptorStore

STORED_AS = "echod-listener"
"""The name of listening sockets in systemd's descriptor store."""


def store(listeners: Iterable[Listener], fdstore: DescriptorStore, *, afresh: bool) -> None:
    """Have systemd keep those that are not its own already for the next echod; `afresh`, and no others."""
    if afresh:
        fdstore.remove(STORED_AS)
    fdstore.put(STORED_AS, [listener.sock.fileno() for listener in listeners if not listener.adopted])
