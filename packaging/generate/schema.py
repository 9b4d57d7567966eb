"""The fields of what `echoc --json` prints, in words, from its schema (JSON Schema, draft-07)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).parents[1] / "echoc.schema.json"

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an object: what it may be, and what it means, if that needs saying."""

    name: str
    text: str
    fields: list["Field"]
    """Those of the object that it is, where that has no name of its own."""


@dataclass(frozen=True, slots=True)
class Definition:
    """An object, or a value, that has a name."""

    name: str
    text: str
    fields: list[Field]


def introduction() -> str:
    """What holds for all kinds."""
    return str(_load()["description"])


def kinds() -> list[Definition]:
    """The kinds of objects that are printed, by the word in the field "kind"."""
    schema = _load()
    named = {case["if"]["properties"]["kind"]["const"]: case["then"] for case in schema["allOf"]}
    return [
        _definition(kind, schema["definitions"][_name(named[kind])]) for kind in schema["properties"]["kind"]["enum"]
    ]


def parts() -> list[Definition]:
    """What stands in fields of those objects and has a name of its own."""
    schema = _load()
    whole = {_name(case["then"]) for case in schema["allOf"]}
    return [_definition(name, part) for name, part in schema["definitions"].items() if name not in whole]


def _load() -> Schema:
    schema: Schema = json.loads(SCHEMA.read_text())
    return schema


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _definition(name: str, schema: Schema) -> Definition:
    return Definition(name, schema.get("description") or f"{_type(schema)}.", list(_fields(schema)))


def _fields(schema: Schema) -> Iterator[Field]:
    """An object's own, or of the objects in an array; without "schema" and "kind", which are the same for all."""
    if "items" in schema:
        yield from _fields(schema["items"])
    for part in schema.get("anyOf", []) + schema.get("oneOf", []):
        yield from _fields(part)
    for name, field in schema.get("properties", {}).items():
        if field is not True:
            optional = "" if name in schema.get("required", ()) else ", if there is one"
            text = f"{'see ' if '$ref' in field else ''}{_type(field)}{optional}."
            yield Field(
                name, f"{text[0].upper()}{text[1:]} {field.get('description', '')}".strip(), list(_fields(field))
            )


def _type(schema: Schema) -> str:
    """What a value may be, in words."""
    if "$ref" in schema:
        return f"`{_name(schema)}`"
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return _either([json.dumps(value) for value in schema["enum"]])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return _either([_type(part) for part in schema[union]])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return _either([f"array of {_type(schema['items'])}" if kind == "array" else kind for kind in kinds])


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
