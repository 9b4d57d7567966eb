"""The parent's listening sockets: opened or adopted, stored for the next echod, retired and closed.

They are opened in the same way at startup and at a reload: `plan` opens what is missing, and `commit` makes the plan
the sockets in effect, or `abandon` closes it again.
"""

from collections.abc import Sequence

from echod.log.events import EventLog
from echod.net.listeners import Listener, left_out, open_listeners
from echod.net.sockopts import SocketOptions
from echod.parent.reload import Change
from echod.systemd.fdstore import DescriptorStore

STORED_AS = "echod-listener"
"""The name of listening sockets in systemd's descriptor store."""


class ListeningSockets:
    """The sockets on which the workers accept; at first `listeners`, passed by systemd or kept by an earlier echod."""

    def __init__(self, listeners: Sequence[Listener], store: DescriptorStore, events: EventLog) -> None:
        self.listeners = list(listeners)
        self._store = store
        self._events = events
        self._logged: set[Listener] = set()
        self._stored: set[Listener] = set()

    @property
    def adopted(self) -> bool:
        """Whether a .socket unit passed them, so that they outlive echod."""
        return any(listener.adopted for listener in self.listeners)

    @property
    def addresses(self) -> list[str]:
        """The addresses that accept new connections."""
        return [listener.address for listener in self.listeners if not listener.retires]

    def plan(self, change: Change) -> list[Listener]:
        """The sockets that `change` requires, then those that retire; all are open, but not in effect yet.

        Raises `CannotListen`, and then nothing has changed.
        """
        adopted = [listener for listener in self.listeners if listener.adopted]
        kept = [listener for listener in self.listeners if not listener.adopted]
        endpoints, port = change.endpoints, change.port
        if endpoints is None:
            if not any(listener.is_lost() for listener in kept):
                return self.listeners
            endpoints, port = [listener.endpoint for listener in kept], 0
        planned = open_listeners(endpoints, port, change.terms.socket_options, kept, unix_mode=change.unix_mode)
        for problem in left_out(endpoints, planned):
            self._events.config_warning(problem=problem)
        return adopted + planned

    def moves(self, planned: Sequence[Listener]) -> bool:
        """Whether the plan differs from the sockets in effect."""
        return planned != self.listeners or any(listener.retires for listener in planned)

    def abandon(self, planned: Sequence[Listener], options: SocketOptions) -> None:
        """Close what was opened for this plan, and restore the socket `options` in effect."""
        for listener in planned:
            listener.retires = False
            if listener in self.listeners:
                listener.set_options(options)
            else:
                listener.close()

    def commit(self, planned: Sequence[Listener], options: SocketOptions, unix_mode: int) -> None:
        """Make these the sockets in effect, store them for the next echod, and log the new ones."""
        self.listeners = list(planned)
        self._store_new()
        for listener in self.listeners:
            listener.set_options(options)
            if problem := listener.set_mode(unix_mode):
                self._events.config_warning(problem=problem)
            if not listener.retires and listener not in self._logged:
                self._logged.add(listener)
                self._events.listening(address=listener.address, adopted=listener.adopted)

    def close_retired(self) -> None:
        """Close the sockets that were retired, now that the workers have emptied their queues."""
        retired = [listener for listener in self.listeners if listener.retires]
        self.listeners = [listener for listener in self.listeners if not listener.retires]
        for listener in retired:
            listener.close()
        if retired:
            self._store.remove(STORED_AS)
            self._stored.clear()
            self._store_new()

    def close(self, *, for_successor: bool) -> None:
        """Close all sockets; `for_successor`, only this process's descriptors, since systemd keeps the sockets."""
        if for_successor:
            self.release()
            return
        if not self.adopted:
            self._store.remove(STORED_AS)
        for listener in self.listeners:
            listener.close()

    def release(self) -> None:
        """Close this process's descriptors, and leave the files of unix sockets."""
        for listener in self.listeners:
            listener.release()

    def _store_new(self) -> None:
        new = [listener for listener in self.listeners if not listener.adopted and listener not in self._stored]
        self._stored.update(new)
        self._store.put(STORED_AS, [listener.sock.fileno() for listener in new])
