"""The states of a session: what it waits for in each, and which states may follow."""

from enum import Enum


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
