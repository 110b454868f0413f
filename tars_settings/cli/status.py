"""``status``: what the workers say of themselves, beside what the fleet says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from tars_settings.cli.common import Common, command
from tars_settings.cli.outcome import one_line
from tars_settings.cli.reading import Reading, read
from tars_settings.cli.render import Table, rows_of
from tars_settings.cli.tried import now, reported
from tars_settings.core.names import Scope
from tars_settings.core.presence import Presence, ScopeReport
from tars_settings.core.register import Register, Registers
from tars_settings.errors import UsageError
from tars_settings.writer import Writer

ServiceArgument = Annotated[str | None, typer.Argument(metavar="[SERVICE]", help="One service; by default all")]
TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long to catch up")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "status", status)


def status(common: Common, service: ServiceArgument = None, timeout_s: TimeoutOption = 5.0) -> int:
    """Show who is ready, in step, refusing or shadowing. Exit code 1 unless all that are there are in step.

    Presence is unsigned: a worker's claim. A worker that is offline is shown and holds nobody up.

    Example: tars-settings status stt-worker
    """
    scope = None if service is None else Scope.parse(service)
    if scope is not None and (scope.service is None or scope.instance is not None):
        raise UsageError("status takes a service; its instances are shown one by one")
    presences: list[Presence] = []
    reading = read(
        common,
        scope,
        offline=False,
        timeout_s=timeout_s,
        look=lambda writer: presences.extend(_presences(writer, service)),
    )
    reports = [Report(presence, scope_digests(reading)) for presence in presences]
    document = _document(reading, reports)
    common.out.document(document)
    common.out.table(table(reports))
    _say(common, reading, reports, service)
    return 0 if document["converged"] else 1


def _presences(writer: Writer, service: str | None) -> list[Presence]:
    return sorted(writer.presences(service), key=lambda one: (one.service, one.instance))


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
    """One worker's presence, compared with what the fleet says."""

    def __init__(self, presence: Presence, expected: Mapping[str, ScopeReport]) -> None:
        self.presence = presence
        self.behind = tuple(
            scope
            for scope, held in presence.scopes.items()
            if (wanted := expected.get(scope)) is not None and wanted.digest != held.digest
        )

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
        behind = [f"not in step with {scope}" for scope in self.behind]
        refused = [f"refuses {one.scope} epoch {one.epoch}: {one_line(one.message)}" for one in presence.refused]
        shadowed = [f"{key} is shadowed by {source}" for key, source in sorted(presence.shadowed.items())]
        unknown = [f"does not know {', '.join(presence.unknown)}"] if presence.unknown else []
        lacking = [f"lacks {', '.join(presence.lacking)}"] if presence.lacking else []
        tried = reported(presence, now())
        return (*behind, *refused, *tried, *shadowed, *unknown, *lacking, *presence.notes)

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
            "counters": dict(presence.counters),
        }


def is_converged(reports: Iterable[Report]) -> bool:
    """Return whether there is a worker, and all that are there are in step."""
    there = [one for one in reports if not one.is_offline]
    return bool(there) and all(one.is_in_step for one in there)


def _document(reading: Reading, reports: list[Report]) -> dict[str, Any]:
    expected = scope_digests(reading)
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


def _say(common: Common, reading: Reading, reports: list[Report], service: str | None) -> None:
    there = [one for one in reports if not one.is_offline]
    late = [one.name for one in there if not one.is_in_step]
    if not reports:
        common.out.note(f"no worker {f'of {service} ' if service else ''}has reported")
    elif late:
        common.out.note(f"not converged: {', '.join(late)}")
    elif not there:
        common.out.note(f"no worker is there: {len(reports)} offline")
    else:
        common.out.note(f"converged: {len(there)} in step, {len(reports) - len(there)} offline")
    for scope, state in reading.states.items():
        if state != "ready":
            common.out.note(f"{scope} could not be caught up with ({state}): what is compared with may be old")
