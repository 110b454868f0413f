"""Pushes that wait until their scope was caught up."""

from __future__ import annotations

import math

from tars_settings.gossip.effects import Push


class WaitingPushes:
    """In the order they came, each with the time at which it is refused."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Push, float]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, push: Push, due_s: float) -> None:
        """Have a push wait until *due_s* at most."""
        self._waiting.append((push, due_s))

    def take(self, scope: str) -> list[Push]:
        """Return, and keep no longer, the pushes to one scope."""
        taken = [push for push, _ in self._waiting if push.scope == scope]
        self._waiting = [(push, due_s) for push, due_s in self._waiting if push.scope != scope]
        return taken

    def take_late(self, now_s: float) -> list[Push]:
        """Return, and keep no longer, the pushes whose time is over."""
        if not self._waiting:
            return []
        late = [push for push, due_s in self._waiting if due_s <= now_s]
        self._waiting = [(push, due_s) for push, due_s in self._waiting if due_s > now_s]
        return late

    def next_wake_s(self) -> float:
        """Return when take_late() is due, infinity where nothing waits."""
        return min(due_s for _, due_s in self._waiting) if self._waiting else math.inf
