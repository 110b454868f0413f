"""``history --audit``: what this host refused, noticed and showed. Names, reasons and digests; never a value."""

from __future__ import annotations

from typing import Any

from tars_settings.adapters.replica import SqliteReplica
from tars_settings.cli.common import Common
from tars_settings.cli.render import Table, moment_text, rows_of
from tars_settings.core.records import AuditRow, TrustRow
from tars_settings.core.wire import claimed_digest
from tars_settings.sources.stored import follow_all
from tars_settings.trust.document import TrustDocument


def show_audit(common: Common, target: str | None, key: str | None, limit: int) -> int:
    """Show this host's audit trail, newest first; of one scope and key where they are named."""
    environment = common.environment()
    replica = SqliteReplica(environment.replica_path, create=False)
    try:
        raws = [row.raw for row in replica.load(()) if isinstance(row, TrustRow)]
        trail = sorted(replica.audit(), key=lambda row: (row.last, row.first, row.event, row.name), reverse=True)
    finally:
        replica.close()
    trust, _ = follow_all(environment.pinned(), raws)
    found = [row for row in trail if _concerns(row, target, key)]
    common.out.document(
        {"more": len(found) > limit, "entries": [_told(row, trust) for row in found[:limit]]},
    )
    common.out.table(Table(("last", "event", "times", "where", "writer", "what"), rows_of(_rows(found[:limit], trust))))
    if len(found) > limit:
        common.out.note(f"and {len(found) - limit} older ones: --limit")
    if not found:
        common.out.note("nothing was noted on this host")
    return 0 if found else 1


def _concerns(row: AuditRow, target: str | None, key: str | None) -> bool:
    words = row.place.replace("/", " ").split()
    return (target is None or target in words) and (key is None or key in words or key.replace(".", "__") in words)


def _rows(found: list[AuditRow], trust: TrustDocument) -> list[tuple[object, ...]]:
    return [
        (
            moment_text(row.last),
            row.event,
            row.count,
            row.place,
            trust.name_of(row.kid, 8),
            "; ".join(part for part in (row.reason, row.detail) if part),
        )
        for row in found
    ]


def _told(row: AuditRow, trust: TrustDocument) -> dict[str, Any]:
    return {
        "event": row.event,
        "first": row.first,
        "last": row.last,
        "count": row.count,
        "where": row.place,
        "writer": trust.name_of(row.kid, 8),
        "kid": row.kid,
        "reason": row.reason,
        "detail": row.detail,
        "evidence": [claimed_digest("delta", trust.fleet, line).hex() for line in row.evidence.splitlines()],
    }
