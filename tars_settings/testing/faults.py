"""How much goes wrong in a mesh, and the names under which it is counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Faults:
    """Probabilities per message, and virtual seconds.

    ``loss`` of a message on its way to or from the broker, ``duplicate`` of a delivery, ``reorder`` of one behind
    later ones. ``queue_limit``: how many messages the broker keeps on their way to one session, the rest is dropped
    without a word (0: no limit). ``replay_limit``: how many retained messages a wildcard subscription replays (None:
    all; default mosquitto stops at 1,020, RabbitMQ gives none).
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    latency_s: tuple[float, float] = (0.001, 0.05)
    queue_limit: int = 0
    replay_limit: int | None = None


NONE = Faults()
"""Nothing goes wrong."""
