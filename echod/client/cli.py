"""echoc's command line: argv -> a verb -> an exit code.

Exit codes: 0 the echo was identical; 1 it was wrong or lost; 2 nothing can be said (usage, no connection,
unreadable input, unwritable output).  Ended by Ctrl-C it is 130, and when the reader of standard output goes
away 141, as a shell reports a death by SIGINT and SIGPIPE.  `echoc check` has those of monitoring plugins.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from echod.client.faults import ClientError, UntestableError, reason
from echod.client.output import Screen, fill_standard_descriptors

TYPE_CHECKING = False  # as type checkers take the name; importing typing would cost a third of the whole start
if TYPE_CHECKING:
    from types import ModuleType

    from echod.client.options import Parser

VERBS = ("send", "ping", "load", "check")
"""What echoc can do, by the first word on its command line; without one of these it is "send"."""

_UNKNOWN = 3  # of monitoring plugins, to which 2 would say that the service has failed


def main(argv: Sequence[str] | None = None) -> int:
    """Run echoc with `argv` (default: the process's own arguments) and return its exit code."""
    screen = Screen()
    words = list(sys.argv[1:] if argv is None else argv)
    trouble = _UNKNOWN if words[:1] == ["check"] else UntestableError.exit_code
    try:
        fill_standard_descriptors()
        return _run(words, screen)
    except ClientError as error:
        screen.tell(f"echoc: {error}")
        return error.exit_code
    except BrokenPipeError:
        return 141
    except OSError as error:  # out of descriptors, say, where nothing more can be told about it
        screen.tell(f"echoc: {reason(error)}")
        return trouble
    except KeyboardInterrupt:
        return 130


def _run(words: list[str], screen: Screen) -> int:
    verb = words.pop(0) if words and words[0] in VERBS else ""
    options = make_parser(verb).parse_args(words)
    if not verb and options.host in VERBS:
        raise UntestableError(
            f"{options.host!r} must be the first word, as in: echoc {options.host} HOST; a host of that name is "
            f"reached by: echoc send {options.host}"
        )
    code: int = _module(verb).run(options, screen)
    return code


def make_parser(verb: str = "") -> Parser:
    """The arguments of a verb, with what `--help` says of them; the man page and the completions are made from it.

    "" is echoc without a verb, which takes what "send" takes.
    """
    parser: Parser = _module(verb).make_parser(verb)
    return parser


def _module(verb: str) -> ModuleType:
    """The module of a verb: only that is imported, for the sake of the start."""
    if verb == "ping":
        from echod.client.verbs import ping

        return ping
    if verb == "load":
        from echod.client.verbs import load

        return load
    if verb == "check":
        from echod.client.verbs import check

        return check
    from echod.client.verbs import send

    return send
