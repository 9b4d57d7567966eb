"""From settings to terms, at startup and at each reload.

`Configuration` compares new settings with those in effect, and returns the difference as a `Change`: the terms for the
workers, the number of workers, where they listen, and the warnings to log.  The supervisor applies the change, and
commits the settings once it has succeeded.

The settings are read, and host names resolved, in a child process (`reading`), whose result is `Found`.  Names are
resolved at each start and restart, and afterwards only if `host` or `port` has changed, so that no other reload depends
on name servers.
"""

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple, Protocol, Self

from echod.config.settings import Settings, kernel_memory, keys, worker_count
from echod.config.sources import ConfigPath, Loaded, Origin
from echod.errors import CannotListen, ConfigError
from echod.log.events import LogOptions
from echod.log.words import enumeration, span
from echod.net import address
from echod.net.address import Endpoint
from echod.net.sockopts import SocketOptions
from echod.parent import last_good, reading
from echod.parent.reading import Report, Work
from echod.shared.terms import ServiceTerms, Timeouts
from echod.systemd.fdstore import DescriptorStore

LINGER = 2.0
"""Seconds to wait for a client to close its side, after the server has closed its own."""
SPARE_FDS = 64
"""Descriptors that a worker needs besides those of its connections."""
SLOW = 1.0
"""Seconds from which a warning says that resolving host names took long; most name servers answer in milliseconds."""

_LISTENING: list[ConfigPath] = [("host",), ("port",)]
"""The settings that determine where echod listens."""


@dataclass(frozen=True, slots=True)
class Process:
    """The properties of this process that settings do not change.

    It may open `descriptors` descriptors, and its workers tick every `tick` seconds.  With `activated`, a .socket unit
    passed the listening sockets, which override `host` and `port`.  It was started with the descriptors `inherited`,
    which may be files of the configuration.
    """

    descriptors: int
    tick: float
    activated: bool
    inherited: Sequence[int]


class Read(Protocol):
    """Reads the settings from all their sources."""

    def __call__(self, *, again: bool, before: Callable[[str], None]) -> Loaded:
        """Read them, `again` if this process has read them before; `before` is called with the name of each file.

        Raises `ConfigError` with all problems.
        """


