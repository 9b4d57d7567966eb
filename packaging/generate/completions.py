"""What a shell can complete on the command lines of echod and echoc, by their parsers.

Not by the library shtab: it knows a verb only as one of argparse's subparsers, which no host can stand in place of.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from echod import cli
from echod.client import cli as client_cli
from echod.config.settings import Key
from generate.arguments import sentence, values
from generate.facts import choices, settings

ValueType = Literal["file", "host", "words", "other"]

_KINDS: dict[str, ValueType] = {"FILE": "file", "HOST": "host"}
"""By the name of a value; of others no shell knows anything."""


@dataclass(frozen=True, slots=True)
class Value:
    """What follows an option, or stands by itself; `words` are all that it may be, or those among what it may be."""

    name: str
    kind: ValueType
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """An option by all its names, and what it means.

    `rivals` are the names of those that can't stand beside it, its own too unless it may be repeated; "-" is any other
    option, and "*" any other argument.
    """

    names: tuple[str, ...]
    text: str
    values: tuple[Value, ...]
    optional: bool
    rivals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """What may follow a verb: options, and arguments by their places."""

    options: tuple[Option, ...]
    places: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """A program and its verbs; "" stands for what can be said without one."""

    name: str
    page: str
    commands: dict[str, Command]
    texts: dict[str, str]
    """What each verb does, in a few words, where that is told."""

    @property
    def verbs(self) -> list[str]:
        """Those that have a name."""
        return [verb for verb in self.commands if verb]

    def alike(self) -> Iterator[tuple[Command, list[str]]]:
        """Each command once, with the verbs that stand for it."""
        for command in dict.fromkeys(self.commands.values()):
            yield command, [verb for verb, other in self.commands.items() if other == command]


def programs() -> list[Program]:
    """echod and echoc."""
    parsers = {verb: client_cli.make_parser(verb) for verb in ("", *client_cli.VERBS)}
    texts = {verb: (parser.description or "").partition(".")[0] for verb, parser in parsers.items()}
    return [
        Program("echod", "echod(8)", {"": _command(cli.make_parser(), settings())}, {}),
        Program("echoc", "echoc(1)", {verb: _command(parser, {}) for verb, parser in parsers.items()}, texts),
    ]


def _command(parser: argparse.ArgumentParser, known: Mapping[str, Key]) -> Command:
    """What a parser takes; `known` are settings by their flags, which say more of themselves than the parser does."""
    options: list[Option] = []
    places: list[Value] = []
    for action in parser._actions:
        key = known.get(action.option_strings[-1]) if action.option_strings else None
        takes = tuple(_values(action, choices(key) if key else ()))
        if action.option_strings:
            text = (key.description if key else sentence(action)).removesuffix(".")
            optional = action.nargs in ("?", "*")
            options.append(Option(tuple(action.option_strings), text, takes, optional, _rivals(parser, action)))
        else:
            places += takes
    return Command(tuple(options), tuple(places))


def _values(action: argparse.Action, words: tuple[str, ...]) -> Iterator[Value]:
    words = words or tuple(map(str, action.choices or ()))
    for name in values(action):
        yield Value(name, "words" if words else _KINDS.get(name, "other"), words)


def _rivals(parser: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, ...]:
    if isinstance(action, argparse._HelpAction | argparse._VersionAction):
        return ("-", "*")
    if isinstance(action, argparse._AppendAction):
        return ()
    rivals = [action]
    for group in parser._mutually_exclusive_groups:
        if action in group._group_actions:
            rivals += [other for other in group._group_actions if other is not action]
    return tuple(name for rival in rivals for name in rival.option_strings)
