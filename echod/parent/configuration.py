"""From settings to terms, at startup and at each reload.

The parent does nothing else while it reads the configuration again.  So a host name is resolved again only if the host
or the port has changed.
"""

from collections.abc import Callable

from echod.config.settings import Settings, keys, worker_count
from echod.config.sources import ConfigPath, Loaded
from echod.log.events import LogOptions
from echod.log.words import enumeration
from echod.net.address import endpoints
from echod.net.sockopts import SocketOptions
from echod.shared.terms import Change, ServiceTerms, Timeouts

LINGER = 2.0
"""Seconds to wait for a client to close its side, after the server has closed its own."""
SPARE_FDS = 64
"""Descriptors that a worker needs besides those of its connections."""

_WHERE: list[ConfigPath] = [("host",), ("port",)]


class Configuration:
    """The settings in effect: `loaded` at startup, and later by `load`.

    `tick` becomes part of the terms.  `descriptors` is the number that each process may have.  `adopted` says that
    systemd passed the listening sockets, which override the settings `host` and `port`.
    """

    def __init__(
        self, loaded: Loaded, load: Callable[[], Loaded], *, tick: float, descriptors: int, adopted: bool
    ) -> None:
        self._load = load
        self._tick = tick
        self._descriptors = descriptors
        self._adopted = self._options_changed = adopted
        self._settings = self._read = loaded.settings
        self.start = self._change(loaded)
        """The terms to start with, in a change in which nothing changed."""

    @property
    def settings(self) -> Settings:
        """The settings in effect."""
        return self._settings

    def reload(self) -> Change:
        """Read the configuration again, and return what would change; raises `ConfigError` and `CannotListen`."""
        loaded = self._load()
        self._read = loaded.settings
        return self._change(loaded)

    def take(self) -> None:
        """What was read last is in effect from now on, and the next reload is compared with it."""
        self._settings = self._read

    def _change(self, loaded: Loaded) -> Change:
        new, before = loaded.settings, self._settings
        socket_options = _socket_options(new)
        # From then on for ever: connections may stay in the kernel's queue for any time.
        self._options_changed = self._options_changed or socket_options != _socket_options(before)
        overruled = [path for path in _WHERE if path in loaded.origins] if self._adopted else []
        changed = [key for key in keys() if key.value(new) != key.value(before)]
        if self._adopted:
            changed = [key for key in changed if key.path not in _WHERE]
        moves = any(key.path in _WHERE for key in changed)
        workers = worker_count(new)
        warnings = list(loaded.warnings)
        if overruled:
            subjects = enumeration([loaded.origins[path].subject(path) for path in overruled])
            is_or_are = "is" if len(overruled) == 1 else "are"
            warnings.append(f"{subjects} {is_or_are} overridden by the sockets that systemd passed")
        return Change(
            terms=_terms(new, socket_options, self._options_changed, self._tick),
            workers=workers,
            endpoints=endpoints(new.host) if moves else None,
            port=new.port,
            changed=[key.name for key in changed],
            overruled=[".".join(path) for path in overruled],
            warnings=warnings + _too_few(self._descriptors, workers, new.limits.max_connections),
        )


def _socket_options(settings: Settings) -> SocketOptions:
    return SocketOptions(settings.limits.keepalive, settings.limits.stall_timeout)


def _terms(settings: Settings, socket_options: SocketOptions, sets_accepted_options: bool, tick: float) -> ServiceTerms:
    limits, log = settings.limits, settings.log
    return ServiceTerms(
        chunk_size=settings.chunk_size,
        timeouts=Timeouts(limits.idle_timeout, limits.stall_timeout, LINGER),
        socket_options=socket_options,
        sets_accepted_options=sets_accepted_options,
        drain=limits.drain_timeout,
        tick=tick,
        max_connections=limits.max_connections,
        max_per_source=limits.max_connections_per_source,
        handover=settings.handover,
        log_options=LogOptions(log.level, log.format, log.connections, log.payload),
    )


def _too_few(descriptors: int, workers: int, wanted: int) -> list[str]:
    """A warning if a worker may have fewer descriptors than connections."""
    served = workers * (descriptors - SPARE_FDS)
    if served >= wanted:
        return []
    warning = f"limits.max_connections is {wanted}, but the descriptors of this process allow only {served}"
    return [f"{warning}; raise LimitNOFILE= (ulimit -n), which is {descriptors}, or lower the limit"]
