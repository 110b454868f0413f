"""What every layer of the fleet says of one key: who wins, what it replaced, what it shadows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tars_settings.cli.described import Described
from tars_settings.cli.look import told
from tars_settings.cli.reading import NOTHING, Reading, Values
from tars_settings.cli.render import MASK
from tars_settings.core.delta import Delta
from tars_settings.core.names import Scope, overlap
from tars_settings.core.register import Register
from tars_settings.schema import Entry
from tars_settings.sources.fold import standing


@dataclass(frozen=True)
class Candidate:
    """What one delta says at a key or below it; ``value`` is :data:`NOTHING` where it takes a part of a model away."""

    register: Register
    key: str
    value: Any
    wins: bool
    replaced: Replaced | None = None

    @property
    def scope(self) -> str:
        """Whose opinion it is."""
        return self.register.delta.scope

    @property
    def digest(self) -> str:
        """The delta's digest."""
        return self.register.delta.stamp.digest.hex()

    def document(self, reading: Reading) -> dict[str, Any]:
        """Return it as a document."""
        return {
            "source": "fleet",
            "wins": self.wins,
            **told(reading, self.register),
            "key": self.key,
            "value": None if self.value is NOTHING else self.value,
            "replaced": None if self.replaced is None else self.replaced.document(reading),
        }


@dataclass(frozen=True)
class Replaced:
    """What a delta replaced at a key; the delta is None where it is not held any more."""

    digest: str
    delta: Delta | None = None
    value: Any = NOTHING

    def document(self, reading: Reading) -> dict[str, Any]:
        """Return it as a document."""
        known = self.delta is not None
        return {
            "digest": self.digest,
            "held": known,
            "epoch": self.delta.stamp.epoch if self.delta is not None else None,
            "writer": reading.trust.name_of(self.delta.stamp.kid) if self.delta is not None else "",
            "at": self.delta.body.at if self.delta is not None else "",
            "value": None if self.value is NOTHING else self.value,
        }


def dig(value: Any, path: str) -> Any:
    """Return what lies at a dotted path, NOTHING where nothing does; below a masked value everything is masked."""
    for part in path.split(".") if path else ():
        if value == MASK:
            return MASK
        value = value.get(part, NOTHING) if isinstance(value, dict) else NOTHING
    return value


def candidates(reading: Reading, values: Values, key: str) -> tuple[Candidate, ...]:
    """Return what the scopes of *reading* say of a key, strongest first: highest scope, and newest within it."""
    found: list[Candidate] = []
    for scope in sorted(reading.scopes, key=_rank, reverse=True):
        said = [one for one in standing(reading.scopes[scope].values()) if overlap(one.key, key)]
        for register in sorted(said, key=lambda one: one.delta.stamp, reverse=True):
            point = max(key, register.key, key=len)
            value = NOTHING if register.assignment.unset else dig(values.shown(register), _below(register.key, point))
            if value is NOTHING and not register.assignment.unset:
                continue
            taken = any(one.value is not NOTHING and _is_at_or_above(one.key, point) for one in found)
            wins = value is not NOTHING and not taken and not _is_taken_away(found, scope, point)
            found.append(Candidate(register, point, value, wins, _replaced(reading, values, register, point)))
    return tuple(found)


def _rank(scope: str) -> tuple[int, str]:
    parsed = Scope.parse(scope)
    return ((parsed.service is not None) + (parsed.instance is not None), scope)


def _below(above: str, key: str) -> str:
    return key[len(above) + 1 :]


def _is_at_or_above(above: str, key: str) -> bool:
    return key == above or key.startswith(f"{above}.")


def _is_taken_away(found: list[Candidate], scope: str, key: str) -> bool:
    """Return whether something newer of the same scope took the key away."""
    return any(one.scope == scope and one.value is NOTHING and _is_at_or_above(one.key, key) for one in found)


def _replaced(reading: Reading, values: Values, register: Register, key: str) -> Replaced | None:
    over = register.assignment.over
    if not isinstance(over, str):
        return None
    for delta in reading.deltas:
        said = delta.assignment(register.key) if delta.stamp.digest.hex() == over else None
        if said is not None:
            before = Register(register.key, said, delta)
            # What was a secret then, or is one now, is none to be shown for its age.
            hidden = reading.is_secret(register) and not said.unset
            shown = NOTHING if said.unset else MASK if hidden else values.shown(before)
            return Replaced(over, delta, dig(shown, _below(register.key, key)) if shown is not NOTHING else NOTHING)
    return Replaced(over)


def defaults(described: Described, service: str, key: str) -> Iterator[Entry]:
    """Yield what schemas say of a key, once for each default."""
    seen: set[tuple[str, bool, bool]] = set()
    for one in described.of(service, key):
        if (mark := (one.default, one.required, one.secret)) not in seen:
            seen.add(mark)
            yield one
