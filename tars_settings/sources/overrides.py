"""Values that a test puts above everything else, for a while: see :func:`tars_settings.testing.override`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from tars_settings.errors import UsageError
from tars_settings.provenance.fields import steps
from tars_settings.sources.fold import State, lay, put

_stack: Final[list[tuple[type, State]]] = []


def push_override(model: type[BaseModel], values: Mapping[str, Any]) -> object:
    """Put *values* (by dotted key) above all others of *model* and its subclasses; return what takes them away again.

    Raises:
        UsageError: the class does not have a key.
    """
    state: State = {}
    for key, value in values.items():
        found = steps(model, key, {})
        if found is None:
            raise UsageError(f"{model.__name__} has no key {key!r}")
        put(state, tuple(one.inputs[0] for one in found), value)
    entry = (model, state)
    _stack.append(entry)
    return entry


def drop_override(entry: object) -> None:
    """Take away what :func:`push_override` put there; the others stay."""
    _stack[:] = [one for one in _stack if one is not entry]


def overriding(model: type) -> State:
    """Return what is put above all other values of a class, in its input names; empty but in tests."""
    state: State = {}
    for owner, values in _stack:
        if issubclass(model, owner):
            state = lay(state, values)
    return state


class OverrideSettingsSource(PydanticBaseSettingsSource):
    """The first source of a chain while a test overrides its class."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Return nothing: the values are there as a whole."""
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values."""
        return overriding(self.settings_cls)


def with_overrides(
    settings_cls: type[BaseSettings], chain: Iterable[PydanticBaseSettingsSource]
) -> tuple[PydanticBaseSettingsSource, ...]:
    """Return a chain with what a test overrides at its top."""
    sources = tuple(chain)
    return (OverrideSettingsSource(settings_cls), *sources) if _stack and overriding(settings_cls) else sources
