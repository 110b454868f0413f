"""From registers to the state of a source: what the fleet says, in the shape that pydantic takes.

Within a scope assignments fold in stamp order; scopes are then laid over each other as pydantic lays sources. Registers
of deltas that are left out do not count, and whatever they covered stands again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, get_args, get_origin

import msgspec
from pydantic import BaseModel

from tars_settings.core.delta import Delta
from tars_settings.core.register import FleetView, Register, used
from tars_settings.errors import DecryptionError
from tars_settings.provenance.fields import Step, alternatives, has_names, names_of, step, steps
from tars_settings.provenance.resolution import Placed

State = dict[str, Any]
_CONTAINERS: Final = frozenset((dict, list))
_MAX_REMEMBERED: Final = 16_384


def lay(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> State:
    """Return *upper* over *lower*, deeply; neither is changed.

    >>> lay({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"x": 9}})
    {'a': {'x': 9, 'y': 2}, 'b': 1}
    """
    laid = dict(lower)
    for key, value in upper.items():
        below = laid.get(key)
        laid[key] = lay(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return laid


def fresh(value: Any) -> Any:
    """Return a value whose dicts and lists are copies, at every depth; whatever else it holds is shared."""
    if type(value) is dict:
        if _CONTAINERS.isdisjoint(map(type, value.values())):
            return value.copy()  # most often, and then no value is looked at one by one
        return {key: fresh(one) if type(one) in _CONTAINERS else one for key, one in value.items()}
    return [fresh(one) for one in value] if type(value) is list else value


class Folded(msgspec.Struct, frozen=True):
    """What the fleet says to a model.

    ``placed`` is in order: lowest scope first, by stamp within. ``unknown`` are keys that the model does not have.
    ``sealed`` maps the digests of deltas whose secrets do not open to the reason. ``is_deep``: some of it lies within
    a nested model.
    """

    state: State
    placed: tuple[Placed, ...] = ()
    unknown: tuple[str, ...] = ()
    sealed: Mapping[bytes, tuple[Placed, str]] = {}  # msgspec copies an empty default
    is_deep: bool = False


class Folder:
    """Folds registers for one model; ``above`` is what the sources above the fleet's say.

    *open_secret* returns the JSON value of an encrypted register, or raises DecryptionError.
    """

    def __init__(self, model: type, above: Mapping[str, Any], open_secret: Callable[[Register], Any]) -> None:
        self._model = model
        self._above = above
        self._open = open_secret
        self._steps: dict[str, tuple[Step, ...] | None] = {}
        self._paths: dict[str, tuple[str, ...] | None] = {}
        # By identity, with the register held so that its number stays its own: most of a change is as it was before.
        self._plain: dict[int, tuple[Register, Placed]] = {}
        self._flat: dict[str, _Flat] = {}

    def fold(self, scopes: Iterable[tuple[str, Iterable[Register]]]) -> Folded:
        """Return what the registers of *scopes*, lowest first, say together."""
        state: State = {}
        placed: list[Placed] = []
        unknown: dict[str, None] = {}
        sealed: dict[bytes, tuple[Placed, str]] = {}
        is_deep = False
        for scope, held_now in scopes:
            held = tuple(held_now)
            flat = self._flat.get(scope)
            if flat is None and not held:
                continue
            if flat is None or not flat.take(held, self._path_of):
                flat = self._fold_scope(scope, held, sealed)
            placed += flat.placed.values()
            unknown.update(flat.unknown)
            is_deep = is_deep or flat.is_deep
            state = lay(state, flat.layer) if state else flat.layer
        return Folded(state, tuple(placed), tuple(unknown), sealed, is_deep)

    def _fold_scope(self, scope: str, held: tuple[Register, ...], sealed: dict[bytes, tuple[Placed, str]]) -> _Flat:
        """Return what a scope says, folded anew, and keep it where the next fold may rest on it."""
        layer: State = {}
        placed: list[Placed] = []
        unknown: dict[str, None] = {}
        for register in standing(held):
            self._fold_one(scope, register, layer, placed, unknown, sealed)
        flat = _Flat(scope, held, placed, unknown, layer)
        if flat.is_whole:
            self._flat[scope] = flat
        else:
            self._flat.pop(scope, None)
        return flat

    def _fold_one(
        self,
        scope: str,
        register: Register,
        layer: State,
        placed: list[Placed],
        unknown: dict[str, None],
        sealed: dict[bytes, tuple[Placed, str]],
    ) -> None:
        held = self._plain.get(id(register))
        if held is not None:
            placed.append(held[1])
            put(layer, held[1].path, held[1].value)
            return
        found = self.steps_of(register.key)
        if found is not None:
            self._place(scope, register, found, layer, placed, unknown, sealed)
        elif not register.assignment.unset:
            unknown[register.key] = None

    def _path_of(self, key: str) -> tuple[str, ...] | None:
        try:
            return self._paths[key]
        except KeyError:
            found = self.steps_of(key)
            return self._paths.setdefault(key, None if found is None else tuple(one.used for one in found))

    def steps_of(self, key: str) -> tuple[Step, ...] | None:
        """Return how the model's input reaches the key, None where it does not have it."""
        try:
            return self._steps[key]
        except KeyError:
            return self._steps.setdefault(key, steps(self._model, key, self._above))

    def _place(
        self,
        scope: str,
        register: Register,
        found: tuple[Step, ...],
        layer: State,
        placed: list[Placed],
        unknown: dict[str, None],
        sealed: dict[bytes, tuple[Placed, str]],
    ) -> None:
        path = tuple(one.used for one in found)
        if register.assignment.unset:
            placed.append(Placed(scope, path, register))
            take_away(layer, path)
            return
        try:
            value = self._open(register) if register.assignment.is_secret else register.assignment.set
        except DecryptionError as error:
            sealed[register.delta.stamp.digest] = (Placed(scope, path, register), str(error))
            return
        if isinstance(value, (dict, list)):
            value = self._translate(value, found, register.key, unknown)
            placed.append(Placed(scope, path, register, value))
        else:
            placed.append(self._remember(Placed(scope, path, register, value)))
        put(layer, path, value)

    def _remember(self, placed: Placed) -> Placed:
        if placed.register.undone:
            return placed  # made anew for each view
        if len(self._plain) >= _MAX_REMEMBERED:
            self._plain.clear()
        self._plain[id(placed.register)] = (placed.register, placed)
        return placed

    def _translate(self, value: Any, found: tuple[Step, ...], key: str, unknown: dict[str, None]) -> Any:
        level: Any = self._above
        for one in found:
            level = level.get(one.used) if isinstance(level, Mapping) else None
        return translate(value, found[-1].leads_to, key, level, unknown)


