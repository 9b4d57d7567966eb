"""Serving by another configuration without a pause: from the wish to reload to the last worker's answer.

One reload at a time: a wish that comes meanwhile is granted afterwards, since files may have changed after they were
read.
"""

from collections.abc import Callable
from typing import Protocol

from echod.errors import CannotListen, ConfigError
from echod.log.events import EventLog
from echod.parent.status import failure
from echod.shared.terms import Change


class Staff(Protocol):
    """Those who serve."""

    @property
    def busy(self) -> bool:
        """Whether somebody does not serve by the last change yet, and is not gone either."""

    def change(self, change: Change) -> None:
        """Begin to serve by it; `busy` until the last does.

        Raises `ConfigError` or `CannotListen` if that can't be done now, and nothing has changed then.
        """


class Reload:
    """Has the `staff` serve by what `read` returns, and `take`s that then; or refuses it.

    What `read` refuses it says by `ConfigError` or `CannotListen`.  Whatever else it raises is a bug, which must not
    end those who are served: it is told, and everything stays too.

    `start` is what the staff has been told to begin with; `on_begun` and `on_ended` are called around each reload, the
    latter once everybody serves by the change, or when everything stays as it was.
    """

    def __init__(
        self,
        start: Change,
        read: Callable[[], Change],
        take: Callable[[], None],
        staff: Staff,
        events: EventLog,
        on_begun: Callable[[], None],
        on_ended: Callable[[], None],
    ) -> None:
        self.overruled = start.overruled
        """Settings that are idle."""
        self.refused = start.refused
        """Why what was last to be read was not taken, in a sentence; empty if it was."""
        self._read = read
        self._commit = take
        self._staff = staff
        self._events = events
        self._on_begun = on_begun
        self._on_ended = on_ended
        self._wanted = False
        self._begun: Change | None = None

    @property
    def under_way(self) -> bool:
        """Whether one has begun and not ended."""
        return self._begun is not None

    def want(self) -> None:
        """Have `advance` begin a reload, now or when it can."""
        self._wanted = True

    def advance(self) -> None:
        """End the reload by which everybody serves, and begin the one that is wanted."""
        if self._staff.busy:
            return
        if (change := self._begun) is not None:
            self._begun = None
            self._on_ended()
            self._events.reloaded(changed=change.changed)
        if self._wanted:
            self._wanted = False
            self._begin()

    def _begin(self) -> None:
        self._on_begun()
        try:
            change = self._read()
            self._staff.change(change)
        except (ConfigError, CannotListen) as error:
            for problem in error.problems:
                self._events.reload_refused(problem=problem)
            self.refused = failure(error.problems)
        except Exception as error:  # noqa: BLE001  whatever it is, clients are served all the same
            self._events.bug_of(error)
            self.refused = "a bug in echod: see the journal"
        else:
            self._commit()
            self._begun, self.overruled, self.refused = change, change.overruled, ""
            for warning in change.warnings:
                self._events.config_warning(problem=warning)
            self.advance()
            return
        self._on_ended()
