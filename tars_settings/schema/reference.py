"""What a schema says, for people: an entry for each setting, in Markdown or reStructuredText."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tars_settings.schema.about import COMPLEXITY_MARK, HELP_MARK, UNIT_MARK
from tars_settings.schema.describe import SERVICE_MARK, Schema, branches, is_secret, keys_of, nodes_at, parse_schema

_MISSING: Final = object()
WIDTH: Final = 100
_MAX_LISTS: Final = 3
_BOUNDS: Final = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "more than"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "less than"),
    ("minLength", "length at least"),
    ("maxLength", "length at most"),
    ("minItems", "items at least"),
    ("maxItems", "items at most"),
    ("pattern", "matches"),
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One setting. ``default`` is JSON text, empty where there is none or it is a secret; ``limits`` are words."""

    key: str
    type: str
    default: str = ""
    required: bool = False
    secret: bool = False
    complexity: str = "simple"
    unit: str = ""
    description: str = ""
    help: str = ""
    limits: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        plain = dataclasses.asdict(self)
        return plain | {"limits": list(self.limits), "examples": list(self.examples)}

    @property
    def told(self) -> str:
        """Type, unit and limits in one line."""
        unit = f" in {self.unit}" if self.unit else ""
        return ", ".join((f"{self.type}{unit}", *self.limits))

    @property
    def text(self) -> str:
        """Description, help and examples."""
        examples = f"For example {', '.join(self.examples)}." if self.examples else ""
        parts = [part.strip() for part in (self.description, self.help, examples)]
        return " ".join(part if part[-1] in ".:!?" else f"{part}." for part in parts if part)


def entries_of(schema: bytes) -> tuple[Entry, ...]:
    """Return the settings of a schema by name, leaves only.

    Raises:
        MalformedError: it is no JSON object.
    """
    keys = keys_of(schema)
    inner = {key.rpartition(".")[0] for key in keys}
    return tuple(_entry(schema, key) for key in keys if key not in inner)


def _entry(schema: bytes, key: str) -> Entry:
    root = parse_schema(schema)
    nodes = nodes_at(schema, key)
    node: Schema = nodes[0] if nodes else {}
    resolved = [one for found in nodes for one in branches(found, root)]
    default = _default(schema, key, node)
    secret = is_secret(schema, key) is True
    return Entry(
        key=key,
        type=_type_of(nodes, root),
        default="" if default is _MISSING or secret else json.dumps(default, ensure_ascii=False),
        required=default is _MISSING and _is_required(schema, key),
        secret=secret,
        complexity=str(_mark(node, resolved, COMPLEXITY_MARK) or "simple"),
        unit=str(_mark(node, resolved, UNIT_MARK)),
        description=str(_mark(node, resolved, "description")),
        help=str(_mark(node, resolved, HELP_MARK)),
        limits=_limits(resolved),
        examples=() if secret else tuple(json.dumps(one, ensure_ascii=False) for one in _examples(node)),
    )


def _examples(node: Schema) -> list[Any]:
    # Anyone may publish a schema, and what this keyword holds is not looked at before.
    examples = node.get("examples")
    return examples if isinstance(examples, list) else []


def _mark(node: Schema, resolved: Iterable[Schema], name: str) -> Any:
    return next((one[name] for one in (node, *resolved) if name in one), "")


def _default(schema: bytes, key: str, node: Schema) -> Any:
    """Return a key's default; that of a model's field may stand in the default of the model."""
    parts = key.split(".")
    for length in range(1, len(parts)):
        above = nodes_at(schema, ".".join(parts[:length]))
        value: Any = above[0].get("default", _MISSING) if above else _MISSING
        for part in parts[length:]:
            value = value.get(part, _MISSING) if isinstance(value, Mapping) else _MISSING
        if value is not _MISSING:
            return value
    return node.get("default", _MISSING)


def _is_required(schema: bytes, key: str) -> bool:
    above, _, name = key.rpartition(".")
    root = parse_schema(schema)
    owners: Iterable[Schema] = nodes_at(schema, above) if above else (root,)
    return any(name in branch.get("required", ()) for owner in owners for branch in branches(owner, root))


def _type_of(nodes: Iterable[Schema], root: Schema, depth: int = 0) -> str:
    if depth > _MAX_LISTS:  # a list of itself: pydantic makes one of a recursive type, and anyone may publish one
        return "anything"
    words = [_word(branch, root, depth) for node in nodes for branch in branches(node, root)]
    return " or ".join(dict.fromkeys(words)) or "anything"


def _word(node: Schema, root: Schema, depth: int) -> str:
    if "enum" in node or "const" in node:
        choices = node.get("enum", [node.get("const")])
        return "one of " + ", ".join(json.dumps(one, ensure_ascii=False) for one in choices)
    if node.get("type") == "array" and isinstance(node.get("items"), dict):
        return f"list of {_type_of([node['items']], root, depth + 1)}"
    if node.get("type") == "string" and node.get("format"):
        return str(node["format"])
    return str(node.get("type", "anything"))


def _limits(resolved: Iterable[Schema]) -> tuple[str, ...]:
    found = [f"{word} {node[name]}" for node in resolved for name, word in _BOUNDS if name in node]
    return tuple(dict.fromkeys(found))


def title_of(schema: bytes) -> str:
    """Return what a reference is headed with: the service, else the class's name."""
    root = parse_schema(schema)
    return str(root.get(SERVICE_MARK) or root.get("title") or "Settings")


def markdown(schema: bytes) -> str:
    """Return a reference of the settings in Markdown."""
    lines = [f"# {title_of(schema)}", ""]
    for entry in entries_of(schema):
        lines += [f"## `{entry.key}`", "", *(f"- {name}: {text}" for name, text in _facts(entry, "`")), ""]
        lines += [*textwrap.wrap(entry.text, WIDTH), ""] if entry.text else []
    return "\n".join(lines).rstrip() + "\n"


def rst(schema: bytes) -> str:
    """Return a reference of the settings in reStructuredText."""
    title = title_of(schema)
    lines = [title, "=" * len(title), ""]
    for entry in entries_of(schema):
        lines += [f"``{entry.key}``", *(f"    :{name}: {text}" for name, text in _facts(entry, "``")), ""]
        lines += [*(f"    {line}" for line in textwrap.wrap(entry.text, WIDTH)), ""] if entry.text else []
    return "\n".join(lines).rstrip() + "\n"


def _facts(entry: Entry, quote: str) -> list[tuple[str, str]]:
    facts = [("type", entry.told)]
    if entry.default:
        facts.append(("default", f"{quote}{entry.default}{quote}"))
    facts += [(word, "yes") for word in ("required", "secret") if getattr(entry, word)]
    return [*facts, ("complexity", entry.complexity)]
