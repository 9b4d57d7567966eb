"""Starting the daemon, from its settings and from what the previous echod left in systemd's descriptor store."""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterator, MutableMapping

from echod import __version__
from echod.config.settings import Settings
from echod.handover import queue as handover
from echod.log.events import EventLog, LogOptions
from echod.log.output import open_log_queue
from echod.net import features
from echod.net.listeners import adopt_kept, adopt_listeners
from echod.parent import last_good, listening
from echod.parent.listening import ListeningSockets
from echod.parent.reading import inherited, wait_for
from echod.parent.reload import Configuration, Found, Process, Read
from echod.parent.signals import HANDLED, exits_at, held_back, ignore_others
from echod.parent.status import ServiceManager
from echod.parent.supervisor import Supervisor
from echod.systemd.fdstore import DescriptorStore
from echod.systemd.listen_fds import listen_fds
from echod.systemd.notify import Notifier, watchdog_seconds

TICK = 1.0
"""Seconds between two ticks of a worker, unless a watchdog requires more frequent ones."""
TICKS_PER_WATCHDOG = 10
FLUSH = 1.0
"""Seconds allowed at exit to write the last events."""

_STDIN = 0
_STDERR = 2


def serve(read: Read, environ: MutableMapping[str, str]) -> bool:
    """Serve until stopped, by the settings that `read` returns, at the start and at each reload.

    Returns whether sockets were left to a successor, which systemd has to start.

    Raises `CannotListen`, and whatever `read` raises, unless the previous echod stored what to continue with.
    """
    ignore_others()
    features.require()
    passed = listen_fds(environ)
    watchdog = watchdog_seconds(environ)
    process = Process(
        descriptors=_raise_descriptor_limit(),
        tick=min(TICK, watchdog / TICKS_PER_WATCHDOG) if watchdog else TICK,
        activated=bool(passed.from_socket_unit()),
        inherited=inherited(),
    )
    notifier = Notifier(environ)
    store = DescriptorStore(notifier)
    configuration = Configuration(read, process, store)
    stored = last_good.stored(passed.named(last_good.STORED_AS))
    # A terminal that closes sends SIGHUP (termios(3)), which must end the daemon then.  This is checked at startup,
    # because isatty() is false once the terminal has closed.
    at_terminal = os.isatty(_STDIN) or os.isatty(_STDERR)
    activated, queue = passed.from_socket_unit(), passed.named(handover.STORED_AS)
    kept = adopt_kept(passed.named(listening.STORED_AS))
    with contextlib.ExitStack() as stack:
        with held_back([signal.SIGHUP]):  # until it can be handled; reading may take long
            # After a restart or a crash, echod first serves as the last one did, and then reads its configuration as at
            # a reload: so no connection waits for a file or a name server, and no mistake in them is an outage.
            continues = stored is not None and bool(activated or kept)
            if stored is not None and continues:
                found = Found(stored, [] if activated else None)
            else:
                with exits_at(signal.SIGTERM):
                    found = Found.decode(wait_for(*configuration.reader()))
            events = stack.enter_context(open_events(found.loaded.settings))
            events.starting(version=__version__, config_files=found.loaded.files)
            if passed.warning:
                events.config_warning(problem=passed.warning)
            change = configuration.change_to(found)
            for warning in change.warnings:
                events.config_warning(problem=warning)
            options = change.terms.socket_options
            for lack in features.lacks(options, limits_sources=change.terms.max_per_source > 0):
                events.feature_missing(**lack._asdict())
            sockets = ListeningSockets([*adopt_listeners(activated, options), *kept], store, events)
            sockets.commit(sockets.plan(change), options, change.unix_mode)
            configuration.commit()
            # From here on this process alone holds the connections, so a signal must not end it.  They are taken over
            # last, after everything that can fail, so that a failure leaves them in the store.
            with held_back(HANDLED):
                room = handover.room(len(sockets.listeners), change.workers)
                taken_over = handover.take_over(queue, time.monotonic(), restarts=1, room=room)
                if queue:
                    store.remove(handover.STORED_AS)
                    events.taken_over(
                        count=len(taken_over.connections), forgotten=taken_over.forgotten, lost=taken_over.lost
                    )
                manager = ServiceManager(notifier, store, watchdog, hangup_stops=at_terminal)
                supervisor = Supervisor(change, configuration, sockets, manager, events, catches_up=continues)
        return supervisor.run(taken_over.connections)


@contextlib.contextmanager
def open_events(settings: Settings) -> Iterator[EventLog]:
    """The event log of this process, to standard error or the journal; at the end it waits up to `FLUSH` seconds."""
    log = settings.log
    queue, framing = open_log_queue(_STDERR)
    with contextlib.closing(queue):
        events = EventLog(queue, framing, LogOptions(log.level, log.format, log.connections, log.payload))
        try:
            yield events
        finally:
            events.finish(FLUSH)


def _raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard one, and return the limit in effect."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except OSError:
            # The service may not be allowed to raise it (SystemCallFilter=); then the soft limit applies.
            return soft
    return hard
