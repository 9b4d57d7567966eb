"""Serving by other terms without a pause: from the wish to reload to the last worker's answer.

The parent takes new terms first, so that each worker that it makes from then on has them; those that are there are sent
them, and answer.  One that hangs does not answer, but does not live long either, and its successor has them.  One
reload at a time: a wish that comes meanwhile is granted afterwards, since files may have changed after they were read.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from echod.errors import ConfigError
from echod.journal import Journal
from echod.limits import Limits
from echod.listeners import Listener
from echod.slot import Slot
from echod.terms import Change, Terms


class Renewal:
    """Has the workers in `slots` serve by what `read` returns, and `take`s that then; or refuses it.

    What `read` refuses it says by `ConfigError`.  Whatever else it raises is a bug, which must not end those who are
    served: it is told, and everything stays too.

    `start` is what the workers have been told to begin with; `on_begun` and `on_ended` are called around each reload,
    the latter once every worker has taken the new terms or is gone, or when everything stays as it was.
    """

    def __init__(
        self,
        start: Change,
        read: Callable[[], Change],
        take: Callable[[], None],
        slots: Sequence[Slot],
        listeners: Sequence[Listener],
        journal: Journal,
        limits: Limits,
        on_begun: Callable[[], None],
        on_ended: Callable[[], None],
    ) -> None:
        self.terms = start.terms
        """What each worker that is made now is to serve by."""
        self.overruled = start.overruled
        """Settings that are idle."""
        self.refused = start.refused
        """Whether what was last to be read was not taken."""
        self._read = read
        self._commit = take
        self._slots = slots
        self._listeners = listeners
        self._journal = journal
        self._limits = limits
        self._on_begun = on_begun
        self._on_ended = on_ended
        self._wanted = False
        self._unanswered: Change | None = None

    def want(self) -> None:
        """Have `advance` begin a reload, now or when it can."""
        self._wanted = True

    def advance(self) -> None:
        """End the reload that everybody has answered, and begin the one that is wanted."""
        if any(slot.owes_answer for slot in self._slots):
            return
        if (change := self._unanswered) is not None:
            self._unanswered = None
            self._on_ended()
            self._journal.reloaded(changed=change.changed, needs_restart=change.needs_restart)
        if self._wanted:
            self._wanted = False
            self._begin()

    def _begin(self) -> None:
        self._on_begun()
        try:
            change = self._read()
            fds = self._change_limits(change.terms)
        except ConfigError as error:
            for problem in error.problems:
                self._journal.reload_refused(problem=problem)
        except Exception as error:  # noqa: BLE001  whatever it is, clients are served all the same
            self._journal.bug_of(error)
        else:
            self.refused = False
            self._take(change, fds)
            self.advance()
            return
        self.refused = True
        self._on_ended()

    def _change_limits(self, terms: Terms) -> Sequence[int]:
        """Before anything else is changed or told, since it is all that the system may refuse."""
        try:
            return self._limits.change(terms.max_connections, terms.max_per_source)
        except OSError as error:
            raise ConfigError(
                f"limits.max_connections_per_source is {terms.max_per_source}, but clients can't be counted: "
                f"{error.strerror}; free memory or descriptors, and reload again"
            ) from error

    def _take(self, change: Change, fds: Sequence[int]) -> None:
        self._commit()
        terms = self.terms = change.terms
        self._unanswered, self.overruled = change, change.overruled
        self._journal.change(**asdict(terms.telling))
        for warning in change.warnings:
            self._journal.config_warning(problem=warning)
        for listener in self._listeners:
            listener.tune(terms.tuning)
        for slot in self._slots:
            slot.owes_answer = slot.order(terms.encode(), fds)
