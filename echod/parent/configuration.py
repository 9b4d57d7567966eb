"""From settings to terms, at the start and again at each reload.

The parent does nothing else while it reads again.  So a named host is not resolved again, unless it, or the port, is
another than before.
"""

from collections.abc import Callable

from echod.config.settings import Settings, keys, worker_count
from echod.config.sources import ConfigPath, Loaded
from echod.net.address import endpoints
from echod.net.sockopts import SocketOptions
from echod.shared.terms import Change, LogOptions, ServiceTerms, Timeouts

LINGER = 2.0
"""Seconds to wait for the client's end of a connection that the server ends."""
SPARE_FDS = 64
"""Descriptors of a worker that are no clients'."""

_WHERE: list[ConfigPath] = [("host",), ("port",)]


class Configuration:
    """The settings in effect, `loaded` at the start and later by `load`.

    `tick` is for the terms; `descriptors` is how many each process may have; `adopted` says that sockets were passed,
    which makes the settings of where to listen idle.
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
        """What the settings make at the start, when nothing changes."""

    @property
    def settings(self) -> Settings:
        """Those in effect."""
        return self._settings

    def reload(self) -> Change:
        """Read everything again, and say what that would change; raises `ConfigError` and `CannotListen`."""
        loaded = self._load()
        self._read = loaded.settings
        return self._change(loaded)

    def take(self) -> None:
        """What was read last is in effect now, and what the next is compared with."""
        self._settings = self._read

    def _change(self, loaded: Loaded) -> Change:
        new, before = loaded.settings, self._settings
        socket_options = _socket_options(new)
        # For good: how long the kernel's queue is not emptied, nobody knows.
        self._options_changed = self._options_changed or socket_options != _socket_options(before)
        overruled = [path for path in _WHERE if path in loaded.origins] if self._adopted else []
        changed = [key for key in keys() if key.value(new) != key.value(before)]
        if self._adopted:
            changed = [key for key in changed if key.path not in _WHERE]
        moves = any(key.path in _WHERE for key in changed)
        workers = worker_count(new)
        warnings = list(loaded.warnings)
        if overruled:
            subjects = " and ".join(loaded.origins[path].subject(path) for path in overruled)
            is_or_are = "is" if len(overruled) == 1 else "are"
            warnings.append(f"{subjects} {is_or_are} overruled by the sockets that systemd passed")
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
    """A warning if the descriptors are fewer than the clients that may be served."""
    served = workers * (descriptors - SPARE_FDS)
    if served >= wanted:
        return []
    warning = f"limits.max_connections is {wanted}, but this process may have descriptors for {served} clients only"
    return [f"{warning}; raise LimitNOFILE= (ulimit -n), which is {descriptors}, or lower the limit"]
