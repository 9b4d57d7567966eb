"""Validation of the output of `echoc --json` by its published schema."""

import json
from pathlib import Path
from typing import Any

import fastjsonschema

_SCHEMA = Path(__file__).parents[3] / "packaging" / "echoc.schema.json"
_validate = fastjsonschema.compile(json.loads(_SCHEMA.read_text()))


def validated(output: bytes) -> list[dict[str, Any]]:
    """The objects in `output`, one per line, each of which is valid."""
    return [_validate(json.loads(line)) for line in output.splitlines()]
