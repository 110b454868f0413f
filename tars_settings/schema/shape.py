"""Whether bytes that anyone may have published have the shape of a JSON Schema, before anything walks over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from tars_settings.errors import MalformedError
from tars_settings.schema.describe import parse_schema

_MAX_DEPTH: Final = 64


def is_schema(payload: bytes) -> bool:
    """Return whether every keyword that we read holds what it must; what others mean is not looked at.

    >>> is_schema(b'{"properties":{"a":{"type":"number"}}}'), is_schema(b'{"properties":5}'), is_schema(b"[]")
    (True, False, False)
    """
    try:
        return _is_node(parse_schema(payload), 0)
    except MalformedError:
        return False


def _is_node(node: Any, depth: int) -> bool:
    if isinstance(node, bool):
        return True
    if not isinstance(node, dict) or depth > _MAX_DEPTH:
        return False
    return all(_holds(word, value, depth) for word, value in node.items())


def _holds(word: str, value: Any, depth: int) -> bool:
    if word in ("properties", "$defs"):
        return isinstance(value, dict) and all(_is_node(one, depth + 1) for one in value.values())
    if word in ("anyOf", "oneOf", "allOf"):
        return isinstance(value, list) and all(isinstance(one, dict) and _is_node(one, depth + 1) for one in value)
    if word in ("items", "additionalProperties"):
        return _is_node(value, depth + 1)
    return _PLAIN[word](value) if word in _PLAIN else True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


_PLAIN: Final[Mapping[str, Callable[[Any], bool]]] = MappingProxyType(
    {
        "$ref": lambda value: isinstance(value, str),
        "type": lambda value: isinstance(value, str) or _are_names(value),
        "enum": lambda value: isinstance(value, list),
        "required": _are_names,
        "pattern": lambda value: isinstance(value, str),
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number),
        "multipleOf": lambda value: _is_number(value) and value > 0,
        **dict.fromkeys(
            ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _is_count
        ),
    }
)
