"""`make docs`: write what the documents repeat of the code, from the code.

In a man page that is what stands between `.\\" begin generated: NAME` and `.\\" end generated`; in README.md two
tables, known by their first lines; in etc/echod.toml all below the first paragraph.  The rest is kept as it is.
"""

import argparse
import inspect
import logging
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from echod import cli, errors
from echod.client import cli as client_cli
from echod.config import Key, keys
from echod.journal import Journal

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGES = [HERE / name for name in ("echod.8", "echod.toml.5", "echoc.1")]
README = ROOT / "README.md"
SAMPLE = ROOT / "etc" / "echod.toml"

WIDTH = 78
"""Of a line of text in a page; mandoc's lint minds more than 80."""

# What errors.py has no exception for; a new status there has no sentence here, and is a KeyError.
STATUS_WITHOUT_ERROR = {
    errors.EX_OK: "Stopped when told to.",
    errors.EX_SOFTWARE: "A bug; its traceback is in the event `bug`.",
    errors.EX_INTERRUPTED: "Interrupted (SIGINT) before it served.",
}

# argparse's own words are about what it prints.
PLAINER = {"help": "Print a summary of the options, and exit.", "version": "Print the version, and exit."}

BLOCK = re.compile(
    r'^(\.\\" begin generated: (.+)\n)(?:(?!\.\\" begin generated).*\n)*?(\.\\" end generated\n)', re.MULTILINE
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_INLINE = re.compile(r"(?:^|\s+)((?:`[^`\s]+`|[\w.-]+\(\d\))[.,:;]*)(?=\s|$)")
"""A name between backticks or a man page, and the points that follow it; what else touches one leaves it plain text."""


def documents() -> dict[Path, str]:
    """Every document that repeats the code, as it should be."""
    found = {page: BLOCK.sub(_block, page.read_text()) for page in PAGES}
    found[README] = _with_table(README.read_text(), "| Key | Default | Variable | Flag |", _key_rows())
    found[README] = _with_table(found[README], "| Event | Level | When | Fields |", _event_rows())
    found[SAMPLE] = SAMPLE.read_text().partition("\n\n")[0] + "\n" + "\n".join(_sample())
    return found


def main() -> None:
    """Write the documents that are not as they should be."""
    for path, text in documents().items():
        if text != path.read_text():
            path.write_text(text)


def _block(match: re.Match[str]) -> str:
    return match[1] + "".join(f"{line}\n" for line in BLOCKS[match[2]]()) + match[3]


def _with_table(text: str, header: str, rows: Iterator[str]) -> str:
    """`text` with these rows in the table that begins with the line `header` and ends with an empty one."""
    before, found, after = text.partition(f"{header}\n")
    if not found:
        raise ValueError(f"no table begins with {header}")
    rule = after.partition("\n")[0]
    return "\n".join([before + found + rule, *rows]) + "\n\n" + after.partition("\n\n")[2]


# --- What the code says


def _events() -> Iterator[tuple[str, str, str, list[str]]]:
    """Name, levels, meaning and fields of each event, in the order of their declarations."""
    for name, method in vars(Journal).items():
        if hasattr(method, "__wrapped__"):
            fields = [field for field in inspect.signature(method).parameters if field != "self"]
            yield name, _levels(inspect.getclosurevars(method).nonlocals["level"]), _doc(method), fields


def _levels(level: int | Callable[..., int]) -> str:
    """A level, or all those among which a function chooses: the names that its code mentions.  `info` comes first."""
    if isinstance(level, int):
        return logging.getLevelName(level).lower()
    known = logging.getLevelNamesMapping()
    named = [name for name in level.__code__.co_names if name in known]
    return " or ".join(sorted(map(str.lower, named), key=lambda name: (name != "info", known[name.upper()])))


def _statuses() -> Iterator[tuple[int, str]]:
    meanings = {error.exit_code: _doc(error) for error in errors.EchodError.__subclasses__()}
    for status in sorted({value for name, value in vars(errors).items() if name.startswith("EX_")}):
        yield status, meanings[status] if status in meanings else STATUS_WITHOUT_ERROR[status]


def _doc(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())


# --- Markdown and TOML


def _key_rows() -> Iterator[str]:
    for key in keys():
        yield f"| `{key.name}` | `{key.kind.show(key.default)}` | `{key.variable}` | `{key.flag}` |"


def _event_rows() -> Iterator[str]:
    for name, levels, meaning, fields in _events():
        yield f"| `{name}` | {levels} | {meaning} | {', '.join(f'`{field}`' for field in fields)} |"


def _sample() -> Iterator[str]:
    """Every key, commented out, at its default."""
    table: tuple[str, ...] = ()
    for key in keys():
        if key.path[:-1] != table:
            table = key.path[:-1]
            yield f"\n[{'.'.join(table)}]"
        yield f"\n# {key.description}\n#{key.path[-1]} = {key.kind.show(key.default)}"
    yield ""


# --- Man pages


def _page_keys() -> Iterator[str]:
    table = None
    for key in keys():
        if key.path[:-1] != table:
            if table is not None:
                yield ".El"
            table = key.path[:-1]
            yield f".Ss The [{'.'.join(table)}] table" if table else ".Ss Before any table"
            yield ".Bl -tag -width Ds"
        yield f".It Va {key.name} No = {_literal(key.kind.show(key.default))}"
        yield from _prose(key.description)
        yield from _prose(f"Must be {key.kind.expected}.")
        yield from ("Variable", f".Ev {key.variable} ,", "flag", f".Fl {_literal(key.flag[1:])} .")
    yield ".El"


def _page_options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The parser's arguments; of a setting only what it is, since echod.toml(5) has the rest."""
    settings: dict[str, Key] = {key.flag: key for key in keys()}
    yield ".Bl -tag -width Ds"
    for action in parser._actions:
        names = " , ".join(f"Fl {_literal(name[1:])}" for name in action.option_strings)
        value = f"Ar {_literal(action.metavar)}" if isinstance(action.metavar, str) else ""
        if names and action.nargs == "?":
            value = f"Op {value}"
        yield f".It {names} {value}".replace("  ", " ").rstrip()
        key = settings.get(action.option_strings[-1]) if action.option_strings else None
        yield from _prose(key.description if key else PLAINER.get(action.dest) or _sentence(action))
    yield ".El"


def _page_events() -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for name, levels, meaning, fields in _events():
        yield f".It Sy {name} Pq {levels}"
        yield from _prose(meaning)
        if fields:
            yield "Fields:"
            yield from (f".Va {field} ," for field in fields[:-1])
            yield f".Va {fields[-1]} ."
    yield ".El"


def _page_statuses() -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for status, meaning in _statuses():
        yield f".It {status}"
        yield from _prose(meaning)
    yield ".El"


def _sentence(action: argparse.Action) -> str:
    text = (action.help or "") % vars(action)
    return f"{text[0].upper()}{text[1:]}."


def _prose(text: str) -> Iterator[str]:
    """Sentences as lines of mdoc, each sentence on a new one: names between backticks and man pages become macros."""
    for sentence in _SENTENCE_END.split(text):
        for number, piece in enumerate(_INLINE.split(sentence)):
            if number % 2:
                yield _macro(piece)
            elif piece:
                lines = textwrap.wrap(_text(piece.strip()), WIDTH, break_long_words=False, break_on_hyphens=False)
                yield from (re.sub(r"^\.", r"\\&.", line) for line in lines)


def _macro(piece: str) -> str:
    name = piece.rstrip(".,:;")
    points = "".join(f" {point}" for point in piece[len(name) :])
    page, _, section = name.partition("(")
    return f".Xr {page} {section[:-1]}{points}" if section else f".Va {name[1:-1]}{points}"


def _text(words: str) -> str:
    """Text that means itself, its quotes and options as one types them."""
    return re.sub(r"(?<!\w)-", r"\\-", words.replace("`", "").replace("\\", "\\e").replace("'", "\\(aq"))


def _literal(words: str) -> str:
    """The same as arguments of a macro, each hyphen one to be typed."""
    return words.replace("\\", "\\e").replace("'", "\\(aq").replace('"', "\\(dq").replace("-", "\\-")


BLOCKS: dict[str, Callable[[], Iterator[str]]] = {
    "keys": _page_keys,
    "events": _page_events,
    "exit statuses": _page_statuses,
    "options of echod": lambda: _page_options(cli.make_parser()),
    "options of echoc": lambda: _page_options(client_cli.make_parser()),
}

if __name__ == "__main__":
    main()
