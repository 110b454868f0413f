"""Equivocation: two bodies under one (gen, epoch, key id).

A writer's key is on two hosts, or its holder tells two stories; the greater digest wins all the same, and both are kept
as evidence.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from tars_settings.core.delta import Delta

MAX_REMEMBERED: Final = 1024


class Twins:
    """The stamps of the latest deltas, so that a second body under one of them is seen."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, int, int, str], Delta] = OrderedDict()

    def note(self, delta: Delta) -> Delta | None:
        """Return another delta of the same writer, scope, gen and epoch, where one was noted before."""
        stamp = delta.stamp
        name = (delta.scope, stamp.gen, stamp.epoch, stamp.kid)
        other = self._seen.setdefault(name, delta)
        while len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return None if other.stamp == stamp else other
