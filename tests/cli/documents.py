"""Documents against the schema in the docs: they fit it, and hold nothing that it does not describe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tars_settings.schema import check
from tests.cli.running import ROOT

SCHEMA = json.loads((ROOT / "docs" / "cli.schema.json").read_text())


def complaints(command: str, document: Any) -> list[str]:
    """Return what is wrong with a command's document, empty if nothing."""
    wrong = check(json.dumps(SCHEMA).encode(), command, document)
    return [
        *wrong,
        *(f"{path} is not described" for path in _undescribed(SCHEMA["properties"][command], document, "$")),
    ]


def assert_fits(command: str, document: Any) -> None:
    """Fail unless the document is as the docs say."""
    assert not complaints(command, document)


def _undescribed(schema: dict[str, Any], value: Any, path: str) -> Iterator[str]:
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if isinstance(value, list) and "items" in schema:
        for number, one in enumerate(value):
            yield from _undescribed(schema["items"], one, f"{path}[{number}]")
    if isinstance(value, dict):
        more = schema.get("additionalProperties")
        for name, one in value.items():
            inner = schema.get("properties", {}).get(name, more)
            if inner is None:
                yield f"{path}.{name}"
            elif isinstance(inner, dict):
                yield from _undescribed(inner, one, f"{path}.{name}")
