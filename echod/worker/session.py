"""One connection: its socket, its relay, and how it ends.

A session is in one of four states.  `State` says what it waits for in each, and `TRANSITIONS` which states may follow
and why.  Every end has a reason, which is logged:

- `eof`: the client closed its side, and the whole echo was sent.  The session closes at once: nothing is unread, so the
  kernel sends no reset.
- `reset`, `timed_out`, `unreachable`, `error`: the connection failed.
- `idle`, `drained`: the server closes.  A socket that is closed with unread input sends a reset, which destroys bytes
  still on their way to the client (RFC 1122 section 4.2.2.13); so the session is LINGERING first.
- `stalled`, `cut`, `bug`: bytes of the echo cannot be sent.  The session resets the connection, because an incomplete
  echo must not look complete.
"""

import contextlib
import errno
import math
import socket
import time
from collections.abc import Callable
from enum import Enum

from echod.handover.state import Connection, ConnectionState
from echod.log.events import EventLog
from echod.net import address, tcpinfo
from echod.net.loop import READ, WRITE, Loop, Timer
from echod.net.sockopts import reset_on_close
from echod.shared.terms import Timeouts
from echod.worker.relay import Relay
from echod.worker.stall import Stall
from echod.worker.tracing import TracedSocket

_DISCARDED = bytearray(64 << 10)
"""Receives the bytes that are discarded; not the relay's buffer, which may be one byte long."""
_REASONS = {
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ENOTCONN: "reset",  # the error of shutdown(2) when the reset came first
    errno.ETIMEDOUT: "timed_out",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
}


class State(Enum):
    """What a session waits for."""

    READING = "input"
    WRITING = "room in the socket for the pending bytes"
    LINGERING = "the end of the client's side; our side has ended, and input is discarded"
    CLOSED = "nothing"


TRANSITIONS = {
    State.READING: {
        State.WRITING: "the socket accepted only a part of a chunk",
        State.LINGERING: "idle, or drained: our side has ended, the client's has not",
        State.CLOSED: "the client ended its side or failed, or the session was aborted or handed over",
    },
    State.WRITING: {
        State.READING: "the socket accepted the last pending byte",
        State.CLOSED: "the client failed, stalled or was idle, or the session was aborted or handed over",
    },
    State.LINGERING: {
        State.CLOSED: "the client ended its side, or the time to linger is over, or the session was handed over",
    },
    State.CLOSED: {},
}
"""The states that may follow each state, and why.

A session may begin in any of the first three states, since another process may have served the connection before.  No
code reads this table at run time, because checking each change would cost time; the tests check every change that
happens in any of them.
"""


