"""The settings: one model, from which the file, the variables, the flags and the documentation are derived.

Each key has a default, a description of one line, and a `ValueType` that says which values are valid.
`echod.config.sources` reads the values.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from echod.config import types
from echod.config.types import ValueType

ENV_PREFIX = "ECHOD_"
NESTED = "__"
_MEMORY_PART = 32
"""The kernel limits the memory of all TCP sockets to 3/32 of the machine's by default (tcp_mem)."""


class LimitSettings(BaseModel):
    """The table `[limits]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_connections: types.Count = Field(
        default=10_000, description="Maximum number of open connections; further ones wait in the kernel's queue."
    )
    max_connections_per_source: types.Quota = Field(
        default=0,
        description="Maximum number of open connections from one IPv4 address or IPv6 prefix; further ones are reset; "
        "0 disables it.",
    )
    ipv6_source_prefix: types.Prefix = Field(
        default=64, description="Length in bits of the IPv6 prefix that counts as one source."
    )
    kernel_memory: types.Memory = Field(
        default="auto",
        description="Kernel memory that slow clients may occupy together; above it the largest are reset; "
        "0 disables it.",
    )
    idle_timeout: types.Timeout = Field(
        default=10800.0, description="Close a connection after this much inactivity; 0 disables it."
    )
    stall_timeout: types.Timeout = Field(
        default=60.0,
        description="Reset a connection whose client acknowledges nothing for this long, longer for a slow reader; "
        "0 disables it.",
    )
    drain_timeout: types.Drain = Field(
        default=5.0,
        description="Time allowed at shutdown for clients to finish; then connections are reset; 0 allows none.",
    )
    keepalive: types.Keepalive = Field(
        default=7200.0,
        description="Probe a connection after this much silence (TCP keepalive); 0 disables it.",
    )
    keepalive_interval: types.Interval = Field(
        default=75.0, description="Time between two keepalive probes of a client that does not answer."
    )
    keepalive_probes: types.Probes = Field(
        default=9, description="Number of unanswered keepalive probes that end a connection."
    )


class LogSettings(BaseModel):
    """The table `[log]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: types.Level = Field(default="info", description="Minimum level to log: debug, info, warning or error.")
    format: types.Format = Field(
        default="json", description="Log format: json for programs and the journal, console for reading at a terminal."
    )
    connections: types.Truth = Field(default=True, description="Log each connection at info; if false, at debug.")
    payload: types.Truth = Field(default=False, description="At debug, log the first bytes of each chunk.")


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=NESTED,
    )

    host: types.Hosts = Field(
        default=("localhost",),
        description='Where to listen: a host name, an address, a unix socket, or a list; "" means every address.',
    )
    port: types.Port = Field(
        default=10000, description="TCP port, the same for every address; 0 lets the kernel choose."
    )
    unix_mode: types.Mode = Field(
        default="0666", description="Mode of the file of a unix socket; a client needs write permission."
    )
    chunk_size: types.ChunkSize = Field(
        default=256 << 10,
        description="Read size in bytes, and the most that is buffered for one connection.",
    )
    workers: types.Workers = Field(
        default=1, description='Number of worker processes, or "auto" for one per processor.'
    )
    handover: types.Truth = Field(
        default=True, description="At a restart, hand connections over to the next echod; if false, drain them."
    )
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only the constructor's arguments: `echod.config.sources` reads the sources and records the origins."""
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class Key:
    """One setting, with all its names."""

    path: tuple[str, ...]
    kind: ValueType
    description: str
    default: Any

    @property
    def name(self) -> str:
        """The name in a file, with its table."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return ENV_PREFIX + NESTED.join(self.path).upper()

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return "--" + "-".join(self.path).replace("_", "-")

    def value(self, settings: Settings) -> Any:
        """The value of this key in `settings`."""
        value: Any = settings
        for name in self.path:
            value = getattr(value, name)
        return value


def keys() -> Iterator[Key]:
    """Every key of the model, in its order; the keys of tables come last."""
    return _keys(Settings, ())


def _keys(model: type[BaseModel], table: tuple[str, ...]) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, (*table, name))
        else:
            kind = next(item for item in field.metadata if isinstance(item, ValueType))
            yield Key((*table, name), kind, field.description or "", field.default)


def as_toml(settings: Settings, origins: Mapping[tuple[str, ...], str]) -> str:
    """All settings as a file that can be read again, each followed by its origin in a comment."""
    lines: list[str] = []
    table: tuple[str, ...] = ()
    for key in keys():
        if key.path[:-1] != table:
            table = key.path[:-1]
            lines += ["", f"[{'.'.join(table)}]"]
        # Escaped, because the file name may contain a newline.
        origin = types.quoted(origins.get(key.path, "default"))[1:-1]
        lines.append(f"{key.path[-1]} = {key.kind.show(key.value(settings))}  # {origin}")
    return "\n".join(lines) + "\n"


def worker_count(settings: Settings) -> int:
    """The number of workers; for `auto`, the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if settings.workers == "auto" else settings.workers


def kernel_memory(settings: Settings) -> int:
    """The bytes for slow clients; for `auto`, a part of the machine's memory (sysinfo(2), which needs no /proc)."""
    if settings.limits.kernel_memory != "auto":
        return settings.limits.kernel_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MEMORY_PART
