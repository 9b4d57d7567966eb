"""The command line: it turns arguments into settings, runs the daemon, and turns its end into an exit status."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from time import monotonic
from typing import NoReturn

from echod import __version__
from echod.config.environment import FILE_VARIABLE
from echod.config.names import nearest
from echod.config.settings import Key, Settings, as_toml, keys
from echod.config.sources import DEFAULT_FILE, Loaded, load
from echod.daemon import open_events, serve
from echod.errors import (
    EX_HANDED_OVER,
    EX_INTERRUPTED,
    EX_OK,
    EX_SOFTWARE,
    CannotListen,
    CannotWrite,
    EchodError,
    UsageError,
)
from echod.log.events import EventLog
from echod.log.output import goes_to_journal
from echod.net.address import Endpoint, is_name, resolve, without_covered
from echod.parent import status
from echod.parent.reading import DEADLINE
from echod.parent.reload import looked_up, slow_lookup
from echod.systemd.notify import Notifier

_STDOUT = 1
_STDERR = 2


def main() -> NoReturn:
    """The command `echod`."""
    _have_standard_fds()
    try:
        code = run(sys.argv[1:], os.environ)
    except EchodError as error:
        _complain(error.problems)
        code = error.exit_code
    except KeyboardInterrupt:
        code = EX_INTERRUPTED
    except Exception as error:  # noqa: BLE001  any bug is logged as an event
        with open_events(Settings()) as events:
            events.bug_of(error)
        code = EX_SOFTWARE
    sys.exit(code)


def run(argv: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Run echod with the arguments `argv`, and return the exit status.

    Raises `EchodError` for errors that the user can fix.
    """
    arguments = _parse(argv)
    flags = {key.path: value for key in keys() if (value := getattr(arguments, key.name)) is not None}
    read = partial(load, arguments.config, flags, environ)
    if arguments.check_config or arguments.print_config:
        _look(arguments, read())
        return EX_OK
    try:
        handed_over = serve(read, environ)
    except EchodError as error:
        # In the status as well: once the next start is scheduled, `systemctl status` shows no older log entries.
        with contextlib.closing(Notifier(environ)) as notifier:
            notifier.status(status.failure(error.problems))
        raise
    return EX_HANDED_OVER if handed_over else EX_OK


def _look(arguments: argparse.Namespace, loaded: Loaded) -> None:
    """Print or check the configuration, for `--print-config` and `--check-config`."""
    _warn(loaded.warnings)
    if arguments.print_config:
        origins = {path: str(origin) for path, origin in loaded.origins.items()}
        _say(as_toml(loaded.settings, origins))
    if arguments.check_config:
        ok = _check(loaded.settings)
        # To standard error if standard output has the settings, so that its reader gets valid TOML.
        _say(f"{ok}\n", _STDERR if arguments.print_config else _STDOUT)


class _Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would print the usage and exit with status 2."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see echod --help)")

    def _print_message(self, message: str, file: object = None) -> None:
        _say(message)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all flags, with the settings in a group of their own; the man page is generated from it too."""
    parser = _Parser(
        prog="echod",
        description="Echo daemon (RFC 862): sends back every byte that it receives.",
        epilog="Exit status: 0 stopped by a signal, 64 invalid command line, 69 cannot listen, 70 bug in echod, "
        "71 the system lacks a feature that echod needs, 74 cannot write to standard output, "
        "75 handed over to the next echod, 78 invalid configuration.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"echod {__version__}")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"read FILE and FILE.d/*.toml instead of {DEFAULT_FILE} (variable {FILE_VARIABLE})",
    )
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="check the configuration, print its problems or OK, and exit",
    )
    parser.add_argument("--print-config", action="store_true", help="print the settings in effect as TOML and exit")
    settings = parser.add_argument_group(
        "settings", "each is also a key in the configuration file and an environment variable; a flag overrides both"
    )
    for key in keys():
        _add_flag(settings, key)
    return parser


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = make_parser()
    known = [flag for action in parser._actions for flag in action.option_strings]
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        flag = unknown[0].partition("=")[0]
        parser.error(f"unknown argument {flag!r}{nearest(flag, known)}")
    return arguments


def _add_flag(group: argparse._ArgumentGroup, key: Key) -> None:
    """Add the flag of a setting.  It accepts any value; the settings validate the values of all sources later."""
    text = f"{key.description} [{key.kind.show(key.default)}] (variable {key.variable})".replace("%", "%%")
    if key.path == ("host",):
        group.add_argument(key.flag, dest=key.name, action="append", metavar=key.kind.metavar, help=text)
    elif isinstance(key.default, bool):
        group.add_argument(key.flag, dest=key.name, nargs="?", const=True, metavar=key.kind.metavar, help=text)
    else:
        group.add_argument(key.flag, dest=key.name, metavar=key.kind.metavar, help=text)


def _check(settings: Settings) -> str:
    """Check what can be checked without serving, and return the sentence that nothing is wrong.

    Raises `CannotListen` with all problems together.
    """
    from echod.net.check import check_endpoints

    problems: list[str] = []
    resolved: list[Endpoint] = []
    names, begun = list(filter(is_name, settings.host)), monotonic()
    for host in settings.host:
        try:
            resolved += resolve(host)
        except CannotListen as error:
            problems += error.problems
    seconds = monotonic() - begun
    slow = slow_lookup(names, seconds)
    if seconds < DEADLINE:
        _warn(slow)
    else:
        problems += slow
    findings = check_endpoints(without_covered(resolved), settings.port)
    _warn(findings.warnings)
    problems += findings.problems
    if problems:
        raise CannotListen(*problems)
    return f"OK; {looked_up(names, seconds)}" if names else "OK"


def _complain(problems: Sequence[str]) -> None:
    """Print or log the problems that prevent a start."""
    _tell(problems, "echod: ", EventLog.cannot_start)


def _warn(warnings: Sequence[str]) -> None:
    """Print or log warnings about the configuration."""
    _tell(warnings, "echod: warning: ", EventLog.config_warning)


def _tell(problems: Sequence[str], prefix: str, event: Callable[..., None]) -> None:
    """Log each problem as an `event` if standard error is the journal, else print it after `prefix`.

    The events have the default format and level, since the configured ones may be what could not be read.
    """
    if goes_to_journal(_STDERR):
        with open_events(Settings()) as events:
            for problem in problems:
                event(events, problem=problem)
    else:
        for problem in problems:
            _say(f"{prefix}{problem}\n", _STDERR)


def _say(text: str, fd: int = _STDOUT) -> None:
    """Write `text` to `fd`.  Raises `CannotWrite`, but not for a pipe whose reader has closed it.

    Errors on standard error are ignored, because there is no other place to report them.

    Rejected: `sys.stdout`, which the interpreter flushes once more at exit, too late to report an error, and which is
    None if the descriptor was closed.
    """
    data = text.encode(errors="backslashreplace")
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        if fd == _STDOUT and not isinstance(error, BrokenPipeError):
            raise CannotWrite(f"cannot write to standard output: {error.strerror}; redirect it elsewhere") from error


def _have_standard_fds() -> None:
    """Open closed descriptors from 0 to 2, or the first sockets would become standard output and error."""
    for fd in range(_STDERR + 1):
        try:
            os.fstat(fd)
        except OSError:
            try:
                opened = os.open(os.devnull, os.O_RDWR)
            except OSError:
                # A chroot or a container may lack it.  On a directory, reading and writing fail, as they did before.
                opened = os.open("/", os.O_RDONLY)
            os.set_inheritable(opened, True)
