"""From settings, and from what a predecessor has left, to a running daemon."""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import replace

from echod import __version__
from echod.config.settings import Settings
from echod.config.sources import Loaded
from echod.handover import queue as handover
from echod.log.events import EventLog, open_sink
from echod.net.address import endpoints
from echod.net.listeners import adopt_kept, adopt_listeners, open_listeners
from echod.parent import last_good as lastgood
from echod.parent.configuration import Configuration
from echod.parent.listening import STORED_AS, store
from echod.parent.signals import held_back
from echod.parent.status import failure
from echod.parent.supervisor import Supervisor
from echod.systemd.fdstore import DescriptorStore
from echod.systemd.listen_fds import listen_fds
from echod.systemd.notify import Notifier, watchdog_seconds

TICK = 1.0
"""Seconds between two signs of life of a worker, unless a watchdog wants them more often."""
TICKS_PER_WATCHDOG = 10
FLUSH = 1.0
"""Seconds that the last events may take to get out."""

_STDIN = 0
_STDERR = 2


def serve(read: Callable[[], Loaded], read_again: Callable[[], Loaded], environ: MutableMapping[str, str]) -> None:
    """Serve by what `read` returns, and at a reload `read_again`, until told to stop.

    Raises `CannotListen`, and what `read` raises, unless a predecessor has left settings to go on by.
    """
    passed = listen_fds(environ)
    loaded, problems = lastgood.read_or_go_on(read, passed.named(lastgood.STORED_AS))
    settings = loaded.settings
    watchdog = watchdog_seconds(environ)
    notifier = Notifier(environ)
    fdstore = DescriptorStore(notifier)
    # A terminal that closes sends SIGHUP (termios(3)), and then the daemon in it is to end.  Looked at now, because
    # then it is a terminal no more.
    at_terminal = os.isatty(_STDIN) or os.isatty(_STDERR)
    with open_journal(settings) as events:
        with held_back([signal.SIGHUP]):  # until it can be handled, however long a name takes to resolve
            events.starting(version=__version__, config_files=loaded.files)
            for problem in problems:
                events.reload_refused(problem=problem)
            activated, queue = passed.from_socket_unit(), passed.named(handover.STORED_AS)
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
                lastgood.keep(configuration.settings, fdstore)

            start = replace(configuration.start, refused=failure(problems) if problems else "")
            for warning in start.warnings:
                events.config_warning(problem=warning)
            socket_options = start.terms.socket_options
            listeners = adopt_listeners(activated, socket_options)
            wanted = [] if listeners else endpoints(settings.host)
            listeners += open_listeners(wanted, settings.port, socket_options, kept)
            store(listeners, fdstore, afresh=False)
            lastgood.keep(settings, fdstore)
            for listener in listeners:
                if not listener.retires:
                    events.listening(address=listener.address, adopted=listener.adopted)
            # Not before all that may fail: the next start gets the queue as it is then.
            room = handover.room(len(listeners), start.workers)
            with held_back([signal.SIGTERM, signal.SIGINT, signal.SIGUSR2]):  # the clients are nowhere else from now on
                taken = handover.take_over(queue, time.monotonic(), restarts=1, room=room)
                if queue:
                    fdstore.remove(handover.STORED_AS)
                    events.taken_over(count=len(taken.connections), forgotten=taken.forgotten, lost=taken.lost)
                supervisor = Supervisor(
                    listeners,
                    start,
                    configuration.reload,
                    take,
                    events,
                    notifier,
                    watchdog,
                    taken.connections,
                    hangup_stops=at_terminal,
                )
        supervisor.run()


@contextlib.contextmanager
def open_journal(settings: Settings) -> Iterator[EventLog]:
    """What tells the events of this process; the last of them have `FLUSH` seconds to get out."""
    log = settings.log
    sink, output = open_sink(_STDERR)
    with contextlib.closing(sink):
        try:
            yield EventLog(
                sink, output, level=log.level, form=log.format, connections=log.connections, payload=log.payload
            )
        finally:
            sink.finish(FLUSH)


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
