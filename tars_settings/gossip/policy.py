"""What an operator may choose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import msgspec

from tars_settings.gossip.repair import RepairPolicy

KEEPERS_PER_FLEET: Final = 8


class Policy(msgspec.Struct, frozen=True):
    """What an operator may choose; seconds.

    ``repair``: ``all`` peers, only ``keepers``, or ``off``. A *keeper* follows heads live, and compares everything that
    it holds with the broker. With ``all``, each peer that may be one (``keeper``) is one with chance 8/``fleet_size``,
    and whoever holds a writer's key is one in any case. ``compact_above``: so many tombstones in a scope make a writer
    with a grant of all of it sign a floor; 0 for never.
    """

    repair: Literal["all", "keepers", "off"] = "all"
    keeper: bool = True
    fleet_size: int = 1
    compact_above: int = 256
    sync_bound_s: float = 5.0
    audit_s: float = 600.0
    repairing: RepairPolicy = RepairPolicy()

    def chooses_keeper(self, random: Callable[[], float]) -> bool:
        """Return whether a peer without a writer's key is a keeper; *random* gives numbers in [0, 1)."""
        if self.repair != "all":
            return self.keeper
        return self.keeper and random() * self.fleet_size < KEEPERS_PER_FLEET

    def may_repair(self, *, is_keeper: bool) -> bool:
        """Return whether a peer publishes winners again."""
        return self.repair == "all" or (self.repair == "keepers" and is_keeper)
