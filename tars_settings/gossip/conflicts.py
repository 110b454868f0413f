"""What two deltas say of each other.

A conflict: both replace the same. Neither writer saw the other's; the greater stamp won all the same. An equivocation:
one key signed both under one epoch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from tars_settings.core.delta import Delta
from tars_settings.core.register import Registers
from tars_settings.gossip.effects import Conflict, Equivocation

MAX_CONFLICTS: Final = 256
MAX_EPOCHS: Final = 16_384
"""Epochs of each scope, writer and gen of which is remembered what was signed under them."""


class Conflicts:
    """The conflicts that were seen, the latest 256, each once, the loser included."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str, bytes, bytes], Conflict] = OrderedDict()

    def note(self, delta: Delta, registers: Registers) -> Iterable[Conflict]:
        """Return the conflicts of a delta that was just merged, where they were not seen before."""
        return self._note(delta, registers) if registers.has_rivals(delta.scope) else ()

    def _note(self, delta: Delta, registers: Registers) -> Iterator[Conflict]:
        for item in delta.assign:
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


class Equivocations:
    """Those that were seen, the latest 256, each once, with both envelopes as evidence."""

    def __init__(self) -> None:
        # By scope, writer and gen, what was signed under each epoch: digests that the deltas have anyway.
        self._signed: dict[tuple[str, str, int], dict[int, bytes]] = {}
        self._seen: OrderedDict[tuple[bytes, bytes], Equivocation] = OrderedDict()

    def note(self, delta: Delta, registers: Registers) -> Equivocation | None:
        """Return what a valid delta and an earlier one of its writer prove, where it was not seen before."""
        stamp = delta.stamp
        epochs = self._signed.setdefault((delta.scope, stamp.kid, stamp.gen), {})
        earlier = epochs.setdefault(stamp.epoch, stamp.digest)
        if len(epochs) > MAX_EPOCHS:
            del epochs[next(iter(epochs))]
        if earlier == stamp.digest:
            return None
        pair = (min(earlier, stamp.digest), max(earlier, stamp.digest))
        if pair in self._seen:
            return None
        held = registers.delta(delta.scope, earlier)
        raws = (delta.raw,) if held is None else (held.raw, delta.raw)
        named = (delta.scope, stamp.kid, stamp.gen, stamp.epoch, earlier.hex(), stamp.digest.hex())
        self._seen[pair] = found = Equivocation(*named, raws)
        if len(self._seen) > MAX_CONFLICTS:
            self._seen.popitem(last=False)
        return found

    def __iter__(self) -> Iterator[Equivocation]:
        return iter(tuple(self._seen.values()))
