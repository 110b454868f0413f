"""What a class looks like from outside: its schema, values typed by it, and values for a class at hand."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    Field,
    PlainSerializer,
    Secret,
    SecretBytes,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from tars_settings import Settings
from tars_settings.errors import InvalidValueError, MalformedError
from tars_settings.schema import check, coerce, is_secret, keys_of, schema_hash, schema_of, values_for


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    gain: float = Field(1.0, ge=0, lt=2)
    token: SecretStr = "canary"  # type: ignore[assignment] # not validated: the trap


class Node(BaseModel):
    value: int = 0
    below: Node | None = None


class Stt(Settings, service="stt-worker"):
    count: int = Field(1, ge=0, le=5, description="how many")
    ratio: float | None = None
    flag: bool = False
    name: str = Field("a", min_length=1, max_length=3, pattern="^[a-z]*$")
    choice: Literal["p", "q"] = "p"
    colour: Colour = Colour.RED
    inner: Inner = Inner()
    words: list[str] = []
    limits: dict[str, int] = {}
    path: Path = Path("/x")
    wait: timedelta = timedelta(seconds=1)
    when: datetime | None = None
    tags: set[int] = set()
    pair: tuple[int, str] = (1, "a")
    uid: UUID | None = None
    price: Decimal = Decimal("1.0")
    blob: bytes = b""
    key: SecretStr = Field("canary", validation_alias="KEY", examples=["canary"])  # type: ignore[assignment]
    keys: list[SecretStr] = [SecretStr("canary")]
    raw: SecretBytes = b"canary"  # type: ignore[assignment]
    number: Secret[int] = Secret(31337)
    tree: Node = Node()
    made: Callable[[], int] = lambda: 3
    either: int | str = 1
    lossy: Annotated[float, PlainSerializer(round)] = 0.0

    @field_validator("name")
    @classmethod
    def _no_zzz(cls, value: str) -> str:
        if value == "zzz":
            raise ValueError("zzz is taken")
        return value

    @model_validator(mode="after")
    def _never(self) -> Stt:
        if self.count == 5 and self.flag:
            raise ValueError("not both")
        return self


SCHEMA = schema_of(Stt)


def test_a_schema_is_canonical_and_says_no_secret() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert schema_of(Stt) == SCHEMA
    assert json.dumps(json.loads(SCHEMA), sort_keys=True, separators=(",", ":")).encode() == SCHEMA
    assert b"canary" not in SCHEMA
    assert b"31337" not in SCHEMA
    assert json.loads(SCHEMA)["x-tars-service"] == "stt-worker"
    assert len(schema_hash(SCHEMA)) == 32


def test_keys_are_field_names_at_every_depth() -> None:
    keys = keys_of(SCHEMA)
    assert {"count", "inner", "inner.gain", "key", "tree.value", "tree.below"} <= set(keys)
    assert "KEY" not in keys


def test_secrets_are_known_by_type() -> None:
    secret = {key for key in keys_of(SCHEMA) if is_secret(SCHEMA, key)}
    assert secret == {"inner", "inner.token", "key", "keys", "raw", "number"}
    assert is_secret(SCHEMA, "nope") is None


TYPED = {
    ("count", "3"): 3,
    ("ratio", "0.6"): 0.6,
    ("ratio", "null"): None,
    ("flag", "true"): True,
    ("flag", "off"): False,
    ("flag", "1"): True,
    ("name", "abc"): "abc",
    ("choice", "q"): "q",
    ("colour", "blue"): "blue",
    ("inner.gain", "1"): 1,
    ("words", '["a","b"]'): ["a", "b"],
    ("limits", '{"a": 1}'): {"a": 1},
    ("limits.cpu", "4"): 4,
    ("wait", "PT5S"): "PT5S",
    ("either", "7"): 7,
    ("either", "x"): "x",
    ("nope", "1"): 1,
    ("nope", "x y"): "x y",
    ("path", "5"): "5",
}


@pytest.mark.parametrize(("typed", "value"), TYPED.items(), ids=map(str, TYPED))
def test_text_is_typed_by_the_schema(typed: tuple[str, str], value: Any) -> None:
    assert coerce(SCHEMA, *typed) == value
    assert type(coerce(SCHEMA, *typed)) is type(value)


MISTYPED = {
    ("count", "9"): "count: must be at most 5",
    ("count", "many"): "count: must be a whole number",
    ("flag", "maybe"): "flag: must be true or false",
    ("name", ""): "name: must have at least 1 characters",
    ("name", "A"): "name: must match ^[a-z]*$",
    ("choice", "z"): "choice: must be one of p, q",
    ("colour", "green"): "colour: must be one of red, blue",
    ("inner.gain", "2"): "inner.gain: must be less than 2",
    ("words", "a"): "words: must be a list",
    ("words", "[1]"): "words: item 0 must be a string",
}


@pytest.mark.parametrize(("typed", "message"), MISTYPED.items(), ids=map(str, MISTYPED))
def test_what_is_allowed_is_said(typed: tuple[str, str], message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        coerce(SCHEMA, *typed)
    assert message in str(caught.value)


def test_a_schema_is_advice() -> None:
    assert check(SCHEMA, "of_another_release", object()) == []
    odd = b'{"properties":{"x":{"type":"future","frobnicate":3,"pattern":"(?P<"},"y":{"$ref":"#/nowhere"}}}'
    assert check(odd, "x", 5) == []
    assert check(odd, "y", 5) == []
    loop = b'{"$defs":{"a":{"$ref":"#/$defs/a"}},"properties":{"x":{"$ref":"#/$defs/a"}}}'
    assert check(loop, "x", 1) == []
    with pytest.raises(MalformedError):
        keys_of(b"[]")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(key=st.sampled_from([one for one in keys_of(SCHEMA) if one not in ("made", "tree")]), value=JSON)
def test_what_pydantic_takes_as_it_is_passes_the_schema(key: str, value: Any) -> None:
    """The check is no stricter than the class for values that JSON and the class spell alike."""
    try:
        pushed = values_for(Stt, {key: value})[key]
    except InvalidValueError:
        return
    if type(pushed) is type(value) and pushed == value:
        assert check(SCHEMA, key, pushed) == []


VALUES: dict[str, tuple[Any, Any]] = {
    "count": (3, 3),
    "ratio": (None, None),
    "colour": (Colour.BLUE, "blue"),
    "inner": (Inner(gain=0.5, token=SecretStr("t")), {"gain": 0.5, "token": "t"}),
    "inner.gain": (1, 1.0),
    "path": (Path("/y"), "/y"),
    "wait": (timedelta(seconds=5), "PT5S"),
    "when": (datetime(2026, 1, 2, tzinfo=timezone.utc), "2026-01-02T00:00:00Z"),
    "tags": ({3}, [3]),
    "pair": ((2, "b"), [2, "b"]),
    "uid": (UUID(int=5), str(UUID(int=5))),
    "price": (Decimal("1.10"), "1.10"),
    "blob": (b"abc", "abc"),
    "key": (SecretStr("hidden"), "hidden"),
    "keys": (["a", "b"], ["a", "b"]),
    "raw": (b"hidden", "hidden"),
    "number": (7, 7),
    "limits.cpu": (4, 4),
}


@pytest.mark.parametrize("key", VALUES)
def test_python_values_become_json_that_comes_back_equal(key: str) -> None:
    value, pushed = VALUES[key]
    assert values_for(Stt, {key: value}) == {key: pushed}


REFUSED: dict[str, tuple[str, Any]] = {
    "not a number": ("ratio", float("nan")),
    "bytes that are no text": ("blob", b"\xff canary"),
    "out of bounds": ("count", 9),
    "a field's own validator": ("name", "zzz"),
    "no such key": ("nope", 1),
    "below a leaf": ("count.x", 1),
    "a function": ("made", lambda: 3),
    "what is rounded on the way": ("lossy", 0.4),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_json_or_the_class_does_not_take_is_refused(case: str) -> None:
    key, value = REFUSED[case]
    with pytest.raises(InvalidValueError, match=f"^{key}: ") as caught:
        values_for(Stt, {key: value, "flag": True})
    assert "canary" not in f"{caught.value}{caught.value.__context__}"


def test_all_bad_keys_are_named_together() -> None:
    with pytest.raises(InvalidValueError) as caught:
        values_for(Stt, {"count": 9, "colour": "green", "flag": True})
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["count", "colour"]


def test_rules_across_fields_are_the_workers_to_judge() -> None:
    assert values_for(Stt, {"count": 5, "flag": True}) == {"count": 5, "flag": True}
    with pytest.raises(ValidationError):
        Stt(count=5, flag=True)
