"""From settings to terms, at startup and at each reload.

`Configuration` compares new settings with those in effect, and returns the difference as a `Change`: the terms for the
workers, the number of workers, where they listen, and the warnings to log.  The supervisor applies the change, and
commits the settings once it has succeeded.

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
"""The settings that determine where echod listens."""


@dataclass(frozen=True, slots=True)
class Process:
    """The properties of this process that settings do not change.

    It may open `descriptors` descriptors, and its workers tick every `tick` seconds.  With `activated`, a .socket unit
    passed the listening sockets, which override `host` and `port`.
    """

    descriptors: int
    tick: float
    activated: bool


@dataclass(frozen=True, slots=True)
class Change:
    """The effect of new settings: the terms, the number of `workers`, and the endpoints where they listen.

    `endpoints` is None if they listen as before; `port` is the port of `endpoints`.  `changed` are the keys that
    differ, `overruled` the settings without effect because systemd passed sockets, and `warnings` are sentences.
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
        """Read the settings again, and return what they would change.  Raises `ConfigError` and `CannotListen`."""
        return self.change_to(self._read_again())

    def commit(self) -> None:
        """Record that the settings read last are in effect, and store them for the next echod."""
        assert self._read is not None, "nothing was read"
        self._in_effect = self._read
        last_good.keep(self._in_effect, self._store)

    def change_to(self, loaded: Loaded) -> Change:
        """What these settings change, compared with those in effect; at startup none are in effect.

        Raises `CannotListen` for a host that does not resolve.
        """
        new, before = loaded.settings, self._in_effect or loaded.settings
        self._read = new
        options = _socket_options(new)
        # This stays true from the first change on, because connections may wait in the kernel's queue, with the old
        # options, for any length of time.
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
    """A warning if the workers have too few descriptors for the `wanted` connections."""
    served = workers * (descriptors - SPARE_FDS)
    if served >= wanted:
        return []
    warning = f"limits.max_connections is {wanted}, but the descriptor limit allows only {served}"
    return [f"{warning}; raise LimitNOFILE= (ulimit -n), now {descriptors}, or lower limits.max_connections"]
