"""The command: who looks at what, and how it is shown."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from tars_settings.adapters.address import BrokerAddress
from tars_settings.cli.common import Common, command
from tars_settings.cli.doctor import access, broker, fleet, keys, mosquitto, state, variables
from tars_settings.cli.doctor.finding import ORDER, Finding, worst
from tars_settings.cli.render import Table, rows_of
from tars_settings.cli.visitor import Visitor
from tars_settings.core.names import Scope
from tars_settings.core.presence import Presence
from tars_settings.errors import BrokerError, ConfigurationError, SurroundingsError
from tars_settings.sources.environment import Environment
from tars_settings.writer.archive import Archive

DeepOption = Annotated[
    bool, typer.Option("--deep", help="Leave 1,500 retained messages for a moment, to see where a replay ends")
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Look at this host only")]
ConfigurationOption = Annotated[
    Path | None, typer.Option("--mosquitto-conf", metavar="FILE", help="Look at this configuration of mosquitto's, too")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "doctor", doctor)


def doctor(
    common: Common, deep: DeepOption = False, offline: OfflineOption = False, configuration: ConfigurationOption = None
) -> int:
    """Look at the broker, this host's state, keys and environment, and say what to change. It changes nothing.

    A few retained messages of its own are left below the markers' topic for a moment, and taken away again.
    Exit code 0 where nothing is worse than a hint, 1 with warnings or problems, 3 where it can't look at all.

    Example: tars-settings doctor
    """
    findings = list(variables.look(os.environ))
    try:
        environment = common.environment()
        _ = environment.fleet_id
    except ConfigurationError as error:
        _show(common, [*findings, variables.malformed(str(error))])
        return 3
    findings += variables.reading(environment)
    if configuration is not None:
        findings += mosquitto.look(configuration)
    findings += _everything(environment, deep=deep, offline=offline)
    _show(common, findings)
    return 1 if any(one.is_bad for one in findings) else 0


def _everything(environment: Environment, *, deep: bool, offline: bool) -> Iterator[Finding]:
    archive = _archive(environment)
    met = list(_broker(environment, archive, deep=deep, offline=offline))
    services = {one.service for one in met if isinstance(one, Presence)}
    services |= {service for scope in archive.scopes if (service := Scope.parse(scope).service) is not None}
    yield from (one for one in met if isinstance(one, Finding))
    yield from state.look(environment, services)
    yield from keys.look(environment, archive.peer)


def _archive(environment: Environment) -> Archive:
    try:
        return Archive.of(environment)
    except SurroundingsError:
        return Archive(environment)  # what is wrong with it, the look at the state says


def _broker(environment: Environment, archive: Archive, *, deep: bool, offline: bool) -> Iterator[Finding | Presence]:
    if offline:
        return
    if environment.broker is None:
        message = "no broker is named: what workers would meet there was not looked at"
        yield Finding("broker", "connection", "warning", message, "TARS_SETTINGS_BROKER=mqtt://HOST:1883")
        return
    try:
        address = BrokerAddress.parse(environment.broker_address())
        met = broker.meet(environment)
        yield from broker.look(environment, address, met, deep=deep)
        environment = met.spoken(environment)
        yield from access.look(environment, address)
        with Visitor(environment) as visitor:
            yield from fleet.look(environment, visitor, archive)
            known = fleet.presences(environment, visitor)
        yield fleet.clock(known, datetime.now(timezone.utc))
        yield from known
    except ConfigurationError as error:
        yield variables.malformed(str(error))
    except BrokerError as error:
        yield broker.unreachable(error)


def _show(common: Common, findings: list[Finding]) -> None:
    counts = Counter(one.severity for one in findings)
    common.out.document(
        {
            "worst": worst(findings),
            "counts": {severity: counts[severity] for severity in ORDER},
            "findings": [
                {
                    "area": one.area,
                    "name": one.name,
                    "severity": one.severity,
                    "message": one.message,
                    "change": one.change,
                }
                for one in findings
            ],
        }
    )
    ordered = sorted(findings, key=lambda one: -ORDER.index(one.severity))
    rows = [(one.severity, f"{one.area}: {one.name}", _text(one)) for one in ordered]
    common.out.table(Table(("", "what", "finding, and what to change"), rows_of(rows)))
    told = ", ".join(f"{counts[severity]} {severity}" for severity in reversed(ORDER) if counts[severity])
    common.out.note(told)


def _text(finding: Finding) -> str:
    return f"{finding.message}\n-> {finding.change}" if finding.change else finding.message
