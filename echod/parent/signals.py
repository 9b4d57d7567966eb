"""Signals as events of a loop.

The signal handlers do nothing: the interpreter writes the number of each signal to a descriptor
(`signal.set_wakeup_fd`), and a callback of the loop acts on it.  So no signal interrupts another callback.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from echod.errors import EX_OK

HANDLED = (signal.SIGURG, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""The signals that the parent handles (`lifecycle` says how) and workers ignore.

Of several that arrive at once, the first one here is handled first: SIGURG says what the SIGTERM after it means.
"""
DEFAULT = frozenset(
    {
        # The kernel does not let a process ignore these.
        signal.SIGKILL,
        signal.SIGSTOP,
        # A shell stops and continues a job with these; ignored SIGCHLD would make the kernel reap workers by itself.
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCONT,
        signal.SIGCHLD,
        # Faults of the process itself, which cannot continue after them.
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        # systemd sends it after WatchdogSec=, to end the process with a core dump.
        signal.SIGABRT,
    }
)
"""The signals that keep their default action.  All signals that are in neither list are ignored."""


def ignore_others() -> None:
    """Ignore every signal that echod does not use, so that a stray one ends no connection; workers inherit this.

    Also undo what a program that started echod may have left behind: an ignored SIGCHLD and blocked signals.
    """
    for signum in signal.valid_signals() - set(HANDLED) - DEFAULT:
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Do nothing, so that the interpreter reports the signal; the default action would end the process."""


class Signals:
    """Calls `on_signal(signum)` for each signal of `signums`; the loop must watch `fd` and call `on_readable`.

    After `close` the signals are ignored, because another one must not interrupt the shutdown.  To leave the handlers
    installed is not enough: at its end the interpreter restores the default action of every signal that has one.
    """

    def __init__(self, signums: Iterable[signal.Signals], on_signal: Callable[[signal.Signals], None]) -> None:
        self._signums = tuple(signums)
        self._on_signal = on_signal
        self.fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for signum in self._signums:
            signal.signal(signum, _nothing)

    def on_readable(self) -> None:
        """Call back for the signals that have arrived, in the order of `signums`.

        The order of arrival is unknown: of several signals at once, the kernel runs the first one's handler last.
        """
        arrived = [signal.Signals(number) for number in os.read(self.fd, 512) if number in self._signums]
        for signum in sorted(arrived, key=self._signums.index):
            self._on_signal(signum)

    def close(self) -> None:
        """Close the descriptors; signals that arrive from now on are ignored."""
        for signum in self._signums:
            signal.signal(signum, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wakeup_before)
        self.forget()

    def forget(self) -> None:
        """After a fork: close the descriptors, which belong to the parent."""
        os.close(self.fd)
        os.close(self._write_fd)


@contextmanager
def exits_at(signum: signal.Signals) -> Iterator[None]:
    """Exit in good order, with status 0, if the signal arrives within the `with` block.

    The default action of a signal would not end process 1 of a container.
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(EX_OK)

    before = signal.signal(signum, leave)
    try:
        yield
    finally:
        signal.signal(signum, before)


@contextmanager
def held_back(signums: Iterable[signal.Signals]) -> Iterator[None]:
    """Block `signums` in this thread until the end of the `with` block (pthread_sigmask(3)); they stay pending."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
