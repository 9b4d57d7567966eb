"""Text as mdoc(7), the language of man pages."""

import re
import textwrap
from collections.abc import Iterator

WIDTH = 78
"""Characters in a line of text; mandoc's lint complains above 80."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_INLINE = re.compile(r"(?:^|\s+)((?:`[^`\s]+`|[\w.-]+\(\d\))[.,:;]*)(?=\s|$)")
"""A name between backticks or a man page, and the punctuation after it; beside anything else it is plain text."""


def prose(text: str) -> Iterator[str]:
    """Sentences as lines of mdoc, each sentence on a new one: names between backticks and man pages become macros."""
    for sentence in _SENTENCE_END.split(text):
        for number, piece in enumerate(_INLINE.split(sentence)):
            if number % 2:
                yield _macro(piece)
            elif piece:
                lines = textwrap.wrap(_plain(piece.strip()), WIDTH, break_long_words=False, break_on_hyphens=False)
                yield from (re.sub(r"^\.", r"\\&.", line) for line in lines)


def literal(words: str) -> str:
    """Text as arguments of a macro, with hyphens that can be copied and typed."""
    return words.replace("\\", "\\e").replace("'", "\\(aq").replace('"', "\\(dq").replace("-", "\\-")


def _macro(piece: str) -> str:
    name = piece.rstrip(".,:;")
    points = "".join(f" {point}" for point in piece[len(name) :])
    page, _, section = name.partition("(")
    return f".Xr {page} {section[:-1]}{points}" if section else f".Va {name[1:-1]}{points}"


def _plain(words: str) -> str:
    """Plain text, with quotes and options that can be copied and typed."""
    return re.sub(r"(?<!\w)-", r"\\-", words.replace("`", "").replace("\\", "\\e").replace("'", "\\(aq"))
