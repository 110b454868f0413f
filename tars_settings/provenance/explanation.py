"""explain(): which source won for each key, and what it shadows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final, overload

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from tars_settings.provenance.fields import (
    alternatives,
    has_names,
    is_secret,
    is_secret_key,
    leaf_keys,
    look_up,
    names_of,
    steps,
)
from tars_settings.provenance.labels import kind_of, source_named, where_of
from tars_settings.provenance.resolution import Placed, Resolution, resolutions

MASK: Final = "**********"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A source's value for a key. Secrets are masked.

    ``where`` is the variable, or the file with its line. The rest is set for values of the fleet: ``arrived`` is how
    they came (replica, last known good, live), ``trial`` whether for a while only: running or undone.
    """

    source: str
    value: Any
    where: str = ""
    scope: str = ""
    gen: int | None = None
    epoch: int | None = None
    writer: str = ""
    at: str = ""
    by: str = ""
    reason: str = ""
    arrived: str = ""
    trial: str = ""

    def __str__(self) -> str:
        parts = [self.source, self.scope or self.where]
        if self.epoch is not None:
            parts.append(f"epoch {self.epoch} by {self.writer}")
        parts.append(f"at {self.at}" if self.at else "")
        parts.append(_TRIALS.get(self.trial, ""))
        told = " ".join(part for part in parts if part)
        return f"{told}: {self.reason}" if self.reason else told

    def as_dict(self) -> dict[str, Any]:
        """Return what is known of it as JSON values."""
        known = {name: value for name, value in vars(self).items() if value not in ("", None) or name == "value"}
        return known | {"value": _as_json(self.value)}


_TRIALS: Final = {"running": "on trial", "undone": "undone after its trial"}


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Where a key's value came from: the candidates, winner first. Without any, how it came is not known."""

    key: str
    value: Any
    candidates: tuple[Candidate, ...] = ()

    @property
    def known(self) -> bool:
        """Whether it is known how the value came."""
        return bool(self.candidates)

    @property
    def winner(self) -> Candidate | None:
        """The candidate that won, None where that is not known."""
        return self.candidates[0] if self.candidates else None

    @property
    def shadowed(self) -> tuple[Candidate, ...]:
        """The candidates that the winner shadows, strongest first."""
        return self.candidates[1:]

    def __str__(self) -> str:
        lines = [f"{self.key} = {self.value!r}"]
        if self.winner is None:
            lines.append("  not known: this object came from neither Settings() nor a live object")
        else:
            lines.append(f"  from {self.winner}")
        lines += [f"  over {one} = {one.value!r}" for one in self.shadowed]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "key": self.key,
            "value": _as_json(self.value),
            "known": self.known,
            "candidates": [one.as_dict() for one in self.candidates],
        }


