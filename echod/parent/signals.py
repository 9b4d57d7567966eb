"""Signals as events of a loop.

The handlers do nothing: the interpreter writes the number of each signal to a descriptor (`signal.set_wakeup_fd`), and
what is to be done is done by a callback of the loop, between others, never in the middle of one.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType


def _nothing(number: int, frame: FrameType | None) -> None:
    """Let the interpreter take note; the default action would end the process."""


class Signals:
    """Has `on_signal(signum)` called for each of `signums`, once `fd` is watched for `on_readable`.

    For the rest of the process: the handlers stay after `close`, since a signal more must not end what is still done
    then.
    """

    def __init__(self, signums: Iterable[signal.Signals], on_signal: Callable[[signal.Signals], None]) -> None:
        self._signums = frozenset(signums)
        self._on_signal = on_signal
        self.fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for signum in self._signums:
            signal.signal(signum, _nothing)

    def on_readable(self) -> None:
        """Call back for the signals that have come, by their numbers: of several at once the kernel runs the handler of
        the first one last."""
        for number in sorted(os.read(self.fd, 512)):
            if number in self._signums:
                self._on_signal(signal.Signals(number))

    def close(self) -> None:
        """Give back the descriptors; signals that come from now on do nothing."""
        signal.set_wakeup_fd(self._wakeup_before)
        self.forget()

    def forget(self) -> None:
        """After a fork: give back the descriptors; what is written there is for the parent."""
        os.close(self.fd)
        os.close(self._write_fd)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Keep the signals waiting, so that a process that is being forked gets none while it looks like this one."""
        with held_back(self._signums):
            yield


@contextmanager
def held_back(signums: Iterable[signal.Signals]) -> Iterator[None]:
    """Keep `signums` waiting for this thread until the end of the block (pthread_sigmask(3))."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
