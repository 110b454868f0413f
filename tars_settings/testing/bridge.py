"""A bridge between brokers as a model: it forwards what is published, and after a cut it swaps what is retained.

That is what bridged mosquitto does (REVIEW F6): each side sends its retained messages to the other when the link comes
back, so conflicting values change places, an older value lands on a newer one, and a deleted one returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tars_settings.testing.mesh import Mesh


class Bridge:
    """Joins all brokers of a mesh; with one broker it does nothing."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.up = True
        self._session = 0
        self._arrival_s = 0.0

    def cut(self) -> None:
        """Cut the link; what is on its way is lost."""
        if self.up and len(self._mesh.brokers) > 1:
            self.up = False
            self._session += 1
            self._mesh.counters["bridge cuts"] += 1

    def heal(self) -> None:
        """Join again."""
        if not self.up:
            self.up = True
            self.swap()

    def swap(self) -> None:
        """Send each side's retained messages to the other, all at once: when the link is back, or a broker."""
        if not self.up or len(self._mesh.brokers) == 1:
            return
        retained = [dict(broker.retained) for broker in self._mesh.brokers]
        for origin, topics in enumerate(retained):
            for topic, payload in topics.items():
                self._swapped(origin, topic, payload)
                self.forward(origin, topic, payload, retain=True)

    def _swapped(self, origin: int, topic: str, payload: bytes) -> None:
        others = [broker for number, broker in enumerate(self._mesh.brokers) if number != origin]
        if any(broker.retained.get(topic, payload) != payload for broker in others):
            self._mesh.counters["bridge swaps"] += 1

    def forward(self, origin: int, topic: str, payload: bytes, *, retain: bool) -> None:
        """Carry a publish from one broker to the others."""
        if not self.up or not topic.startswith(self._mesh.topics.prefix):
            return
        session = self._session
        # One connection: nothing overtakes, whatever the latency does.
        self._arrival_s = max(self._arrival_s, self._mesh.now_s + self._mesh.faults.latency_s[1])
        for number in range(len(self._mesh.brokers)):
            if number != origin:
                self._mesh.after(
                    self._arrival_s - self._mesh.now_s,
                    lambda number=number: self._arrive(number, session, topic, payload, retain=retain),  # type: ignore[misc]
                )

    def _arrive(self, number: int, session: int, topic: str, payload: bytes, *, retain: bool) -> None:
        if self.up and self._session == session:
            self._mesh.publish_at(number, topic, payload, retain=retain, bridged=True)
