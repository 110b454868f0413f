"""How a worker's scopes differ from the fleet's: behind, ahead, or of one epoch and another content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tars_settings.cli.moments import moment, span
from tars_settings.core.presence import Presence, ScopeReport
from tars_settings.core.register import Register

Winners = Mapping[str, Register]


@dataclass(frozen=True)
class Drift:
    """A scope in which a worker does not hold what the fleet says.

    ``behind`` and ``ahead`` count *epochs*; ``drift`` is the same epoch with other winners. *since* is when the oldest
    value that it lacks was written, by its writer's clock; empty where that can't be told.
    """

    scope: str
    kind: Literal["behind", "ahead", "drift"]
    epochs: int
    since: str = ""

    def told(self, now: datetime) -> str:
        """Return it in words."""
        if self.kind == "drift":
            return f"drifts from {self.scope}: the same epoch, and not the same values"
        many = f"{self.epochs} epoch{'' if self.epochs == 1 else 's'}" if self.epochs else "a gen"
        if self.kind == "ahead":
            return f"{many} ahead in {self.scope}: it holds what the broker lacks"
        lag_s = self.lag_s(now)
        return f"{many} behind in {self.scope}" + (f" for {span(lag_s)}" if lag_s is not None else "")

    def lag_s(self, now: datetime) -> float | None:
        """Return for how many seconds it lacks a value, None where that can't be told."""
        try:
            return max(0.0, (now - moment(self.since)).total_seconds()) if self.kind == "behind" else None
        except ValueError:
            return None

    def document(self) -> dict[str, Any]:
        """Return it as a document."""
        return {"scope": self.scope, "kind": self.kind, "epochs": self.epochs, "since": self.since}


def drifts_of(
    presence: Presence, expected: Mapping[str, ScopeReport], scopes: Mapping[str, Winners]
) -> tuple[Drift, ...]:
    """Return in which of its scopes a worker differs from what is *expected*; *scopes* hold the winners."""
    return tuple(
        _drift(scope, held, wanted, scopes.get(scope, {}))
        for scope, held in presence.scopes.items()
        if (wanted := expected.get(scope)) is not None and wanted.digest != held.digest
    )


def _drift(scope: str, held: ScopeReport, wanted: ScopeReport, winners: Winners) -> Drift:
    has, should = (held.gen, held.epoch), (wanted.gen, wanted.epoch)
    if has == should:
        return Drift(scope, "drift", 0)
    # Epochs of two gens are not counted against each other.
    epochs = abs(wanted.epoch - held.epoch) if held.gen == wanted.gen else 0
    if has > should:
        return Drift(scope, "ahead", epochs)
    lacked = [one.delta.body.at for one in winners.values() if (one.delta.stamp.gen, one.delta.stamp.epoch) > has]
    return Drift(scope, "behind", epochs, min(filter(None, lacked), default=""))
