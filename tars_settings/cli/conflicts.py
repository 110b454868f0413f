"""``conflicts``: two deltas that replace the same. Neither writer saw the other's, and one of them lost."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, Any

import typer

from tars_settings.adapters.replica import SqliteReplica
from tars_settings.cli.common import Common, command
from tars_settings.cli.history import writer_of
from tars_settings.cli.options import CatchUpOption, OfflineOption, PeersOption, RevealOption
from tars_settings.cli.reading import Values
from tars_settings.cli.remembering import Known, known_of
from tars_settings.cli.render import Table, moment_text, rows_of, value_text
from tars_settings.core.audit import CONFLICT
from tars_settings.core.names import Scope
from tars_settings.core.past import Entry
from tars_settings.core.records import DeltaRow
from tars_settings.core.register import Register
from tars_settings.writer.remembering import PEERS

TargetArgument = Annotated[
    str | None, typer.Argument(metavar="[SERVICE[@INSTANCE]]", help="Which scope; by default all that this host knows")
]
LimitOption = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="How many, the newest")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "conflicts", conflicts)


class Clash:
    """Two valid deltas that name the same as what they replace at a key; the greater stamp won."""

    def __init__(self, found: Known, key: str, winner: Entry, loser: Entry) -> None:
        self.found = found
        self.key = key
        self.winner = winner
        self.loser = loser

    def side(self, entry: Entry) -> Register:
        """Return what a side said of the key."""
        item = entry.delta.assignment(self.key)
        assert item is not None  # noqa: S101 (clashes are found by key)
        return Register(self.key, item, entry.delta)


def conflicts(
    common: Common,
    target: TargetArgument = None,
    reveal: RevealOption = None,
    limit: LimitOption = 50,
    offline: OfflineOption = False,
    peers: PeersOption = PEERS,
    timeout_s: CatchUpOption = 5.0,
) -> int:
    """Show changes that crossed: of two pushes that replaced the same value one won, and one was lost unseen.

    Found in the signed deltas that this host, the broker and a few live workers remember. Exit code 1 where there is
    any.

    Example: tars-settings conflicts stt-worker
    """
    found: list[tuple[Clash, Values]] = []
    scopes = _scopes(common) if target is None else [str(Scope.parse(target))]
    for here in known_of(common, scopes, offline=offline, timeout_s=timeout_s, peers=peers):
        values = Values(here.reading, common.environment(), reveal or ())
        found += [(one, values) for one in clashes(here)]
    found.sort(key=lambda one: (one[0].winner.delta.body.at, one[0].winner.delta.stamp), reverse=True)
    _show(common, found[:limit])
    if len(found) > limit:
        common.out.note(f"and {len(found) - limit} older ones: --limit")
    if not found:
        common.out.note("no two changes that are remembered crossed")
    return 1 if found else 0


def _scopes(common: Common) -> list[str]:
    """Return the scopes of which this host's replica holds something, or noted a conflict."""
    replica = SqliteReplica(common.environment().replica_path, create=False)
    try:
        held = {row.scope for row in replica.load() if isinstance(row, DeltaRow)}
        noted = {row.place.partition(" ")[0] for row in replica.audit() if row.event == CONFLICT}
    finally:
        replica.close()
    return sorted(held | noted)


def clashes(found: Known) -> Iterator[Clash]:
    """Yield the conflicts among what is remembered of a scope."""
    rivals: dict[tuple[str, str], list[Entry]] = {}
    for entry in found.past.entries:
        for item in entry.delta.assign if not entry.reason else ():
            over = item.over if isinstance(item.over, str) else ""
            rivals.setdefault((item.key, over), []).append(entry)
    for (key, _), entries in rivals.items():
        for winner, loser in combinations(entries, 2):
            yield Clash(found, key, winner, loser)


def _show(common: Common, found: list[tuple[Clash, Values]]) -> None:
    common.out.document({"conflicts": [_told(one, values) for one, values in found]})
    rows = []
    for one, values in found:
        rows += [_row(one, one.winner, "won", values), _row(one, one.loser, "lost", values)]
    columns = ("scope", "key", "value", "", "epoch", "writer", "at", "reason")
    common.out.table(Table(columns, rows_of(rows)))


def _row(clash: Clash, entry: Entry, fate: str, values: Values) -> tuple[object, ...]:
    body, side = entry.delta.body, clash.side(entry)
    text = "(unset)" if side.assignment.unset else value_text(values.shown(side))
    writer = writer_of(clash.found, entry)
    return (body.scope, clash.key, text, fate, entry.delta.stamp.epoch, writer, moment_text(body.at), body.reason)


def _told(clash: Clash, values: Values) -> dict[str, Any]:
    return {
        "scope": clash.found.scope,
        "key": clash.key,
        "winner": _side(clash, clash.winner, values),
        "loser": _side(clash, clash.loser, values),
    }


def _side(clash: Clash, entry: Entry, values: Values) -> dict[str, Any]:
    side, body, stamp = clash.side(entry), entry.delta.body, entry.delta.stamp
    return {
        "value": None if side.assignment.unset else values.shown(side),
        "unset": side.assignment.unset,
        "secret": clash.found.reading.is_secret(side),
        "gen": stamp.gen,
        "epoch": stamp.epoch,
        "digest": stamp.digest.hex(),
        "writer": writer_of(clash.found, entry),
        "at": body.at,
        "by": body.by,
        "reason": body.reason,
        "seen": list(entry.seen),
    }
