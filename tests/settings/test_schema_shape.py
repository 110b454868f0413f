from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tars_settings.errors import InvalidValueError
from tars_settings.schema import check, coerce, is_secret, keys_of, schema_of
from tars_settings.schema.shape import is_schema
from tars_settings.settings import Settings

WORDS = ["properties", "$defs", "$ref", "anyOf", "allOf", "items", "type", "enum", "required", "minimum", "minLength"]
TEXTS = st.sampled_from(["a", "string", "object", "array", "#/$defs/a", ""])
LEAVES = st.none() | st.booleans() | st.integers() | TEXTS
NODES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*WORDS, "a", "b"]), inner), max_leaves=20
)


@given(st.dictionaries(st.sampled_from(WORDS), NODES), NODES)
@example({"properties": {"a": {"allOf": [5]}}}, "x")
@example({"properties": {"a": {"minLength": "x"}}}, "x")
@example({"properties": {"a": {"type": "object", "required": 5}}}, {})
@example({"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}, "x")
def test_whatever_has_the_shape_can_be_walked_over(schema: dict[str, Any], value: Any) -> None:
    payload = json.dumps(schema).encode()
    if not is_schema(payload):
        return
    keys_of(payload)
    is_secret(payload, "a")
    check(payload, "a", value)
    with contextlib.suppress(InvalidValueError):
        coerce(payload, "a", json.dumps(value))


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"5", b'{"properties":5}', b'{"properties":{"a":5}}', b'{"properties":{"a":{"anyOf":5}}}']
)
def test_what_has_not_is_told(payload: bytes) -> None:
    assert not is_schema(payload)


def test_what_a_class_publishes_has_the_shape() -> None:
    class Stt(Settings, service="stt-worker"):
        threshold: float = 0.5
        words: list[str] | dict[str, tuple[int, ...]] | None = None

    assert is_schema(schema_of(Stt))
