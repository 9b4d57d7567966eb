"""The blocks of the man pages that repeat the code."""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence

from echod import cli
from echod.client import cli as client_cli
from echod.config.settings import keys
from generate.arguments import in_group, sentence, values
from generate.facts import events, example, settings, statuses
from generate.mdoc import literal, prose

BLOCK = re.compile(
    r'^(\.\\" begin generated: (.+)\n)(?:(?!\.\\" begin generated).*\n)*?(\.\\" end generated\n)', re.MULTILINE
)

COMMON = "options of every verb"
"""The title of the group of options that all parsers of echoc share."""


def page(text: str) -> str:
    """A man page with its blocks as they should be."""
    return BLOCK.sub(_block, text)


def _block(match: re.Match[str]) -> str:
    return match[1] + "".join(f"{line}\n" for line in BLOCKS[match[2]]()) + match[3]


def _keys() -> Iterator[str]:
    table = None
    for key in keys():
        if key.path[:-1] != table:
            if table is not None:
                yield ".El"
            table = key.path[:-1]
            yield f".Ss The [{'.'.join(table)}] table" if table else ".Ss Keys outside a table"
            yield ".Bl -tag -width Ds"
        yield f".It Va {key.name} No = {literal(key.kind.show(key.default))}"
        yield from prose(key.description)
        yield from prose(f"Must be {key.kind.expected}.")
        yield from ("Variable", f".Ev {key.variable} ,", "flag", f".Fl {literal(key.flag[1:])} .")
    yield ".El"


def _events() -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for name, levels, meaning, fields in events():
        yield f".It Sy {name} Pq {levels}"
        yield from prose(meaning)
        if fields:
            yield "Fields:"
            yield from (f".Va {field} ," for field in fields[:-1])
            yield f".Va {fields[-1]} ."
    yield ".El"


def _example() -> Iterator[str]:
    """One event as the journal shows it."""
    yield ".Bd -literal -offset indent"
    yield from literal(json.dumps(example(), indent=2)).splitlines()
    yield ".Ed"


def _statuses() -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for status, meaning in statuses():
        yield f".It {status}"
        yield from prose(meaning)
    yield ".El"


# --- Options


def _of_echod() -> Iterator[str]:
    """For a setting only its description, since echod.toml(5) has the rest."""
    known = settings()

    def text(action: argparse.Action) -> str:
        key = known.get(action.option_strings[-1])
        return key.description if key else sentence(action)

    return _options(cli.make_parser()._actions, text)


def _of_every_verb() -> Iterator[str]:
    """From the parser of `send`, since they are the same for every verb."""
    return _options(_shared(client_cli.make_parser("send")))


def _of_verb(verb: str) -> Iterator[str]:
    """The options of this verb only."""
    parser = client_cli.make_parser(verb)
    shared = _shared(parser)
    return _options([action for action in parser._actions if action not in shared])


def _shared(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    target = [action for action in parser._actions if action.dest in ("host", "port")]
    usage = [action for action in parser._actions if action.dest == "help"]
    return [*target, *usage, *in_group(parser, COMMON)]


def _options(actions: Sequence[argparse.Action], text: Callable[[argparse.Action], str] = sentence) -> Iterator[str]:
    if not actions:
        yield "It has no options of its own."
        return
    yield ".Bl -tag -width Ds"
    for action in actions:
        names = " , ".join(f"Fl {literal(name[1:])}" for name in action.option_strings)
        yield f".It {names} {_value(action)}".replace("  ", " ").rstrip()
        yield from prose(text(action))
    yield ".El"


def _value(action: argparse.Action) -> str:
    if action.metavar is None and action.choices is not None and action.nargs != 0:
        value = " | ".join(f"Cm {literal(str(choice))}" for choice in action.choices)
    else:
        value = " ".join(f"Ar {literal(name)}" for name in values(action))
    if action.nargs in ("*", "+"):
        value += " ..."
    return f"Op {value}" if action.option_strings and action.nargs in ("?", "*") else value


BLOCKS: dict[str, Callable[[], Iterator[str]]] = {
    "keys": _keys,
    "events": _events,
    "example event": _example,
    "exit statuses": _statuses,
    "options of echod": _of_echod,
    COMMON: _of_every_verb,
    **{f"options of echoc {verb}": lambda verb=verb: _of_verb(verb) for verb in client_cli.VERBS},  # type: ignore[misc]
}
