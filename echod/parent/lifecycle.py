"""The states of the parent, and every way from one to another.

The parent is in one of eight states.  `Supervisor` acts; this module only says what may follow what, so that a reader
can see all of it on one page, and a transition that nobody thought of is an error and not a surprise.

    STARTING      The pool's workers have been forked; not all of them accept yet.
    SERVING       Every worker accepts, and all of them serve by the settings in effect.
    READING       The configuration is being read and resolved.  Nothing has changed yet.
    RELOADING     The workers have been sent new terms; not all of them have adopted these yet.
    REPLACING     The pool hands its connections to another pool, which starts once the last old worker has exited.
    HANDING_OVER  The pool hands its connections to the next echod, through a queue in systemd's descriptor store.
    DRAINING      The workers echo what has arrived, then exit.  None is replaced.
    STOPPED       No worker is left.

What signals do:

- SIGHUP asks for a reload.  In SERVING it begins at once.  In every other state it is remembered until the state is
  SERVING again, because files may have changed after they were read; once echod stops, it is forgotten.  At a terminal
  SIGHUP stops echod, as termios(3) has it.
- SIGUSR2 announces that the next SIGTERM is the first half of a restart.  The unit's ExecStop= sends it.
- SIGTERM and SIGINT stop echod: HANDING_OVER if this is a restart and systemd keeps descriptors for us, else DRAINING.
  In REPLACING the stop waits until the new pool has the connections.  systemd runs no ExecStop= for a service that is
  starting or reloading, so a SIGTERM outside SERVING counts as a restart wherever there is a descriptor store: a
  restart is the more frequent case, and if it was a stop, clients get a reset in place of an orderly end.
- A second SIGTERM or SIGINT kills the workers instead of waiting for them.
- Other signals are not handled.

What messages from workers do (`shared.messages`):

- READY from the last worker of a pool ends STARTING.
- ADOPTED from the last worker ends RELOADING, and HANDED_OVER from the last one ends HANDING_OVER.

What the death of a worker does: the pool replaces it in STARTING, SERVING and RELOADING, and the state does not change;
an answer that it owed is no longer waited for.  In REPLACING, HANDING_OVER and DRAINING it is not replaced, and the
death of the last worker ends the state.  A worker whose loop hangs is killed, so it is a case of the same.
"""

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    """What the parent is doing."""

    STARTING = auto()
    SERVING = auto()
    READING = auto()
    RELOADING = auto()
    REPLACING = auto()
    HANDING_OVER = auto()
    DRAINING = auto()
    STOPPED = auto()


class Event(Enum):
    """What can end a state."""

    POOL_READY = "every worker of the pool accepts"
    RELOAD = "the configuration is to be read again"
    REFUSED = "the new configuration is wrong, or cannot take effect now; nothing has changed"
    TERMS_SENT = "the workers have been sent new terms"
    REPLACEMENT_BEGUN = "the pool has been sent the command to hand its connections to another pool"
    TERMS_ADOPTED = "no worker still has to adopt the new terms"
    RESTART = "echod is to stop, and another echod to continue with its connections"
    STOP = "echod is to stop"
    HANDED_OVER = "no worker still has connections for the next echod"
    POOL_GONE = "the last worker of a pool that is to end has exited"


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.STARTING: {
        Event.POOL_READY: State.SERVING,
        Event.RESTART: State.HANDING_OVER,
        Event.STOP: State.DRAINING,
    },
    State.SERVING: {
        Event.RELOAD: State.READING,
        Event.RESTART: State.HANDING_OVER,
        Event.STOP: State.DRAINING,
    },
    State.READING: {
        Event.REFUSED: State.SERVING,
        Event.TERMS_SENT: State.RELOADING,
        Event.REPLACEMENT_BEGUN: State.REPLACING,
    },
    State.RELOADING: {
        Event.TERMS_ADOPTED: State.SERVING,
        Event.RESTART: State.HANDING_OVER,
        Event.STOP: State.DRAINING,
    },
    State.REPLACING: {Event.POOL_GONE: State.STARTING},
    State.HANDING_OVER: {Event.HANDED_OVER: State.DRAINING},
    State.DRAINING: {Event.POOL_GONE: State.STOPPED},
    State.STOPPED: {},
}


class Lifecycle:
    """The parent's state, which changes only as the table allows."""

    def __init__(self) -> None:
        self.state = State.STARTING

    def on(self, event: Event) -> None:
        """Move to the state that follows.  Raises ValueError for an event that the table does not have there: a bug."""
        following = TRANSITIONS[self.state].get(event)
        if following is None:
            raise ValueError(f"{event.name} in {self.state.name}")
        self.state = following
