"""Conflicts: two deltas that replace the same. Neither writer saw the other's; the greater stamp won all the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from tars_settings.core.delta import Delta
from tars_settings.core.register import Registers
from tars_settings.gossip.effects import Conflict

MAX_CONFLICTS: Final = 256


class Conflicts:
    """The conflicts that were seen, the latest 256, each once, the loser included."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str, bytes, bytes], Conflict] = OrderedDict()

    def note(self, delta: Delta, registers: Registers) -> Iterator[Conflict]:
        """Yield the conflicts of a delta that was just merged, where they were not seen before."""
        for item in delta.body.assign:
            for rival in registers.rivals(delta, item):
                winner, loser = sorted((delta, rival), key=lambda one: one.stamp, reverse=True)
                name = (delta.scope, item.key, winner.stamp.digest, loser.stamp.digest)
                if name not in self._seen:
                    self._seen[name] = found = Conflict(delta.scope, item.key, winner, loser)
                    yield found
        while len(self._seen) > MAX_CONFLICTS:
            self._seen.popitem(last=False)

    def __iter__(self) -> Iterator[Conflict]:
        return iter(tuple(self._seen.values()))
