"""Knowing when a replay is over: a marker behind the subscription that came back twice, as for probes.

A broker does not say which retained message was the last. Messages are ordered per topic only, so one return would
prove little where retained messages come from another node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

ROUNDS: Final = 2
_OWN: Final = b"replay."


class Replays:
    """Open replays by the number of their subscription. *mark* publishes a payload on this peer's marker topic."""

    def __init__(self, mark: Callable[[bytes], None]) -> None:
        self._mark = mark
        self._open: dict[int, tuple[int, Callable[[], None]]] = {}

    def expect(self, ref: int, done: Callable[[], None]) -> None:
        """Call *done* when the replay of subscription *ref* is over."""
        self._open[ref] = (0, done)

    def on_subscribed(self, ref: int) -> None:
        """The broker answered the subscription: send the first marker."""
        if ref in self._open:
            self._send(ref)

    def on_marker(self, payload: bytes) -> bool:
        """Return whether a marker is one of ours, and go on, or finish, when it is the one that is waited for."""
        if not payload.startswith(_OWN):
            return False
        text, _, round_text = payload[len(_OWN) :].decode("ascii", "replace").partition(".")
        ref = -int(text) if text.isdecimal() else 0
        rounds, done = self._open.get(ref, (0, _nothing))
        if ref in self._open and round_text == str(rounds):
            if rounds + 1 < ROUNDS:
                self._open[ref] = (rounds + 1, done)
                self._send(ref)
            else:
                del self._open[ref]
                done()
        return True

    def reset(self) -> None:
        """Forget all: the session that would have answered is gone."""
        self._open.clear()

    def _send(self, ref: int) -> None:
        self._mark(_OWN + f"{-ref}.{self._open[ref][0]}".encode())


def _nothing() -> None:
    """What an unknown marker ends."""
