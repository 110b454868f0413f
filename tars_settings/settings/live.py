"""Live snapshots: the model validated anew from captured sources and what the fleet says now.

The environment is read once. A change costs the fleet's values and the model's validation, never the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import compress
from operator import is_not
from typing import Any, Generic, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings

from tars_settings.core.delta import Assignment, Delta, proposed
from tars_settings.core.names import check_service
from tars_settings.core.register import FleetView, Register, ScopeView
from tars_settings.errors import NoServiceError
from tars_settings.provenance.explanation import shadowing
from tars_settings.provenance.resolution import Origin, Placed, Resolution, resolutions
from tars_settings.settings.frozen import freeze
from tars_settings.settings.recovery import note_sources
from tars_settings.sources.environment import Environment
from tars_settings.sources.failures import lines_of
from tars_settings.sources.fleet import Building, Captured, FleetSettingsSource, building, opener
from tars_settings.sources.fold import Folded, Folder, Said, standing
from tars_settings.sources.lastgood import load_lkg
from tars_settings.sources.overrides import OverrideSettingsSource, overriding
from tars_settings.sources.settle import Nothing, Refused, Settled, Settler
from tars_settings.trust.document import TrustDocument
from tars_settings.trust.validity import VALID, judge

S = TypeVar("S", bound=BaseSettings)


class Built(msgspec.Struct, Generic[S], frozen=True, eq=False):
    """A snapshot, and what became of the fleet's values in it.

    ``placed`` is what the fleet said in it; ``shadowed`` maps keys of the fleet to the source above that wins instead,
    in words.
    """

    snapshot: S
    placed: tuple[Placed, ...] = ()
    refused: tuple[Refused, ...] = ()
    unknown: tuple[str, ...] = ()
    shadowed: Mapping[str, str] = {}  # msgspec copies an empty default

    @property
    def used(self) -> tuple[Delta, ...]:
        """The deltas that it rests on; gathered when asked, since a change does not need them."""
        return tuple({one.digest: one.register.delta for one in self.placed}.values())


class Rehearsal(msgspec.Struct, frozen=True, eq=False):
    """What a model would make of a proposal, which was applied nowhere.

    ``refused`` are all deltas that would be left out with it in force; ``own`` is the one that stands for the proposal.
    ``unknown`` are its keys that the model does not have; ``shadowed`` as in :class:`Built`.
    """

    own: Delta
    refused: tuple[Refused, ...] = ()
    unknown: tuple[str, ...] = ()
    shadowed: Mapping[str, str] = {}  # msgspec copies an empty default
    failure: str = ""


class SnapshotBuilder(Generic[S]):
    """Builds frozen snapshots of one class for one joined worker. Not for several threads at once.

    The other sources of the chain are asked once, here; *init* are arguments for the class. *trust* returns the trust
    document in force. Keys of deltas that are refused keep what the last good snapshot had: at first, what this host
    stored of the previous run (or *last_good*).

    Raises:
        NoServiceError: the class names no service, and none is given.
        ConfigurationError: the environment names no fleet.
        SettingsError: a source could not be read or parsed.
    """

    def __init__(
        self,
        cls: type[S],
        *,
        environment: Environment,
        service: str | None = None,
        trust: Callable[[], TrustDocument] | None = None,
        init: Mapping[str, Any] | None = None,
        last_good: FleetView | None = None,
    ) -> None:
        source = capture(cls, init or {})
        named = service if service is not None else source.service
        if named is None:
            raise NoServiceError(f"{cls.__name__} names no service: class {cls.__name__}(Settings, service='NAME')")
        self.service = check_service(named)
        self.cls = cls
        self._trust = environment.pinned if trust is None else trust
        self._captured = Captured(source)
        self._environment = environment
        self._folder = self._new_folder()
        self._last_good = _LastGood(environment, self.service, self._trust, last_good)
        self._shadows: dict[str, str | None] = {}
        self._held: S | None = None
        self._held_back: dict[bytes, str] = {}

    def _new_folder(self) -> Folder:
        opens = opener(self._environment.fleet_id, self._environment.secret_keys)
        return Folder(self.cls, self._captured.above, opens)

    def hold_back(self, digests: Iterable[bytes], reason: str, last_good: FleetView) -> None:
        """Leave these deltas out from now on, whatever they say; their keys keep what *last_good* has."""
        self._held_back = dict.fromkeys(digests, reason)
        self._last_good.set(last_good)

    def build(self, view: FleetView, *, origin: Origin = "live") -> Built[S]:
        """Return a snapshot of what validates together of the fleet's values, all captured sources above them.

        Where nothing changed, the snapshot is the same object as before.

        Raises:
            ValidationError: it does not validate even without any fleet value: without input values, with notes.
        """
        said = Said(view, self._last_good.registers)
        settled = self._settle(said)
        placed = settled.folded.placed
        self._last_good.remember(said, settled)
        snapshot = self._same_or_new(settled.value)
        resolutions.put(snapshot, self._resolution(placed, origin))
        return Built(snapshot, placed, settled.refused, settled.folded.unknown, self._shadowed(placed))

    def rehearse(self, view: FleetView, scope: str, assign: tuple[Assignment, ...]) -> Rehearsal:
        """Return what would become of assignments to a scope if they were pushed next, over what the fleet says now.

        They are validated as :meth:`build` would, rules across fields too; nothing is swapped, remembered or kept.
        """
        own = proposed(scope, assign, self._trust().gen)
        # A folder of its own: what is only proposed must not stay among what was folded and opened.
        folder = self._new_folder()
        said = Said(_with(view, own), self._last_good.registers)
        failure = ""
        refused: tuple[Refused, ...] = ()
        try:
            refused = Settler(said, folder, self._attempt, self._held_back).settle().refused
        except Nothing as nothing:
            failure = "; ".join(message for _, message in lines_of(nothing.error))
        places = {item.key: folder.steps_of(item.key) for item in assign if not item.unset}
        unknown = tuple(key for key, steps in places.items() if steps is None)
        above = [key for key, steps in places.items() if steps is not None and steps[0].used in self._captured.above]
        shadows = {key: shadowing(self._resolution((), "live"), key) for key in above}
        return Rehearsal(own, refused, unknown, {key: by for key, by in shadows.items() if by is not None}, failure)

    def _same_or_new(self, value: S) -> S:
        frozen = freeze(value)
        if self._held is None or differ(self._held, frozen):
            self._held = frozen
        return self._held

    def _settle(self, said: Said) -> Settled[S]:
        failure: ValidationError
        try:
            return Settler(said, self._folder, self._attempt, self._held_back).settle()
        except Nothing as nothing:
            failure = nothing.error
        note_sources(failure, self._resolution((), "live"))
        # Outside of the except block, so that no context holds the original.
        raise failure

    def _attempt(self, folded: Folded) -> S | ValidationError:
        return self._captured.attempt(folded, self.cls.__new__(self.cls))

    def _resolution(self, placed: tuple[Placed, ...], origin: Origin) -> Resolution:
        seen = self._captured
        overrides = overriding(self.cls)
        states = {OverrideSettingsSource.__name__: overrides, **seen.states} if overrides else seen.states
        return Resolution(self.cls, states, seen.chain, seen.fleet_source, placed, origin, self._trust())

    def _shadowed(self, placed: tuple[Placed, ...]) -> dict[str, str]:
        shadows: dict[str, str] = {}
        for one in placed if self._captured.above else ():
            if one.path[0] not in self._captured.above or one.unset:
                continue
            if one.key not in self._shadows:
                self._shadows[one.key] = shadowing(self._resolution((), "live"), one.key)
            by = self._shadows[one.key]
            if by is not None:
                shadows[one.key] = by
        return shadows


def _with(view: FleetView, own: Delta) -> FleetView:
    registers = {item.key: Register(item.key, item, own) for item in own.assign}
    scopes = [_laid(one, registers) if one.scope == own.scope else one for one in view.scopes]
    return FleetView(tuple(scopes), view.is_undone)


def _laid(held: ScopeView, own: dict[str, Register]) -> ScopeView:
    others = (one for one in held.winners if one.key not in own)
    return ScopeView(held.scope, (*others, *own.values()))


def capture(cls: type[S], init: Mapping[str, Any]) -> FleetSettingsSource:
    """Run the class's chain once without the fleet and return its fleet source, which knows what the others said.

    That nothing validates without the fleet's values is no matter here.

    Raises:
        NoServiceError: the chain has no fleet source.
        SettingsError: a source could not be read or parsed.
    """
    current = Building(cls, capturing=True)
    token = building.set(current)
    try:
        cls(**init)
    except ValidationError:
        pass
    finally:
        building.reset(token)
    if current.source is None:
        raise NoServiceError(f"{cls.__name__} has no FleetSettingsSource among its sources")
    return current.source


class _LastGood:
    """The registers that the last good snapshot rested on. Read from the disk only if a delta is ever refused."""

    def __init__(
        self, environment: Environment, service: str, trust: Callable[[], TrustDocument], given: FleetView | None
    ) -> None:
        self._environment = environment
        self._service = service
        self._trust = trust
        self._held = None if given is None else _registers(given)
        self._unsorted: FleetView | None = None

    def registers(self, scope: str) -> tuple[Register, ...]:
        """Return those of a scope that are still valid: a refused key must not go on with what a stolen key wrote."""
        document = self._trust()
        if self._held is None:
            kept = load_lkg(self._environment, self._service, known=document)
            self._held = {} if kept is None else _registers(kept.view)
        if self._unsorted is not None:
            view, self._unsorted = self._unsorted, None
            self._held = {scope: tuple(standing(registers)) for scope, registers in Said(view).without(())}
        held = self._held.get(scope, ())
        return held if document.is_pin else tuple(one for one in held if judge(one.delta, document) == VALID)

    def set(self, view: FleetView) -> None:
        """Take these for the last good ones."""
        self._held, self._unsorted = _registers(view), None

    def remember(self, said: Said, settled: Settled[Any]) -> None:
        """Take note of what a snapshot rests on."""
        if settled.refused:
            left_out = {one.delta.stamp.digest for one in settled.refused}
            self._held = {scope: tuple(standing(registers)) for scope, registers in said.without(left_out)}
            self._unsorted = None
        elif settled.folded.state or any(one.says_anything for one in said.view.scopes):
            # Looked at only if a delta is ever refused.
            self._held, self._unsorted = {}, said.view


def _registers(view: FleetView) -> dict[str, tuple[Register, ...]]:
    return {one.scope: one.winners for one in view.scopes}


def differ(old: Any, new: Any) -> bool:
    """Return whether any value differs: as :func:`diff` says, but the first difference ends it."""
    mine, theirs = old.__dict__, new.__dict__
    if list(mine) != list(theirs):
        return bool(diff(old, new))
    # What a change left alone is most often the very object that it was.
    for name in compress(mine, map(is_not, mine.values(), theirs.values())):
        if not _same(mine[name], theirs[name]):
            return True
    return False


def diff(old: Any, new: Any) -> frozenset[str]:
    """Return the dotted keys whose values differ, leaves and the models that hold them: "audio", "audio.gain"."""
    changed: set[str] = set()
    _diff(old, new, "", changed)
    return frozenset(changed)


def _diff(old: Any, new: Any, prefix: str, changed: set[str]) -> None:
    mine, theirs = old.__dict__, new.__dict__
    for name in {**mine, **theirs} if mine.keys() != theirs.keys() else mine:
        first, second = mine.get(name), theirs.get(name)
        if first is second or _same(first, second):
            continue
        changed.add(prefix + name)
        if isinstance(first, BaseModel) and isinstance(second, BaseModel):
            _diff(first, second, f"{prefix}{name}.", changed)


def _same(first: Any, second: Any) -> bool:
    if first != first and second != second:  # noqa: PLR0124 - NaN
        return True
    try:
        return type(first) is type(second) and bool(first == second)
    except (TypeError, ValueError):  # arrays and the like have no one answer: say that it changed
        return False
