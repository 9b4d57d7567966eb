"""The ways in which echod gives up, each with its exit code (sysexits.h).

An error that a person is known to cause, or can mend, is an `EchodError`: clear sentences and a status.  Whatever else
reaches the top, an interrupt apart, is told as a bug: it leaves with `EX_SOFTWARE` and its traceback inside the event.
"""

import os

EX_OK = os.EX_OK
EX_USAGE = os.EX_USAGE
EX_UNAVAILABLE = os.EX_UNAVAILABLE
EX_SOFTWARE = os.EX_SOFTWARE
EX_IOERR = os.EX_IOERR
EX_CONFIG = os.EX_CONFIG
EX_INTERRUPTED = 130
"""What a shell says of a program that SIGINT ended."""


class EchodError(Exception):
    """One or more sentences for a person, and the status to leave with."""

    exit_code = EX_SOFTWARE

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class UsageError(EchodError):
    """The command line is not understood."""

    exit_code = EX_USAGE


class ConfigError(EchodError):
    """The configuration is wrong."""

    exit_code = EX_CONFIG


class CannotListen(EchodError):
    """No socket can be had for an address: it is in use, not permitted, unknown, or not ours."""

    exit_code = EX_UNAVAILABLE


class CannotWrite(EchodError):
    """What was asked for can't be written to standard output."""

    exit_code = EX_IOERR
