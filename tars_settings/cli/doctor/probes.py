"""Messages that are left on the broker for a moment, in a place where nobody of the fleet looks, and taken away again.

The place is one's own, below ``<health prefix>/_marker/``: whoever may publish markers may publish there, and no peer
subscribes to it. It is cleared at the end, after Ctrl-C and a lost connection too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from tars_settings.cli.visitor import Visitor
from tars_settings.errors import BrokerError
from tars_settings.sources.environment import Environment

if TYPE_CHECKING:
    from typing_extensions import Self


class Probes:
    """Retained messages of a visitor's own; leaving takes them away."""

    def __init__(self, environment: Environment, visitor: Visitor) -> None:
        self._environment = environment
        self._visitor = visitor
        self.place = visitor.marker.rpartition("/")[0]
        self._left: list[str] = []
        self.remaining: tuple[str, ...] = ()
        """Topics that could not be cleared."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._left:
            return
        with contextlib.suppress(BrokerError):
            if self._visitor.connected:
                self._clear(self._visitor)
        if self._left:
            with contextlib.suppress(BrokerError), Visitor(self._environment) as again:
                self._clear(again)
        self.remaining = tuple(self._left)

    def _clear(self, visitor: Visitor) -> None:
        left = list(dict.fromkeys(self._left))
        done = visitor.publish_all((topic, b"") for topic in left)
        if done == len(left):
            self._left.clear()

    def topic(self, name: str) -> str:
        """Return a topic of the place."""
        return f"{self.place}/{name}"

    def leave(self, name: str, payload: bytes) -> bool:
        """Leave one retained message; return whether the broker acknowledged it with a yes."""
        return self.leave_all([(name, payload)]) == 1

    def leave_all(self, messages: Iterable[tuple[str, bytes]]) -> int:
        """Leave several; return how many were acknowledged with a yes."""
        wanted = [(self.topic(name), payload) for name, payload in messages]
        self._left += [topic for topic, _ in wanted]  # before the first is sent: Ctrl-C may come at any time
        return self._visitor.publish_all(wanted)
