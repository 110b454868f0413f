"""How a key reaches a field: dotted paths of declared names, and the input names that pydantic takes for them.

Keys are field names as declared, whatever aliases the model has; sources of the chain speak in aliases. A model's
``names`` is the table between both.
"""

from __future__ import annotations

import dataclasses
import typing
import weakref
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec
from pydantic import AliasChoices, AliasPath, BaseModel, Secret, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from typing_extensions import TypeAliasType, is_typeddict

_SECRETS: Final = (Secret, SecretStr, SecretBytes)
_OPEN: Final = (Any, object, dict, Mapping)


class FieldName(msgspec.Struct, frozen=True):
    """A field's declared name, its type, and the input names that its model takes, preferred one first.

    ``inputs`` is empty for a field that only an ``AliasPath`` reaches: nothing can set it by one name.
    """

    name: str
    annotation: Any
    inputs: tuple[str, ...]


Names = dict[str, FieldName]
_tables: Final[weakref.WeakKeyDictionary[type, Names]] = weakref.WeakKeyDictionary()


def names_of(model: type) -> Names:
    """Return the fields of a model, dataclass or TypedDict by declared name."""
    held = _tables.get(model)
    if held is None:
        held = _table(model)
        if getattr(model, "__pydantic_complete__", True):
            _tables[model] = held
    return held


def _table(model: type) -> Names:
    config = getattr(model, "model_config", None) or getattr(model, "__pydantic_config__", None) or {}
    where = "model_fields" if issubclass(model, BaseModel) else "__pydantic_fields__"
    fields: dict[str, FieldInfo] | None = getattr(model, where, None)
    if fields is not None:
        return {name: FieldName(name, field.annotation, _inputs(name, field, config)) for name, field in fields.items()}
    try:
        hints = typing.get_type_hints(model, include_extras=True)
    except NameError:  # a forward reference that nobody resolved: names are known, types are not
        hints = dict.fromkeys(getattr(model, "__annotations__", ()), Any)
    return {name: FieldName(name, hint, (name,)) for name, hint in hints.items()}


def _inputs(name: str, field: FieldInfo, config: Mapping[str, Any]) -> tuple[str, ...]:
    alias = field.validation_alias
    if alias is None or config.get("validate_by_alias") is False:
        return (name,)
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    found = [choice for choice in choices if isinstance(choice, str)]
    # A path of one step is a name in other clothes.
    found += [str(c.path[0]) for c in choices if isinstance(c, AliasPath) and len(c.path) == 1]
    if config.get("populate_by_name") or config.get("validate_by_name"):
        found.append(name)
    return tuple(dict.fromkeys(found))


def alternatives(annotation: Any) -> Iterator[Any]:
    """Yield what an annotation stands for, with Annotated, aliases and unions taken off."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif origin is Union or origin is UnionType:
        for one in get_args(annotation):
            yield from alternatives(one)
    elif isinstance(annotation, TypeAliasType) or type(annotation).__name__ == "TypeAliasType":
        yield from alternatives(annotation.__value__)
    elif annotation is not type(None):
        yield annotation


def has_names(candidate: Any) -> bool:
    """Return whether a type has declared fields: a model, a dataclass or a TypedDict."""
    plain = get_origin(candidate) or candidate
    return isinstance(plain, type) and (
        issubclass(plain, BaseModel) or dataclasses.is_dataclass(plain) or is_typeddict(plain)
    )


def is_open(candidate: Any) -> bool:
    """Return whether a type takes any key: a mapping, or anything at all."""
    plain = get_origin(candidate) or candidate
    return plain in _OPEN or (isinstance(plain, type) and issubclass(plain, Mapping) and not is_typeddict(plain))


def is_secret(annotation: Any) -> bool:
    """Return whether a field of this type is a secret: SecretStr, SecretBytes, Secret[T], or a container of them."""
    for one in alternatives(annotation):
        plain = get_origin(one) or one
        if isinstance(plain, type) and issubclass(plain, _SECRETS):
            return True
        if any(is_secret(argument) for argument in get_args(one) if argument is not Ellipsis):
            return True
    return False


class Step(msgspec.Struct, frozen=True):
    """One segment resolved: the input name to use, all that are taken, and the types it may lead to."""

    used: str
    inputs: tuple[str, ...]
    leads_to: tuple[Any, ...]


def step(here: tuple[Any, ...], segment: str, level: Any) -> Step | None:
    """Return how *segment* is reached below the types *here*, or None when none of them has it.

    *level* is what sources above say at this place: an input name that they used already is used again, or pydantic
    would see both and take its own favourite, and the fleet could beat the environment.
    """
    inputs: dict[str, None] = {}
    leads_to: list[Any] = []
    for one in here:
        if has_names(one):
            found = names_of(get_origin(one) or one).get(segment)
            if found is not None and found.inputs:
                inputs |= dict.fromkeys(found.inputs)
                leads_to += alternatives(found.annotation)
        elif is_open(one):
            inputs[segment] = None
            leads_to += _values_of(one)
    if not inputs:
        return None
    taken = level if isinstance(level, Mapping) else {}
    used = next((name for name in inputs if name in taken), next(iter(inputs)))
    return Step(used, tuple(inputs), tuple(leads_to))


def _values_of(mapping: Any) -> list[Any]:
    arguments = get_args(mapping)
    return list(alternatives(arguments[1])) if len(arguments) == 2 else [Any]


def steps(model: type, key: str, taken: Mapping[str, Any]) -> tuple[Step, ...] | None:
    """Return the steps of a key, or None when the model does not have it."""
    here: tuple[Any, ...] = (model,)
    level: Any = taken
    found: list[Step] = []
    for segment in key.split("."):
        one = step(here, segment, level)
        if one is None:
            return None
        found.append(one)
        here = one.leads_to
        level = level.get(one.used) if isinstance(level, Mapping) else None
    return tuple(found)


def is_secret_key(model: type, key: str) -> bool:
    """Return whether the key, or anything above it on its path, is a secret by its type."""
    found = steps(model, key, {}) or ()
    return any(is_secret(kind) for one in found for kind in one.leads_to)


def look_up(model: type, key: str, state: Any) -> tuple[bool, Any]:
    """Return whether a source's state says anything of a key, and what.

    A model instance (an argument) is asked by attribute.
    """
    here: tuple[Any, ...] = (model,)
    level = state
    for segment in key.split("."):
        if isinstance(level, BaseModel):
            if segment not in type(level).model_fields:
                return False, None
            here, level = (type(level),), getattr(level, segment)
            found = step(here, segment, {})
        else:
            found = step(here, segment, level)
            if found is None or not isinstance(level, Mapping) or found.used not in level:
                return False, None
            level = level[found.used]
        here = found.leads_to if found else ()
    return True, level


def leaf_keys(model: type, *, above: tuple[type, ...] = (), prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a model's leaves in declared order; a model that holds itself is a leaf there."""
    for name, field in names_of(model).items():
        nested = [get_origin(one) or one for one in alternatives(field.annotation) if has_names(one)]
        if not nested or any(one in (*above, model) for one in nested):
            yield prefix + name
            continue
        seen: dict[str, None] = {}
        for one in nested:
            seen |= dict.fromkeys(leaf_keys(one, above=(*above, model), prefix=f"{prefix}{name}."))
        yield from seen
