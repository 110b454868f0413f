"""``list``: services, instances and keys, and what the fleet sets."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

import typer

from tars_settings.cli.common import Common, command
from tars_settings.cli.described import Described, about
from tars_settings.cli.look import by_key, say_how, told, value_cell
from tars_settings.cli.moments import Since, now
from tars_settings.cli.options import CatchUpOption, OfflineOption, RevealOption
from tars_settings.cli.reading import Reading, Values, read
from tars_settings.cli.render import Table, rows_of
from tars_settings.cli.selection import Selection
from tars_settings.core.names import Scope, overlap
from tars_settings.core.presence import Presence
from tars_settings.core.register import Register
from tars_settings.errors import RefusedError
from tars_settings.schema import Entry
from tars_settings.sources.fold import standing

ServiceArgument = Annotated[
    str | None,
    typer.Argument(metavar="[SERVICE[@INSTANCE]]", help="One service, or one instance of it; by default all"),
]
AllOption = Annotated[bool, typer.Option("--all", "-a", help="Keys that nobody set, too, with their defaults")]
TypeOption = Annotated[
    str | None, typer.Option("--type", metavar="TYPE", help="Only this type: number, boolean, list, choice ...")
]
ComplexityOption = Annotated[
    str | None, typer.Option("--complexity", metavar="LEVEL", help="Only those called simple, or advanced")
]
WriterOption = Annotated[str | None, typer.Option("--writer", metavar="NAME", help="Only what this writer set")]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", help="Only what was set since: an epoch, 2h, or a time")
]
ServicesOption = Annotated[bool, typer.Option("--services", help="List services, and not keys")]
InstancesOption = Annotated[bool, typer.Option("--instances", help="List instances, and not keys")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "list", list_values)


def list_values(
    common: Common,
    service: ServiceArgument = None,
    everything: AllOption = False,
    of_type: TypeOption = None,
    complexity: ComplexityOption = None,
    writer: WriterOption = None,
    since: SinceOption = None,
    services: ServicesOption = False,
    instances: InstancesOption = False,
    reveal: RevealOption = None,
    offline: OfflineOption = False,
    timeout_s: CatchUpOption = 5.0,
) -> int:
    """List what the fleet sets, who set it, when and why. Secrets are masked.

    Example: tars-settings list stt-worker --since 2h
    """
    scope = None if service is None else Scope.parse(service)
    wanted = Selection(of_type, complexity, writer, None if since is None else Since.parse(since, now()))
    wanted.check()
    presences: list[Presence] = []
    reading = read(
        common,
        scope,
        offline=offline,
        timeout_s=timeout_s,
        glance=lambda writer: presences.extend(writer.presences(None if scope is None else scope.service)),
    )
    described = Described(reading.schemas)
    if wanted.asks_schemas and not described.services:
        raise RefusedError("no schema is known here: --type and --complexity ask those that workers publish")
    if services or instances:
        return _list_who(common, reading, described, presences, scope, services=services)
    return _list_keys(common, reading, described, wanted, scope, everything=everything, reveal=reveal or ())


def _list_keys(
    common: Common,
    reading: Reading,
    described: Described,
    wanted: Selection,
    scope: Scope | None,
    *,
    everything: bool,
    reveal: Collection[str],
) -> int:
    values = Values(reading, common.environment(), reveal)
    found = [
        (one, values.shown(one))
        for winners in reading.scopes.values()
        for one in by_key(winners.values())
        if wanted.takes(reading, described, one)
    ]
    defaults = _unset(reading, described, wanted, scope) if everything else []
    common.out.document(
        {
            "source": reading.source,
            "scopes": dict(reading.states),
            "values": [
                {**told(reading, one), "value": value, **about(described.at(one.delta.scope, one.key))}
                for one, value in found
            ],
            "defaults": [{"service": name, **one.as_dict()} for name, one in defaults],
        }
    )
    drawn = _drawn if common.out.stdout.isatty() else _table
    common.out.table(drawn(reading, found, defaults))
    say_how(common, reading, values)
    if not found and not defaults:
        chosen = " of what is asked for" if wanted.asks_schemas or wanted.asks_writers else ""
        common.out.note(f"the fleet sets nothing{chosen or (' here' if scope else '')}")
    return 0


def _unset(reading: Reading, described: Described, wanted: Selection, scope: Scope | None) -> list[tuple[str, Entry]]:
    """Return the keys that schemas describe and nobody set, in any scope that a service reads."""
    if wanted.asks_writers:
        return []
    asked = described.services if scope is None or scope.service is None else (scope.service,)
    return [
        (name, entry)
        for name in asked
        for key in described.keys(name)
        for entry in described.of(name, key)
        if wanted.fits([entry]) and not _is_set(reading, name, key)
    ]


def _is_set(reading: Reading, service: str, key: str) -> bool:
    return any(
        overlap(one.key, key) and not one.assignment.unset
        for name, winners in reading.scopes.items()
        if Scope.parse(name).service in (None, service)
        for one in standing(winners.values())
    )


def _list_who(
    common: Common,
    reading: Reading,
    described: Described,
    presences: list[Presence],
    scope: Scope | None,
    *,
    services: bool,
) -> int:
    """List services, or instances: those of workers that reported, and those that the fleet sets anything for."""
    scopes = [Scope.parse(name) for name, winners in reading.scopes.items() if winners]
    states = {(one.service, one.instance): one.state for one in presences}
    pairs = {*states, *((one.service, one.instance) for one in scopes if one.service and one.instance)}
    names = {*described.services, *(one.service for one in scopes if one.service), *(name for name, _ in states)}
    if scope is not None and scope.service is not None:
        names &= {scope.service}
    who_services = [
        {
            "service": name,
            "instances": sum(service == name for service, _ in pairs),
            "there": sum(service == name and state != "offline" for (service, _), state in states.items()),
            "set": sum(_count(reading, one) for one in scopes if one.service == name),
            "keys": len(described.keys(name)),
        }
        for name in sorted(names)
    ]
    who_instances = [
        {
            "service": service,
            "instance": instance,
            "state": states.get((service, instance), "never reported"),
            "set": _count(reading, Scope(service, instance)),
        }
        for service, instance in sorted(pairs)
        if service in names and (scope is None or scope.instance in (None, instance))
    ]
    common.out.document(
        {
            "source": reading.source,
            "scopes": dict(reading.states),
            "values": [],
            "services": who_services,
            "instances": who_instances,
        }
    )
    shown = who_services if services else who_instances
    columns = ("service", "instances", "there", "set", "keys") if services else ("service", "instance", "state", "set")
    common.out.table(Table(columns, rows_of([tuple(one[name] for name in columns) for one in shown])))
    if not shown:
        common.out.note("nobody reported, and nothing is set")
    return 0


def _count(reading: Reading, scope: Scope) -> int:
    winners = reading.scopes.get(str(scope), {})
    return sum(not one.assignment.unset for one in standing(winners.values()))


def _table(reading: Reading, found: list[tuple[Register, Any]], defaults: list[tuple[str, Entry]]) -> Table:
    columns = ("scope", "key", "value", "epoch", "writer", "at", "reason")
    rows: list[tuple[object, ...]] = [
        (
            one.delta.scope,
            one.key,
            value_cell(one, value),
            one.delta.stamp.epoch,
            reading.writer_name(one),
            one.delta.body.at[:19],
            one.delta.body.reason,
        )
        for one, value in found
    ]
    rows += [(name, one.key, default_text(one), "", "(default)", "", one.description) for name, one in defaults]
    return Table(columns, rows_of(rows))


def _drawn(reading: Reading, found: list[tuple[Register, Any]], defaults: list[tuple[str, Entry]]) -> Table:
    """Return the same for 80 columns: who, when and why below each other."""
    rows = [
        (
            one.delta.scope,
            one.key,
            value_cell(one, value),
            "\n".join(filter(None, (_who(reading, one), one.delta.body.reason))),
        )
        for one, value in found
    ]
    rows += [(name, one.key, default_text(one), "(default)") for name, one in defaults]
    return Table(("scope", "key", "value", "set by"), rows_of(rows))


def _who(reading: Reading, register: Register) -> str:
    at = register.delta.body.at[:16].replace("T", " ")
    return ", ".join(filter(None, (f"epoch {register.delta.stamp.epoch}", reading.writer_name(register), at)))


def default_text(entry: Entry) -> str:
    """Return a key's default as a listing shows it."""
    return "(secret)" if entry.secret else "(required)" if entry.required else entry.default
