"""What a change makes different: the values that the fleet says now, and those that it would say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tars_settings.cli.change import Change
from tars_settings.cli.reading import NOTHING, Reading, Values, at, bearing_on, folded
from tars_settings.cli.render import MASK, Output, Table, value_text
from tars_settings.core.delta import Assignment, proposed
from tars_settings.core.names import Scope
from tars_settings.core.register import Register
from tars_settings.schema import entries_of
from tars_settings.sources.environment import Environment
from tars_settings.writer import Writer


@dataclass(frozen=True)
class Difference:
    """One key before and after, as it may be shown: secrets masked, ``NOTHING`` where the fleet says nothing."""

    key: str
    old: Any
    new: Any
    secret: bool
    changed: bool


def reading_for(writer: Writer, scope: Scope, schemas: Iterable[bytes]) -> Reading:
    """Return what the fleet says to a scope, read over an open connection."""
    names = bearing_on(scope)
    states = {name: writer.sync(name) for name in names}
    scopes = {name: writer.view(name) for name in names}
    known = {} if scope.service is None else {scope.service: tuple(schemas)}
    return Reading(writer.trust, scopes, "broker", states, known)


def differences(reading: Reading, environment: Environment, change: Change) -> list[Difference]:
    """Return what a change makes of each of its keys. Secrets are compared where this host opens the old ones."""
    values = Values(reading, environment)
    own = reading.scopes[str(change.scope)]
    before = folded(reading, values)
    after_reading = _with(reading, change)
    after = folded(after_reading, Values(after_reading, environment))
    told: list[Difference] = []
    for key in (*change.values, *change.unset):
        held = own.get(key)
        secret = key in change.secret or (held is not None and reading.is_secret(held))
        changed = _is_changed(values, held, change, key)
        old, new = (_shown(at(state, key), secret=secret) for state in (before, after))
        told.append(Difference(key, old, new, secret, changed))
    return told


def _shown(value: Any, *, secret: bool) -> Any:
    return MASK if secret and value is not NOTHING else value


def _is_changed(values: Values, held: Register | None, change: Change, key: str) -> bool:
    is_set = held is not None and not held.assignment.unset
    if key not in change.values:
        return held is None or is_set
    if held is None or not is_set:
        return True
    if held.assignment.is_secret != (key in change.secret):
        return True
    return not values.holds(held, change.values[key])


def _with(reading: Reading, change: Change) -> Reading:
    """Return a reading as it would be with the change pushed."""
    shown = {key: MASK if key in change.secret else value for key, value in change.values.items()}
    assign = [Assignment(key, set=value) for key, value in shown.items()]
    assign += [Assignment(key, unset=True) for key in change.unset]
    scope = str(change.scope)
    delta = proposed(scope, tuple(assign), reading.trust.gen)
    winners = {**reading.scopes[scope], **{item.key: Register(item.key, item, delta) for item in assign}}
    return Reading(reading.trust, {**reading.scopes, scope: winners}, reading.source, reading.states, reading.schemas)


def show(out: Output, told: Iterable[Difference], schemas: Iterable[bytes]) -> None:
    """Show what changes as rows of key, old and new; what does not is named once."""
    told = list(told)
    rows = tuple(_rows(told, schemas))
    out.table(Table(("key", "now", "then"), rows))
    if same := [one.key for one in told if not one.changed]:
        out.note(f"unchanged: {', '.join(same)}")


def as_text(told: Iterable[Difference], schemas: Iterable[bytes]) -> str:
    """Return what changes for a person who is asked about it: a line a key."""
    return "\n".join(f"    {key}: {old} -> {new}" for key, old, new in _rows(told, schemas))


def _rows(told: Iterable[Difference], schemas: Iterable[bytes]) -> Iterator[tuple[str, str, str]]:
    defaults = {entry.key: entry.default for schema in schemas for entry in entries_of(schema)}
    for one in told:
        if one.changed:
            yield one.key, _text(one.old, one.key, defaults), _text(one.new, one.key, defaults)


def _text(value: Any, key: str, defaults: Mapping[str, str]) -> str:
    if value is not NOTHING:
        return value_text(value)
    default = defaults.get(key, "")
    return f"(not set, default {default})" if default else "(not set)"


def document(told: Iterable[Difference]) -> list[dict[str, Any]]:
    """Return the differences as JSON values: null where the fleet says nothing, as ``old_set`` and ``new_set`` tell."""
    return [
        {
            "key": one.key,
            "old": None if one.old is NOTHING else one.old,
            "new": None if one.new is NOTHING else one.new,
            "old_set": one.old is not NOTHING,
            "new_set": one.new is not NOTHING,
            "secret": one.secret,
            "changed": one.changed,
        }
        for one in told
    ]
