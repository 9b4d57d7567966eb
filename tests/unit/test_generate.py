"""packaging/generate: what parsers have or may come to have, as text."""

import argparse
from typing import Any

import pytest

from generate import bash, completions, pages, zsh


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
    """Its names, and the values that it takes."""
    assert item(*names, **options, help="do it") == line


def test_what_argparse_says_by_itself_is_said_better() -> None:
    """Its own words are about what it does, not about what one gets."""
    parser = argparse.ArgumentParser()
    assert "Print a summary of the options, and exit." in list(pages._options(parser._actions))


def test_a_default_is_filled_in() -> None:
    """As `--help` does it."""
    parser = argparse.ArgumentParser()
    action = parser.add_argument("--count", default=5, help="so many (default: %(default)d)")
    assert list(pages._options([action]))[2] == "So many (default: 5)."


def command(*adds: tuple[tuple[str, ...], dict[str, Any]]) -> completions.Command:
    """What a parser of these arguments, which rule each other out, takes."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_mutually_exclusive_group()
    for names, options in adds:
        group.add_argument(*names, **options)
    return completions._command(parser, {})


@pytest.mark.parametrize(
    ("names", "options", "line"),
    [
        (("-q",), {"action": "store_true"}, "(-q)-q[Do it]"),
        (("--size",), {"metavar": "BYTES"}, "(--size)--size=[Do it]:BYTES: "),
        (("-s",), {"metavar": "BYTES"}, "(-s)-s+[Do it]:BYTES: "),
        (("--file",), {"metavar": "FILE"}, "(--file)--file=[Do it]:FILE:_files"),
        (("--mode",), {"choices": ["a", "b"]}, "(--mode)--mode=[Do it]:a|b:(a b)"),
        (("--pair",), {"nargs": 2, "metavar": ("FROM", "TO")}, "(--pair)--pair=[Do it]:FROM: :TO: "),
        (("--truth",), {"nargs": "?", "metavar": "BOOL"}, "(--truth)--truth=[Do it]::BOOL: "),
        (("--host",), {"action": "append", "metavar": "HOST"}, "*--host=[Do it]:HOST:_hosts"),
    ],
)
def test_an_option_for_zsh(names: tuple[str, ...], options: dict[str, Any], line: str) -> None:
    """As a specification of _arguments, zshcompsys(1)."""
    (option,) = command((names, {**options, "help": "do it"})).options
    assert list(zsh._option(option)) == [line]


def test_options_of_which_only_one_can_stand() -> None:
    """Each knows the others; bash makes no use of it."""
    first, _ = command((("-a",), {"action": "store_true"}), (("-b",), {"action": "store_true"})).options
    assert first.rivals == ("-a", "-b")


def test_what_zsh_would_take_for_its_own_is_escaped() -> None:
    """In a text that stands in brackets, between colons, in quotes."""
    assert zsh._quoted(zsh._escaped("it's [a]: b")) == r"'it'\''s \[a\]\: b'"


@pytest.mark.parametrize(
    ("value", "takes"),
    [
        (completions.Value("FILE", "file"), "takes=(-f)"),
        (completions.Value("HOST", "host"), "takes=(-A hostname)"),
        (completions.Value("MODE", "words", ("a", "b")), 'takes=(-W "a b")'),
        (completions.Value("N", "other"), 'takes=(-W "")'),
    ],
)
def test_a_value_for_bash(value: completions.Value, takes: str) -> None:
    """As arguments of compgen, bash(1)."""
    assert bash._takes(value) == takes
