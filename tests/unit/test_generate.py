"""packaging/generate: what parsers and schemas have or may come to have, as text."""

import argparse
from typing import Any

import pytest

from generate import pages, schema


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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"type": "integer"}, "Integer."),
        ({"type": ["number", "null"], "description": "How long."}, "Number or null. How long."),
        ({"enum": ["open", "closed", None]}, '"open", "closed" or null.'),
        ({"const": 1}, "1."),
        ({"$ref": "#/definitions/target"}, "See `target`."),
        ({"anyOf": [{"$ref": "#/definitions/target"}, {"type": "null"}]}, "`target` or null."),
        ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, "Array of array of integer."),
    ],
)
def test_a_field_says_what_it_may_be(value: dict[str, Any], text: str) -> None:
    """In words, before what it means."""
    (field,) = schema._fields({"required": ["it"], "properties": {"schema": True, "it": value}})
    assert (field.name, field.text, field.fields) == ("it", text, [])


_OBJECT = {"type": "object", "required": ["count"], "properties": {"count": {"type": "integer"}}}


@pytest.mark.parametrize(
    "value", [_OBJECT, {"anyOf": [_OBJECT, {"type": "null"}]}, {"type": "array", "items": _OBJECT}]
)
def test_an_object_within_has_its_fields_below_it(value: dict[str, Any]) -> None:
    """Where it has no name of its own."""
    (field,) = schema._fields({"required": ["it"], "properties": {"it": value}})
    assert [(one.name, one.text) for one in field.fields] == [("count", "Integer.")]


def test_a_field_that_may_be_missing_says_so() -> None:
    """The others are always there."""
    (field,) = schema._fields({"properties": {"offset": {"type": "integer"}}})
    assert field.text == "Integer, if there is one."