class _Flat:
    """The last fold of a scope in which no key says anything of another, and how newer plain values change it.

    Folding thirty registers anew costs as much as checking a signature, and most changes replace one value by a newer
    one. ``unknown`` are keys that the model does not have.
    """

    def __init__(
        self, scope: str, held: tuple[Register, ...], placed: list[Placed], unknown: Iterable[str], layer: State
    ) -> None:
        self.placed = {one.key: one for one in placed}
        self.unknown = dict.fromkeys(unknown)
        self.layer = layer
        self.is_deep = _are_deep(placed)
        self._scope = scope
        self._count = len(held)
        # By key, in the order in which they were given.
        self._held = {one.key: one for one in held}
        self._models = {above for key in self._held for above in _above(key)}

    @property
    def is_whole(self) -> bool:
        """Whether it accounts for every register, so that the next fold may rest on it."""
        keys = self.placed.keys() | self.unknown.keys()
        return (
            len(self.placed) + len(self.unknown) == len(self._held) == self._count == len(keys)
            and keys.isdisjoint(self._models)
            and keys == self._held.keys()
            and not any(one.assignment.unset for one in self._held.values())
        )

    def take(self, held: tuple[Register, ...], path_of: Callable[[str], tuple[str, ...] | None]) -> bool:
        """Return whether this is now what *held* says. Where it is not, it is what it was."""
        fresh: list[Register] = []
        now = self._held
        for register in reversed(held):  # registers come in the order of their changes: what is new is at the end
            if now.get(register.key) is register:
                break
            fresh.append(register)
        if fresh:
            now = now.copy()
            for register in reversed(fresh):
                now.pop(register.key, None)
                now[register.key] = register
        # That, and nothing else. Whole tables are copied and compared, but no register is looked into.
        if tuple(now.values()) != held or not self._is_continued_by(fresh, now):
            return False
        self._held = now
        for register in fresh:
            self._put(register, path_of(register.key))
        return True

    def _is_continued_by(self, fresh: list[Register], now: Mapping[str, Register]) -> bool:
        """Return whether each of *fresh*, sorted here, is plain, newer than all there is, and concerns its key alone.

        *now* are all registers by key, these among them.
        """
        if len(fresh) > 1:
            fresh.sort(key=_place)
        if fresh and self.placed:
            newest = self.placed[next(reversed(self.placed))]
            if newest.register.delta.stamp >= fresh[0].delta.stamp:
                return False
        for register in fresh:
            said = register.assignment.set
            if said is msgspec.UNSET or type(said) in _CONTAINERS or register.key in self._models:
                return False
            if "." in register.key and any(above in now for above in _above(register.key)):
                return False
        return True

    def _put(self, register: Register, path: tuple[str, ...] | None) -> None:
        if "." in register.key:
            self._models.update(_above(register.key))
        if path is None:
            self.unknown[register.key] = None
            return
        self.is_deep = self.is_deep or len(path) > 1
        self.placed.pop(register.key, None)
        self.placed[register.key] = Placed(self._scope, path, register, register.assignment.set)
        layer = self.layer = dict(self.layer)
        for name in path[:-1]:  # what was handed out before stays as it was
            below = layer.get(name)
            layer[name] = below = dict(below) if isinstance(below, dict) else {}
            layer = below
        layer[path[-1]] = register.assignment.set


