"""From settings, and from what a predecessor has left, to a running daemon."""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import replace

from echod import __version__
from echod.config.settings import Settings
from echod.config.sources import Loaded
from echod.handover import queue as handover
from echod.log.events import EventLog, LogOptions
from echod.log.output import open_log_queue
from echod.net.address import endpoints
from echod.net.listeners import adopt_kept, adopt_listeners, open_listeners
from echod.parent import last_good as lastgood
from echod.parent.configuration import Configuration
from echod.parent.listening import STORED_AS, store
from echod.parent.signals import held_back
from echod.parent.status import failure
from echod.parent.supervisor import Supervisor
from echod.systemd.notify import Notifier, Passed, listen_fds, watchdog_seconds

TICK = 1.0
"""Seconds between two signs of life of a worker, unless a watchdog wants them more often."""
TICKS_PER_WATCHDOG = 10
FLUSH = 1.0
"""Seconds that the last events may take to get out."""

_STDIN = 0
_STDERR = 2
_OURS = "echod-"
"""How the names begin that echod gives to what it has stored: another version may know more of them."""


def serve(read: Callable[[], Loaded], read_again: Callable[[], Loaded], environ: MutableMapping[str, str]) -> None:
    """Serve by what `read` returns, and at a reload `read_again`, until told to stop.

    Raises `CannotListen`, and what `read` raises, unless a predecessor has left settings to go on by.
    """
    passed = _Passed(listen_fds(environ))
    loaded, problems = lastgood.read_or_go_on(read, passed.named(lastgood.STORED_AS))
    settings = loaded.settings
    watchdog = watchdog_seconds(environ)
    notifier = Notifier(environ)
    # A terminal that closes sends SIGHUP (termios(3)), and then the daemon in it is to end.  Looked at now, because
    # then it is a terminal no more.
    at_terminal = os.isatty(_STDIN) or os.isatty(_STDERR)
    with open_journal(settings) as events:
        with held_back([signal.SIGHUP]):  # until it can be handled, however long a name takes to resolve
            events.starting(version=__version__, config_files=loaded.files)
            for problem in problems:
                events.reload_refused(problem=problem)
            activated, queue = passed.by_a_socket_unit(), passed.named(handover.STORED_AS)
            kept = adopt_kept(passed.named(STORED_AS))
            configuration = Configuration(
                loaded,
                read_again,
                tick=min(TICK, watchdog / TICKS_PER_WATCHDOG) if watchdog else TICK,
                descriptors=_raise_descriptor_limit(),
                adopted=bool(activated),
            )

            def take() -> None:
                configuration.take()
                lastgood.keep(configuration.settings, notifier)

            start = replace(configuration.start, refused=failure(problems) if problems else "")
            for warning in start.warnings:
                events.config_warning(problem=warning)
            socket_options = start.terms.socket_options
            listeners = adopt_listeners(activated, socket_options)
            wanted = [] if listeners else endpoints(settings.host)
            listeners += open_listeners(wanted, settings.port, socket_options, kept)
            store(listeners, notifier, afresh=False)
            lastgood.keep(settings, notifier)
            for listener in listeners:
                if not listener.retires:
                    events.listening(address=listener.address, adopted=listener.adopted)
            # Not before all that may fail: the next start gets the queue as it is then.
            room = handover.room(len(listeners), start.workers)
            with held_back([signal.SIGTERM, signal.SIGINT, signal.SIGUSR2]):  # the clients are nowhere else from now on
                estate = handover.receive(queue, time.monotonic(), restarts=1, room=room)
                if queue:
                    notifier.discard(handover.STORED_AS)
                    events.taken_over(count=len(estate.connections), forgotten=estate.forgotten, lost=estate.lost)
                supervisor = Supervisor(
                    listeners,
                    start,
                    configuration.reload,
                    take,
                    events,
                    notifier,
                    watchdog,
                    estate.connections,
                    hangup_stops=at_terminal,
                )
        supervisor.run()


class _Passed:
    """What systemd has passed, by its names."""

    def __init__(self, passed: Sequence[Passed]) -> None:
        self._passed = passed

    def named(self, name: str) -> list[int]:
        """What a predecessor has stored under that name."""
        return [passed.fd for passed in self._passed if passed.name == name]

    def by_a_socket_unit(self) -> list[int]:
        """What no echod has stored."""
        return [passed.fd for passed in self._passed if not passed.name.startswith(_OURS)]


@contextlib.contextmanager
def open_journal(settings: Settings) -> Iterator[EventLog]:
    """What tells the events of this process; the last of them have `FLUSH` seconds to get out."""
    log = settings.log
    queue, framing = open_log_queue(_STDERR)
    with contextlib.closing(queue):
        try:
            yield EventLog(queue, framing, LogOptions(log.level, log.format, log.connections, log.payload))
        finally:
            queue.finish(FLUSH)


def _raise_descriptor_limit() -> int:
    """Take as many descriptors as this process may have, and return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except OSError:
            # A service may be forbidden to ask (SystemCallFilter=); then what it was given has to do.
            return soft
    return hard
