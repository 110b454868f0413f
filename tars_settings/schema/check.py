"""A small validator of the JSON Schema that pydantic emits, and typing of what a person typed.

A schema is advice: it makes a push stricter, never laxer. Words that are not known here pass.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

from tars_settings.errors import InvalidValueError
from tars_settings.schema.describe import Schema, nodes_at, parse_schema, resolve

_MAX_DEPTH: Final = 32
_MAX_PATTERN_CHARS: Final = 512

_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}


def _bound(word: str, holds: Callable[[Any, Any], bool], text: str) -> tuple[str, Callable[[Any, Any], str | None]]:
    def complaint(limit: Any, value: Any) -> str | None:
        comparable = isinstance(value, (int, float)) and isinstance(limit, (int, float)) and not isinstance(value, bool)
        return f"{text} {limit}" if comparable and not holds(value, limit) else None

    return word, complaint


def _length(word: str, kind: type, holds: Callable[[int, int], bool], text: str) -> tuple[str, Any]:
    def complaint(limit: Any, value: Any) -> str | None:
        return text.format(limit) if isinstance(value, kind) and not holds(len(value), limit) else None  # type: ignore[arg-type]

    return word, complaint


def _pattern(pattern: Any, value: Any) -> str | None:
    if not isinstance(value, str) or not isinstance(pattern, str) or len(pattern) > _MAX_PATTERN_CHARS:
        return None
    try:
        # Rust's engine, as pydantic uses: its time is linear. Python's takes for ever over a stranger's "(a|a)*$".
        expression = SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError:  # another dialect: Python's, which a class may ask for
        return None
    return None if expression.isinstance_python(value) else f"must match {pattern}"


_WORDS: Final[dict[str, Callable[[Any, Any], str | None]]] = dict(
    (
        _bound("minimum", lambda value, limit: value >= limit, "must be at least"),
        _bound("maximum", lambda value, limit: value <= limit, "must be at most"),
        _bound("exclusiveMinimum", lambda value, limit: value > limit, "must be greater than"),
        _bound("exclusiveMaximum", lambda value, limit: value < limit, "must be less than"),
        _length("minLength", str, lambda size, limit: size >= limit, "must have at least {} characters"),
        _length("maxLength", str, lambda size, limit: size <= limit, "must have at most {} characters"),
        _length("minItems", list, lambda size, limit: size >= limit, "must have at least {} items"),
        _length("maxItems", list, lambda size, limit: size <= limit, "must have at most {} items"),
        ("pattern", _pattern),
    )
)


def check(schema: bytes, key: str, value: Any) -> list[str]:
    """Return what is wrong with a JSON value for a key, by what is allowed and never by the value; empty if nothing.

    A key that the class does not have is no error here: another release may have it.
    """
    root = parse_schema(schema)
    found = nodes_at(schema, key)
    complaints = [list(_check(node, root, value, "", 0)) for node in found]
    return [] if not complaints or not all(complaints) else complaints[0]


def _check(schema: Schema, root: Schema, value: Any, where: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        return
    node = resolve(schema, root)
    for word in ("anyOf", "oneOf"):
        choices = node.get(word)
        if isinstance(choices, list):
            yield from _check_choices(choices, root, value, where, depth)
    for one in node.get("allOf", ()):
        yield from _check(one, root, value, where, depth + 1)
    kind = node.get("type")
    if isinstance(kind, str) and kind in _TYPES and not _TYPES[kind](value):
        yield where + f"must be {_a(kind)}"
        return
    if isinstance(node.get("enum"), list) and value not in node["enum"]:
        yield where + f"must be one of {_listed(node['enum'])}"
    if "const" in node and value != node["const"]:
        yield where + f"must be {json.dumps(node['const'])}"
    for word, complain in _WORDS.items():
        message = complain(node[word], value) if word in node else None
        if message is not None:
            yield where + message
    yield from _check_inside(node, root, value, where, depth)


def _check_choices(choices: list[Any], root: Schema, value: Any, where: str, depth: int) -> Iterator[str]:
    failures = [list(_check(one, root, value, where, depth + 1)) for one in choices if isinstance(one, dict)]
    if failures and all(failures):
        # The branch that fits best speaks; null is nobody's intent.
        told = [one for one, choice in zip(failures, choices, strict=False) if choice.get("type") != "null"] or failures
        yield " or ".join(dict.fromkeys("; ".join(one) for one in told))


def _check_inside(node: Schema, root: Schema, value: Any, where: str, depth: int) -> Iterator[str]:
    items, properties = node.get("items"), node.get("properties")
    if isinstance(value, list) and isinstance(items, dict):
        for number, one in enumerate(value):
            yield from _check(items, root, one, f"{where}item {number} ", depth + 1)
    if isinstance(value, dict):
        more = node.get("additionalProperties")
        for name, one in value.items():
            described = properties.get(name) if isinstance(properties, dict) else more
            if isinstance(described, dict):
                yield from _check(described, root, one, f"{where}{name}: ", depth + 1)
        for name in node.get("required", ()):
            if name not in value:
                yield f"{where}{name}: is required"


def _a(kind: str) -> str:
    names = {"integer": "a whole number", "boolean": "true or false", "array": "a list", "object": "an object"}
    return names.get(kind, "null" if kind == "null" else f"a {kind}")


def _listed(values: list[Any]) -> str:
    return ", ".join(one if isinstance(one, str) else json.dumps(one) for one in values)


def coerce(schema: bytes, key: str, text: str) -> Any:
    """Return the JSON value that *text* means for a key: typed by the schema, as a person would type it.

    Numbers, true and false, null, and JSON text for lists and objects; a string is taken as it is. A key that the class
    does not have is taken as JSON where it is JSON, else as a string.

    Raises:
        InvalidValueError: no reading of it fits; the message says what is allowed.
    """
    root = parse_schema(schema)
    nodes = nodes_at(schema, key)
    readings = list(_readings(text, any(_takes_text(node, root) for node in nodes)))
    if not nodes:
        return readings[0]
    complaints: list[str] = []
    for value in readings:
        found = check(schema, key, value)
        if not found:
            return value
        complaints += found
    raise InvalidValueError(f"{key}: {_best(complaints)}")


def _best(complaints: list[str]) -> str:
    """Return the complaints without those on the wrong type where another reading had the right one."""
    exact = [one for one in complaints if not one.startswith(("must be a ", "must be an ", "must be true"))]
    return "; ".join(dict.fromkeys(exact or complaints))


def _takes_text(node: Schema, root: Schema, depth: int = 0) -> bool:
    """Return whether a node takes strings as such: "0.6" and "true" typed for it stay strings."""
    resolved = resolve(node, root)
    choices = [one for word in ("anyOf", "oneOf") for one in resolved.get(word, ()) if isinstance(one, dict)]
    if choices and depth < _MAX_DEPTH:
        return all(_takes_text(one, root, depth + 1) for one in choices if one.get("type") != "null")
    strings = isinstance(resolved.get("enum"), list) and all(isinstance(one, str) for one in resolved["enum"])
    return resolved.get("type") == "string" or strings


def _readings(text: str, text_first: bool) -> Iterator[Any]:
    """Yield what *text* may mean, most likely first."""
    if text_first:
        yield text
    lowered = text.strip().lower()
    if lowered in ("true", "yes", "on", "false", "no", "off") and not text_first:
        yield lowered in ("true", "yes", "on")
    with contextlib.suppress(ValueError, RecursionError):
        yield json.loads(text, parse_constant=_no_constant)
    if not text_first:
        yield text
        if lowered in ("0", "1"):  # where only true or false will do
            yield lowered == "1"


def _no_constant(name: str) -> Any:
    raise ValueError(name)
