"""From settings to terms: one path, taken at startup and at each reload.

`Configuration` compares the settings that were read with those in effect, and says by a `Change` what follows: the
terms that the workers get, how many workers there are, where they listen, and what there is to log about it.  The
supervisor applies the change, and commits the settings when that has worked.

The parent does nothing else while it reads.  So a host name is resolved again only if `host` or `port` has changed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from echod.config.settings import Settings, keys, worker_count
from echod.config.sources import ConfigPath, Loaded
from echod.log.events import LogOptions
from echod.log.words import enumeration
from echod.net.address import Endpoint, endpoints
from echod.net.sockopts import SocketOptions
from echod.parent import last_good
from echod.shared.terms import ServiceTerms, Timeouts
from echod.systemd.fdstore import DescriptorStore

LINGER = 2.0
"""Seconds to wait for a client to close its side, after the server has closed its own."""
SPARE_FDS = 64
"""Descriptors that a worker needs besides those of its connections."""

_LISTENING: list[ConfigPath] = [("host",), ("port",)]
"""The settings that say where to listen."""


@dataclass(frozen=True, slots=True)
class Process:
    """What a process of echod is given: `descriptors` at most, and `tick` seconds between two signs of life.

    With `activated`, a .socket unit passed the listening sockets, which overrules the settings of where to listen.
    """

    descriptors: int
    tick: float
    activated: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What new settings change: the terms, how many `workers` serve by them, and where these listen.

    `endpoints` is None if they listen as before; `port` belongs to it.  `changed` are the keys that differ,
    `overruled` the settings without effect because systemd passed sockets, and `warnings` whole sentences.
    """

    terms: ServiceTerms
    workers: int
    endpoints: list[Endpoint] | None
    port: int
    changed: list[str]
    overruled: list[str]
    warnings: list[str]


class Configuration:
    """The settings in effect; `read_again` reads new ones, and `store` keeps those in effect for the next echod."""

    def __init__(self, read_again: Callable[[], Loaded], process: Process, store: DescriptorStore) -> None:
        self._read_again = read_again
        self._process = process
        self._store = store
        self._options_changed = process.activated
        self._in_effect: Settings | None = None
        self._read: Settings | None = None

    def reload(self) -> Change:
        """Read the settings again, and say what they would change.  Raises `ConfigError` and `CannotListen`."""
        return self.change_to(self._read_again())

    def commit(self) -> None:
        """Note that the settings that were read last are in effect."""
        assert self._read is not None, "nothing was read"
        self._in_effect = self._read
        last_good.keep(self._in_effect, self._store)

    def change_to(self, loaded: Loaded) -> Change:
        """What these settings change, compared with those in effect; at startup there are none.

        Raises `CannotListen` for a host that does not resolve.
        """
        new, before = loaded.settings, self._in_effect or loaded.settings
        self._read = new
        options = _socket_options(new)
        # From now on, since connections may stay in the kernel's queue, with the options of before, for any time.
        self._options_changed = self._options_changed or options != _socket_options(before)
        changed = [key for key in keys() if key.value(new) != key.value(before)]
        hosts: Sequence[str] = new.host
        overruled: list[ConfigPath] = []
        if self._process.activated:
            changed = [key for key in changed if key.path not in _LISTENING]
            hosts, overruled = [], [path for path in _LISTENING if path in loaded.origins]
        moves = self._in_effect is None or any(key.path in _LISTENING for key in changed)
        workers = worker_count(new)
        return Change(
            terms=_terms(new, options, self._options_changed, self._process.tick),
            workers=workers,
            endpoints=endpoints(hosts) if moves else None,
            port=new.port,
            changed=[key.name for key in changed],
            overruled=[".".join(path) for path in overruled],
            warnings=[
                *loaded.warnings,
                *_overruled(loaded, overruled),
                *_too_few(self._process.descriptors, workers, new.limits.max_connections),
            ],
        )


def _socket_options(settings: Settings) -> SocketOptions:
    return SocketOptions(settings.limits.keepalive, settings.limits.stall_timeout)


def _terms(settings: Settings, options: SocketOptions, sets_accepted_options: bool, tick: float) -> ServiceTerms:
    limits, log = settings.limits, settings.log
    return ServiceTerms(
        chunk_size=settings.chunk_size,
        timeouts=Timeouts(limits.idle_timeout, limits.stall_timeout, LINGER),
        socket_options=options,
        sets_accepted_options=sets_accepted_options,
        drain=limits.drain_timeout,
        tick=tick,
        max_connections=limits.max_connections,
        max_per_source=limits.max_connections_per_source,
        handover=settings.handover,
        log_options=LogOptions(log.level, log.format, log.connections, log.payload),
    )


def _overruled(loaded: Loaded, overruled: list[ConfigPath]) -> list[str]:
    if not overruled:
        return []
    subjects = enumeration([loaded.origins[path].subject(path) for path in overruled])
    is_or_are = "is" if len(overruled) == 1 else "are"
    return [f"{subjects} {is_or_are} overridden by the sockets that systemd passed"]


def _too_few(descriptors: int, workers: int, wanted: int) -> list[str]:
    """A warning if a worker may have fewer descriptors than connections."""
    served = workers * (descriptors - SPARE_FDS)
    if served >= wanted:
        return []
    warning = f"limits.max_connections is {wanted}, but the descriptor limit allows only {served}"
    return [f"{warning}; raise LimitNOFILE= (ulimit -n), now {descriptors}, or lower limits.max_connections"]
