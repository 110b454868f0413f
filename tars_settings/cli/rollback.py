"""``rollback``: a new push of old values, from signed deltas that are still remembered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tars_settings.cli.common import Common, command
from tars_settings.cli.options import (
    ByOption,
    DryRunOption,
    PeersOption,
    ReasonOption,
    TimeoutOption,
    WaitOption,
    YesOption,
)
from tars_settings.cli.ratify import confirmed
from tars_settings.cli.reading import Values
from tars_settings.cli.remembering import Known, connected, known_by
from tars_settings.cli.undoing import (
    Push,
    Pushed,
    carry_out,
    change_documents,
    change_table,
    check_unchanged,
    check_values,
    schemas_of,
)
from tars_settings.core.names import Scope, overlap
from tars_settings.core.past import Entry, Missing
from tars_settings.core.undo import Plan, back_to, without
from tars_settings.errors import RefusedError, UsageError
from tars_settings.writer import Writer
from tars_settings.writer.remembering import PEERS

TargetArgument = Annotated[
    str, typer.Argument(metavar="SERVICE[@INSTANCE]", help="Which scope; _all for every service")
]
ToEpochOption = Annotated[
    int | None, typer.Option("--to-epoch", metavar="N", min=0, help="Back to what was set after this epoch")
]
PushOption = Annotated[
    str | None, typer.Option("--push", metavar="EPOCH|DIGEST", help="Take back what this one push changed")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "rollback", rollback)


def rollback(
    common: Common,
    target: TargetArgument,
    to_epoch: ToEpochOption = None,
    push: PushOption = None,
    reason: ReasonOption = "",
    by: ByOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    peers: PeersOption = PEERS,
    wait: WaitOption = True,
    timeout_s: TimeoutOption = 5.0,
) -> int:
    """Set a scope back to what it was after an epoch, or take one push back. What it changes is shown first.

    It is a new push of old values: what was not set then is unset, secrets stay encrypted as they were.

    Example: tars-settings rollback stt-worker --to-epoch 41
    """
    if (to_epoch is None) == (push is None):
        raise UsageError("back to what? Say --to-epoch N, or --push EPOCH to take one push back")
    scope = str(Scope.parse(target))
    with connected(common, may_push=not dry_run) as writer:
        found = known_by(common, writer, scope, timeout_s=timeout_s, peers=peers)
        aim = _to_epoch(found, to_epoch) if to_epoch is not None else _without(found, push or "")
        check_values(
            [item for one in aim.plan.pushes for item in one],
            schemas_of(writer, scope),
            common.environment().secret_keys(),
        )
        values = Values(found.reading, common.environment())
        _show(common, found, aim, values)
        pushed = Pushed()
        if aim.plan.pushes and not dry_run:
            confirmed(common, f"Push these to {scope}?", yes=yes)
            pushed = _carry_out(common, writer, found, aim, (reason or aim.reason, by, wait, timeout_s))
        common.out.document(_document(found, aim, values, pushed, waited=wait, dry_run=dry_run))
        return pushed.code


@dataclass(frozen=True)
class _Aim:
    """Where it goes: in words, why, and how."""

    words: str
    reason: str
    plan: Plan


def _to_epoch(found: Known, epoch: int) -> _Aim:
    if epoch > found.epoch:
        raise UsageError(f"{found.scope} is at epoch {found.epoch}; there is no epoch {epoch} to go back to")
    moment = found.past.after_epoch(epoch)
    _refuse_gaps(found, moment.missing, f"what was set after epoch {epoch}")
    return _Aim(f"after epoch {epoch}", f"rollback to epoch {epoch}", back_to(found.now, moment))


def _without(found: Known, name: str) -> _Aim:
    entry = _the_push(found, name)
    moment = found.past.before(entry.delta)
    keys = [item.key for item in entry.delta.assign]
    missing = tuple(one for one in moment.missing if any(overlap(one.key, key) for key in keys))
    epoch = entry.delta.stamp.epoch
    _refuse_gaps(found, missing, f"what was set before epoch {epoch}")
    return _Aim(f"before epoch {epoch}", f"rollback of epoch {epoch}", without(entry.delta, found.now, moment))


def _the_push(found: Known, name: str) -> Entry:
    entries = found.past.find(name)
    if not entries:
        raise RefusedError(f"nobody remembers a push {name!r}; type: tars-settings history {found.scope}")
    if len(entries) > 1:
        digests = ", ".join(one.delta.stamp.digest.hex()[:12] for one in entries)
        raise UsageError(f"{name!r} means several pushes to {found.scope}: say which by digest: {digests}")
    if entries[0].reason:
        raise RefusedError(f"this push is void already: {entries[0].reason}")
    return entries[0]


def _refuse_gaps(found: Known, missing: tuple[Missing, ...], what: str) -> None:
    if missing:
        gaps = "\n".join(
            f"{one.key}: delta {one.digest[:12]}, which held it before epoch {one.epoch}" for one in missing
        )
        asked = ", ".join(("this host", *found.remembered.answered))
        raise RefusedError(
            f"the history does not reach back to {what}. Nobody of {asked} has:\n{gaps}\n"
            "Ask more workers with --peers, or push the values themselves"
        )


def _show(common: Common, found: Known, aim: _Aim, values: Values) -> None:
    common.out.table(change_table(aim.plan.changes, values, then=aim.words))
    for one in aim.plan.left:
        common.out.note(f"{one.key} is left as it is: epoch {one.delta.stamp.epoch} changed it since")
    if not aim.plan.changes:
        common.out.note(f"{found.scope} says that already: nothing to push")
    elif len(aim.plan.pushes) > 1:
        common.out.note(f"it takes {len(aim.plan.pushes)} pushes, one after the other")


def _carry_out(
    common: Common, writer: Writer, found: Known, aim: _Aim, said: tuple[str, str | None, bool, float]
) -> Pushed:
    reason, by, wait, timeout_s = said
    check_unchanged(writer, found.scope, found.now)
    pushes = [Push(found.scope, assign, reason, by) for assign in aim.plan.pushes]
    return carry_out(common, writer, pushes, waited=wait, timeout_s=timeout_s)


def _document(
    found: Known, aim: _Aim, values: Values, pushed: Pushed, *, waited: bool, dry_run: bool
) -> dict[str, Any]:
    return {
        "scope": found.scope,
        "to": aim.words,
        "dry_run": dry_run,
        "changes": change_documents(aim.plan.changes, values, found.reading),
        "left": [{"key": one.key, "epoch": one.delta.stamp.epoch} for one in aim.plan.left],
        "pushes": pushed.documents(waited=waited),
        "failure": pushed.failure,
    }
