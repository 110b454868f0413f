"""Values for a class at hand: checked by pydantic, and in a JSON form that comes back equal."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Union, get_args, get_origin

import pydantic_core
from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from tars_settings.errors import InvalidValueError

_MAX_DEPTH: Final = 32


def values_for(cls: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON values to push for *values* by key, each validated by its field.

    Python values (Path, timedelta, an enum, SecretStr, a nested model) become what pydantic reads back as the same.
    Rules across fields are the workers' to judge: they know all values.

    Raises:
        InvalidValueError: values that do not validate, that JSON can't carry, or keys that the class does not have; all
            of them together, without the values.
    """
    complaints: list[str] = []
    checked: dict[str, Any] = {}
    for key, value in values.items():
        try:
            checked[key] = _value_for(cls, key, value)
        except InvalidValueError as error:
            complaints.append(str(error))
    if not complaints:
        complaints = _by_the_fields_own_rules(cls, checked)
    if complaints:
        raise InvalidValueError("\n".join(dict.fromkeys(complaints)))
    return checked


def _value_for(cls: type[BaseModel], key: str, value: Any) -> Any:
    adapter = _adapter(cls, key)
    try:
        validated = adapter.validate_python(value)
    except ValidationError as error:
        reasons = error.errors(include_url=False, include_input=False, include_context=False)
        complaint = "; ".join(f"{_inner(one['loc'])}{_said(one, value)}" for one in reasons)
    else:
        found, complaint = _as_json(adapter, validated)
        if not complaint:
            return found
    # Raised out here: the other's context would hold the value.
    raise InvalidValueError(f"{key}: {complaint}")


def _said(line: Any, value: Any) -> str:
    message = str(line["msg"])
    # A validator's own words may quote the value; pydantic's do not.
    own_words = line["type"] in ("value_error", "assertion_error")
    return "refused by its validator" if own_words and any(text in message for text in _texts(value)) else message


def _texts(value: Any, depth: int = 0) -> list[str]:
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [text for one in value for text in _texts(one, depth + 1)] if depth < _MAX_DEPTH else []
    return [] if value is None or isinstance(value, bool) or value == "" else [str(value)]


def _inner(location: tuple[int | str, ...]) -> str:
    return f"{'.'.join(map(str, location))}: " if location else ""


def _as_json(adapter: TypeAdapter[Any], validated: Any) -> tuple[Any, str]:
    """Return the JSON value and an empty string, or None and why there is none."""
    try:
        plain, dumped = (adapter.dump_python(validated, mode=mode, by_alias=False) for mode in ("python", "json"))
        value = json.loads(json.dumps(_open(plain, dumped), allow_nan=False))
        back = adapter.validate_python(value)
    except (ValueError, TypeError, RecursionError, pydantic_core.PydanticSerializationError):
        return None, "JSON can't carry this value"
    if not _equal(back, validated):
        return None, "this value does not come back the same from JSON"
    return value, ""


def _equal(first: Any, second: Any) -> bool:
    try:
        return bool(first == second)
    except (TypeError, ValueError):
        return False


def _open(plain: Any, dumped: Any, depth: int = 0) -> Any:
    """Return the JSON form with secrets as they are: pydantic's JSON mode masks them."""
    if hasattr(plain, "get_secret_value"):
        secret = plain.get_secret_value()
        return secret.decode() if isinstance(secret, bytes) else pydantic_core.to_jsonable_python(secret)
    if depth > _MAX_DEPTH:
        return dumped
    if isinstance(plain, dict) and isinstance(dumped, dict) and len(plain) == len(dumped):
        pairs = zip(plain.values(), dumped.items(), strict=True)
        return {name: _open(one, two, depth + 1) for one, (name, two) in pairs}
    if isinstance(plain, (list, tuple)) and isinstance(dumped, list) and len(plain) == len(dumped):
        return [_open(one, two, depth + 1) for one, two in zip(plain, dumped, strict=True)]
    return dumped


def _adapter(cls: type[BaseModel], key: str) -> TypeAdapter[Any]:
    owner, annotation = _annotation_at(cls, key)
    config = {name: owner.model_config[name] for name in _CONFIG if name in owner.model_config} if owner else {}
    try:
        return TypeAdapter(annotation, config=config or None)  # type: ignore[arg-type]
    except PydanticUserError:
        return TypeAdapter(annotation)  # a model's own configuration can't be given from outside


_CONFIG: Final = ("strict", "arbitrary_types_allowed", "str_strip_whitespace", "ser_json_bytes", "val_json_bytes")


def _annotation_at(cls: type[BaseModel], key: str) -> tuple[type[BaseModel] | None, Any]:
    owner: type[BaseModel] | None = None
    here: Any = cls
    for segment in key.split("."):
        found = next((one for one in _steps(here, segment)), None)
        if found is None:
            raise InvalidValueError(f"{key}: {cls.__name__} has no such field")
        owner, here = found
    return owner, here


def _steps(annotation: Any, segment: str) -> list[tuple[type[BaseModel] | None, Any]]:
    """Return where a segment leads below an annotation: the model that owns the field, and the field's annotation."""
    origin = get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(segment)
        return [] if field is None else [(annotation, _annotated(field))]
    if origin is Annotated:
        return _steps(get_args(annotation)[0], segment)
    if origin is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return [(None, get_args(annotation)[1])]
    if annotation in (dict, Any):
        return [(None, Any)]
    several = get_args(annotation) if origin is not None and origin is not list else ()
    return [found for one in several for found in _steps(one, segment)] if _is_union(origin) else []


def _is_union(origin: Any) -> bool:
    return origin is Union or getattr(origin, "__name__", "") == "UnionType"


def _annotated(field: FieldInfo) -> Any:
    return field.rebuild_annotation() if field.metadata else field.annotation


def _by_the_fields_own_rules(cls: type[BaseModel], checked: Mapping[str, Any]) -> list[str]:
    """Return what field validators say: the whole class is validated with these values, other fields' errors aside."""
    state: dict[str, Any] = {}
    for key, value in checked.items():
        _put(state, _inputs(cls, key), copy.deepcopy(value))
    try:
        BaseModel.__init__(cls.__new__(cls), **state)
    except ValidationError as error:
        lines = error.errors(include_url=False, include_input=False, include_context=False)
        told = [(key, line) for key in checked for line in lines if _names(line["loc"], _inputs(cls, key))]
        return [f"{key}: {_said(line, checked[key])}" for key, line in told]
    return []


def _names(location: tuple[int | str, ...], path: tuple[str, ...]) -> bool:
    inner = iter(location)
    return all(any(one == part for one in inner) for part in path)


def _inputs(cls: type[BaseModel], key: str) -> tuple[str, ...]:
    """Return a key's path in the names that pydantic takes: an alias where a field has one."""
    path: list[str] = []
    here: Any = cls
    for segment in key.split("."):
        owner, below = _steps(here, segment)[0]
        alias = owner.model_fields[segment].validation_alias if owner is not None else None
        choices = getattr(alias, "choices", [alias])
        path.append(next((one for one in choices if isinstance(one, str)), segment))
        here = below
    return tuple(path)


def _put(state: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        below = state.setdefault(name, {})
        if not isinstance(below, dict):
            return
        state = below
    state[path[-1]] = value