def _are_deep(placed: Iterable[Placed]) -> bool:
    return any(len(one.path) > 1 for one in placed)


def translate(value: Any, here: tuple[Any, ...], key: str, level: Any, unknown: dict[str, None]) -> Any:
    """Return a copy of a JSON value in a model's input names; what no model of *here* has is left out and noted.

    A copy in any case: a field of type Any would hand the delta's own list to the user.
    """
    if isinstance(value, list):
        inner = tuple(one for kind in here for item in get_args(kind) for one in alternatives(item))
        return [translate(one, inner, key, None, unknown) for one in value]
    if not isinstance(value, dict):
        return value
    if not any(has_names(kind) for kind in here):
        return copy.deepcopy(value) if not here else _translate_open(value, here, key, level, unknown)
    translated: State = {}
    for name, inner_value in value.items():
        found = step(here, name, level)
        if found is None and not any(name in field.inputs for kind in here for field in _fields_of(kind)):
            unknown[f"{key}.{name}"] = None
            continue
        used, leads_to = (found.used, found.leads_to) if found else (name, ())
        below = level.get(used) if isinstance(level, Mapping) else None
        translated[used] = translate(inner_value, leads_to, f"{key}.{name}", below, unknown)
    return translated


def _translate_open(value: State, here: tuple[Any, ...], key: str, level: Any, unknown: dict[str, None]) -> State:
    translated: State = {}
    for name, inner_value in value.items():
        found = step(here, name, level)
        translated[name] = translate(inner_value, found.leads_to if found else (), f"{key}.{name}", None, unknown)
    return translated


def _fields_of(kind: Any) -> Iterable[Any]:
    return names_of(get_origin(kind) or kind).values() if has_names(kind) else ()


def put(layer: State, path: Sequence[str], value: Any) -> None:
    """Set the value at a path, making dicts on the way."""
    for name in path[:-1]:
        below = layer.get(name)
        if not isinstance(below, dict):
            below = layer[name] = {}
        layer = below
    layer[path[-1]] = value


def take_away(layer: State, path: Sequence[str]) -> None:
    """Take the value at a path away, where there is one."""
    for name in path[:-1]:
        below = layer.get(name)
        if not isinstance(below, dict):
            return
        layer = below
    layer.pop(path[-1], None)


def standing(registers: Iterable[Register]) -> list[Register]:
    """Return the registers that count, in stamp order, the newest of each key; unsets only where they take a part away.

    An unset below an older set of a whole model removes that leaf of it, so it stands as long as the set does.
    """
    ordered = sorted(registers, key=_stamp)
    stands: dict[str, Register] = {}
    if not any("." in register.key for register in ordered):
        # The common case, and no key says anything of another: the newest of each.
        for register in ordered:
            stands.pop(register.key, None)
            if not register.assignment.unset:
                stands[register.key] = register
        return list(stands.values())
    models = {above for register in ordered if "." in register.key for above in _above(register.key)}
    for register in ordered:
        key = register.key
        stands.pop(key, None)
        if key in models:
            for below in [other for other in stands if other.startswith(f"{key}.")]:
                del stands[below]
        if not register.assignment.unset or any(above in stands for above in _above(key)):
            stands[key] = register
    return list(stands.values())


def _above(key: str) -> Iterator[str]:
    above, dot, _ = key.rpartition(".")
    while dot:
        yield above
        above, dot, _ = above.rpartition(".")


def _stamp(register: Register) -> Any:
    return register.delta.stamp


def _place(register: Register) -> Any:
    """Return what orders registers as their writers did: by stamp, and within a delta as it says them."""
    said = register.delta.assign
    return register.delta.stamp, next(n for n, one in enumerate(said) if one.key == register.key)


