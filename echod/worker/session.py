"""One connection: its socket, its relay, and how it ends.

A session is in one of four states (`worker.state`).  Every end has a reason, which is logged:

- `eof`: the client closed its side, and the whole echo was sent.
- `idle`, `drained`: the server ended its side of a quiet connection, and LINGERING saw no further byte.
- `late`: bytes arrived after the server had ended its side.  They are not echoed.
- `stalled`, `memory`, `cut`, `bug`: bytes of the echo cannot be sent, or at a stop the client was not quiet in time.
- `reset`, `timed_out`, `unreachable`, `error`: the connection failed.

One rule governs all of them: over TCP, an end without a reset means that every byte received was sent back.  So `eof`,
`idle` and `drained` end in order, and every other reason resets the connection: an incomplete echo must not look
complete.  A reset after our FIN comes too late for a client that only reads, because it sees the clean end first; so
only a quiet connection gets a FIN (`worker.quiet`).

On a unix socket the kernel resets only if input is unread, so an incomplete echo may end like a complete one there.
Rejected: consuming the input only after it was sent (MSG_PEEK).  Measured, it makes an echo of 64 bytes cost 1.4 times
as much, and at a hand-over pending bytes would be unread as well.
"""

import contextlib
import errno
import math
import socket
import time
from typing import Protocol

from echod.handover.copies import AGE
from echod.handover.state import Connection, ConnectionState
from echod.log.events import EventLog
from echod.log.formatters import utc
from echod.net import address, tcpinfo
from echod.net.loop import NOTHING, READ, WRITE, Loop, Timer
from echod.net.sockopts import reset_on_close
from echod.shared.terms import Timeouts
from echod.worker.quiet import Quiet
from echod.worker.relay import Buffer, Relay
from echod.worker.stall import Stall
from echod.worker.state import State
from echod.worker.tracing import TracedSocket

_LATE = bytearray(64 << 10)
"""Receives bytes that are not echoed; not the relay's buffer, which may be one byte long."""
_RETRY = 0.1
"""Seconds until a call that failed for lack of memory is repeated."""
_NO_MEMORY = {errno.ENOBUFS, errno.ENOMEM}
"""recv(2) and send(2): the connection is as it was before."""
_REASONS = {
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ENOTCONN: "reset",  # the error of shutdown(2) when the reset came first
    errno.ETIMEDOUT: "timed_out",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
}


class Owner(Protocol):
    """The object that has accepted the connection, and counts it."""

    def on_closed(self, session: "Session") -> None:
        """The session has ended; called exactly once."""


