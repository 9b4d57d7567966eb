"""Markdown and TOML: the status in README.md, and the configuration in etc/echod.toml."""

import re
from collections.abc import Iterator

from echod.config.settings import keys
from generate.facts import status_line

STATUS = re.compile(r'^( +Status: ").*("\n)', re.MULTILINE)
"""In a sample of `systemctl status`."""


def readme(text: str) -> str:
    """README.md with the status that its sample should show."""
    text, count = STATUS.subn(lambda match: match[1] + status_line() + match[2], text)
    if count != 1:
        raise ValueError(f"there are {count} samples of a status, not one")
    return text


def sample(text: str) -> str:
    """etc/echod.toml: its first paragraph, and then every key, commented out, at its default."""
    return text.partition("\n\n")[0] + "\n" + "\n".join(_keys())


def _keys() -> Iterator[str]:
    table: tuple[str, ...] = ()
    for key in keys():
        if key.path[:-1] != table:
            table = key.path[:-1]
            yield f"\n[{'.'.join(table)}]"
        yield f"\n# {key.description}\n#{key.path[-1]} = {key.kind.show(key.default)}"
    yield ""
