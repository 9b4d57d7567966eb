"""systemd's file descriptor store (FileDescriptorStoreMax=, sd_notify(3)).

The next process of the service gets the stored descriptors (`listen_fds`), each with the name under which it was
stored.  So listening sockets, connections and settings survive a restart or a crash.  When the service stops, systemd
closes them.  Without systemd, or without a store, nothing is stored, and only `DescriptorStore.ask` shows that.
"""

import os
import select
import selectors
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from echod.systemd.notify import Notifier, Watcher

OURS = "echod-"
"""The beginning of every name under which any version of echod stores descriptors; later ones may use more names."""
PROBE = OURS + "probe"
"""The name of the pipe with which `DescriptorStore.ask` tests the store."""
ANSWER_WAIT = 10.0
"""Seconds to wait for systemd's answer.  All clients are served meanwhile, so waiting costs only time; and a manager
that reloads its units or executes itself again answers nothing until it has finished."""

_FDS_MAX = 253
"""Descriptors in one message (SCM_MAX_FD, unix(7))."""


class Answer(Enum):
    """What is known about the store."""

    KEPT = auto()
    """systemd stores descriptors, and has stored all that it was sent before the question."""
    REFUSED = auto()
    """There is no systemd, it takes no messages, it has no store for this service, or it has not stored everything."""
    NONE = auto()
    """No answer within `ANSWER_WAIT`.  What was sent waits in systemd's queue, and may still be stored."""


class Timer(Protocol):
    """A call in the future."""

    def cancel(self) -> None:
        """Withdraw the call."""


class Loop(Watcher, Protocol):
    """The part of an event loop that a question needs."""

    def call_later(self, delay: float, callback: Callable[[float], None]) -> Timer:
        """Call `callback` once, after `delay` seconds."""


class DescriptorStore:
    """Adds descriptors to the store and removes them from it; all messages go through `notifier`.  Nothing blocks."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._question: _Question | None = None

    def put(self, name: str, fds: Sequence[int]) -> None:
        """Make systemd store copies of `fds` under `name`; the caller keeps its own.

        systemd compares a new descriptor with the stored ones, and does not store the same one twice.
        """
        for start in range(0, len(fds), _FDS_MAX):
            # FDPOLL=0: otherwise systemd drops a connection whose client has closed it, and no process logs its end.
            message = f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0"
            self._notifier.send(message, fds[start : start + _FDS_MAX], topic=name)

    def remove(self, name: str) -> None:
        """Make systemd close its copies of all descriptors that are stored under `name`."""
        self._notifier.lost.discard(name)
        self._notifier.send(f"FDSTOREREMOVE=1\nFDNAME={name}", topic=name, outdates=True)

    def ask(self, loop: Loop, on_answer: Callable[[Answer], None]) -> None:
        """Find out whether systemd stores descriptors, and call `on_answer` once with the result.

        Ask one question at a time.  The call comes from `loop`, or before this method returns if the answer is known.

        systemd 252 does not answer FDSTORE=1.  But it closes a descriptor that it does not store, and if that was one
        end of a pipe, the other end shows it.  It closes the pipe that comes with BARRIER=1 once it has processed the
        messages before (sd_notify_barrier(3)).
        """
        assert self._question is None, "a question is open"
        if not self._notifier.connected:
            on_answer(Answer.REFUSED)
            return
        try:
            (probe, probe_end), (barrier, barrier_end) = _two_pipes()
        except OSError:
            on_answer(Answer.NONE)
            return
        self.remove(PROBE)  # An earlier process may have left one, and so does an answer that comes too late.
        self.put(PROBE, [probe_end])
        self._notifier.send("BARRIER=1", [barrier_end], topic=PROBE)
        os.close(probe_end)
        os.close(barrier_end)
        deadline = loop.call_later(ANSWER_WAIT, self._on_deadline)
        self._question = _Question(probe, barrier, loop, deadline, on_answer)
        loop.watch(barrier, selectors.EVENT_READ, self._on_barrier)

    def close(self) -> None:
        """Close what belongs to an open question, which gets no answer; a worker does this right after the fork."""
        if self._question is not None:
            os.close(self._question.probe)
            os.close(self._question.barrier)
            self._question = None

    def _on_barrier(self) -> None:
        """systemd has processed everything; or the end of the pipe was closed because it could not be sent."""
        assert self._question is not None
        lost = any(topic.startswith(OURS) for topic in self._notifier.lost)
        kept = not lost and not _is_closed(self._question.probe)
        self._end_question(Answer.KEPT if kept else Answer.REFUSED)

    def _on_deadline(self, now: float) -> None:
        # What has not even been sent is lost when this process exits.
        self._end_question(Answer.NONE if self._notifier.send_waiting() else Answer.REFUSED)

    def _end_question(self, answer: Answer) -> None:
        question = self._question
        assert question is not None
        question.loop.unwatch(question.barrier)
        question.deadline.cancel()
        self.close()
        if answer is Answer.KEPT:
            self.remove(PROBE)
        question.on_answer(answer)


@dataclass(frozen=True, slots=True)
class _Question:
    """The reading ends of the two pipes of a question, and what ends it."""

    probe: int
    barrier: int
    loop: Loop
    deadline: Timer
    on_answer: Callable[[Answer], None]


def _two_pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    first = os.pipe()
    try:
        return first, os.pipe()
    except OSError:
        for fd in first:
            os.close(fd)
        raise


def _is_closed(fd: int) -> bool:
    """Whether all writing ends of a pipe are closed.  Uses poll(2), as select(2) accepts no descriptor above 1023."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))
