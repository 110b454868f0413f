"""What a file says of a scope, to be compared with the fleet: nothing of it is pushed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tars_settings.cli.files import Content
from tars_settings.cli.values import typed
from tars_settings.core.names import is_key
from tars_settings.schema import keys_of, variables_of


def said_by(content: Content, schemas: Sequence[bytes]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what a file sets, by key, and the names that stand for no key.

    A ``.env`` file's names are the workers' variables where a schema tells them, else keys without regard to case. An
    object descends where a schema has a nested model, and is a value anywhere else.

    Raises:
        InvalidValueError: texts do not fit the types of the schemas; all bad keys are named together.
    """
    variables = {name: key for schema in schemas for name, key in variables_of(schema).items()}
    alike = {
        form.lower(): key for schema in schemas for key in keys_of(schema) for form in (key, key.replace(".", "__"))
    }
    found: dict[str, Any] = {}
    texts: dict[str, str] = {}
    strangers: list[str] = []
    for name, text in content.texts.items():
        key = variables.get(name.upper()) or alike.get(name.lower()) or ("" if schemas else name)
        if is_key(key):
            texts[key] = text
        else:
            strangers.append(name)
    models = {above for schema in schemas for key in keys_of(schema) for above in _above(key)}
    for path, value in _leaves(content.tree, models, ""):
        if is_key(path):
            found[path] = value
        else:
            strangers.append(path)
    return {**typed(texts, schemas), **found}, tuple(strangers)


def _above(key: str) -> Iterator[str]:
    parts = key.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts)))


def _leaves(tree: Mapping[str, Any], models: set[str], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping) and path in models:
            yield from _leaves(value, models, f"{path}.")
        else:
            yield path, value
