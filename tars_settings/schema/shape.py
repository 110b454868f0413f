"""Whether bytes that anyone may have published have the shape of a JSON Schema, before anything walks over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from tars_settings.errors import MalformedError
from tars_settings.schema.describe import Schema, parse_schema

_MAX_DEPTH: Final = 64
_MAX_EXPANDED: Final = 20_000
"""Nodes that a walk meets which follows every reference, once on each path. A class with 1,000 keys has about 5,000."""
_UNIONS: Final = ("anyOf", "oneOf", "allOf")


def is_schema(payload: bytes) -> bool:
    """Return whether every keyword that we read holds what it must; what others mean is not looked at.

    One that would take for ever to walk over is none: 119 bytes of unions of themselves stopped every push.

    >>> is_schema(b'{"properties":{"a":{"type":"number"}}}'), is_schema(b'{"properties":5}'), is_schema(b"[]")
    (True, False, False)
    """
    try:
        root = parse_schema(payload)
    except MalformedError:
        return False
    try:
        return _is_node(root, 0) and _Walk(root).is_short()
    except RecursionError:  # 64 references, and as much nesting behind each
        return False


class _Walk:
    """Follows references as readers do, and counts."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = _MAX_EXPANDED

    def is_short(self) -> bool:
        return self._visit(self._root, (), ())

    def _visit(self, node: Any, above: tuple[str, ...], unions: tuple[str, ...]) -> bool:
        """Return whether the walk below *node* ends soon.

        *above* are the references on the path, *unions* those without a key or an item since: a union that holds itself
        there stands for nothing, and doubles with each step.
        """
        self._left -= 1
        if self._left < 0 or len(above) > _MAX_DEPTH or not isinstance(node, dict):
            return self._left >= 0 and len(above) <= _MAX_DEPTH
        reference = node.get("$ref")
        if isinstance(reference, str) and reference in unions:
            return False
        if isinstance(reference, str) and reference not in above:
            target = _target(reference, self._root)
            if not self._visit(target, (*above, reference), (*unions, reference)):
                return False
        same = (one for word in _UNIONS for one in node.get(word, ()))
        inner = [*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")]
        return all(self._visit(one, above, unions) for one in same) and all(
            self._visit(one, above, ()) for one in inner
        )


def _target(reference: str, root: Schema) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    return found


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
