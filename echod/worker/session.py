"""One client: its socket, its relay, and the end that it comes to.

A session is in one of four states, and `State` says what it waits for in each.  The relay moves it between READING and
WRITING; everything else is an end:

- `eof`: the client ended its side and has everything back.  Closed at once: nothing is unread, so no reset follows.
- `reset`, `timed_out`, `unreachable`, `error`: the connection failed.
- `idle`, `drained`: the server's decision.  A socket that is closed with unread input sends a reset, which destroys
  what is still on its way to the client (RFC 1122 section 4.2.2.13); so it is LINGERING first.
- `stalled`, `cut`, `bug`: the client can't be given all that is its due.  Reset: an echo that ends short must not
  look whole.
"""

import contextlib
import errno
import socket
import time
from collections.abc import Callable
from enum import Enum

from echod.handover.state import ConnectionState
from echod.log.events import EventLog
from echod.net import address
from echod.net import tcpinfo as queues
from echod.net.loop import READ, WRITE, Loop, Timer
from echod.net.sockopts import reset_on_close
from echod.shared.terms import Timeouts
from echod.worker.relay import Relay
from echod.worker.stall import Stall
from echod.worker.tracing import TracedSocket

_DISCARDED = bytearray(64 << 10)
"""Where bytes go that nobody wants any more; not the buffer, which may be one byte long."""
_REASONS = {
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ENOTCONN: "reset",  # what shutdown(2) says when the reset came first
    errno.ETIMEDOUT: "timed_out",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
}


class State(Enum):
    """What a session waits for."""

    READING = "input"
    WRITING = "room in the socket for what is pending"
    LINGERING = "the client's end, having ended our side, and discards what still comes"
    CLOSED = "nothing"