class Found(NamedTuple):
    """What was read, and the endpoints of `host`; None if they were not looked up."""

    loaded: Loaded
    endpoints: list[Endpoint] | None

    def encode(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        return {
            "settings": self.loaded.settings.model_dump(),
            "origins": [(path, origin.kind, origin.name) for path, origin in self.loaded.origins.items()],
            "files": self.loaded.files,
            "warnings": self.loaded.warnings,
            "endpoints": None if self.endpoints is None else [astuple(endpoint) for endpoint in self.endpoints],
        }

    @classmethod
    def decode(cls, values: dict[str, Any]) -> Self:
        """The inverse of `encode`; validates the settings once more."""
        origins = {tuple(path): Origin(kind, name) for path, kind, name in values["origins"]}
        loaded = Loaded(Settings(**values["settings"]), origins, values["files"], values["warnings"])
        if values["endpoints"] is None:
            return cls(loaded, None)
        endpoints = [Endpoint(socket.AddressFamily(family), *rest) for family, *rest in values["endpoints"]]
        return cls(loaded, endpoints)


@dataclass(frozen=True, slots=True)
class Change:
    """The effect of new settings: the terms, the number of `workers`, and the endpoints where they listen.

    `endpoints` is None if they listen as before; `port` is the port of `endpoints`, `unix_mode` the mode of the files
    of unix sockets.  `changed` are the keys that differ, `overruled` the settings without effect because systemd
    passed sockets, and `warnings` are sentences.
    """

    terms: ServiceTerms
    workers: int
    endpoints: list[Endpoint] | None
    port: int
    unix_mode: int
    changed: list[str]
    overruled: list[str]
    warnings: list[str]


class Configuration:
    """The settings in effect; `read` reads new ones, and `store` keeps those in effect for the next echod."""

    def __init__(self, read: Read, process: Process, store: DescriptorStore) -> None:
        self._read_settings = read
        self._process = process
        self._store = store
        self._options_changed = process.activated
        self._in_effect: Settings | None = None
        self._read: Found | None = None
        self._again = False
        self._resolved = False
        """Whether the hosts were looked up for the settings in effect; not for the sockets of an earlier echod."""

    def reader(self) -> tuple[Work, Sequence[int]]:
        """The work of the child process that reads the settings, and the descriptors that it keeps (`reading`)."""
        again, self._again = self._again, True
        return (lambda report: self._find(report, again=again).encode()), self._process.inherited

    def _find(self, report: Report, *, again: bool) -> Found:
        """In the child: read the settings, and look up the hosts if that is necessary."""
        allowed = f"could not be read within {reading.DEADLINE:.0f} s"
        advice = "check the file system that it is on, and that it is a regular file"
        report(ConfigError(f"the configuration {allowed}; {advice}"))
        loaded = self._read_settings(
            again=again, before=lambda file: report(ConfigError(f"{file}: {allowed}; {advice}"))
        )
        if not self._moves(loaded.settings):
            return Found(loaded, None)
        endpoints, slow = look_up([] if self._process.activated else loaded.settings.host, report)
        loaded.warnings.extend(slow)
        return Found(loaded, endpoints)

    def _moves(self, new: Settings) -> bool:
        """Whether listening sockets may change: `host` or `port` does, or they are those of an earlier echod."""
        if self._in_effect is None or not self._resolved:
            return True
        changed = [key.path for key in keys() if key.value(new) != key.value(self._in_effect)]
        return not self._process.activated and any(path in changed for path in _LISTENING)

    def commit(self) -> None:
        """Record that the settings read last are in effect, and store them for the next echod."""
        assert self._read is not None, "nothing was read"
        self._in_effect = self._read.loaded.settings
        self._resolved = self._resolved or self._read.endpoints is not None
        last_good.keep(self._in_effect, self._store)

    def change_to(self, found: Found) -> Change:
        """What these settings change, compared with those in effect; at startup none are in effect."""
        loaded = found.loaded
        new, before = loaded.settings, self._in_effect or loaded.settings
        self._read = found
        options = _socket_options(new)
        # This stays true from the first change on, because connections may wait in the kernel's queue, with the old
        # options, for any length of time.
        self._options_changed = self._options_changed or options != _socket_options(before)
        changed = [key for key in keys() if key.value(new) != key.value(before)]
        overruled: list[ConfigPath] = []
        if self._process.activated:
            changed = [key for key in changed if key.path not in _LISTENING]
            overruled = [path for path in _LISTENING if path in loaded.origins]
        workers = worker_count(new)
        return Change(
            terms=_terms(new, options, self._options_changed, self._process.tick),
            workers=workers,
            endpoints=found.endpoints,
            port=new.port,
            unix_mode=int(new.unix_mode, 8),
            changed=[key.name for key in changed],
            overruled=[".".join(path) for path in overruled],
            warnings=[
                *loaded.warnings,
                *_overruled(loaded, overruled),
                *_too_few(self._process.descriptors, workers, new.limits.max_connections),
            ],
        )


def look_up(hosts: Sequence[str], report: Report) -> tuple[list[Endpoint], list[str]]:
    """The endpoints of all `hosts`, and a warning if looking them up took long.

    Raises `CannotListen` with the problem of each host that has none.
    """
    found: list[Endpoint] = []
    problems: list[str] = []
    names = list(filter(address.is_name, hosts))
    begun = time.monotonic()
    for number, host in enumerate(hosts):
        if host in names:
            report(CannotListen(_unanswered([name for name in hosts[number:] if name in names])))
        try:
            found += address.resolve(host)
        except CannotListen as error:
            problems += error.problems
    if problems:
        raise CannotListen(*problems)
    return address.without_covered(found), slow_lookup(names, time.monotonic() - begun)


def slow_lookup(names: Sequence[str], seconds: float) -> list[str]:
    """A warning if it took long to look up these host names."""
    if not names or seconds < SLOW:
        return []
    warning = f"{looked_up(names, seconds)}; after {reading.DEADLINE:.0f} s, a start or reload fails"
    return [f"{warning}; check the name servers in /etc/resolv.conf, or use addresses"]


def looked_up(names: Sequence[str], seconds: float) -> str:
    """How long it took to look up these host names."""
    return f"resolving {_hosts(names)} took {span(seconds)}"


def _unanswered(names: Sequence[str]) -> str:
    does = "does" if len(names) == 1 else "do"
    return (
        f"{_hosts(names)} {does} not resolve: the name servers have not answered within {reading.DEADLINE:.0f} s; "
        "check the name servers in /etc/resolv.conf, or use addresses"
    )


def _hosts(names: Sequence[str]) -> str:
    return ("host " if len(names) == 1 else "hosts ") + enumeration([repr(name) for name in names])


def _socket_options(settings: Settings) -> SocketOptions:
    limits = settings.limits
    return SocketOptions(limits.keepalive, limits.keepalive_interval, limits.keepalive_probes)


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
        ipv6_prefix=limits.ipv6_source_prefix,
        kernel_memory=kernel_memory(settings),
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
    allowed = f"allows only {served}" if served > 0 else "leaves hardly any descriptor for them"
    warning = f"limits.max_connections is {wanted}, but the descriptor limit {allowed}"
    return [f"{warning}; raise LimitNOFILE= (ulimit -n), now {descriptors}, or lower limits.max_connections"]