class Session:
    """Serves one connected, non-blocking socket, and owns it.

    It continues from the state of `connection`, which also has the connection's name for the events.  `buffer` is one
    chunk long, and all sessions of a loop may share it.  `on_closed(session)` is called exactly once.
    """

    __slots__ = (
        "_drain_until",
        "_events",
        "_lingers",
        "_loop",
        "_name",
        "_on_closed",
        "_opened_logged",
        "_relay",
        "_restarts",
        "_stall",
        "_state",
        "_timeouts",
        "_timer",
        "copied",
        "counted",
        "fd",
        "sock",
        "sockaddr",
        "started",
    )

    def __init__(
        self,
        connection: Connection,
        loop: Loop,
        events: EventLog,
        buffer: memoryview,
        timeouts: Timeouts,
        on_closed: Callable[["Session"], None],
    ) -> None:
        sock, past = connection
        self.sock = sock
        self.fd = sock.fileno()
        self.copied = False
        """Whether another process has a copy of the socket, so that closing it alone does not end the connection."""
        self.sockaddr = past.sockaddr
        self._name = past.name
        self.started = past.started
        self._restarts = past.restarts
        self._lingers = past.lingers
        self._loop = loop
        self._events = events
        self._timeouts = timeouts
        self._on_closed = on_closed
        self._opened_logged = past.received > 0
        self._drain_until: int | None = None
        self._relay = relay = Relay(self._traced(), buffer, loop, self)
        relay.resume(past)
        self._stall = Stall(self.fd, relay, loop.now)
        if past.pending:
            self._state = State.WRITING
            loop.watch(self.fd, WRITE, relay.on_writable)
        elif past.lingers:
            self._state = State.LINGERING
            loop.watch(self.fd, READ, self._on_discard)
        else:
            self._state = State.READING
            loop.watch(self.fd, READ, relay.on_readable if self._opened_logged else self._on_first)
        self.counted = relay.sent
        """The part of `bytes_echoed` that the worker's counters already include."""
        self._timer = self._close_later() if past.lingers else self._look_later()

    @property
    def bytes_echoed(self) -> int:
        """Bytes sent back so far."""
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
            self._read_until_drained()

    def on_eof(self) -> None:
        """The client has closed its side, and the whole echo was sent."""
        self._close("eof")

    def on_broken(self, error: OSError) -> None:
        """The connection failed."""
        self._close(_REASONS.get(error.errno or 0, "error"))

    def renew(self, buffer: memoryview, timeouts: Timeouts) -> None:
        """Use this buffer and these time-outs from now on, and log chunks if the events' options now require it.

        This does not change the connection itself.
        """
        before, self._timeouts = self._timeouts, timeouts
        self._relay.renew(self._traced(), buffer)
        # Only if they differ: otherwise frequent reloads would postpone the next check for ever.
        if timeouts != before and self._state in (State.READING, State.WRITING):
            self._timer.cancel()
            self._timer = self._look_later()

    def drain(self) -> None:
        """Echo the bytes that have arrived by now, then close our side and linger."""
        if self._state in (State.READING, State.WRITING):
            self._drain_until = self._relay.received + tcpinfo.unread(self.fd)
            if self._state is State.READING:
                self._read_until_drained()

    def snapshot(self) -> ConnectionState:
        """The state that another process needs to continue this connection."""
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

    def hand_over(self) -> None:
        """Give the connection up to the process to which its descriptor was sent; nothing is logged here.

        If no process takes it over, the client gets a reset instead of the pending bytes.
        """
        reset_on_close(self.sock, resets=bool(self._relay.pending))
        self._release()
        self.sock.close()
        self._on_closed(self)

    def abort(self, reason: str) -> None:
        """Close at once; with a reset, unless the whole echo has been sent."""
        self._close(reason, resets=self._state is not State.LINGERING)

    def names(self) -> dict[str, str]:
        """The fields by which an event names the connection."""
        local = address.show(self.sock.family, self.sock.getsockname())
        return {"connection": self._name, "peer": address.peer(self.sock, self.sockaddr), "local": local}

    def _traced(self) -> socket.socket | TracedSocket:
        traces = self._events.logs_chunks
        return TracedSocket(self.sock, self._name, self._events, self._log_opened) if traces else self.sock

    def _on_first(self) -> None:
        self._relay.on_readable()
        if self._relay.received and self._state is not State.CLOSED:
            self._log_opened()
            if self._state is State.READING:
                self._loop.rewatch(self.fd, READ, self._relay.on_readable)

    def _read_until_drained(self) -> None:
        self._loop.rewatch(self.fd, READ, self._on_draining)
        self._linger_if_drained()

    def _on_draining(self) -> None:
        self._relay.on_readable()
        if self._relay.received:
            self._log_opened()
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
        self._timer = self._close_later()

    def _close_later(self) -> Timer:
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
        """Check the client when it may have become idle, and often enough to notice a stall in time."""
        idle_in = self._relay.active + self._timeouts.idle - self._loop.now
        return self._loop.call_later(max(0.0, min(idle_in, self._timeouts.stall / 4)), self._on_look)

    def _on_look(self, now: float) -> None:
        if math.isfinite(self._timeouts.stall):
            self._stall.observe(now)
        if self._stall.is_over(self._timeouts.stall, now):
            self.abort("stalled")
        elif now - self._relay.active < self._timeouts.idle:
            self._timer = self._look_later()
        elif self._state is State.READING:
            self._linger("idle")
        else:
            self.abort("idle")

    def _log_opened(self) -> None:
        if not self._opened_logged:
            self._opened_logged = True
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
            self._log_opened()
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
