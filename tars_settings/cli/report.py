"""What the workers say of themselves, beside what the fleet says: compared, told and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tars_settings.cli.drift import drifts_of
from tars_settings.cli.moments import moment, now, span
from tars_settings.cli.outcome import one_line
from tars_settings.cli.reading import Reading
from tars_settings.cli.render import Table, rows_of
from tars_settings.cli.tried import reported
from tars_settings.core.presence import Presence, ScopeReport
from tars_settings.core.register import Register, Registers


def scope_digests(reading: Reading) -> dict[str, ScopeReport]:
    """Return what a worker in step would report of each scope."""
    return {scope: scope_report(scope, winners) for scope, winners in reading.scopes.items()}


def scope_report(scope: str, winners: Mapping[str, Register]) -> ScopeReport:
    """Return the report on a scope with these winners: merging is a max, so winners alone give winners again."""
    registers = Registers()
    for one in winners.values():
        registers.offer(one.delta)
    return ScopeReport(*registers.highest(scope), registers.digest(scope))


class Report:
    """One worker's presence, compared with what the fleet says; *scopes* hold its winners."""

    def __init__(
        self,
        presence: Presence,
        expected: Mapping[str, ScopeReport],
        scopes: Mapping[str, Mapping[str, Register]] | None = None,
    ) -> None:
        self.presence = presence
        self.drifts = drifts_of(presence, expected, scopes or {})
        self.behind = tuple(one.scope for one in self.drifts)
        self._now = now()

    @property
    def name(self) -> str:
        """The worker, as service@instance."""
        return f"{self.presence.service}@{self.presence.instance}"

    @property
    def is_offline(self) -> bool:
        """Whether it left, or its will says that it is gone."""
        return self.presence.state == "offline"

    @property
    def is_in_step(self) -> bool:
        """Whether it is ready, holds what the fleet says, and refuses nothing of it."""
        return self.presence.state == "ready" and not self.behind and not self.presence.refused

    @property
    def notes(self) -> tuple[str, ...]:
        """What an operator should know of it."""
        presence = self.presence
        behind = [] if self.is_offline else [one.told(self._now) for one in self.drifts]
        refused = [f"refuses {one.scope} epoch {one.epoch}: {one_line(one.message)}" for one in presence.refused]
        shadowed = [f"{key} is shadowed by {source}" for key, source in sorted(presence.shadowed.items())]
        unknown = [f"does not know {', '.join(presence.unknown)}"] if presence.unknown else []
        lacking = [f"lacks {', '.join(presence.lacking)}"] if presence.lacking else []
        tried = reported(presence, self._now)
        return (*behind, *refused, *tried, *shadowed, *unknown, *lacking, *presence.notes)

    @property
    def age_s(self) -> float | None:
        """How many seconds ago it reported, by its own clock; None where it does not say when."""
        try:
            return round(max(0.0, (self._now - moment(self.presence.at)).total_seconds()), 1)
        except ValueError:
            return None

    @property
    def reported(self) -> str:
        """When it reported, in words."""
        return "" if self.age_s is None else f"{span(self.age_s)} ago"

    @property
    def lag_s(self) -> float | None:
        """For how many seconds it lacks a value that the fleet sets; 0 where it lacks none, None where nobody knows."""
        lags = [one.lag_s(self._now) for one in self.drifts if one.kind == "behind"]
        known = [one for one in lags if one is not None]
        return 0.0 if not lags else round(max(known), 1) if known else None

    def document(self) -> dict[str, Any]:
        """Return it as a document."""
        presence = self.presence
        return {
            "worker": self.name,
            "service": presence.service,
            "instance": presence.instance,
            "state": presence.state,
            "in_step": self.is_in_step,
            "behind": list(self.behind),
            "scopes": {
                scope: {"gen": one.gen, "epoch": one.epoch, "digest": one.digest}
                for scope, one in presence.scopes.items()
            },
            "refused": [
                {"scope": one.scope, "epoch": one.epoch, "keys": list(one.keys), "message": one.message}
                for one in presence.refused
            ],
            "shadowed": dict(presence.shadowed),
            "unknown": list(presence.unknown),
            "trials": [
                {
                    "scope": one.scope,
                    "epoch": one.epoch,
                    "keys": list(one.keys),
                    "left_s": one.left_s,
                    "canary": one.canary or None,
                }
                for one in presence.trials
            ],
            "lacking": list(presence.lacking),
            "notes": list(presence.notes),
            "release": presence.release,
            "python": presence.python,
            "host": presence.host,
            "pid": presence.pid,
            "at": presence.at,
            "age_s": self.age_s,
            "lag_s": self.lag_s,
            "drift": [one.document() for one in self.drifts],
            "counters": dict(presence.counters),
        }