class Said(msgspec.Struct, frozen=True):
    """All that the fleet says to one worker, and (by scope) the registers that the last good snapshot rested on."""

    view: FleetView
    last_good: Callable[[str], tuple[Register, ...]] = lambda _scope: ()

    def deltas(self) -> list[Delta]:
        """Return the deltas behind it, lowest scope first, newest first within a scope: the order of leaving out."""
        ordered: dict[bytes, Delta] = {}
        for scope, registers in self.without(()):
            del scope
            for register in sorted(registers, key=_stamp, reverse=True):
                ordered[register.delta.stamp.digest] = register.delta
        return list(ordered.values())

    def without(self, left_out: Collection[bytes]) -> list[tuple[str, tuple[Register, ...]]]:
        """Return the registers of each scope, lowest first, as if the deltas *left_out* had not been pushed.

        Their keys keep what the last good snapshot had, unless something newer that is not left out says otherwise.
        """
        if not left_out:
            return [(one.scope, one.winners) for one in self.view.scopes]
        return [(one.scope, self._of_scope(one.scope, one.winners, left_out)) for one in self.view.scopes]

    def _of_scope(self, scope: str, winners: tuple[Register, ...], left_out: Collection[bytes]) -> tuple[Register, ...]:
        refused = {one.delta.stamp.digest: one.delta for one in winners if one.delta.stamp.digest in left_out}
        if not refused:
            return winners
        kept = [one for one in winners if one.delta.stamp.digest not in left_out]
        hidden = [one for one in self.last_good(scope) if _hidden_by(one, refused.values(), left_out)]
        # What was good while it was on trial is not any more when that is over.
        again = [used(one, self.view.is_undone) for one in hidden]
        return tuple({(one.key, one.delta.stamp.digest): one for one in (*again, *kept)}.values())


def _hidden_by(held: Register, refused: Iterable[Delta], left_out: Collection[bytes]) -> bool:
    # Only what the refused delta itself displaced: something newer than it was displaced by its own being void.
    return held.delta.stamp.digest not in left_out and any(
        delta.stamp > held.delta.stamp and any(_touches(item.key, held.key) for item in delta.assign)
        for delta in refused
    )


def _touches(first: str, second: str) -> bool:
    return first == second or first.startswith(f"{second}.") or second.startswith(f"{first}.")


def default_base(model: type, folded: Folded, said_elsewhere: Collection[str]) -> State:
    """Return the field defaults that leaves of the fleet are laid over, so that a leaf changes that leaf only.

    Without it ``audio: Audio = Audio(a=10, b=20)`` with the fleet's ``audio.a=5`` would become ``Audio(a=5)``, b being
    the class's default. Fields that other sources say something of are left as pydantic-settings has them.
    """
    base: State = {}
    wholes = [one.path for one in folded.placed if len(one.path) == 1 and not one.unset]
    for one in folded.placed:
        top = one.path[0]
        if len(one.path) > 1 and top not in said_elsewhere and (top,) not in wholes and top not in base:
            field = next((f for f in names_of(model).values() if top in f.inputs), None)
            default = None if field is None else _default_of(model, field.name)
            if has_names(type(default)) and not _is_other_member(model, field, default, folded.state.get(top)):
                base[top] = _as_input(default, folded.state.get(top))
    return base


def _default_of(model: type, name: str) -> Any:
    if not issubclass(model, BaseModel):
        return None
    field = model.model_fields[name]
    if getattr(field, "default_factory_takes_validated_data", False):
        return None
    return field.get_default(call_default_factory=True)


def _is_other_member(model: type, field: Any, default: Any, given: Any) -> bool:
    """Return whether *given* selects another member of a discriminated union than the default is."""
    info = model.model_fields[field.name] if issubclass(model, BaseModel) else None
    tag = getattr(info, "discriminator", None)
    if not isinstance(tag, str) or not isinstance(given, dict):
        return False
    accepted = names_of(type(default))[tag].inputs if tag in names_of(type(default)) else (tag,)
    return any(given[name] != getattr(default, tag, None) for name in accepted if name in given)


def _as_input(default: Any, given: Any) -> State:
    """Return a default instance as input; nested ones only as far as *given* reaches into them."""
    taken = given if isinstance(given, Mapping) else {}
    names = names_of(type(default))
    state: State = {}
    for field in names.values():
        if not field.inputs:
            continue
        used = next((name for name in field.inputs if name in taken), field.inputs[0])
        value = copy.deepcopy(getattr(default, field.name))
        reaches = isinstance(taken.get(used), dict) and has_names(type(value))
        state[used] = _as_input(value, taken[used]) if reaches else value
    return state
