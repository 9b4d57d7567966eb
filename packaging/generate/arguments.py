"""Names, values and meaning of a parser's arguments."""

import argparse
from collections.abc import Iterator

# Clearer than argparse's own sentences.
_PLAINER = {
    "show this help message and exit": "print a summary of the options, and exit",
    "show program's version number and exit": "print the version, and exit",
}


def values(action: argparse.Action) -> tuple[str, ...]:
    """The names of the values of an argument, as its usage shows them: usually one, or none, or several."""
    if action.nargs == 0:
        return ()
    if isinstance(action.metavar, tuple):
        return action.metavar
    if action.metavar is not None:
        name = action.metavar
    elif action.choices is not None:
        name = "|".join(map(str, action.choices))
    else:
        name = action.dest.upper()
    return (name,) * (action.nargs if isinstance(action.nargs, int) else 1)


def sentence(action: argparse.Action) -> str:
    """Its text in `--help`, with the default filled in, as a sentence."""
    text = (action.help or "") % vars(action)
    text = _PLAINER.get(text, text)
    if text.partition(":")[0] not in (action.choices or ()):  # such a word is typed as it is
        text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def in_group(parser: argparse.ArgumentParser, title: str) -> Iterator[argparse.Action]:
    """The arguments in the group with this title."""
    for group in parser._action_groups:
        if group.title == title:
            yield from group._group_actions
