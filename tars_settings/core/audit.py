"""Words of the audit trail: what is worth an entry."""

from __future__ import annotations

from typing import Final

REJECTED: Final = "rejected"
TRUST: Final = "trust"
QUARREL: Final = "trust-quarrel"
EQUIVOCATION: Final = "equivocation"
CONFLICT: Final = "conflict"
REPAIR_FIGHT: Final = "repair-fight"
FOREIGN_HEAD: Final = "foreign-head"
REVEALED: Final = "revealed"
SEAL_BROKEN: Final = "seal-broken"

WITH_EVIDENCE: Final = frozenset({EQUIVOCATION, CONFLICT})
"""Events whose signed envelopes are kept with the entry."""
