"""A scope's past, as far as signed deltas tell it: what was set after each of them, and what can't be told.

Every assignment names the delta that it replaced (``over``), so a gap shows itself: a value of old counts as known only
where the chain from what came after leads to it. Nothing here checks a signature; each entry carries the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from tars_settings.core.delta import Delta
from tars_settings.core.register import Register
from tars_settings.core.stamp import Stamp

COUNTED: Final = frozenset({"", "below-floor"})
"""Verdicts of deltas that counted in their time. What a compromised key signed is not to come back."""


class Entry(msgspec.Struct, frozen=True, eq=False):
    """A delta of the past; ``reason`` is empty where it is valid now, ``seen`` says who remembers it."""

    delta: Delta
    reason: str = ""
    seen: tuple[str, ...] = ()


class Missing(msgspec.Struct, frozen=True):
    """A delta (its digest in hex) that held a key before another of ``epoch`` replaced it, and that nobody produced."""

    key: str
    epoch: int
    digest: str


class Moment(msgspec.Struct, frozen=True, eq=False):
    """What a scope said at a moment: its winners by key, tombstones too, and what is missing to be sure."""

    winners: dict[str, Register]
    missing: tuple[Missing, ...] = ()


class Past:
    """The deltas of one scope that somebody remembers, newest first."""

    def __init__(self, scope: str, entries: Iterable[Entry]) -> None:
        self.scope = scope
        self.entries = tuple(sorted(entries, key=lambda one: one.delta.stamp, reverse=True))
        self._by_digest = {one.delta.stamp.digest.hex(): one for one in self.entries}

    @property
    def gen(self) -> int:
        """The newest gen of what counted; epochs are meant in it."""
        return max((one.delta.stamp.gen for one in self.entries if one.reason in COUNTED), default=0)

    def find(self, name: str) -> tuple[Entry, ...]:
        """Return the entries that a name means: an epoch of the newest gen, or the beginning of a digest."""
        if name.isdecimal():
            found = tuple(one for one in self.entries if self._is_at(one.delta.stamp, int(name)))
            if found or len(name) < 8:
                return found
        return tuple(one for digest, one in self._by_digest.items() if len(name) >= 6 and digest.startswith(name))

    def _is_at(self, stamp: Stamp, epoch: int) -> bool:
        return (stamp.gen, stamp.epoch) == (self.gen, epoch)

    def after_epoch(self, epoch: int) -> Moment:
        """Return what was set after an epoch of the newest gen."""
        gen = self.gen
        return self.when(lambda stamp: (stamp.gen, stamp.epoch) <= (gen, epoch))

    def before(self, delta: Delta) -> Moment:
        """Return what was set before a delta."""
        return self.when(lambda stamp: stamp < delta.stamp)

    def when(self, was_there: Callable[[Stamp], bool]) -> Moment:
        """Return what the deltas said that were there then."""
        counted = [one.delta for one in reversed(self.entries) if one.reason in COUNTED]
        winners: dict[str, Register] = {}
        after: dict[str, Delta] = {}
        for delta in counted:
            for item in delta.assign:
                if was_there(delta.stamp):
                    winners[item.key] = Register(item.key, item, delta)
                else:
                    after.setdefault(item.key, delta)
        gaps = (self._gap(key, delta, was_there) for key, delta in sorted(after.items()))
        return Moment(winners, tuple(gap for gap in gaps if gap is not None))

    def _gap(self, key: str, delta: Delta, was_there: Callable[[Stamp], bool]) -> Missing | None:
        """Follow the chain of what was replaced at a key, from the first delta after a moment back to before it."""
        seen: set[bytes] = set()
        while delta.stamp.digest not in seen:
            seen.add(delta.stamp.digest)
            item = delta.assignment(key)
            over = None if item is None or item.over is msgspec.UNSET else str(item.over)
            if over is None:
                return None
            entry = self._by_digest.get(over)
            if entry is None:
                return Missing(key, delta.stamp.epoch, over)
            if was_there(entry.delta.stamp) and entry.reason in COUNTED:
                return None
            delta = entry.delta
        return None
