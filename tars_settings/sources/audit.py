"""Entries of the audit trail from outside an agent: a secret was shown, a seal was broken."""

from __future__ import annotations

import os
from datetime import datetime, timezone

from tars_settings.core.records import AuditRow
from tars_settings.errors import ReplicaError, StateDirError
from tars_settings.sources.environment import Environment


def note_audit(
    environment: Environment, event: str, name: str, *, place: str, detail: str, daily: bool = False
) -> bool:
    """Note something in this host's replica; return whether it is on the disk. It makes no replica where there is none.

    With *daily* the same *name* is noted once a day, else each time.
    """
    now = datetime.now(timezone.utc)
    at = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    stamp = now.date().isoformat() if daily else now.isoformat(timespec="microseconds")
    if not os.path.lexists(environment.replica_path):
        return False
    from tars_settings.adapters.replica import SqliteReplica  # noqa: PLC0415 - a start imports no sqlite3

    replica = SqliteReplica(environment.replica_path)
    try:
        replica.apply([AuditRow(event, f"{name} {stamp}", at, at, 1, place=place, detail=detail)])
    except (ReplicaError, StateDirError):
        return False
    finally:
        replica.close()
    return True