class Session:
    """Serves one connected, non-blocking socket, and owns it.

    It continues from the state of `connection`, which also has the connection's name for the events.  All sessions of a
    loop may share `buffer`.  No timer watches its time-outs: `worker.sweep` calls `check` several times within each of
    them, except while `is_at_rest`.
    """

    __slots__ = (
        "_at_rest",
        "_events",
        "_lingers",
        "_loop",
        "_name",
        "_opened_logged",
        "_owner",
        "_quiet",
        "_relay",
        "_restarts",
        "_retry",
        "_stall",
        "_state",
        "copied",
        "counted",
        "fd",
        "local",
        "looked",
        "sock",
        "sockaddr",
        "started",
    )

    def __init__(
        self, connection: Connection, loop: Loop, events: EventLog, buffer: Buffer, owner: Owner, local: str = ""
    ) -> None:
        sock, past = connection
        self.sock = sock
        self.fd = sock.fileno()
        self.copied = False
        """Whether another process has a copy of the socket, so that closing it alone does not end the connection."""
        self.sockaddr = past.sockaddr
        self.local = local
        """The address of our end, for the events; empty if the kernel is to be asked."""
        self._name = past.name
        self.started = past.started
        self._restarts = past.restarts
        self._lingers = past.lingers
        self._loop = loop
        self._events = events
        self._owner = owner
        # Before a process gives a connection to another one, it logs that the connection was opened: see `snapshot`.
        # If it is killed, this event may be missing for a connection whose first bytes came in the last second.
        self._opened_logged = past.received > 0
        self._quiet: Quiet | None = None
        """While draining: whether the client is quiet."""
        self._stall: Stall | None = None
        """While bytes are due to the client, as far as the last check observed."""
        self._at_rest = False
        self._retry: Timer | None = None
        """After a call that failed for lack of memory, until it is repeated; only a failure is watched until then."""
        self._relay = relay = Relay(self._traced(), buffer, loop, self)
        relay.resume(past)
        if past.pending:
            self._state = State.WRITING
            loop.watch(self.fd, WRITE, relay.on_writable)
        elif past.lingers:
            self._state = State.LINGERING
            relay.touch()
            loop.watch(self.fd, READ, self._on_late)
        else:
            self._state = State.READING
            loop.watch(self.fd, READ, relay.on_readable)
        self.counted = relay.sent
        """The part of `bytes_echoed` that the worker's counters already include."""
        self.looked = loop.now
        """When `worker.sweep` last looked at the session, by the clock."""

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
        self._loop.rewatch(self.fd, READ, self._relay.on_readable)

    def on_eof(self) -> None:
        """The client has closed its side, and the whole echo was sent."""
        self._close("eof", resets=False)

    def on_broken(self, error: OSError) -> None:
        """A call failed: for lack of memory, so that it is repeated later, or because the connection failed."""
        if error.errno in _NO_MEMORY:
            if self._relay.pending and self._state is State.READING:
                self._state = State.WRITING
            self._loop.rewatch(self.fd, NOTHING, self._resume)
            self._cancel_retry()
            self._retry = self._loop.call_later(_RETRY, self._on_retry)
        else:
            self._fail(error)

    def on_bug(self, error: Exception) -> None:
        """A callback of this connection raised an error, which ends this connection only."""
        if isinstance(error, OSError):
            self._fail(error)
        else:
            self._events.bug_of(error)
            self.abort("bug")

    def trace(self) -> None:
        """Log chunks from now on if the events' options require it, and otherwise no longer."""
        if self._state is not State.CLOSED:
            self._relay.use(self._traced())

    def is_at_rest(self, now: float, idle: float) -> bool:
        """Whether `check` would find nothing: no byte has moved since it was called last, and none was due then.

        Bytes that are pending have been received, but not sent and so not `counted`.  This costs no system call; `idle`
        is the idle time-out in seconds.
        """
        relay = self._relay
        return self._at_rest and relay.received == self.counted and now - relay.active < idle

    def check(self, now: float, timeouts: Timeouts) -> None:
        """Find what no descriptor reports: that the client is idle, quiet or stalled, or that a time is over."""
        try:
            if self._state is State.LINGERING:
                if now - self._relay.active >= timeouts.linger:
                    self._stop_lingering()
            elif self._state is not State.CLOSED:
                self._find_end(now, timeouts)
        except Exception as error:  # noqa: BLE001  as in a callback of the descriptor
            self.on_bug(error)

    def drain(self, timeouts: Timeouts) -> None:
        """Serve the client until it is quiet, then close our side and linger."""
        if self._quiet is None and self._state in (State.READING, State.WRITING):
            self._quiet = Quiet(self.fd, self._relay)
            self.check(self._loop.now, timeouts)

    def cut(self) -> None:
        """The time for draining is over: end the connection, with a reset unless everything has been echoed.

        A client that has been quiet, and merely has not acknowledged the last of its echo, still gets that and an end
        in order: the kernel sends them even after this process has exited.
        """
        if self._state is State.LINGERING:
            self._stop_lingering()
        elif self._quiet is not None and self._quiet.is_silent(self._loop.now):
            self._close("drained", resets=False)
        else:
            self.abort("cut")

    def abort(self, reason: str) -> None:
        """Reset the connection at once."""
        self._close(reason, resets=True)

    def snapshot(self) -> ConnectionState:
        """The state that another process needs to continue this connection.

        If bytes have arrived, this logs `connection_opened` unless it was logged before, so the other process need not.
        """
        relay = self._relay
        if relay.received:
            self._log_opened()
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

        If no process takes it over, the kernel resets it (`sockopts.set_options`): its client may be sending.
        """
        self._release()
        self.sock.close()
        self._owner.on_closed(self)

    def names(self) -> dict[str, str]:
        """The fields by which an event names the connection."""
        return {"connection": self._name} | address.ends(self.sock, self.sockaddr, self.local)

    def _traced(self) -> socket.socket | TracedSocket:
        traces = self._events.logs_chunks
        return TracedSocket(self.sock, self._name, self._events, self._log_opened) if traces else self.sock

    def _resume(self) -> None:
        """Repeat a call that failed for lack of memory, or find out why the connection has failed meanwhile."""
        self._cancel_retry()
        if self._state is State.WRITING:
            self._loop.rewatch(self.fd, WRITE, self._relay.on_writable)
        else:
            self._loop.rewatch(self.fd, READ, self._relay.on_readable)

    def _on_retry(self, now: float) -> None:
        try:
            self._resume()
        except OSError as error:
            self.on_bug(error)

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _linger(self, reason: str) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._fail(error)
            return
        self._state = State.LINGERING
        self._lingers = reason
        self._cancel_retry()  # what may still come is late, and the relay must not read it
        self._relay.touch()
        self._loop.rewatch(self.fd, READ, self._on_late)

    def _stop_lingering(self) -> None:
        self._on_late()
        self._close(self._lingers, resets=False)

    def _on_late(self) -> None:
        """The client has ended its side, or failed; or it has sent bytes, which it must not take for echoed."""
        try:
            late = self.sock.recv_into(_LATE)
        except BlockingIOError:
            return
        except OSError:
            self.abort(self._lingers)
            return
        if late:
            self._close("late", resets=True, late=late)
        else:
            self._close(self._lingers, resets=False)

    def _find_end(self, now: float, timeouts: Timeouts) -> None:
        relay = self._relay
        self._at_rest = False
        self._observe(now)
        if relay.received and now - self.started >= AGE:
            self._log_opened()
        if self._stall is not None and self._stall.is_over(self.sock, timeouts.stall, now):
            self.abort("stalled")
        elif self._quiet is not None and self._quiet.observe(now, owed=self._stall is not None):
            self._linger("drained")
        elif (self._stall is not None and math.isfinite(timeouts.stall)) or now - relay.active < timeouts.idle:
            # A client that reads slowly may acknowledge nothing for longer than the idle time-out.
            logged = self._opened_logged or not relay.received  # else it is checked again when it is old enough
            self._at_rest = logged and self._stall is None and self._quiet is None and self._retry is None
        elif self._state is State.WRITING:
            self.abort("idle")
        elif tcpinfo.unread(self.fd):
            relay.touch()
        else:
            self._linger("idle")

    def _observe(self, now: float) -> None:
        """Ask the kernel how much the client has acknowledged.  If it was more than at the last check, it is active."""
        relay = self._relay
        queued = tcpinfo.unacknowledged(self.fd)
        if not queued and not relay.pending:
            self._stall = None
        elif self._stall is None:
            self._stall = Stall(relay.sent - queued, now)
        elif self._stall.observe(relay.sent - queued, now):
            relay.touch()

    def _log_opened(self) -> None:
        if self._opened_logged:
            return
        self._opened_logged = True
        if self._events.logs_connection(self._relay.received):
            self._events.connection_opened(**self.names())

    def _release(self) -> None:
        self._state = State.CLOSED
        self._cancel_retry()
        self._loop.unwatch(self.fd)
        self._relay.end()

    def _fail(self, error: OSError) -> None:
        self.abort(_REASONS.get(error.errno or 0, "error"))

    def _close(self, reason: str, *, resets: bool, late: int = 0) -> None:
        """End the connection, either in order or with a reset; `late` bytes were received and are not echoed."""
        if self._state is State.CLOSED:
            return
        self._release()
        self._log_end(reason, late)
        reset_on_close(self.sock, resets=resets)
        if self.copied and not resets:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self._owner.on_closed(self)

    def _log_end(self, reason: str, late: int) -> None:
        """Log the end; a connection shorter than `AGE` is described by this event alone."""
        relay = self._relay
        received = relay.received + late
        if not self._events.logs_connection(received, reason):
            return
        duration = time.monotonic() - self.started
        if relay.received and duration >= AGE:
            self._log_opened()
        self._events.connection_closed(
            **self.names(),
            bytes_received=received,
            bytes_sent=relay.sent,
            chunks=relay.chunks,
            started=utc(time.time() - duration),
            duration=round(duration, 6),
            restarts=self._restarts,
            reason=reason,
        )
