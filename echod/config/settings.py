"""The settings: one model, from which the file, the variables, the flags and the documentation are all derived.

A key exists here or nowhere.  Each has a default, one line that explains it, and a `Kind` that says what it may be;
where a value comes from is the business of `echod.config.sources`.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from echod.config import types as kinds
from echod.config.types import ValueType

ENV_PREFIX = "ECHOD_"
NESTED = "__"


class LimitSettings(BaseModel):
    """The table `[limits]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_connections: kinds.Count = Field(
        default=10_000, description="Clients at once; more wait in the kernel's queue."
    )
    max_connections_per_source: kinds.Quota = Field(
        default=0,
        description="Clients at once from one IPv4 address or IPv6 /64, 0 for no limit; more are closed at once.",
    )
    idle_timeout: kinds.Timeout = Field(
        default=10800.0, description="Close a client that has been quiet for so long, 0 for never."
    )
    stall_timeout: kinds.Timeout = Field(
        default=60.0, description="Reset a client that takes nothing of its echo for so long, 0 for never."
    )
    drain_timeout: kinds.Drain = Field(
        default=5.0, description="When stopping, finish what clients have sent within so long."
    )
    keepalive: kinds.Keepalive = Field(
        default=7200.0,
        description="Probe a client that has been quiet for so long (TCP keepalive), 0 for never.",
    )


class LogSettings(BaseModel):
    """The table `[log]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: kinds.Level = Field(default="info", description="The least that is told: debug, info, warning or error.")
    format: kinds.Format = Field(
        default="json", description="json for machines and the journal, console for a person at a terminal."
    )
    connections: kinds.Truth = Field(
        default=True, description="Tell of each connection; false leaves that to the level debug."
    )
    payload: kinds.Truth = Field(default=False, description="At the level debug, show the first bytes of each chunk.")


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=NESTED,
    )

    host: kinds.Hosts = Field(
        default=("localhost",),
        description='Where to listen: a name, an address, "" for every address, or a list.',
    )
    port: kinds.Port = Field(
        default=10000, description="The TCP port, the same for every address; 0 lets the kernel choose."
    )
    chunk_size: kinds.ChunkSize = Field(
        default=64 << 10,
        description="Bytes read from a client, and sent back, at a time; the most held for it.",
    )
    workers: kinds.Workers = Field(
        default=1, description='Processes that serve, a number or "auto" for one per processor.'
    )
    handover: kinds.Truth = Field(
        default=True, description="At a restart, hand the connections to the next echod; false ends them."
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
        """Only what is given: `echod.config.sources` has read the others, and knows where each value came from."""
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class Key:
    """One setting, by all its names."""

    path: tuple[str, ...]
    kind: ValueType
    description: str
    default: Any

    @property
    def name(self) -> str:
        """In the file, with its table."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """In the environment."""
        return ENV_PREFIX + NESTED.join(self.path).upper()

    @property
    def flag(self) -> str:
        """On the command line."""
        return "--" + "-".join(self.path).replace("_", "-")

    def value(self, settings: Settings) -> Any:
        """What it is set to."""
        value: Any = settings
        for name in self.path:
            value = getattr(value, name)
        return value


def keys() -> Iterator[Key]:
    """Every key of the model, in its order, tables last."""
    return _keys(Settings, ())


def _keys(model: type[BaseModel], table: tuple[str, ...]) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, (*table, name))
        else:
            kind = next(item for item in field.metadata if isinstance(item, ValueType))
            yield Key((*table, name), kind, field.description or "", field.default)


def as_toml(settings: Settings, origins: Mapping[tuple[str, ...], str]) -> str:
    """All settings as a file that can be read again, each with where it came from behind it."""
    lines: list[str] = []
    table: tuple[str, ...] = ()
    for key in keys():
        if key.path[:-1] != table:
            table = key.path[:-1]
            lines += ["", f"[{'.'.join(table)}]"]
        # Escaped, since the name of a file may hold a newline.
        origin = kinds.quoted(origins.get(key.path, "default"))[1:-1]
        lines.append(f"{key.path[-1]} = {key.kind.show(key.value(settings))}  # {origin}")
    return "\n".join(lines) + "\n"


def worker_count(settings: Settings) -> int:
    """How many workers that makes on this machine, by the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if settings.workers == "auto" else settings.workers
