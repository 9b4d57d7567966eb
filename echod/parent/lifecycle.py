"""The states of the parent, and every transition between them.

The parent is in one of nine states.  `Supervisor` acts; this module only lists the possible transitions, so that they
can be read on one page, and so that any other transition raises an error.

    STARTING      The pool's workers have been forked; not all of them accept yet.
    SERVING       Every worker accepts, and serves by the settings in effect.
    READING       A child process reads the configuration and resolves host names.  Nothing has changed yet.
    RELOADING     New terms have been sent to the workers; not all workers have adopted them yet.
    REPLACING     The pool hands its connections to another pool, which starts once the last old worker has exited.
    ASKING        A restart was requested; systemd is asked whether it stores the queue for it.  All are served.
    HANDING_OVER  The pool hands its connections to the next echod, through a queue in systemd's descriptor store.
    DRAINING      The workers serve their clients until these are quiet, then exit.  None is replaced.
    STOPPED       No worker is left.

What signals do:

- SIGHUP requests a reload.  In SERVING it begins at once.  In every other state it waits until the state is SERVING
  again, because files may have changed after they were read; once echod stops, the request is discarded.  In READING it
  waits too: if each SIGHUP started another reading, a series of them would never be answered.  At a terminal SIGHUP
  stops echod, because closing the terminal sends it (termios(3)).
- SIGUSR2 announces that the next SIGTERM is the first half of a restart.  The unit's ExecStop= sends it.
- SIGTERM and SIGINT stop echod: DRAINING, or ASKING if this is a restart.  If systemd then refuses to store
  descriptors, DRAINING follows, else HANDING_OVER: an answer that is late is not a refusal.  In READING the child
  process is killed, and the reload ends without an event.  In REPLACING the stop waits until the new pool has the
  connections.  systemd runs no ExecStop= for a service that is starting or reloading, so a SIGTERM outside SERVING
  counts as a restart if there is a descriptor store: a restart is the more frequent case, and if it was a stop,
  connections are reset instead of closed in order.
- A second SIGTERM or SIGINT kills the workers without waiting for them to drain; in ASKING once systemd has answered.
  In REPLACING it kills the old pool; the new one still starts, with the connections that are left, is stopped like any
  other, and is killed too.
- SIGQUIT logs the state, and changes nothing.
- Other signals are ignored, or keep their default action (`signals.DEFAULT`).

What messages from workers do (`shared.messages`):

- READY from the last worker of a pool ends STARTING.
- ADOPTED from the last worker ends RELOADING, and HANDED_OVER from the last one ends HANDING_OVER.

When a worker dies in STARTING, SERVING, READING, RELOADING or ASKING, the pool replaces it, and the state does not
change; the parent no longer waits for an answer from it.  In REPLACING, HANDING_OVER and DRAINING it is not replaced,
and the death of the last worker ends the state.  A worker whose loop hangs is killed, so the same applies to it.
"""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto


class State(Enum):
    """What the parent is doing."""

    STARTING = auto()
    SERVING = auto()
    READING = auto()
    RELOADING = auto()
    REPLACING = auto()
    ASKING = auto()
    HANDING_OVER = auto()
    DRAINING = auto()
    STOPPED = auto()


class Trigger(Enum):
    """What can end a state."""

    POOL_READY = "every worker of the pool accepts"
    RELOAD = "a reload was requested"
    REFUSED = "the new configuration is invalid, or cannot take effect now; nothing has changed"
    TERMS_SENT = "the new terms have been sent to the workers"
    REPLACEMENT_BEGUN = "the command to hand its connections to another pool has been sent to the pool"
    TERMS_ADOPTED = "all workers have adopted the new terms"
    RESTART = "a stop was requested, after which another echod continues with the connections"
    KEPT = "systemd stores the queue to the next echod"
    STOP = "a stop was requested"
    HANDED_OVER = "all workers have handed their connections over to the next echod"
    POOL_GONE = "the last worker of a pool that ends has exited"


TRANSITIONS: Mapping[State, Mapping[Trigger, State]] = {
    State.STARTING: {
        Trigger.POOL_READY: State.SERVING,
        Trigger.RESTART: State.ASKING,
        Trigger.STOP: State.DRAINING,
    },
    State.SERVING: {
        Trigger.RELOAD: State.READING,
        Trigger.RESTART: State.ASKING,
        Trigger.STOP: State.DRAINING,
    },
    State.READING: {
        Trigger.REFUSED: State.SERVING,
        Trigger.TERMS_SENT: State.RELOADING,
        Trigger.REPLACEMENT_BEGUN: State.REPLACING,
        Trigger.RESTART: State.ASKING,
        Trigger.STOP: State.DRAINING,
    },
    State.RELOADING: {
        Trigger.TERMS_ADOPTED: State.SERVING,
        Trigger.RESTART: State.ASKING,
        Trigger.STOP: State.DRAINING,
    },
    State.REPLACING: {Trigger.POOL_GONE: State.STARTING},
    State.ASKING: {Trigger.KEPT: State.HANDING_OVER, Trigger.STOP: State.DRAINING},
    State.HANDING_OVER: {Trigger.HANDED_OVER: State.DRAINING},
    State.DRAINING: {Trigger.POOL_GONE: State.STOPPED},
    State.STOPPED: {},
}


@dataclass(slots=True)
class Requests:
    """Requests by signals that have not been carried out yet."""

    reload: bool = False
    stop: signal.Signals | None = None
    """The signal that requested the stop; None if there was none."""
    restart: bool = False
    """The stop is, or will be, the first half of a restart."""
    may_restart: bool = False
    """The stop counts as a restart if systemd stores descriptors, though it may not have been announced as one."""
    kill: bool = False
    """The stop does not wait for connections to drain."""


class Lifecycle:
    """The parent's state, which changes only as the table allows."""

    def __init__(self) -> None:
        self.state = State.STARTING

    def on(self, trigger: Trigger) -> None:
        """Move to the state that follows.  Raises ValueError if the table has no such transition, which is a bug."""
        following = TRANSITIONS[self.state].get(trigger)
        if following is None:
            raise ValueError(f"{trigger.name} in {self.state.name}")
        self.state = following
