"""The variables `ECHOD_*`: which of them are settings, which are mistakes, and which were set for something else.

In a container the environment is full of names that the operator did not choose.  Kubernetes describes each service to
every container in variables that begin with the service's name, so a service named `echod-lb` sets ECHOD_LB_PORT; an
image may set ECHOD_VERSION.  These must not prevent a start, but a misspelt setting must.  So names are recognised by
their form first, because ECHOD_2_PORT, of a service, is as similar to ECHOD_PORT as a misspelling is.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_settings import EnvSettingsSource

from echod.config.names import nearest
from echod.config.settings import ENV_PREFIX, Key, Settings, keys
from echod.config.types import BRACKETED

FILE_VARIABLE = "ECHOD_CONFIG"
"""The name of the configuration file; not a setting itself."""

_OF_A_SERVICE = re.compile(
    r"ECHOD_(.*_)?SERVICE_(HOST|PORT(_.*)?)|ECHOD_(.*_)?PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
)
"""The names that Kubernetes derives from the name of a service (Kubernetes, "Accessing the Service")."""
_URL = re.compile(r"(tcp|udp|sctp)://")
"""The beginning of the value of a service's `…_PORT`."""


@dataclass(frozen=True, slots=True)
class Variables:
    """The settings among the variables, each with its key, and sentences about the others."""

    values: list[tuple[Key, Any]]
    problems: list[str]
    warnings: list[str]


def read_variables(environ: Mapping[str, str]) -> Variables:
    """The settings in `environ`; values are not validated yet, except for the form of a list of hosts."""
    given = {name: value for name, value in environ.items() if name.startswith(ENV_PREFIX) and name != FILE_VARIABLE}
    of_services = {name for name, value in given.items() if _OF_A_SERVICE.fullmatch(name) or _URL.match(value)}
    problems, foreign = [], []
    for name in sorted(given.keys() - _KEYS.keys() - of_services):
        meant = nearest(name.removeprefix(ENV_PREFIX), (known.removeprefix(ENV_PREFIX) for known in _KEYS))
        if meant or any(known.startswith(name) for known in _KEYS):
            problems.append(f"{name}: unknown variable{nearest(name, _KEYS)}")
        else:
            foreign.append(name)
    warnings = []
    if of_services:
        warnings.append(
            f"{', '.join(sorted(of_services))}: ignored; Kubernetes sets such variables for a service whose name "
            "begins with echod"
        )
    if foreign:
        warnings.append(f"{', '.join(foreign)}: ignored; not similar to any setting of echod")
    settings = {name: given[name] for name in given.keys() & _KEYS.keys() - of_services}
    values = []
    for key, value in _values(settings):
        if key.path != ("host",):
            values.append((key, value))
        elif (hosts := _host_list(settings[key.variable])) is None:
            problems.append(f"{key.variable} is {settings[key.variable]!r}, but must be {key.kind.expected}")
        else:
            values.append((key, hosts))
            if hosts == [""]:
                warnings.append(
                    f"{key.variable} is empty, so echod listens on every address of this machine; "
                    "unset it for localhost"
                )
    return Variables(values, problems, warnings)


def _values(settings: Mapping[str, str]) -> list[tuple[Key, Any]]:
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): value for name, value in settings.items()}
    nested = source()
    values = []
    for key in _KEYS.values():
        if key.variable in settings:
            value: Any = nested
            for name in key.path:
                value = value[name]
            values.append((key, value))
    return values


def _host_list(text: str) -> Any:
    """The hosts in a variable, separated by commas or written as a list like in the file; None if invalid.

    An empty item is ignored: only an empty variable means every address.
    """
    first = text.partition(",")[0].strip()
    if first.startswith("[") and not BRACKETED.fullmatch(first):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None
    return [host for part in text.split(",") if (host := part.strip())] or ([""] if not text.strip() else None)


_KEYS: dict[str, Key] = {key.variable: key for key in keys()}
