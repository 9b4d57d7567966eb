"""The sources of settings: flags override variables, which override files, which override the defaults.

All sources are merged into one plain dictionary, with the origin of every value, and validated once.  So all problems
are reported together, and each names its file, variable or flag.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from echod.config.environment import FILE_VARIABLE, read_variables
from echod.config.names import nearest
from echod.config.settings import Key, Settings, keys
from echod.errors import ConfigError

DEFAULT_FILE = "/etc/echod.toml"
FILE_MAX = 1 << 20
"""Most bytes of a file; all settings together need about a thousand."""
REPORTED_MAX = 20
"""Most problems of one source that are reported; finding the intended name takes a millisecond per problem."""

ConfigPath = tuple[str, ...]

T = TypeVar("T")

_POSITION = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: its `kind` is `file`, `environment` or `flag`, its `name` says which one."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def subject(self, path: ConfigPath) -> str:
        """How a sentence about the value begins."""
        return f"{self.name}: {'.'.join(path)}" if self.kind == "file" else self.name


@dataclass(slots=True)
class Loaded:
    """Valid settings, their origins, the files that were read, and warnings about them."""

    settings: Settings
    origins: dict[ConfigPath, Origin]
    files: list[str]
    warnings: list[str]


@dataclass(slots=True)
class _Reading:
    """What has been read so far, merged: later sources override earlier ones."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[ConfigPath, Origin] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def given(self, location: tuple[int | str, ...]) -> Any:
        """The value as it was given, at a location that pydantic reports, whose last steps may be parts of a type."""
        value: Any = self.values
        for step in location:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                break
        return value

    def lay(self, path: ConfigPath, value: Any, origin: Origin) -> None:
        """Override what was read before with this value of a key."""
        place = self.values
        for name in path[:-1]:
            inner = place.get(name)
            if not isinstance(inner, dict):
                inner = place[name] = {}
                self.origins.pop(path[:-1], None)
            place = inner
        place[path[-1]] = value
        self.origins[path] = origin

    def lay_table(self, table: ConfigPath, values: Mapping[str, Any], origin: Origin) -> list[ConfigPath]:
        """Override what was read before with the keys of a table and its inner tables; returns those that do not exist.

        Unknown keys are not left to pydantic-settings, which takes `PORT` for `port`, and `_env_prefix` for an option
        of its own.
        """
        unknown: list[ConfigPath] = []
        for name, value in values.items():
            path = (*table, name)
            if path in _TABLES and isinstance(value, dict):
                unknown += self.lay_table(path, value, origin)
            elif path in _TABLES or path in _KEYS:
                self.lay(path, value, origin)
            else:
                unknown.append(path)
        return unknown


def load(
    config: str | None,
    flags: Mapping[ConfigPath, Any],
    environ: Mapping[str, str],
    *,
    again: bool = False,
    before: Callable[[str], None] = lambda file: None,
) -> Loaded:
    """The settings from all sources: the file `config` (else ECHOD_CONFIG, else the default), `environ` and `flags`.

    At a reload (`again`), a pipe or a terminal is a problem: it is empty by now, or would block.  `before` is called
    with the name of each file before the file is opened.
    Raises `ConfigError` with all problems.
    """
    reading = _Reading()
    files = []
    for file in _files(config, environ, reading):
        before(str(file))
        if _read_file(file, reading, again=again):
            files.append(file)
    variables = read_variables(environ)
    reading.problems += variables.problems
    reading.warnings += variables.warnings
    for key, value in variables.values:
        reading.lay(key.path, value, Origin("environment", key.variable))
    for key in _KEYS.values():
        if key.path in flags:
            reading.lay(key.path, flags[key.path], Origin("flag", key.flag))
    try:
        settings = Settings(**reading.values)
    except ValidationError as error:
        reading.problems += _problems(error, reading)
        raise ConfigError(*reading.problems) from error
    if reading.problems:
        raise ConfigError(*reading.problems)
    return Loaded(settings, reading.origins, [str(file) for file in files], reading.warnings)


def _files(config: str | None, environ: Mapping[str, str], reading: _Reading) -> list[Path]:
    """The file, if it exists or was requested, followed by the files of its directory FILE.d, sorted by name."""
    named = config if config is not None else environ.get(FILE_VARIABLE)
    if named == "":
        source = "--config" if config is not None else FILE_VARIABLE
        reading.problems.append(f"{source} is empty; name a file, or leave it out for {DEFAULT_FILE}")
        return []
    file = Path(named if named is not None else DEFAULT_FILE)
    found = [file] if named is not None or _is_there(file) else []
    directory = Path(f"{file}.d")
    try:
        entries = sorted(entry for entry in directory.iterdir() if entry.name.endswith(".toml"))
    except (FileNotFoundError, NotADirectoryError):
        return found
    except OSError as error:
        reading.problems.append(
            f"{directory}: cannot be read: {error.strerror}; make the directory readable by this user"
        )
        return found
    return found + [entry for entry in entries if _is_drop_in(entry, reading.warnings)]


