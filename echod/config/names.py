"""Which name was meant by one that does not exist."""

from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str:
    """`; did you mean …?` if one of `names` is similar to `word`, whatever its case, else nothing."""
    import difflib

    by_lower_case = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), by_lower_case, n=1)
    return f"; did you mean {by_lower_case[close[0]]!r}?" if close else ""
