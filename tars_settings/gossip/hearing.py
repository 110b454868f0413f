"""Live subscriptions that a broker refused: a member of a cluster that elects a leader refuses them for a while."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

FIRST_S: Final = 1.0
MAX_DOUBLING: Final = 256


class Hearing:
    """Which scopes this peer is deaf in, and when to ask for their live messages again: soon, then ever more seldom.

    *random* gives numbers in [0, 1): a fleet does not ask all at once.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._deaf: set[str] = set()
        self._refusals = 0
        self.due_s = math.inf

    def reset(self) -> None:
        """Forget all: the session is gone."""
        self._deaf.clear()
        self._refusals = 0
        self.due_s = math.inf

    def note(self, scopes: tuple[str, ...], now_s: float, *, granted: bool) -> bool:
        """Take note of an answer; return whether it is a new one, after which the scopes are to be caught up."""
        is_repeated = not granted and self._refusals > 0 and self._deaf.issuperset(scopes)
        if granted:
            self._deaf.difference_update(scopes)
            self._refusals = self._refusals if self._deaf else 0
        else:
            self._deaf.update(scopes)
            pause_s = FIRST_S * min(2**self._refusals, MAX_DOUBLING) * (0.5 + self._random())
            self.due_s = min(self.due_s, now_s + pause_s)
            self._refusals += 1
        return not is_repeated

    def take(self) -> tuple[str, ...]:
        """Return the scopes to subscribe to again, now that it is due."""
        self.due_s = math.inf
        return tuple(sorted(self._deaf))
