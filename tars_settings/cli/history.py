"""``history``: who changed what, when and why, from signed deltas."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tars_settings.cli.audit import show_audit
from tars_settings.cli.common import Common, command
from tars_settings.cli.look import say_revealed
from tars_settings.cli.options import CatchUpOption, OfflineOption, PeersOption, RevealOption
from tars_settings.cli.reading import Values
from tars_settings.cli.remembering import Known, known
from tars_settings.cli.render import Table, moment_text, rows_of, value_text
from tars_settings.core.delta import Assignment
from tars_settings.core.names import Scope, check_key, overlap
from tars_settings.core.past import Entry
from tars_settings.core.question import MAX_HISTORY, HistoryQuestion
from tars_settings.core.register import Register
from tars_settings.errors import UsageError
from tars_settings.writer.remembering import PEERS

TargetArgument = Annotated[
    str | None, typer.Argument(metavar="SERVICE[@INSTANCE]", help="Whose past; _all for what every service is told")
]
KeyArgument = Annotated[str | None, typer.Argument(metavar="[KEY]", help="One setting, and what lies below it")]
LimitOption = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=MAX_HISTORY, help="How many, the newest")]
SinceOption = Annotated[int, typer.Option("--since", metavar="EPOCH", min=0, help="Only what came after this epoch")]
AuditOption = Annotated[bool, typer.Option("--audit", help="This host's audit trail: what was refused, revealed, ...")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "history", history)


def history(
    common: Common,
    target: TargetArgument = None,
    key: KeyArgument = None,
    limit: LimitOption = 50,
    since: SinceOption = 0,
    reveal: RevealOption = None,
    offline: OfflineOption = False,
    peers: PeersOption = PEERS,
    audit: AuditOption = False,
    timeout_s: CatchUpOption = 5.0,
) -> int:
    """Show who changed what, when and why, newest first; every entry's signature is checked. Secrets are masked.

    Remembered by this host, the broker, and a few live workers, which are asked. Exit code 1 where there is nothing.

    Example: tars-settings history stt-worker vad_threshold
    """
    if audit:
        return show_audit(common, target, key, limit)
    if target is None:
        raise UsageError("history of what? Name a service, such as stt-worker, or say --audit")
    scope = str(Scope.parse(target))
    if key is not None:
        check_key(key)
    question = HistoryQuestion(limit, key or "", since)
    found = known(common, scope, offline=offline, timeout_s=timeout_s, peers=peers, question=question)
    entries = [one for one in found.past.entries if one.delta.stamp.epoch > since and _concerns(one, key)]
    return _show(common, found, entries, limit, Values(found.reading, common.environment(), reveal or ()))


def _concerns(entry: Entry, key: str | None) -> bool:
    return key is None or any(overlap(item.key, key) for item in entry.delta.assign)


def _show(common: Common, found: Known, entries: list[Entry], limit: int, values: Values) -> int:
    shown = [(one, _assignments(one, values)) for one in entries[:limit]]
    common.out.document(
        {
            "scope": found.scope,
            "source": found.reading.source,
            "answered": list(found.remembered.answered),
            "more": len(entries) > limit,
            "entries": [_told(found, one, assigned) for one, assigned in shown],
        }
    )
    common.out.table(_table(found, shown))
    say_revealed(common, values)
    if len(entries) > limit:
        common.out.note(f"and {len(entries) - limit} older ones: --limit")
    if not shown:
        common.out.note(f"nothing is remembered of {found.scope}")
    return 0 if shown else 1


def _assignments(entry: Entry, values: Values) -> list[tuple[Register, Any]]:
    registers = [Register(item.key, item, entry.delta) for item in entry.delta.assign]
    return [(one, None if one.assignment.unset else values.shown(one)) for one in registers]


def assigned_text(item: Assignment, value: Any) -> str:
    """Return an assignment as it may be shown: ``key=value``, or that the key was unset."""
    return f"{item.key} unset" if item.unset else f"{item.key}={value_text(value)}"


def _table(found: Known, shown: list[tuple[Entry, list[tuple[Register, Any]]]]) -> Table:
    rows = [
        (
            _epoch(found, one),
            moment_text(one.delta.body.at),
            writer_of(found, one),
            "\n".join(assigned_text(register.assignment, value) for register, value in assigned),
            one.delta.body.reason,
            found.state_of(one),
        )
        for one, assigned in shown
    ]
    return Table(("epoch", "at", "writer", "change", "reason", "state"), rows_of(rows))


def _epoch(found: Known, entry: Entry) -> str:
    stamp = entry.delta.stamp
    return str(stamp.epoch) if stamp.gen == found.past.gen else f"{stamp.epoch} (gen {stamp.gen})"


def writer_of(found: Known, entry: Entry) -> str:
    """Return who wrote it, by name."""
    return found.reading.trust.name_of(entry.delta.stamp.kid)


def _told(found: Known, entry: Entry, assigned: list[tuple[Register, Any]]) -> dict[str, Any]:
    stamp, body = entry.delta.stamp, entry.delta.body
    return {
        "gen": stamp.gen,
        "epoch": stamp.epoch,
        "digest": stamp.digest.hex(),
        "writer": writer_of(found, entry),
        "at": body.at,
        "by": body.by,
        "reason": body.reason,
        "state": found.state_of(entry),
        "seen": list(entry.seen),
        "assign": [
            {
                "key": register.key,
                "value": value,
                "unset": register.assignment.unset,
                "secret": found.reading.is_secret(register),
            }
            for register, value in assigned
        ],
    }
