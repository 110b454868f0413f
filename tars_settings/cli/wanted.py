"""What a push is to set: words and a file, with names made keys and values typed by the schemas in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tars_settings.cli.allowed import is_known, meant, with_allowed
from tars_settings.cli.files import Content
from tars_settings.cli.render import MASK
from tars_settings.cli.values import typed_as_far
from tars_settings.core.names import is_key
from tars_settings.errors import InvalidValueError
from tars_settings.schema import check, is_model, is_secret, keys_of, variables_of


@dataclass(frozen=True)
class Wanted:
    """Values by key, and what is to be said of how names were read: ``skipped`` ones were left out on demand."""

    values: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass
class _Reading:
    texts: dict[str, str]
    values: dict[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    origin: dict[str, str] = field(default_factory=dict)

    def take(self, key: str, value: Any, name: str, put: Callable[[str, Any], None]) -> None:
        if key in self.origin or key in self.texts or key in self.values:
            self.complaints.append(f"{key}: given twice, as {self.origin.get(key, key)} and as {name}")
            return
        self.origin[key] = name
        put(key, value)


def wanted(
    words: Mapping[str, str], content: Content, schemas: Sequence[bytes], *, skip_unknown: bool = False
) -> Wanted:
    """Return what words (texts by key) and a file's content ask for, typed by the schemas.

    A ``.env`` file's names are variables of the workers, where a schema tells them, else keys without regard to case,
    and that is noted. An object descends where a schema has a nested model, and is a value anywhere else. With
    *skip_unknown* names of a file that no schema has are left out, and named.

    Raises:
        InvalidValueError: what does not fit, all of it together, each with what is allowed. Values are not quoted.
    """
    found = _Reading(dict(words))
    names = _Names(schemas)
    for name, text in content.texts.items():
        _take_variable(found, names, name, text, content.lines.get(name, 0), skip_unknown=skip_unknown)
    for path, value in _leaves(names, content.tree, ""):
        _take_value(found, names, path, value, skip_unknown=skip_unknown)
    found.notes += [f"{name} is there more than once: the last counts" for name in content.repeated]
    typed, complaints = typed_as_far(found.texts, schemas)
    found.complaints += complaints
    for key, value in found.values.items():
        found.complaints += dict.fromkeys(f"{key}: {said}" for schema in schemas for said in check(schema, key, value))
    values = typed | found.values
    found.complaints += [
        f"{key}: {MASK} stands for a secret that is not shown; leave it out, or give a value"
        for key, value in values.items()
        if value == MASK and any(is_secret(schema, key) for schema in schemas)
    ]
    if found.complaints:
        raise InvalidValueError(with_allowed("\n".join(found.complaints), schemas))
    return Wanted(values, tuple(found.notes), tuple(found.skipped))


def _take_variable(found: _Reading, names: _Names, name: str, text: str, line: int, *, skip_unknown: bool) -> None:
    key = names.of_variable(name) or names.alike(name)
    if key is None and names.schemas:
        _stranger(found, names, f"{name} (line {line})", name, skip=skip_unknown)
        return
    key = name if key is None else key
    if not is_key(key):
        found.complaints.append(f"{name} (line {line}) can be no key: letters, digits and single underscores, please")
        return
    if names.of_variable(name) is None and key != name:
        found.notes.append(f"{name} is taken for {key}")
    if "${" in text:
        found.notes.append(f"{key}: ${{...}} is taken as it stands")
    found.take(key, text, name, found.texts.__setitem__)


def _take_value(found: _Reading, names: _Names, path: str, value: Any, *, skip_unknown: bool) -> None:
    key = path if is_known(names.schemas, path) else names.alike(path)
    if key is None and names.schemas and skip_unknown:
        found.skipped.append(path)
        return
    key = path if key is None else key
    if not is_key(key):
        found.complaints.append(f"{path!r} can be no key: letters, digits and single underscores between dots, please")
        return
    if key != path:
        found.notes.append(f"{path} is taken for {key}")
    found.take(key, value, path, found.values.__setitem__)


def _stranger(found: _Reading, names: _Names, shown: str, name: str, *, skip: bool) -> None:
    if skip:
        found.skipped.append(name)
        return
    found.complaints.append(f"{shown} is no setting of these workers; --skip-unknown leaves it out")
    hint = meant(names.schemas, name)
    found.complaints += [f"    {hint}"] if hint else []


class _Names:
    """Finds the key that a name means."""

    def __init__(self, schemas: Sequence[bytes]) -> None:
        self.schemas = schemas
        self._variables = {name: key for schema in schemas for name, key in variables_of(schema).items()}
        self._alike: dict[str, set[str]] = {}
        for key in dict.fromkeys(key for schema in schemas for key in keys_of(schema)):
            for form in {key, key.replace(".", "__")}:
                self._alike.setdefault(form.lower(), set()).add(key)

    def of_variable(self, name: str) -> str | None:
        """Return the key that an environment variable reaches, as the schemas tell."""
        return self._variables.get(name.upper())

    def alike(self, name: str) -> str | None:
        """Return the one key that is spelled so without regard to case."""
        found = self._alike.get(name.lower(), set())
        return next(iter(found)) if len(found) == 1 else None

    def is_model(self, path: str) -> bool:
        """Return whether a path, in any case, is a nested model."""
        key = self.alike(path) or path
        return any(is_model(schema, key) for schema in self.schemas)


def _leaves(names: _Names, tree: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        path = f"{above}{name}"
        if isinstance(value, dict) and names.is_model(path):
            yield from _leaves(names, value, f"{path}.")
        else:
            yield path, value


def unknown_of(keys: Iterable[str], schemas: Sequence[bytes]) -> str:
    """Return what is to be said of keys that nobody described, with the keys that may be meant."""
    lines = []
    for key in keys:
        hint = meant(schemas, key)
        lines.append(f"nobody described {key} yet: no worker published a schema with it, and no delta holds it.")
        lines += [f"    {hint}"] if hint else []
    return "\n".join([*lines, "Say --plain or --secret KEY, or --model module:Class"])
