"""The audit trail of one process: what of a burst is worth an entry. Names, reasons and digests; never a value.

The first of a kind is written in full, with the burst; then it is counted, and the count is written when it has grown
tenfold, every ten minutes while it grows, and at the end. So a flood of garbage costs next to no flash writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from tars_settings.core.audit import (
    CONFLICT,
    EQUIVOCATION,
    FOREIGN_HEAD,
    QUARREL,
    REJECTED,
    REPAIR_FIGHT,
    TRUST,
)
from tars_settings.core.delta import Delta
from tars_settings.core.records import AuditRow
from tars_settings.gossip.effects import (
    Conflict,
    Effect,
    Equivocation,
    ForeignHead,
    Merged,
    Notice,
    Rejected,
    RepairFight,
    TrustChanged,
    TrustQuarrel,
)
from tars_settings.gossip.peer import Peer

FLUSH_S: Final = 600.0
MAX_COUNTED: Final = 256
"""Kinds that are counted at a time: reasons are few, the topics that fight may be many."""


class AuditTrail:
    """Turns notices into rows. *record* takes a row, *wall* tells the time; *run* tells this process from others."""

    def __init__(self, peer: Peer, record: Callable[[AuditRow], None], wall: Callable[[], datetime], run: str) -> None:
        self._peer = peer
        self._record = record
        self._wall = wall
        self._run = run
        self._counted: dict[tuple[str, str], AuditRow] = {}
        self._written: dict[tuple[str, str], int] = {}
        self._flushed_s = 0.0
        self._noted: list[TrustChanged] = []

    def note_trust(self, effects: Sequence[Effect]) -> None:
        """Note at once that trust changed, so that it shares the transaction that stores the document before its use.

        Two transactions, each waited for, were a third of a first join of fifty keys.
        """
        for one in effects:
            if isinstance(one, TrustChanged) and (row := self._row(one)) is not None:
                self._noted.append(one)
                self._record(row)

    def on_burst(self, notices: Sequence[Notice], now_s: float, *, loading: bool = False) -> None:
        """Note what is worth it. While *loading* trust is what it was: noted when it came."""
        noted, self._noted = self._noted, []
        for notice in notices:
            if isinstance(notice, Merged):
                continue  # most of them, and nothing to remember
            if isinstance(notice, TrustChanged) and (loading or any(notice is one for one in noted)):
                continue
            row = self._row(notice)
            if row is not None:
                self._record(row)
        if now_s - self._flushed_s >= FLUSH_S:
            self._flushed_s = now_s
            self.flush()

    def flush(self) -> None:
        """Have the counts written that have grown."""
        for name, row in self._counted.items():
            if row.count != self._written[name]:
                self._written[name] = row.count
                self._record(row)

    def _row(self, notice: Notice) -> AuditRow | None:
        match notice:
            case Rejected(topic, reason, kid):
                return self._count(REJECTED, reason, place=ascii(topic)[1:-1][:200], kid=kid[:32], reason=reason)
            case RepairFight(topic, other):
                return self._count(REPAIR_FIGHT, f"{topic} {other}", place=topic, detail=f"what keeps coming: {other}")
            case TrustChanged(version, _, voided):
                return self._trust(version, voided)
            case TrustQuarrel():
                return self._quarrel(notice)
            case Conflict():
                return self._conflict(notice)
            case Equivocation():
                return self._equivocation(notice)
            case ForeignHead(scope, counter):
                detail = f"index {counter} of our own key, which this host did not sign"
                name = f"{scope} {counter}"
                return self._once(FOREIGN_HEAD, name, place=scope, kid=self._peer.own_kid, detail=detail)
        return None

    def _trust(self, version: int, voided: int) -> AuditRow | None:
        found = [one for one in self._peer.chain.documents() if one.version == version]
        if not found:
            return None
        body = found[-1].body
        detail = f"gen {body.gen}, voided {voided} here; {body.reason}".rstrip("; ")
        return self._once(TRUST, f"{version} {found[-1].digest.hex()[:32]}", place=f"_trust/{version}", detail=detail)

    def _quarrel(self, notice: TrustQuarrel) -> AuditRow:
        first, second = notice.in_force, notice.other
        detail = (
            f"version {notice.version} twice, both signed by enough roots: {first[:16]} is in force, {second[:16]} not"
        )
        return self._once(QUARREL, f"{first} {second}", place="_trust", detail=detail)

    def _conflict(self, notice: Conflict) -> AuditRow:
        winner, loser = notice.winner, notice.loser
        name = f"{notice.scope} {notice.key} {_short(winner)} {_short(loser)}"
        detail = f"epoch {winner.stamp.epoch} won, epoch {loser.stamp.epoch} replaced the same and lost"
        place = f"{notice.scope} {notice.key}"
        evidence = _lines(winner, loser)
        return self._once(CONFLICT, name, place=place, kid=winner.stamp.kid, detail=detail, evidence=evidence)

    def _equivocation(self, notice: Equivocation) -> AuditRow:
        first, second = sorted((notice.first, notice.second))
        detail = f"two bodies under epoch {notice.epoch}: {first[:8]} and {second[:8]}"
        name = f"{notice.scope} {first[:32]} {second[:32]}"
        # One a line: each is JSON without a line break.
        evidence = b"\n".join(notice.raws)
        return self._once(EQUIVOCATION, name, place=notice.scope, kid=notice.kid, detail=detail, evidence=evidence)

    def _once(self, event: str, name: str, **said: object) -> AuditRow:
        at = self._now()
        return AuditRow(event, name, at, at, 1, **said)  # type: ignore[arg-type]

    def _count(self, event: str, name: str, **said: object) -> AuditRow | None:
        """Return the row where it is to be written now."""
        held = self._counted.get((event, name))
        if held is None:
            if len(self._counted) >= MAX_COUNTED:
                return None
            held = self._once(event, f"{name} {self._run}", **said)
        else:
            held = msgspec.structs.replace(held, count=held.count + 1, last=self._now())
        self._counted[event, name] = held
        if held.count < 10 * self._written.get((event, name), 0):
            return None
        self._written[event, name] = held.count
        return held

    def _now(self) -> str:
        return self._wall().isoformat(timespec="seconds").replace("+00:00", "Z")


def _short(delta: Delta) -> str:
    return delta.stamp.digest.hex()[:32]


def _lines(*deltas: Delta) -> bytes:
    """Return signed envelopes, one a line: each is JSON without a line break."""
    return b"\n".join(one.raw for one in deltas)
