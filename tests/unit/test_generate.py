"""packaging/generate: the text for the arguments of parsers, present ones and other possible ones."""

import argparse
from typing import Any

import pytest

from generate import pages


def item(*names: str, **options: Any) -> str:
    """The line that begins an argument's entry in a man page."""
    parser = argparse.ArgumentParser()
    action = parser.add_argument(*names, **options)
    return list(pages._options([action]))[1]


@pytest.mark.parametrize(
    ("names", "options", "line"),
    [
        (("-q", "--quiet"), {"action": "store_true"}, ".It Fl q , Fl \\-quiet"),
        (("--size",), {"metavar": "BYTES"}, ".It Fl \\-size Ar BYTES"),
        (("--size",), {}, ".It Fl \\-size Ar SIZE"),
        (("--mode",), {"choices": ["open", "half-open"]}, ".It Fl \\-mode Cm open | Cm half\\-open"),
        (("--mode",), {"choices": ["a", "b"], "metavar": "MODE"}, ".It Fl \\-mode Ar MODE"),
        (("--pair",), {"nargs": 2, "metavar": ("FROM", "TO")}, ".It Fl \\-pair Ar FROM Ar TO"),
        (("--truth",), {"nargs": "?", "metavar": "BOOL"}, ".It Fl \\-truth Op Ar BOOL"),
        (("--names",), {"nargs": "+", "metavar": "NAME"}, ".It Fl \\-names Ar NAME ..."),
        (("host",), {"metavar": "HOST", "nargs": "?"}, ".It Ar HOST"),
    ],
)
def test_an_argument_is_written_as_it_is_typed(names: tuple[str, ...], options: dict[str, Any], line: str) -> None:
    """The entry has the argument's names, and the values that it accepts."""
    assert item(*names, **options, help="do it") == line


def test_what_argparse_says_by_itself_is_said_better() -> None:
    """The descriptions that argparse adds by itself are replaced by clearer ones."""
    parser = argparse.ArgumentParser()
    assert "Print a summary of the options, and exit." in list(pages._options(parser._actions))


def test_a_default_is_filled_in() -> None:
    """A default is filled into a description, as in `--help`."""
    parser = argparse.ArgumentParser()
    action = parser.add_argument("--count", default=5, help="so many (default: %(default)d)")
    assert list(pages._options([action]))[2] == "So many (default: 5)."