class Session:
    """Serves one connected, non-blocking socket, and owns it.

    It goes on where `life` has come to, which tells the connection apart in the events; `buffer` is one chunk long, and
    may be shared by all sessions of a loop; `on_closed(session)` is called exactly once.
    """

    __slots__ = (
        "_drain_until",
        "_events",
        "_lingers",
        "_loop",
        "_name",
        "_on_closed",
        "_relay",
        "_restarts",
        "_stall",
        "_state",
        "_timeouts",
        "_timer",
        "_told",
        "copied",
        "fd",
        "sock",
        "sockaddr",
        "started",
    )

    def __init__(
        self,
        life: ConnectionState,
        sock: socket.socket,
        loop: Loop,
        events: EventLog,
        buffer: memoryview,
        timeouts: Timeouts,
        on_closed: Callable[["Session"], None],
    ) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.copied = False
        """Whether another process has a copy of the socket, so that closing it alone does not end the connection."""
        self.sockaddr = life.sockaddr
        self._name = life.name
        self.started = life.started
        self._restarts = life.restarts
        self._lingers = life.lingers
        self._loop = loop
        self._events = events
        self._timeouts = timeouts
        self._on_closed = on_closed
        self._told = life.received > 0
        self._drain_until: int | None = None
        self._relay = relay = Relay(self._traced(), buffer, loop, self)
        relay.received, relay.chunks, relay.active = life.received, life.chunks, life.active
        self._stall = Stall(self.fd, relay, loop.now)
        if life.pending:
            relay.pending = memoryview(life.pending)
            self._state = State.WRITING
            loop.watch(self.fd, WRITE, relay.on_writable)
        elif life.lingers:
            self._state = State.LINGERING
            loop.watch(self.fd, READ, self._on_discard)
        else:
            self._state = State.READING
            loop.watch(self.fd, READ, relay.on_readable if self._told else self._on_first)
        self._timer = self._end_later() if life.lingers else self._look_later()

    @property
    def bytes_echoed(self) -> int:
        """Bytes given back so far."""
        return self._relay.sent

    def on_blocked(self) -> None:
        """The relay waits for room."""
        self._state = State.WRITING
        self._loop.rewatch(self.fd, WRITE, self._relay.on_writable)

    def on_flushed(self) -> None:
        """The relay waits for input."""
        self._state = State.READING
        if self._drain_until is None:
            self._loop.rewatch(self.fd, READ, self._relay.on_readable)
        else:
            self._loop.rewatch(self.fd, READ, self._on_draining)
            self._linger_if_drained()

    def on_eof(self) -> None:
        """The client is done, and has everything back."""
        self._close("eof")

    def on_broken(self, error: OSError) -> None:
        """The connection failed."""
        self._close(_REASONS.get(error.errno or 0, "error"))

    def renew(self, buffer: memoryview, timeouts: Timeouts) -> None:
        """Go on with these, and with what the journal wants to know now; nothing of the connection is touched."""
        before, self._timeouts = self._timeouts, timeouts
        self._relay.renew(self._traced(), buffer)
        # Others only: frequent reloads would put off the next look for ever.
        if timeouts != before and self._state in (State.READING, State.WRITING):
            self._timer.cancel()
            self._timer = self._look_later()

    def drain(self) -> None:
        """Echo what has arrived by now, then end our side and linger."""
        if self._state in (State.READING, State.WRITING):
            self._drain_until = self._relay.received + queues.unread(self.fd)
            if self._state is State.READING:
                self.on_flushed()

    def snapshot(self) -> ConnectionState:
        """What another process has to know to go on with this connection."""
        relay = self._relay
        return ConnectionState(
            self._name,
            self.sockaddr,
            self.started,
            relay.active,
            relay.received,
            relay.chunks,
            bytes(relay.pending),
            self._lingers,
            self._restarts,
        )

    def leave(self) -> None:
        """Give up this end of the connection, which is another process's from now on; nobody is told.

        If nobody ever takes it up, the client gets a reset in place of what is pending.
        """
        reset_on_close(self.sock, resets=bool(self._relay.pending))
        self._release()
        self.sock.close()
        self._on_closed(self)

    def abort(self, reason: str) -> None:
        """Close at once; with a reset, unless all that the client is due is on its way."""
        self._close(reason, resets=self._state is not State.LINGERING)

    def _traced(self) -> socket.socket | TracedSocket:
        tells = self._events.tells_chunks
        return TracedSocket(self.sock, self._name, self._events, self._tell_opened) if tells else self.sock

    def _on_first(self) -> None:
        self._relay.on_readable()
        if self._relay.received and self._state is not State.CLOSED:
            self._tell_opened()
            if self._state is State.READING:
                self._loop.rewatch(self.fd, READ, self._relay.on_readable)

    def _on_draining(self) -> None:
        self._relay.on_readable()
        self._linger_if_drained()

    def _linger_if_drained(self) -> None:
        if self._state is State.READING and self._relay.received >= (self._drain_until or 0):
            self._linger("drained")

    def _linger(self, reason: str) -> None:
        self._state = State.LINGERING
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.on_broken(error)
            return
        self._lingers = reason
        self._loop.rewatch(self.fd, READ, self._on_discard)
        self._timer.cancel()
        self._timer = self._end_later()

    def _end_later(self) -> Timer:
        return self._loop.call_later(self._timeouts.linger, lambda now: self._close(self._lingers))

    def _on_discard(self) -> None:
        try:
            ended = not self.sock.recv_into(_DISCARDED)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self._close(self._lingers)

    def _look_later(self) -> Timer:
        """Look after this client when it may have become idle, and often enough to see it stall in time."""
        idle_in = self._relay.active + self._timeouts.idle - self._loop.now
        return self._loop.call_later(max(0.0, min(idle_in, self._timeouts.stall / 4)), self._on_look)

    def _on_look(self, now: float) -> None:
        if self._stall.is_over(self._timeouts.stall, now):
            self.abort("stalled")
        elif now - self._relay.active < self._timeouts.idle:
            self._timer = self._look_later()
        elif self._state is State.READING:
            self._linger("idle")
        else:
            self.abort("idle")

    def names(self) -> dict[str, str]:
        """Which connection an event is about, for people."""
        local = address.show(self.sock.family, self.sock.getsockname())
        return {"connection": self._name, "peer": address.peer(self.sock, self.sockaddr), "local": local}

    def _tell_opened(self) -> None:
        if not self._told:
            self._told = True
            self._events.connection_opened(**self.names())

    def _release(self) -> None:
        self._state = State.CLOSED
        self._loop.unwatch(self.fd)
        self._timer.cancel()

    def _close(self, reason: str, *, resets: bool = False) -> None:
        if self._state is State.CLOSED:
            return
        self._release()
        relay = self._relay
        if relay.received:
            self._tell_opened()
        names = self.names()
        reset_on_close(self.sock, resets=resets)
        if self.copied and not resets:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self._events.connection_closed(
            **names,
            bytes_received=relay.received,
            bytes_sent=relay.sent,
            chunks=relay.chunks,
            duration=round(time.monotonic() - self.started, 6),
            restarts=self._restarts,
            reason=reason,
        )
        self._on_closed(self)
