"""Markdown and TOML: what README.md repeats, and the configuration in etc/echod.toml."""

import re
from collections.abc import Iterator

from echod.config import keys
from generate.facts import status_line

STATUS = re.compile(r'^( +Status: ").*(")$', re.MULTILINE)
"""In a sample of `systemctl status`."""


def readme(text: str) -> str:
    """README.md with its table of settings and its sample of a status as they should be."""
    text = STATUS.sub(lambda match: match[1] + status_line() + match[2], text)
    return _with_table(text, "| Key | Default | Variable | Flag |", _key_rows())


def sample(text: str) -> str:
    """etc/echod.toml: its first paragraph, and then every key, commented out, at its default."""
    return text.partition("\n\n")[0] + "\n" + "\n".join(_keys())


def _with_table(text: str, header: str, rows: Iterator[str]) -> str:
    """`text` with these rows in the table that begins with the line `header` and ends with an empty one."""
    before, found, after = text.partition(f"{header}\n")
    if not found:
        raise ValueError(f"no table begins with {header}")
    rule = after.partition("\n")[0]
    return "\n".join([before + found + rule, *rows]) + "\n\n" + after.partition("\n\n")[2]


def _key_rows() -> Iterator[str]:
    for key in keys():
        yield f"| `{key.name}` | `{key.kind.show(key.default)}` | `{key.variable}` | `{key.flag}` |"


def _keys() -> Iterator[str]:
    table: tuple[str, ...] = ()
    for key in keys():
        if key.path[:-1] != table:
            table = key.path[:-1]
            yield f"\n[{'.'.join(table)}]"
        yield f"\n# {key.description}\n#{key.path[-1]} = {key.kind.show(key.default)}"
    yield ""