def _is_drop_in(entry: Path, warnings: list[str]) -> bool:
    """Whether the entry of a directory of drop-ins is one; if not, a warning says why.

    A link that leads nowhere counts as one, and is a problem: the file was there when the link was made.
    """
    if entry.name.startswith("."):
        warnings.append(f"{entry}: ignored; its name begins with a dot, as an editor's temporary files do")
        return False
    try:
        if entry.is_file() or not entry.exists() or entry.samefile(os.devnull):
            return True
    except OSError:
        return True  # so that reading it reports the reason
    warnings.append(f"{entry}: ignored; it is not a regular file")
    return False


def _is_there(file: Path) -> bool:
    """Whether the file exists; also True if stat(2) is not permitted, so that reading it reports the reason."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _read_file(file: Path, reading: _Reading, *, again: bool) -> bool:
    """Override what was read before with the contents of `file`; False if it cannot be read.

    Rejected: TomlConfigSettingsSource, which skips everything but regular files; `--config <(…)` should work.
    """
    try:
        if again and not (file.is_file() or file.samefile(os.devnull)):
            reading.problems.append(f"{file}: cannot be read again: it is not a regular file; restart echod instead")
            return False
        with file.open("rb") as opened:
            data = opened.read(FILE_MAX + 1)
        if len(data) > FILE_MAX:
            reading.problems.append(f"{file}: is longer than {FILE_MAX} bytes; check that it is a configuration file")
            return False
        text = data.decode("utf-8-sig")
    except OSError as error:
        reading.problems.append(
            f"{file}: cannot be read: {error.strerror}; name a file that exists and is readable by this user"
        )
        return False
    except UnicodeDecodeError as error:
        reading.problems.append(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8")
        return False
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, and errors that tomllib does not catch
        reading.problems.append(f"{file}{_syntax(str(error), text)}; correct the TOML syntax")
        return False
    origin = Origin("file", str(file))
    unknown = reading.lay_table((), values, origin)
    reading.problems += _first(origin.name, unknown, lambda path: _unknown_key(origin, ".".join(path)))
    return True


def _syntax(message: str, text: str) -> str:
    """`:LINE:COLUMN: problem`, from the message of tomllib about `text`."""
    match = _POSITION.match(message)
    if not match:
        return f": {message}"
    *before, last = text.split("\n")
    return f":{match[2] or len(before) + 1}:{match[3] or len(last) + 1}: {match[1]}"


def _problems(error: ValidationError, reading: _Reading) -> list[str]:
    """One sentence for each problem; a union that fails in each of its parts is one problem."""
    wrong: dict[str, dict[ConfigPath, tuple[int | str, ...]]] = {}
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        path = next((path for path in _prefixes(detail["loc"]) if path in reading.origins), ())
        wrong.setdefault(reading.origins[path].name, {})[path] = detail["loc"]

    def sentence(thing: tuple[ConfigPath, tuple[int | str, ...]]) -> str:
        path, location = thing
        origin = reading.origins[path]
        if path in _KEYS:
            # As it was given: in some versions of pydantic the error has the converted value.
            given, expected = reading.given(location), _KEYS[path].kind.expected
            return f"{origin.subject(path)} is {_shown(given)}, but must be {expected}"
        return f"{origin.subject(path)} must be a table: write [{'.'.join(path)}] and its keys below"

    return [problem for name, things in wrong.items() for problem in _first(name, list(things.items()), sentence)]


def _first(name: str, things: Sequence[T], sentence: Callable[[T], str]) -> list[str]:
    """A sentence for each of the first `REPORTED_MAX` problems of a source, and one with the number of the others."""
    sentences = [sentence(thing) for thing in things[:REPORTED_MAX]]
    more = len(things) - len(sentences)
    return [*sentences, f"{name}: {more} more problems of this kind, not shown"] if more else sentences


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # TOML's hexadecimal numbers may be longer than Python shows as decimal ones
        return "a number that is too large"


def _unknown_key(origin: Origin, name: str) -> str:
    return f"{origin.name}: unknown key {name!r}{nearest(name, _NAMES)}"


def _prefixes(location: tuple[int | str, ...]) -> Iterable[ConfigPath]:
    """The keys or tables that a location of pydantic may mean, the longest first."""
    return (tuple(map(str, location[:length])) for length in range(len(location), 0, -1))


_KEYS: dict[ConfigPath, Key] = {key.path: key for key in keys()}
_TABLES = {key.path[:-1] for key in _KEYS.values()}
_NAMES = [key.name for key in _KEYS.values()] + [".".join(table) for table in _TABLES if table]
