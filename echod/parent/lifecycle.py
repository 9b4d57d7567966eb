"""The states of the parent, and every transition between them.

The parent is in one of nine states.  `Supervisor` acts; this module only lists the possible transitions and the
requests, so that they can be read on one page, and so that any other transition raises an error.

    STARTING      The pool's workers have been forked; not all of them accept yet.
    SERVING       Every worker accepts, and serves by the settings in effect.
    READING       A child process reads the configuration and resolves host names.  Nothing has changed yet.
    RELOADING     New terms have been sent to the workers; not all workers have adopted them yet.
    REPLACING     The pool hands its connections to another pool, which starts once the last old worker has exited.
    ASKING        A restart was requested; systemd is asked whether it stores the queue for it.  All clients are served.
    HANDING_OVER  The pool hands its connections to the next echod, through a queue in systemd's descriptor store.
    DRAINING      The workers serve their clients until these are quiet, then exit.  None is replaced.
    STOPPED       No worker is left.

What signals do:

- SIGHUP requests a reload.  In SERVING it begins at once.  In every other state it waits until the state is SERVING
  again, because files may have changed after they were read; once echod stops, the request is discarded.  In READING it
  waits too: if each SIGHUP started another reading, a series of them would never be answered.  At a terminal SIGHUP
  stops echod, because closing the terminal sends it (termios(3)).
- SIGTERM means that a successor follows: ASKING, then HANDING_OVER unless systemd refuses to store descriptors; an
  answer that is late is no refusal.  It means a stop, DRAINING, if that was announced, after a refusal, and without a
  service manager.
- SIGURG announces that the next SIGTERM is a stop.  The unit's ExecStop= sends it if the queued job is one.
- SIGINT stops echod: DRAINING.
- In READING, SIGTERM and SIGINT kill the child process, and the reload ends without an event.  In REPLACING they wait
  until the new pool has the connections.
- A second SIGTERM or SIGINT kills the workers without waiting for them to drain; in ASKING once systemd has answered.
  In REPLACING it kills the old pool; the new one still starts, with the connections that are left, is stopped like any
  other, and is killed too.  But if the first signal began a hand-over, another SIGTERM changes nothing: `systemctl
  restart` may follow a `kill -TERM`.
- SIGQUIT logs the state, and changes nothing.
- Other signals are ignored, or keep their default action (`signals.DEFAULT`).

    signal    SERVING                STARTING, READING, RELOADING   REPLACING   ASKING, HANDING_OVER   DRAINING
    SIGHUP    READING                later                          later       nothing                nothing
    SIGURG    recorded               recorded                       recorded    nothing                nothing
    SIGTERM   ASKING (or DRAINING)   the same                       later       nothing                kill (or nothing)
    SIGINT    DRAINING               DRAINING                       later       kill                   kill

Why a stop is announced, and not a restart: a signal that is missing must not cost a connection.  systemd runs no
ExecStop= for a service that is starting or reloading, `systemctl list-jobs` may fail, and `kill -TERM` has no
ExecStop= at all.  If a stop was not announced, connections are reset instead of closed in order.  The announcement is
SIGURG because its default action is to be ignored (signal(7)): it ends neither a version of echod that does not know it
nor a process that has not yet set its handlers.

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
    RESTART = "an end was requested, after which another echod continues with the connections"
    KEPT = "systemd stores the queue to the next echod"
    STOP = "an end was requested, or systemd stores nothing: no echod continues with the connections"
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
    """The signal that ends echod; None if there was none."""
    stop_announced: bool = False
    """No successor follows the next SIGTERM."""
    restart: bool = False
    """The end is the first half of a restart: a successor continues with the sockets and connections."""
    kill: bool = False
    """The end does not wait for connections to drain."""

    def end(self, signum: signal.Signals, *, managed: bool) -> None:
        """Record the first signal that ends echod; `managed` says whether there is a service manager."""
        self.stop = signum
        self.restart = managed and signum == signal.SIGTERM and not self.stop_announced


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
