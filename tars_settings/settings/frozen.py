"""Frozen snapshots: a validated instance is given the class's frozen twin, nested models and containers too.

pydantic's own ``frozen`` is the wrong tool: after-validators that assign would raise. So validation comes first, and
then the class changes to a twin without a schema of its own: same name, same fields, an instance of the user's class.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar, cast

from pydantic import BaseModel

from tars_settings.errors import FrozenSnapshotError

M = TypeVar("M", bound=BaseModel)
_twins: Final[weakref.WeakKeyDictionary[type, type]] = weakref.WeakKeyDictionary()
_MARK: Final = "__tars_thawed__"
_MAX_DEPTH: Final = 64
_ATOMS: Final = frozenset({int, float, str, bool, bytes, type(None)})


def freeze(instance: M) -> M:
    """Make a validated instance immutable, in place, and return it.

    It stays an instance of its class. Copies and unpickled ones are plain and mutable.
    """
    _freeze_model(instance, 0)
    return instance


def is_frozen(instance: object) -> bool:
    """Return whether *instance* is a frozen snapshot (or a model within one)."""
    return _MARK in type(instance).__dict__


def _freeze_model(model: BaseModel, depth: int) -> None:
    if _MARK in type(model).__dict__:
        return
    fields = model.__dict__
    if not _ATOMS.issuperset(map(type, fields.values())):  # most often they are plain, and none is looked at
        for name, value in fields.items():
            if type(value) not in _ATOMS and isinstance(value, (BaseModel, list, dict, set, tuple)):
                fields[name] = _frozen(value, depth)
    extra = model.__pydantic_extra__
    if extra:
        for name, value in extra.items():
            extra[name] = _frozen(value, depth)
    object.__setattr__(model, "__class__", twin_of(type(model)))


def _frozen(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return value
    if isinstance(value, BaseModel):
        _freeze_model(value, depth + 1)
        return value
    make = _CONTAINERS.get(type(value))
    return value if make is None else make(value, depth + 1)


def _frozen_list(value: list[Any], depth: int) -> Any:
    return _List(_frozen(one, depth) for one in value)


def _frozen_dict(value: dict[Any, Any], depth: int) -> Any:
    return _Dict((key, _frozen(one, depth)) for key, one in value.items())


def _frozen_tuple(value: tuple[Any, ...], depth: int) -> tuple[Any, ...]:
    return tuple(_frozen(one, depth) for one in value)


def _refuse(self: object, *_args: object, **_kwargs: object) -> NoReturn:
    raise FrozenSnapshotError(f"a live snapshot is frozen, its {type(self).__name__}s too; copy it, or push a change")


def _closed(kind: type, names: str) -> Any:
    """Return a subclass of a container whose changing methods refuse; copies and unpickled ones are plain."""
    closed = dict.fromkeys(f"clear pop {names}".split(), _refuse)
    plain = {
        "__copy__": lambda self: kind(iter(self)) if kind is not dict else dict(self),
        "__deepcopy__": lambda self, memo: copy.deepcopy(kind(self), memo),
        "__reduce_ex__": lambda self, _protocol: (_same, (kind(self),)),
    }
    return type(kind.__name__, (kind,), {"__slots__": (), "__module__": __name__, **closed, **plain})


_List: Final = _closed(list, "append extend insert remove sort reverse __setitem__ __delitem__ __iadd__ __imul__")
_Dict: Final = _closed(dict, "update setdefault popitem __setitem__ __delitem__ __ior__")
_Set: Final = _closed(
    set,
    "add discard remove update difference_update intersection_update symmetric_difference_update "
    "__iand__ __ior__ __isub__ __ixor__",
)
_CONTAINERS: Final[dict[type, Callable[[Any, int], Any]]] = {
    list: _frozen_list,
    dict: _frozen_dict,
    tuple: _frozen_tuple,
    set: lambda value, _depth: _Set(value),
}


def twin_of(model: type[M]) -> type[M]:
    """Return the frozen twin of a model class: made once, without a schema of its own."""
    held: Any = _twins.get(model)
    if held is None:
        held = _twins[model] = _make_twin(model)
    return held  # type: ignore[no-any-return]


def plain_class(model: type) -> type:
    """Return the class that a twin was made of; any other class is returned as it is."""
    return model.__mro__[1] if _MARK in model.__dict__ else model


def _make_twin(model: type[BaseModel]) -> type:
    def set_attribute(self: BaseModel, name: str, value: Any) -> None:
        if not name.startswith("_"):  # private attributes stay usable, as on pydantic's own frozen models
            raise FrozenSnapshotError(f"{model.__name__}.{name} is part of a live snapshot: change it with a push")
        model.__setattr__(self, name, value)

    def delete_attribute(_: BaseModel, name: str) -> None:
        raise FrozenSnapshotError(f"{model.__name__}.{name} is part of a live snapshot: it can't be deleted")

    def equal(self: BaseModel, other: object) -> bool:
        # pydantic compares the classes first, and a twin is another class.
        theirs = thaw_shallow(other) if isinstance(other, BaseModel) else other
        return bool(model.__eq__(thaw_shallow(self), theirs))

    names = {
        _MARK: True,
        "__slots__": (),
        "__module__": model.__module__,
        "__qualname__": model.__qualname__,
        "__doc__": model.__doc__,
        "__hash__": model.__hash__,
        "__setattr__": set_attribute,
        "__delattr__": delete_attribute,
        "__eq__": equal,
        "__copy__": thaw_shallow,
        "__deepcopy__": lambda self, memo: copy.deepcopy(thaw_shallow(self), memo),
        "__reduce_ex__": lambda self, _protocol: (_same, (thaw_shallow(self),)),
        "model_copy": _model_copy,
    }
    # type.__new__ and not the metaclass: a pydantic subclass would build a schema (620 us), this takes 8.
    twin: type = type.__new__(type(model), model.__name__, (model,), names)
    return twin


def _model_copy(self: BaseModel, *, update: Any = None, deep: bool = False) -> BaseModel:
    plain = copy.deepcopy(self) if deep else thaw_shallow(self)
    return plain.model_copy(update=update)


def thaw_shallow(instance: M) -> M:
    """Return a plain instance with the same values; what it holds is still frozen, as in any shallow copy."""
    if not is_frozen(instance):
        return instance
    plain = plain_class(type(instance))
    copied: Any = object.__new__(plain)
    for slot in ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__"):
        value = getattr(instance, slot, None)
        object.__setattr__(copied, slot, copy.copy(value))
    return cast("M", copied)


def _same(plain: Any) -> Any:
    return plain
