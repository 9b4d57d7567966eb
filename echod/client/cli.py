"""echoc's command line: argv -> a verb -> an exit code.

Exit codes: 0 the echo was identical; 1 it was wrong or lost; 2 the echo could not be tested (usage, no connection,
unreadable input, unwritable output).  Interrupted by Ctrl-C it is 130, and when the reader of standard output closes
it 141, the codes by which a shell reports SIGINT and SIGPIPE.  `echoc check` has the exit codes of monitoring plugins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from echod.client.errors import ClientError, NameLookupError, UntestableError, UsageError, reason
from echod.client.output import Screen, fill_standard_descriptors

TYPE_CHECKING = False  # type checkers treat the name as true; importing typing would cost a third of echoc's start
if TYPE_CHECKING:
    from types import ModuleType

    from echod.client.options import Parser

VERBS = ("send", "ping", "load", "check")
"""The verbs, of which the first word on the command line may be one; the default is "send"."""

_UNKNOWN = 3  # of monitoring plugins, for which 2 would mean that the service has failed


def main(argv: Sequence[str] | None = None) -> int:
    """Run echoc with `argv` (default: the process's own arguments) and return its exit code."""
    screen = Screen()
    arguments = list(sys.argv[1:] if argv is None else argv)
    untestable = _UNKNOWN if arguments[:1] == ["check"] else UntestableError.exit_code
    try:
        fill_standard_descriptors()
        return _run(arguments, screen)
    except ClientError as error:
        screen.message(f"echoc: {error}")
        return error.exit_code
    except BrokenPipeError:
        return 141
    except OSError as error:  # for example, no free descriptor, in a place that adds nothing to the reason
        screen.message(f"echoc: {reason(error)}")
        return untestable
    except KeyboardInterrupt:
        screen.status.erase()
        return 130


def _run(arguments: list[str], screen: Screen) -> int:
    verb = arguments.pop(0) if arguments and arguments[0] in VERBS else ""
    try:
        options = make_parser(verb).parse_args(arguments)
        if not verb and options.host in VERBS:
            raise UsageError(
                f"{options.host!r} must be the first argument: echoc {options.host} HOST; to reach a host of that "
                f"name: echoc send {options.host}"
            )
        if options.json and os.isatty(1):
            screen.status.is_wanted = False  # objects would continue it
        code: int = _module(verb).run(options, screen)
    except (UsageError, NameLookupError) as error:
        if not verb and arguments and (nearest := _nearest_verb(arguments[0])):
            raise UsageError(f"{arguments[0]!r} is not a verb (the nearest is {nearest}); as a host: {error}") from None
        raise
    return code


def _nearest_verb(word: str) -> str:
    """The verb for which `word` may be a typing error, or "".

    Only a word that does not work as a host is taken for one, so a host named pong remains reachable, and if it is
    down, the error does not speak of verbs.
    """
    from difflib import get_close_matches  # slow to import

    return next(iter(get_close_matches(word, VERBS, n=1)), "")


def make_parser(verb: str = "") -> Parser:
    """The parser of a verb, from which the man page and the completions are generated as well.

    "" is echoc without a verb, which takes the arguments of "send".
    """
    parser: Parser = _module(verb).make_parser(verb)
    return parser


def _module(verb: str) -> ModuleType:
    """The module of a verb: only that one is imported, so that echoc starts fast."""
    if verb == "ping":
        from echod.client.ping import command as ping

        return ping
    if verb == "load":
        from echod.client.load import command as load

        return load
    if verb == "check":
        from echod.client.check import command as check

        return check
    from echod.client import send

    return send
