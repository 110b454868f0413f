"""Live snapshots: the model validated anew from captured sources and what the fleet says now.

The environment is read once. A change costs the fleet's values and the model's validation, never the chain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings

from tars_settings.core.delta import Delta
from tars_settings.core.names import check_service
from tars_settings.core.register import FleetView, Register
from tars_settings.errors import NoServiceError
from tars_settings.provenance.explanation import shadowing
from tars_settings.provenance.resolution import Origin, Placed, Resolution, resolutions
from tars_settings.settings.base import note_sources
from tars_settings.settings.frozen import freeze
from tars_settings.sources.fleet import Building, Captured, FleetSettingsSource, building, opener
from tars_settings.sources.fold import Folded, Folder, Said, standing
from tars_settings.sources.settle import Nothing, Refused, Settled, Settler
from tars_settings.trust.document import TrustDocument
from tars_settings.trust.keys import SecretKey

S = TypeVar("S", bound=BaseSettings)


@dataclasses.dataclass(frozen=True, eq=False)
class Built(Generic[S]):
    """A snapshot, and what became of the fleet's values in it.

    ``deltas`` are those it rests on, for the last known good values; ``shadowed`` maps keys of the fleet to the source
    above that wins instead, in words.
    """

    snapshot: S
    deltas: tuple[Delta, ...] = ()
    refused: tuple[Refused, ...] = ()
    unknown: tuple[str, ...] = ()
    shadowed: Mapping[str, str] = dataclasses.field(default_factory=dict)


class SnapshotBuilder(Generic[S]):
    """Builds frozen snapshots of one class for one joined worker. Not for several threads at once.

    *last_good* is what the previous run was happy with: keys of deltas that are refused keep it. *init* are arguments
    for the class. The other sources of the chain are asked once, here.

    Raises:
        NoServiceError: the class names no service, and none is given.
        SettingsError: a source could not be read or parsed.
    """

    def __init__(
        self,
        cls: type[S],
        *,
        fleet_id: str,
        secret_keys: Mapping[str, SecretKey] | Callable[[], Mapping[str, SecretKey]] = dict,
        service: str | None = None,
        init: Mapping[str, Any] | None = None,
        last_good: FleetView | None = None,
    ) -> None:
        source = capture(cls, init or {})
        named = service if service is not None else source.service
        if named is None:
            raise NoServiceError(
                f"{cls.__name__} names no service: class {cls.__name__}(Settings, service='NAME')"
            )
        self.service = check_service(named)
        self.cls = cls
        self._captured = Captured(source)
        keys = secret_keys if callable(secret_keys) else lambda: secret_keys
        self._folder = Folder(cls, self._captured.above, opener(fleet_id, keys))
        self._last_good = _registers(last_good)
        self._shadows: dict[str, str | None] = {}

    def build(self, view: FleetView, *, document: TrustDocument | None = None, origin: Origin = "live") -> Built[S]:
        """Return a snapshot of what validates together of the fleet's values, all captured sources above them.

        *document* gives the names of writers to explain().

        Raises:
            ValidationError: it does not validate even without any fleet value: without input values, with notes.
        """
        said = Said(view, self._last_good)
        settled = self._settle(said, document)
        built = Built(
            settled.value,
            _deltas(settled.folded.placed),
            settled.refused,
            settled.folded.unknown,
            self._shadowed(settled.folded.placed),
        )
        self._remember(said, settled)
        freeze(built.snapshot)
        resolutions.put(built.snapshot, self._resolution(settled.folded.placed, origin, document))
        return built

    def forget(self, digests: Iterable[bytes]) -> None:
        """Drop deltas that are no longer valid: refused keys must not go on with what a stolen key wrote."""
        void = frozenset(digests)
        self._last_good = {
            scope: tuple(one for one in registers if one.delta.stamp.digest not in void)
            for scope, registers in self._last_good.items()
        }

    def _settle(self, said: Said, document: TrustDocument | None) -> Settled[S]:
        failure: ValidationError
        try:
            return Settler(said, self._folder, self._attempt).settle()
        except Nothing as nothing:
            failure = nothing.error
        note_sources(failure, self._resolution((), "live", document))
        raise failure

    def _attempt(self, folded: Folded) -> S | ValidationError:
        outcome = self._captured.attempt(folded, self.cls.__new__(self.cls))
        return outcome  # type: ignore[return-value] # the instance that was handed in

    def _remember(self, said: Said, settled: Settled[S]) -> None:
        left_out = {one.delta.stamp.digest for one in settled.refused}
        self._last_good = {scope: tuple(standing(registers)) for scope, registers in said.without(left_out)}

    def _resolution(self, placed: tuple[Placed, ...], origin: Origin, document: TrustDocument | None) -> Resolution:
        captured = self._captured
        return Resolution(self.cls, captured.states, captured.chain, captured.fleet_source, placed, origin, document)

    def _shadowed(self, placed: tuple[Placed, ...]) -> dict[str, str]:
        shadows: dict[str, str] = {}
        for one in placed:
            if one.path[0] not in self._captured.above or one.unset:
                continue
            if one.key not in self._shadows:
                self._shadows[one.key] = shadowing(self._resolution((), "live", None), one.key)
            by = self._shadows[one.key]
            if by is not None:
                shadows[one.key] = by
        return shadows


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
        raise NoServiceError(f"{cls.__name__} has no FleetSettingsSource among its sources, or a source failed before it")
    return current.source


def _registers(view: FleetView | None) -> dict[str, tuple[Register, ...]]:
    return {} if view is None else {one.scope: one.winners or one.registers for one in view.scopes}


def _deltas(placed: Iterable[Placed]) -> tuple[Delta, ...]:
    return tuple({one.digest: one.register.delta for one in placed}.values())


def diff(old: BaseModel, new: BaseModel) -> frozenset[str]:
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
