"""The errors that end echod, each with its exit status (sysexits.h).

An error that its user can fix is an `EchodError`, with clear sentences and a status.  Any other exception, except an
interrupt, is logged as a bug with its traceback, and the exit status is `EX_SOFTWARE`.
"""

import os

EX_OK = os.EX_OK
EX_USAGE = os.EX_USAGE
EX_UNAVAILABLE = os.EX_UNAVAILABLE
EX_SOFTWARE = os.EX_SOFTWARE
EX_OSERR = os.EX_OSERR
EX_IOERR = os.EX_IOERR
EX_HANDED_OVER = os.EX_TEMPFAIL
"""Sockets, and usually connections, were left to a successor, which the service manager has to start.

A status of its own, which the unit lists in RestartForceExitStatus=: after a SIGTERM that systemd did not send, 0 would
be a stop, and systemd would drop what it stores.  Every hand-over has this status, because echod cannot know which
SIGTERM came from systemd, and systemd does not need it during `systemctl restart`.
"""
EX_CONFIG = os.EX_CONFIG
EX_INTERRUPTED = 130
"""The status that a shell reports for a program ended by SIGINT."""


class EchodError(Exception):
    """One or more problems, each a sentence, and the exit status."""

    exit_code = EX_SOFTWARE

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class UsageError(EchodError):
    """The command line is invalid."""

    exit_code = EX_USAGE


class ConfigError(EchodError):
    """The configuration is invalid."""

    exit_code = EX_CONFIG


class CannotListen(EchodError):
    """echod cannot listen on an address: it is in use, not permitted, unknown, or belongs to another machine."""

    exit_code = EX_UNAVAILABLE


class Explained(OSError):
    """An error of the kernel for which there are better words than its own: the cause, and a remedy."""


class MissingFeature(EchodError):
    """The kernel, or a sandbox, refuses a system call without which echod cannot serve."""

    exit_code = EX_OSERR


class CannotWrite(EchodError):
    """echod cannot write to standard output."""

    exit_code = EX_IOERR
