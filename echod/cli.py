"""The command line: from words to settings, from settings to a running daemon, and from its end to an exit code."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from typing import NoReturn

from echod import __version__
from echod.config.settings import Key, Settings, as_toml, keys
from echod.config.sources import DEFAULT_FILE, FILE_VARIABLE, Loaded, load, nearest
from echod.daemon import open_events, serve
from echod.errors import EX_INTERRUPTED, EX_OK, EX_SOFTWARE, CannotListen, CannotWrite, EchodError, UsageError
from echod.log.events import EventLog
from echod.log.output import goes_to_journal
from echod.net.address import resolve
from echod.net.listeners import check_endpoints
from echod.parent import status
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
    except Exception as error:  # noqa: BLE001  a bug, whatever it is, is told as an event
        with open_events(Settings()) as events:
            events.bug_of(error)
        code = EX_SOFTWARE
    sys.exit(code)


def run(argv: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Do what `argv` says, and return the status to leave with.

    Raises `EchodError` for whatever a person can mend.
    """
    arguments = _parse(argv)
    flags = {key.path: value for key in keys() if (value := getattr(arguments, key.name)) is not None}
    read = partial(load, arguments.config, flags, environ)
    if arguments.check_config or arguments.print_config:
        _look(arguments, read())
        return EX_OK
    try:
        serve(read, environ)
    except EchodError as error:
        # There too, because `systemctl status` shows no entries from before, once the next start is scheduled.
        with contextlib.closing(Notifier(environ)) as notifier:
            notifier.status(status.failure(error.problems))
        raise
    return EX_OK


def _look(arguments: argparse.Namespace, loaded: Loaded) -> None:
    """Do with the configuration what was asked for in place of serving by it."""
    _warn(loaded.warnings)
    if arguments.print_config:
        origins = {path: str(origin) for path, origin in loaded.origins.items()}
        _say(as_toml(loaded.settings, origins))
    if arguments.check_config:
        _check(loaded.settings)
        # To standard error if the settings are on standard output, which is to be fed back.
        _say("OK\n", _STDERR if arguments.print_config else _STDOUT)


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print and leave with 2 for."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see echod --help)")

    def _print_message(self, message: str, file: object = None) -> None:
        _say(message)


def make_parser() -> argparse.ArgumentParser:
    """All flags, those of the settings in a group of their own; the man page is made from it too."""
    parser = _Parser(
        prog="echod",
        description="Echo daemon (RFC 862): sends back every byte that it receives.",
        epilog="Exit status: 0 stopped by a signal, 64 invalid command line, 69 cannot listen, 70 bug in echod, "
        "74 cannot write to standard output, 78 invalid configuration.",
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
    """The flag of a setting takes whatever is given: what it may be is for the settings to say."""
    text = f"{key.description} [{key.kind.show(key.default)}] (variable {key.variable})".replace("%", "%%")
    if key.path == ("host",):
        group.add_argument(key.flag, dest=key.name, action="append", metavar=key.kind.metavar, help=text)
    elif isinstance(key.default, bool):
        group.add_argument(key.flag, dest=key.name, nargs="?", const=True, metavar=key.kind.metavar, help=text)
    else:
        group.add_argument(key.flag, dest=key.name, metavar=key.kind.metavar, help=text)


def _check(settings: Settings) -> None:
    """Look for everything that can be found wrong without serving; raises `CannotListen` with all of it together."""
    problems: list[str] = []
    for host in settings.host:
        try:
            problems += check_endpoints(resolve(host), settings.port)
        except CannotListen as error:
            problems += error.problems
    if problems:
        raise CannotListen(*problems)


def _complain(problems: Sequence[str]) -> None:
    """Tell what is wrong."""
    _tell(problems, "echod: ", EventLog.cannot_start)


def _warn(warnings: Sequence[str]) -> None:
    """Tell what may be wrong."""
    _tell(warnings, "echod: warning: ", EventLog.config_warning)


def _tell(problems: Sequence[str], prefix: str, event: Callable[..., None]) -> None:
    """Tell a person, by sentences that begin with `prefix`, or the journal, in which there are events only.

    These have the default form and level: that others are configured is perhaps just what could not be read.
    """
    if goes_to_journal(_STDERR):
        with open_events(Settings()) as events:
            for problem in problems:
                event(events, problem=problem)
    else:
        for problem in problems:
            _say(f"{prefix}{problem}\n", _STDERR)


def _say(text: str, fd: int = _STDOUT) -> None:
    """Tell a person something; one who has stopped reading has seen enough.  Raises `CannotWrite`.

    What can't be written to standard error is lost: there is no other place to say so.

    Not by `sys.stdout`, which the interpreter flushes once more at its end, too late for us, and which is None where
    the descriptor was closed.
    """
    data = text.encode(errors="backslashreplace")
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        if fd == _STDOUT and not isinstance(error, BrokenPipeError):
            raise CannotWrite(f"cannot write to standard output: {error.strerror}; redirect it elsewhere") from error


def _have_standard_fds() -> None:
    """Have something behind descriptors 0 to 2, or the first sockets would be standard output and error."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(fd, True)
    os.close(fd)
