"""One connection: its socket, its relay, and how it ends.

A session is in one of four states.  `State` says what it waits for in each, and `TRANSITIONS` which states may follow
and why.  Every end has a reason, which is logged:

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
from collections.abc import Callable
from enum import Enum

from echod.handover.state import Connection, ConnectionState
from echod.log.events import EventLog
from echod.net import address, tcpinfo
from echod.net.loop import NOTHING, READ, WRITE, Loop, Timer
from echod.net.sockopts import reset_on_close
from echod.shared.terms import Timeouts
from echod.worker.quiet import Quiet
from echod.worker.relay import Relay
from echod.worker.stall import Stall
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


class State(Enum):
    """What a session waits for."""

    READING = "input"
    WRITING = "room in the socket, or memory in the kernel, for the pending bytes"
    LINGERING = "the end of the client's side; our side has ended, and any further byte leads to a reset"
    CLOSED = "nothing"


TRANSITIONS = {
    State.READING: {
        State.WRITING: "the socket accepted only a part of a chunk, or nothing for lack of memory",
        State.LINGERING: "idle, or drained: our side has ended, the client's has not",
        State.CLOSED: "the client ended its side or failed, or the session was aborted or handed over",
    },
    State.WRITING: {
        State.READING: "the socket accepted the last pending byte",
        State.CLOSED: "the client failed, stalled or was idle, or the session was aborted or handed over",
    },
    State.LINGERING: {
        State.CLOSED: "the client ended its side or sent more, the time is over, or the session was handed over",
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
        "_events",
        "_lingers",
        "_loop",
        "_name",
        "_needs_memory",
        "_on_closed",
        "_opened_logged",
        "_quiet",
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
        self._quiet: Quiet | None = None
        """While draining: whether the client is quiet."""
        self._needs_memory = False
        """Whether a call failed for lack of memory, and nothing is watched until the timer repeats it."""
        self._relay = relay = Relay(self._traced(), buffer, loop, self)
        relay.resume(past)
        self._stall = Stall(sock, relay, loop.now)
        if past.pending:
            self._state = State.WRITING
            loop.watch(self.fd, WRITE, relay.on_writable)
        elif past.lingers:
            self._state = State.LINGERING
            loop.watch(self.fd, READ, self._on_late)
        else:
            self._state = State.READING
            loop.watch(self.fd, READ, self._reader())
        self.counted = relay.sent
        """The part of `bytes_echoed` that the worker's counters already include."""
        self._timer = self._stop_lingering_later() if past.lingers else self._look_later()

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
            self._needs_memory = True
            self._loop.rewatch(self.fd, NOTHING, self._resume)
            self._timer.cancel()
            self._timer = self._look_later()
        else:
            self._fail(error)

    def on_bug(self, error: Exception) -> None:
        """A callback of this connection raised an error, which ends this connection only."""
        if isinstance(error, OSError):
            self._fail(error)
        else:
            self._events.bug_of(error)
            self.abort("bug")

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
        """Serve the client until it is quiet, then close our side and linger."""
        if self._quiet is None and self._state in (State.READING, State.WRITING):
            self._quiet = Quiet(self.fd, self._relay)
            self._timer.cancel()
            self._on_timer(self._loop.now)

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

        If no process takes it over, the kernel resets it (`sockopts.set_options`): its client may be sending.
        """
        self._release()
        self.sock.close()
        self._on_closed(self)

    def names(self) -> dict[str, str]:
        """The fields by which an event names the connection."""
        return {"connection": self._name} | address.ends(self.sock, self.sockaddr)

    def _traced(self) -> socket.socket | TracedSocket:
        traces = self._events.logs_chunks
        return TracedSocket(self.sock, self._name, self._events, self._log_opened) if traces else self.sock

    def _on_first(self) -> None:
        self._relay.on_readable()
        if self._relay.received and self._state is not State.CLOSED:
            self._log_opened()
            if self._state is State.READING:
                self._loop.rewatch(self.fd, READ, self._relay.on_readable)

    def _resume(self) -> None:
        """Repeat a call that failed for lack of memory, or find out why the connection has failed meanwhile."""
        self._needs_memory = False
        if self._state is State.WRITING:
            self._loop.rewatch(self.fd, WRITE, self._relay.on_writable)
        else:
            self._loop.rewatch(self.fd, READ, self._reader())

    def _reader(self) -> Callable[[], None]:
        return self._relay.on_readable if self._opened_logged else self._on_first

    def _linger(self, reason: str) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._fail(error)
            return
        self._state = State.LINGERING
        self._lingers = reason
        self._loop.rewatch(self.fd, READ, self._on_late)
        self._timer.cancel()
        self._timer = self._stop_lingering_later()

    def _stop_lingering_later(self) -> Timer:
        return self._loop.call_later(self._timeouts.linger, self._on_timer)

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

    def _look_later(self) -> Timer:
        """Check the client when it may have become idle or quiet, and often enough to notice a stall in time."""
        idle = self._timeouts.idle
        idle_in = idle if self._stall.owed else self._relay.active + idle - self._loop.now
        wait = min(idle_in, self._timeouts.stall / 4)
        if self._quiet is not None:
            wait = min(wait, self._quiet.due - self._loop.now)
        if self._needs_memory:
            wait = min(wait, _RETRY)
        return self._loop.call_later(max(0.0, wait), self._on_timer)

    def _on_timer(self, now: float) -> None:
        try:
            if self._state is State.LINGERING:
                self._stop_lingering()
            else:
                self._look(now)
        except Exception as error:  # noqa: BLE001  as in a callback of the descriptor
            self.on_bug(error)

    def _look(self, now: float) -> None:
        if self._needs_memory:
            self._resume()
        stalls = math.isfinite(self._timeouts.stall)
        if stalls:
            self._stall.observe(now)
        if self._stall.is_over(self._timeouts.stall, now):
            self.abort("stalled")
        elif self._quiet is not None and self._quiet.observe(now):
            self._linger("drained")
        elif (stalls and self._stall.owed) or now - self._relay.active < self._timeouts.idle:
            # A client that reads slowly may acknowledge nothing for longer than the idle time-out.
            self._timer = self._look_later()
        elif self._state is State.WRITING:
            self.abort("idle")
        elif tcpinfo.unread(self.fd):
            self._relay.touch()
            self._timer = self._look_later()
        else:
            self._linger("idle")

    def _log_opened(self) -> None:
        if not self._opened_logged:
            self._opened_logged = True
            self._events.connection_opened(**self.names())

    def _release(self) -> None:
        self._state = State.CLOSED
        self._loop.unwatch(self.fd)
        self._timer.cancel()

    def _fail(self, error: OSError) -> None:
        self.abort(_REASONS.get(error.errno or 0, "error"))

    def _close(self, reason: str, *, resets: bool, late: int = 0) -> None:
        """End the connection, either in order or with a reset; `late` bytes were received and are not echoed."""
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
            bytes_received=relay.received + late,
            bytes_sent=relay.sent,
            chunks=relay.chunks,
            duration=round(time.monotonic() - self.started, 6),
            restarts=self._restarts,
            reason=reason,
        )
        self._on_closed(self)
