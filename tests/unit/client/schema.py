"""What `echoc --json` printed, held against its published schema."""

import json
from pathlib import Path
from typing import Any

import fastjsonschema

_SCHEMA = Path(__file__).parents[3] / "packaging" / "echoc.schema.json"
_validate = fastjsonschema.compile(json.loads(_SCHEMA.read_text()))


def validated(output: bytes) -> list[dict[str, Any]]:
    """The objects in `output`, one a line, of which each is as the schema says it must be."""
    return [_validate(json.loads(line)) for line in output.splitlines()]
