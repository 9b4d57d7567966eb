"""signals: real signals, handled by a callback of the loop."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from echod.parent import lifecycle
from echod.parent.signals import HANDLED, Signals, held_back

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture
def told() -> list[signal.Signals]:
    """The signals that were passed on, in order."""
    return []


@pytest.fixture
def signals(told: list[signal.Signals]) -> Iterator[Signals]:
    """A `Signals` for two signals, whose earlier handlers are restored afterwards."""
    before = {signum: signal.getsignal(signum) for signum in (USR1, USR2)}
    with closing(Signals([USR2, USR1], told.append)) as signals:
        yield signals
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_nothing_happens_until_the_loop_looks(signals: Signals, told: list[signal.Signals]) -> None:
    """Only the callback passes signals on, in the order in which they were listed."""
    os.kill(os.getpid(), USR1)
    os.kill(os.getpid(), USR2)
    assert told == []
    signals.on_readable()
    assert told == [USR2, USR1]


def test_others_are_none_of_its_business(signals: Signals, told: list[signal.Signals]) -> None:
    """The interpreter reports every signal with a handler; only the requested ones are passed on."""
    before = signal.signal(signal.SIGWINCH, lambda number, frame: None)
    try:
        os.kill(os.getpid(), signal.SIGWINCH)
        os.kill(os.getpid(), USR1)
        signals.on_readable()
        assert told == [USR1]
    finally:
        signal.signal(signal.SIGWINCH, before)


def test_the_descriptors_never_block(signals: Signals) -> None:
    """A storm of signals neither blocks the process nor fills its standard error."""
    fcntl.fcntl(signals.fd, fcntl.F_SETPIPE_SZ, 4096)
    for _ in range(5000):
        signal.raise_signal(USR1)
    signals.on_readable()


def test_after_the_end(told: list[signal.Signals]) -> None:
    """After `close` the wake-up descriptor is restored, none is left open, and a signal is ignored."""
    before = signal.getsignal(USR1)
    reads, writes = os.pipe2(os.O_NONBLOCK)
    wakeup_before = signal.set_wakeup_fd(writes)
    try:
        Signals([USR1], told.append).close()
        signal.raise_signal(USR1)
        assert told == []
        assert signal.set_wakeup_fd(-1) == writes
    finally:
        signal.set_wakeup_fd(wakeup_before)
        signal.signal(USR1, before)
        os.close(reads)
        os.close(writes)


def test_a_child_gives_back_what_is_the_parents(signals: Signals, told: list[signal.Signals]) -> None:
    """After `forget` the child writes nothing into the parent's pipe, and has closed both ends of it."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signals.forget()
            signal.raise_signal(USR1)
            try:
                os.fstat(signals.fd)
            except OSError:
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.raises(BlockingIOError):
        signals.on_readable()
    assert told == []


def test_signals_after_the_end() -> None:
    """After `close` the signals are ignored: the interpreter would restore the default action of handled ones."""
    before = signal.getsignal(USR1)
    try:
        Signals([USR1], lambda signum: None).close()
        assert signal.getsignal(USR1) is signal.SIG_IGN
    finally:
        signal.signal(USR1, before)


def test_held_back(signals: Signals, told: list[signal.Signals]) -> None:
    """Signals that arrive in the block are passed on after it; other blocked signals stay blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
    try:
        with held_back([USR1]):
            signal.raise_signal(USR1)  # to this thread: another, of the test runner's, may be there to take it
            assert USR1 in signal.sigpending()
            with pytest.raises(BlockingIOError):
                signals.on_readable()
        signals.on_readable()
        assert told == [USR1]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before | {signal.SIGWINCH}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_every_handled_signal_is_explained() -> None:
    """`lifecycle` says what each signal does, and echod(8) says it to people."""
    page = (Path(__file__).parents[3] / "packaging" / "man" / "echod.8").read_text()
    section = page.partition(".Sh SIGNALS\n")[2].partition("\n.Sh ")[0]
    for signum in HANDLED:
        assert signum.name in (lifecycle.__doc__ or "")
        assert signum.name in section