class Explanations(tuple[Explanation, ...]):
    """The explanations of all keys of a settings object, in declared order."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def as_dict(self) -> dict[str, Any]:
        """Return them as JSON values, by key."""
        return {one.key: one.as_dict() for one in self}


@overload
def explain(settings: BaseModel) -> Explanations: ...
@overload
def explain(settings: BaseModel, key: str) -> Explanation: ...
def explain(settings: BaseModel, key: str | None = None) -> Explanation | Explanations:
    """Return where the value of a key (of every key, in declared order) came from, and what it shadows.

    Copies, unpickled ones and those of ``model_construct`` are explained as not known. Secrets are masked.

    Raises:
        KeyError: the model does not have the key.
    """
    resolution = resolutions.get(settings)
    if key is not None:
        return _explain_one(settings, key, resolution)
    return Explanations(_explain_one(settings, one, resolution) for one in leaf_keys(type(settings)))


def _explain_one(settings: BaseModel, key: str, resolution: Resolution | None) -> Explanation:
    model = type(settings)
    found, value = value_at(settings, key)
    if not found and steps(model, key, {}) is None:
        raise KeyError(f"{model.__name__} has no key {key!r}")
    candidates = () if resolution is None else tuple(_candidates(resolution, key, value))
    secret = is_secret_key(model, key) or any(one.value is _SECRET for one in candidates)
    kinds = _kinds_at(model, key)
    shown = [dataclasses.replace(one, value=_shown(kinds, one.value, secret)) for one in candidates]
    return Explanation(key, _shown(kinds, value, secret), tuple(shown))


_SECRET: Final = object()


def value_at(settings: Any, key: str) -> tuple[bool, Any]:
    """Return whether a settings object has a value at a key, and which."""
    value = settings
    for segment in key.split("."):
        if isinstance(value, Mapping):
            if segment not in value:
                return False, None
            value = value[segment]
        elif segment.startswith("_") or not hasattr(value, segment):
            return False, None
        else:
            value = getattr(value, segment)
    return True, value


def _kinds_at(model: type, key: str) -> tuple[Any, ...]:
    found = steps(model, key, {})
    return found[-1].leads_to if found else ()


def _shown(kinds: tuple[Any, ...], value: Any, secret: bool) -> Any:
    if secret or value is _SECRET:
        return None if value is None else MASK
    return _mask_inside(kinds, value)


def _mask_inside(kinds: tuple[Any, ...], value: Any) -> Any:
    """Return a value with the secrets that its type holds masked; a model becomes a dict."""
    if hasattr(value, "get_secret_value"):
        return MASK
    if isinstance(value, BaseModel):
        kinds, value = (type(value),), dict(vars(value))
    if isinstance(value, (list, tuple)):
        inner = tuple(one for kind in kinds for item in getattr(kind, "__args__", ()) for one in alternatives(item))
        return [_mask_inside(inner, one) for one in value]
    if not isinstance(value, Mapping):
        return value
    return {name: _mask_field(kinds, name, one) for name, one in value.items()}


def _mask_field(kinds: tuple[Any, ...], name: Any, value: Any) -> Any:
    for kind in kinds:
        if has_names(kind):
            for field in names_of(getattr(kind, "__origin__", kind)).values():
                if name == field.name or name in field.inputs:
                    inside = tuple(alternatives(field.annotation))
                    return MASK if is_secret(field.annotation) else _mask_inside(inside, value)
    inner = tuple(one for kind in kinds for item in getattr(kind, "__args__", ())[1:] for one in alternatives(item))
    return _mask_inside(inner, value)


def _candidates(resolution: Resolution, key: str, value: Any) -> Iterator[Candidate]:
    for name, state in resolution.states.items():
        if name == resolution.fleet_source:
            yield from fleet_candidates(resolution, key)
        elif name != "DefaultSettingsSource":
            found, said = look_up(resolution.model, key, state)
            if found:
                source = source_named(resolution.chain, name)
                yield Candidate(kind_of(name), said, where_of(source, name, resolution.model, key))
    yield from _default(resolution.model, key, value)


def fleet_candidates(resolution: Resolution, key: str) -> Iterator[Candidate]:
    """Yield what the fleet says of a key: highest scope first, newest first within a scope."""
    taken_away: set[str] = set()
    for one in reversed(resolution.placed):
        if one.scope in taken_away:
            continue
        if one.unset:
            if key == one.key or key.startswith(f"{one.key}."):
                taken_away.add(one.scope)
            continue
        state: Any = one.value
        for name in reversed(one.path):
            state = {name: state}
        found, said = look_up(resolution.model, key, state)
        if found:
            yield _of_fleet(one, _SECRET if one.register.assignment.is_secret else said, resolution)


def _of_fleet(placed: Placed, value: Any, resolution: Resolution) -> Candidate:
    delta = placed.register.delta
    listed = None if resolution.document is None else resolution.document.writer(delta.stamp.kid)
    return Candidate(
        "fleet",
        value,
        scope=placed.scope,
        gen=delta.stamp.gen,
        epoch=delta.stamp.epoch,
        writer=delta.stamp.kid if listed is None else listed.name,
        at=delta.body.at,
        by=delta.body.by,
        reason=delta.body.reason,
        arrived=resolution.origin,
        trial="" if delta.trial is None else "undone" if placed.register.undone else "running",
    )


def _default(model: type, key: str, value: Any) -> Iterator[Candidate]:
    top, _, rest = key.partition(".")
    if not issubclass(model, BaseModel) or top not in model.model_fields:
        return
    field = model.model_fields[top]
    if field.default_factory is not None:
        # Not called again to explain: it may count, or make a fresh key.
        made = _nested_default(field.annotation, rest, value) if rest else value
        yield Candidate("default", made, "made by a factory")
        return
    if field.default is PydanticUndefined:
        if rest:
            nested = _nested_default(field.annotation, rest, PydanticUndefined)
            yield from () if nested is PydanticUndefined else (Candidate("default", nested),)
        return
    found, default = value_at(field.default, rest) if rest else (True, field.default)
    if found:
        yield Candidate("default", default)


def _nested_default(annotation: Any, rest: str, fallback: Any) -> Any:
    for kind in alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for one in _default(kind, rest, fallback):
                return one.value
    return fallback


def shadowing(resolution: Resolution, key: str) -> str | None:
    """Return which source above the fleet's has a key, in words, None where none has."""
    for name, state in resolution.states.items():
        if name == resolution.fleet_source:
            return None
        found, _ = look_up(resolution.model, key, state)
        if found:
            where = where_of(source_named(resolution.chain, name), name, resolution.model, key)
            return f"{kind_of(name)} {where}".strip()
    return None


def _as_json(value: Any) -> Any:
    return to_jsonable_python(value, fallback=repr)
