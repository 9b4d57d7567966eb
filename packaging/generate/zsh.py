"""Completion for zsh, by the functions of zshcompsys(1)."""

import textwrap
from collections.abc import Iterator

from generate.completions import Command, Option, Program, Value

_ALONE = """\
#compdef %NAME%
# zsh completion for %PAGE%: written by "make docs" from the parser.

"""

_WITH_VERBS = """\
#compdef %NAME%
# zsh completion for %PAGE%: written by "make docs" from the parsers.

_%NAME%_first()
{
  local -a verbs=(
%VERBS%
  )
  local -i result=1
  _describe -t verbs verb verbs && result=0
  _hosts && result=0
  return result
}

local verb= first=_%NAME%_first
if (( CURRENT > 2 )) && [[ $words[2] == (%CHOICE%) ]]; then
  verb=$words[2] first=_hosts
  shift words
  (( CURRENT-- ))
fi
case $verb in
%CASES%
esac
"""


def script(program: Program) -> str:
    """The file that zsh autoloads."""
    if program.verbs:
        text = _WITH_VERBS.replace("%CHOICE%", "|".join(program.verbs))
        text = text.replace("%VERBS%", "\n".join(_descriptions(program)))
        text = text.replace("%CASES%", "\n".join(_cases(program)))
    else:
        text = _ALONE + "\n".join(_arguments(program.commands[""])) + "\n"
    return text.replace("%NAME%", program.name).replace("%PAGE%", program.page)


def _descriptions(program: Program) -> Iterator[str]:
    for verb in program.verbs:
        text = program.texts[verb]
        yield f"    {_quoted(f'{verb}:{text}' if text else verb)}"


def _cases(program: Program) -> Iterator[str]:
    for command, verbs in program.alike():
        patterns = "|".join(verb or '""' for verb in verbs)
        yield f"  ({patterns})"
        yield from textwrap.indent("\n".join(_arguments(command)), "    ").split("\n")
        yield "    ;;"


def _arguments(command: Command) -> Iterator[str]:
    specifications = [_quoted(text) for option in command.options for text in _option(option)]
    for number, place in enumerate(command.places, 1):
        if number == 1 and place.kind == "host":
            specifications.append(f'"1::{place.name}:$first"')  # where no verb has been said, it may be one
        else:
            specifications.append(_quoted(f"{number}::{_escaped(place.name)}:{_action(place)}"))
    yield "_arguments -s -S \\"
    yield from (f"  {text} \\" for text in specifications[:-1])
    yield f"  {specifications[-1]}"


def _option(option: Option) -> Iterator[str]:
    before = f"({' '.join(option.rivals)})" if option.rivals else "*"
    colon = "::" if option.optional else ":"
    values = "".join(f"{colon}{_escaped(value.name)}:{_action(value)}" for value in option.values)
    for name in option.names:
        sign = "" if not option.values else "=" if name.startswith("--") else "+"
        yield f"{before}{name}{sign}[{_escaped(option.text)}]{values}"


def _action(value: Value) -> str:
    if value.words:
        return f"({' '.join(value.words)})"
    return {"file": "_files", "host": "_hosts"}.get(value.kind, " ")


def _escaped(text: str) -> str:
    """Text within a specification of _arguments."""
    for character in "\\:[]":
        text = text.replace(character, f"\\{character}")
    return text


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
