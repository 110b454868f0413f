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


def _named(**definitions: Any) -> dict[str, Any]:
    return {"$defs": definitions, "properties": {"a": {"$ref": "#/$defs/A"}}}


def _both(name: str) -> dict[str, Any]:
    return {"anyOf": [{"$ref": f"#/$defs/{name}"}] * 2}


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ENDLESS = {
    "a union of itself": _named(A=_both("A")),
    "two unions of each other": _named(A=_both("B"), B=_both("A")),
    "unions that double": _named(**{one: _both(chr(ord(one) + 1)) for one in LETTERS}),
    "models that multiply": _named(
        **{
            one: {"properties": {f"k{n}": {"$ref": f"#/$defs/{chr(ord(one) + 1)}"} for n in range(9)}}
            for one in "ABCDEF"
        }
    ),
    "a long chain": _named(A={"$ref": "#/$defs/0"}, **{str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(900)}),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_would_take_for_ever_to_walk_over_is_no_schema(name: str) -> None:
    """A few hundred bytes that anyone may publish stopped every push."""
    payload = json.dumps(ENDLESS[name]).encode()
    assert len(payload) < 48 * 1024
    assert not is_schema(payload)


def test_a_model_that_holds_itself_is_one() -> None:
    tree = {"properties": {name: {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]} for name in ("left", "right")}}
    payload = json.dumps(_named(A=tree)).encode()
    assert is_schema(payload)
    assert keys_of(payload) == ("a", "a.left", "a.right")
    assert is_secret(payload, "a") is False


def test_a_strangers_pattern_takes_linear_time() -> None:
    """Python's engine needs 2**40 steps for this."""
    payload = json.dumps({"properties": {"a": {"type": "string", "pattern": "^(a|a)*$"}}}).encode()
    assert is_schema(payload)
    assert check(payload, "a", "a" * 40 + "!") == ["must match ^(a|a)*$"]
