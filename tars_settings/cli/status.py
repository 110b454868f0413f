"""``status``: what the workers say of themselves, beside what the fleet says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from tars_settings.cli.common import CONNECT_WITHIN_S, Common, command
from tars_settings.cli.drift import drifts_of
from tars_settings.cli.moments import moment, now, span
from tars_settings.cli.outcome import one_line
from tars_settings.cli.prometheus import exposition
from tars_settings.cli.reading import Followed, Reading, read, taken
from tars_settings.cli.redrawing import Redrawing
from tars_settings.cli.render import Table, rows_of
from tars_settings.core.names import Scope
from tars_settings.core.presence import Presence, ScopeReport
from tars_settings.core.register import Register, Registers
from tars_settings.errors import UsageError
from tars_settings.writer import Writer

ServiceArgument = Annotated[str | None, typer.Argument(metavar="[SERVICE]", help="One service; by default all")]
LongOption = Annotated[bool, typer.Option("--long", "-l", help="A row for each scope: epoch, digest, versions")]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Show it again each time it changes, until Ctrl-C")]
PrometheusOption = Annotated[bool, typer.Option("--prometheus", help="Print metrics in Prometheus' text format")]
GLANCE_S: Final = 0.2
TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long to catch up")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "status", status)


def status(
    common: Common,
    service: ServiceArgument = None,
    long: LongOption = False,
    watch: WatchOption = False,
    prometheus: PrometheusOption = False,
    timeout_s: TimeoutOption = 5.0,
) -> int:
    """Show who is ready, in step, refusing or shadowing. Exit code 1 unless all that are there are in step.

    Presence is unsigned: a worker's claim. A worker that is offline is shown and holds nobody up. With --prometheus the
    answer is in the metrics, and the exit code 0.

    Example: tars-settings status stt-worker --watch
    """
    scope = None if service is None else Scope.parse(service)
    if scope is not None and (scope.service is None or scope.instance is not None):
        raise UsageError("status takes a service; its instances are shown one by one")
    if prometheus and (watch or long or common.out.as_json):
        raise UsageError("--prometheus prints metrics and nothing else")
    if watch:
        with Writer(read_only=True, connect_within_s=CONNECT_WITHIN_S, **common.given()) as writer:
            return keep_watching(common, writer, scope, long=long, timeout_s=timeout_s)
    presences: list[Presence] = []
    reading = read(
        common,
        scope,
        offline=False,
        timeout_s=timeout_s,
        look=lambda writer: presences.extend(_presences(writer, service)),
    )
    picture = Picture.of(reading, presences)
    if prometheus:
        for line in exposition(picture.document()).splitlines():
            common.out.line(line)
        return 0
    common.out.document(picture.document())
    common.out.table(picture.table(long=long))
    _say(common, picture, service)
    return 0 if picture.is_converged else 1


def keep_watching(
    common: Common,
    writer: Writer,
    scope: Scope | None,
    *,
    long: bool,
    timeout_s: float,
    is_over: Callable[[], bool] = lambda: False,
) -> int:
    """Show the status, and again each time it changes, until *is_over*; what the broker's absence changes is said.

    Raises:
        KeyboardInterrupt: Ctrl-C; the connection is closed, and nothing was written anywhere.
    """
    service = None if scope is None else scope.service
    followed = Followed(common, writer, scope)
    shown: Any = None
    was_connected = True
    common.out.compact = True
    states = followed.states(timeout_s)
    with Redrawing(common.out) as screen:
        while not is_over():
            if writer.agent.connected != was_connected:
                was_connected = writer.agent.connected
                common.out.note("connected again" if was_connected else "connection lost; what is shown may be old")
            began_s = time.monotonic()
            picture = Picture.of(taken(writer, states), _presences(writer, service))
            document = picture.document()
            if (seen := _without_ages(document)) != shown:
                shown = seen
                common.out.document(document)
                screen.show(picture.table(long=long), picture.verdict(service))
            states = followed.states()
            # Of thousands of workers a look takes a while: most of the time is left to others.
            time.sleep(max(GLANCE_S, 4 * (time.monotonic() - began_s)))
    return 0 if shown is not None and shown["converged"] else 1


def _without_ages(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without what the passing of time alone changes, and what each report changes."""
    volatile = ("age_s", "lag_s", "at", "counters")
    workers = [{name: one[name] for name in one if name not in volatile} for one in document["workers"]]
    return {**document, "workers": workers}


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
        return (*behind, *refused, *shadowed, *unknown, *lacking, *presence.notes)

    @property
    def age_s(self) -> float | None:
        """How many seconds ago it reported, by its own clock; None where it does not say when."""
        try:
            return round(max(0.0, (self._now - moment(self.presence.at)).total_seconds()), 1)
        except ValueError:
            return None

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

    def table(self, *, long: bool = False) -> Table:
        """Return one row a worker, or one for each of its scopes."""
        return long_table(self.reports) if long else table(self.reports)

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
        (
            one.name,
            scope,
            held.epoch,
            held.digest[:8],
            next((drift.kind for drift in one.drifts if drift.scope == scope), "same"),
            "" if one.age_s is None else f"{span(one.age_s)} ago",
            f"{one.presence.release}, Python {one.presence.python}",
        )
        for one in reports
        for scope, held in one.presence.scopes.items()
    ]
    return Table(("worker", "scope", "epoch", "digest", "content", "reported", "release"), rows_of(rows))


def _say(common: Common, picture: Picture, service: str | None) -> None:
    common.out.note(picture.verdict(service))
    for scope, state in picture.reading.states.items():
        if state != "ready":
            common.out.note(f"{scope} could not be caught up with ({state}): what is compared with may be old")
