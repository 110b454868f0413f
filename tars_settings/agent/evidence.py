"""What a replica keeps of a scope's past: history, and the evidence of its audit trail, which outlives that."""

from __future__ import annotations

from tars_settings.core.audit import WITH_EVIDENCE
from tars_settings.ports import ReplicaStore


def remembered_raws(replica: ReplicaStore, scope: str) -> tuple[bytes, ...]:
    """Return signed envelopes of a scope, some of them twice, none of them verified.

    Raises:
        ReplicaError: the replica can't be read.
    """
    past = [row.raw for row in replica.history(scope)]
    noted = (row for row in replica.audit() if row.event in WITH_EVIDENCE and row.place.split(" ")[0] == scope)
    return (*past, *(line for row in noted for line in row.evidence.splitlines()))
