"""What each worker's presence claims of one key: applied, pinned, refused, behind, unknown, or nothing at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from tars_settings.cli.candidates import Candidate, candidates, dig
from tars_settings.cli.outcome import one_line
from tars_settings.cli.reading import NOTHING, Reading, Values, folded
from tars_settings.core.names import Scope, overlap
from tars_settings.core.presence import NOT_LISTED, Presence, lists_all, refusal_of
from tars_settings.schema import entries_of, schema_hash

Fate = Literal["applied", "default", "pinned", "refused", "behind", "unknown", "offline", "silent"]


@dataclass(frozen=True)
class Claim:
    """What a worker has at a key, as far as it says. ``value`` is NOTHING where only the worker itself knows."""

    instance: str
    state: str
    fate: Fate
    value: Any = NOTHING
    why: str = ""

    def document(self, service: str) -> dict[str, Any]:
        """Return it as a document."""
        return {
            "worker": f"{service}@{self.instance}",
            "instance": self.instance,
            "state": self.state,
            "fate": self.fate,
            "known": self.value is not NOTHING,
            "value": None if self.value is NOTHING else self.value,
            "why": self.why,
        }


def claims(
    reading: Reading, values: Values, presences: Iterable[Presence], service: str, key: str, instance: str | None
) -> list[Claim]:
    """Return a claim for each instance that reported or that the fleet sets anything for."""
    said = {one.instance: one for one in presences if one.service == service}
    scoped = {Scope.parse(name).instance for name, winners in reading.scopes.items() if winners} - {None}
    wanted = {*said, *scoped} if instance is None else {instance}
    return [_claim(reading, values, service, key, name, said.get(name)) for name in sorted(filter(None, wanted))]


def _claim(reading: Reading, values: Values, service: str, key: str, instance: str, presence: Presence | None) -> Claim:
    if presence is None:
        return Claim(instance, "silent", "silent", why="never reported")
    own = reading.of(Scope(service, instance))
    winners = [one for one in candidates(own, values, key) if one.wins]
    if presence.state == "offline":
        return Claim(instance, presence.state, "offline", why=f"left, or died; last report {presence.at[:19]}".strip())
    if pins := [f"pinned by {_source(by)}" for name, by in sorted(presence.shadowed.items()) if overlap(name, key)]:
        return Claim(instance, presence.state, "pinned", why="; ".join(pins))
    if not winners:
        found = _default(reading, presence, key)
        return Claim(instance, presence.state, "default", found, "its own default, or its environment's")
    return _of_winners(own, values, key, presence, winners)


def _of_winners(own: Reading, values: Values, key: str, presence: Presence, winners: list[Candidate]) -> Claim:
    instance, state = presence.instance, presence.state
    digests = {one.digest for one in winners}
    if refusals := [one for one in presence.refused if one.digest in digests]:
        why = "; ".join(f"refuses epoch {one.epoch} of {one.scope}: {one_line(one.message)}" for one in refusals)
        return Claim(instance, state, "refused", why=f"{why}; keeps what it had")
    if any(overlap(name, key) for name in presence.unknown):
        return Claim(instance, state, "unknown", why="its release does not have this key")
    if late := [why for one in winners if (why := _lateness(presence, one))]:
        return Claim(instance, state, "behind", why="; ".join(dict.fromkeys(late)))
    if not lists_all(presence) and any(presence.acked.get(one) != "applied" for one in digests):
        is_refused = any(refusal_of(presence, one) is not None for one in digests)
        return Claim(instance, state, "refused" if is_refused else "silent", why=NOT_LISTED)
    value = dig(folded(own, values), key)
    why = ", ".join(dict.fromkeys(f"{one.scope} epoch {one.register.delta.stamp.epoch}" for one in winners))
    return Claim(instance, state, "applied", value, why)


def _source(shadowed: str) -> str:
    """Return a source above the fleet as its worker names it: a variable by its name alone."""
    kind, _, where = shadowed.partition(" ")
    return where if kind == "environment" and where else shadowed


def _lateness(presence: Presence, winner: Candidate) -> str:
    """Return why a worker can't have a value yet, empty where it can."""
    stamp, scope = winner.register.delta.stamp, winner.scope
    held = presence.scopes.get(scope)
    if held is None:
        return f"does not read {scope}"
    if (held.gen, held.epoch) >= (stamp.gen, stamp.epoch) or winner.digest in presence.acked:
        return ""
    return f"has seen epoch {held.epoch} of {scope}, and not {stamp.epoch} yet"


def _default(reading: Reading, presence: Presence, key: str) -> Any:
    for schema in reading.schemas.get(presence.service, ()):
        if schema_hash(schema) == presence.schema:
            for one in entries_of(schema):
                if one.key == key and one.default:
                    return json.loads(one.default)
    return NOTHING
