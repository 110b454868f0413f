"""What was received and is not merged: held until it can be judged, or known to be bad.

Bounded, for strangers fill it.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Collection
from typing import Final

import msgspec

from tars_settings.core.topics import Topic
from tars_settings.gossip.effects import Way

MAX_HELD: Final = 256
MAX_HELD_BYTES: Final = 1024 * 1024
MAX_KNOWN_BAD: Final = 1024


class Standing(enum.Enum):
    """How a payload on a topic compares with what is held."""

    CURRENT = "current"
    WORSE = "worse"
    """Lower, void or garbage, and something better is held: to be repaired."""
    ALONE = "alone"
    """Not judged yet, of a later version, or nothing better is held: left alone."""
    COMPACTED = "compacted"
    """Void below the floor, and nothing of its key is held: to be cleared."""


class Held(msgspec.Struct, frozen=True):
    """Something that can't be judged yet, where it was and how it came."""

    topic: Topic
    payload: bytes
    way: Way
    reason: str


class HeldStore:
    """What waits to be judged; the oldest goes when there is too much, and is fetched again with the rest."""

    def __init__(self) -> None:
        self._held: OrderedDict[bytes, Held] = OrderedDict()
        self._numbers: dict[bytes, int] = {}
        self._bytes = 0
        self.last = 0
        """The number of what came last: they count up."""

    def put(self, fingerprint: bytes, held: Held) -> bool:
        """Keep it and return whether it is new."""
        if fingerprint in self._held:
            return False
        self.last += 1
        self._held[fingerprint] = held
        self._numbers[fingerprint] = self.last
        self._bytes += len(held.payload)
        while len(self._held) > MAX_HELD or self._bytes > MAX_HELD_BYTES:
            self._drop(next(iter(self._held)))
        return True

    def _drop(self, fingerprint: bytes) -> Held:
        held = self._held.pop(fingerprint)
        del self._numbers[fingerprint]
        self._bytes -= len(held.payload)
        return held

    def take(self, reasons: Collection[str] | None = None, *, upto: int | None = None) -> tuple[Held, ...]:
        """Return, and keep no longer, what waits for one of *reasons* (everything where None).

        Only what has a number of at most *upto*, where that is given.
        """
        return tuple(
            self._drop(mark)
            for mark, one in tuple(self._held.items())
            if (reasons is None or one.reason in reasons) and (upto is None or self._numbers[mark] <= upto)
        )

    def waiting_for(self, reason: str) -> tuple[Held, ...]:
        """Return what waits for one reason, and keep it."""
        return tuple(one for one in self._held.values() if one.reason == reason)

    def __len__(self) -> int:
        return len(self._held)


class KnownBad:
    """Fingerprints of what was rejected, and why: a flood of one thing costs a hash each."""

    def __init__(self) -> None:
        self._bad: OrderedDict[bytes, tuple[str, str]] = OrderedDict()

    def put(self, fingerprint: bytes, reason: str, kid: str) -> None:
        """Remember it; the oldest goes when there is too much."""
        self._bad[fingerprint] = (reason, kid)
        if len(self._bad) > MAX_KNOWN_BAD:
            self._bad.popitem(last=False)

    def get(self, fingerprint: bytes) -> tuple[str, str] | None:
        """Return (reason, kid) where it is known."""
        return self._bad.get(fingerprint)

    def clear(self) -> None:
        """Forget all: trust or a floor changed, and what was void may be valid."""
        self._bad.clear()

    def __len__(self) -> int:
        return len(self._bad)