def is_converged(reports: Iterable[Report]) -> bool:
    """Return whether there is a worker, and all that are there are in step."""
    there = [one for one in reports if not one.is_offline]
    return bool(there) and all(one.is_in_step for one in there)


@dataclass(frozen=True)
class Picture:
    """The fleet at one moment: what it says, and what its workers report."""

    reading: Reading
    expected: Mapping[str, ScopeReport]
    reports: tuple[Report, ...]

    @classmethod
    def of(cls, reading: Reading, presences: Iterable[Presence]) -> Picture:
        """Compare them."""
        expected = scope_digests(reading)
        return cls(reading, expected, tuple(Report(one, expected, reading.scopes) for one in presences))

    @property
    def is_converged(self) -> bool:
        """Whether there is a worker, and all that are there are in step."""
        return is_converged(self.reports)

    def table(self, *, long: bool = False, drawn: bool = False) -> Table:
        """Return one row a worker, or one for each of its scopes; *drawn* on a terminal."""
        if long:
            return (long_drawing if drawn else long_table)(self.reports)
        return table(self.reports)

    def verdict(self, service: str | None) -> str:
        """Return it as a sentence."""
        there = [one for one in self.reports if not one.is_offline]
        late = [one.name for one in there if not one.is_in_step]
        if not self.reports:
            return f"no worker {f'of {service} ' if service else ''}has reported"
        if late:
            return f"not converged: {', '.join(late)}"
        if not there:
            return f"no worker is there: {len(self.reports)} offline"
        return f"converged: {len(there)} in step, {len(self.reports) - len(there)} offline"

    def document(self) -> dict[str, Any]:
        """Return it as a document."""
        return _document(self.reading, self.expected, self.reports)


def _document(reading: Reading, expected: Mapping[str, ScopeReport], reports: Iterable[Report]) -> dict[str, Any]:
    return {
        "converged": is_converged(reports),
        "trust": reading.trust.version,
        "scopes": {
            scope: {
                "gen": expected[scope].gen,
                "epoch": expected[scope].epoch,
                "digest": expected[scope].digest,
                "keys": sum(not one.assignment.unset for one in winners.values()),
                "state": reading.states.get(scope, ""),
            }
            for scope, winners in reading.scopes.items()
        },
        "workers": [one.document() for one in reports],
    }


def table(reports: Iterable[Report]) -> Table:
    """Return one row a worker."""
    rows = [
        (
            one.name,
            one.presence.state,
            "-" if one.is_offline else "yes" if one.is_in_step else "no",
            _epochs(one.presence),
            one.presence.release,
            "\n".join(one.notes) if one.notes else "",
        )
        for one in reports
    ]
    return Table(("worker", "state", "in step", "epochs", "release", "notes"), rows_of(rows))


def _epochs(presence: Presence) -> str:
    """Return the epochs of the worker's scopes that hold anything, lowest precedence first, as in ``_all:2 7 @3``."""
    prefixes = {"_all": "_all:", presence.service: ""}
    held = [(prefixes.get(scope, "@"), one.epoch) for scope, one in presence.scopes.items() if one.epoch]
    return " ".join(f"{prefix}{epoch}" for prefix, epoch in held)


def long_table(reports: Iterable[Report]) -> Table:
    """Return one row for each scope of each worker: epoch, digest, how it differs, when and from what it reported."""
    rows = [
        (one.name, scope, *_held(one, scope), one.reported, f"{one.presence.release}, Python {one.presence.python}")
        for one in reports
        for scope in one.presence.scopes
    ]
    return Table(("worker", "scope", "epoch", "digest", "content", "reported", "release"), rows_of(rows))


def long_drawing(reports: Iterable[Report]) -> Table:
    """Return the same for 80 columns: a row a worker, its scopes below each other."""
    rows = []
    for one in reports:
        scopes = list(one.presence.scopes)
        named = [scope.removeprefix(one.presence.service) if "@" in scope else scope for scope in scopes]
        held = [_held(one, scope) for scope in scopes]
        columns = ["\n".join(str(part[at]) for part in held) for at in range(3)]
        told = [one.presence.release, f"Python {one.presence.python}", one.reported]
        rows.append((one.name, "\n".join(named), *columns, "\n".join(filter(None, told))))
    return Table(("worker", "scope", "epoch", "digest", "content", "release"), rows_of(rows))


def _held(report: Report, scope: str) -> tuple[int, str, str]:
    held = report.presence.scopes[scope]
    kind = next((one.kind for one in report.drifts if one.scope == scope), "same")
    return held.epoch, held.digest[:8], kind
