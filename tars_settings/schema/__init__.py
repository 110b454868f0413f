"""What a Settings class looks like from outside: its JSON Schema, and values typed and checked by it."""

from __future__ import annotations

from tars_settings.schema.about import About
from tars_settings.schema.check import check, coerce
from tars_settings.schema.describe import (
    is_model,
    is_secret,
    keys_of,
    parse_schema,
    schema_hash,
    schema_of,
    variables_of,
)
from tars_settings.schema.reference import Entry, entries_of, markdown, rst
from tars_settings.schema.values import values_for

__all__ = [
    "About",
    "Entry",
    "check",
    "coerce",
    "entries_of",
    "is_model",
    "is_secret",
    "keys_of",
    "markdown",
    "parse_schema",
    "rst",
    "schema_hash",
    "schema_of",
    "values_for",
    "variables_of",
]
