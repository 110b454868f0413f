"""Trials: one fault in a plain setting, where what must come of it can be said in numbers."""

from __future__ import annotations

from typing import Final

from tars_settings.gossip.repair import RepairPolicy
from tars_settings.gossip.replicator import Policy
from tars_settings.testing.invariants import BrokenInvariant, Liveness, Safety
from tars_settings.testing.mesh import Mesh

MOST_REPAIRS_PER_TOPIC: Final = 2.0


def filled(seed: int, *, workers: int, keys: int, policy: Policy | None = None) -> Mesh:
    """Return a mesh at rest whose one writer has pushed *keys* keys."""
    mesh = Mesh(seed, workers=workers, writers=1, policy=policy or Policy(repairing=RepairPolicy()))
    mesh.run(3.0)
    for n in range(keys):
        mesh.push("writer-0", {f"k{n}": n})
        mesh.run(0.2)
    mesh.run(5.0)
    return mesh


def refill(seed: int, *, workers: int = 12, keys: int = 20, policy: Policy | None = None) -> float:
    """Clear every topic before everybody's eyes, and return how many publishes each lost topic cost.

    Raises:
        BrokenInvariant: L4, more than two; L2, the broker was not filled again.
    """
    mesh = filled(seed, workers=workers, keys=keys, policy=policy)
    lost = [topic for topic in mesh.broker.retained if topic.startswith(mesh.topics.prefix)]
    for topic in lost:
        mesh.publish_hostile(topic, b"")
    mesh.run(90.0)
    if not mesh.broker_agrees():
        raise BrokenInvariant("L2", "the broker was not filled again")
    each = mesh.counters["repairs"] / len(lost)
    if each > MOST_REPAIRS_PER_TOPIC:
        raise BrokenInvariant("L4", f"{each:.1f} publishes for each lost topic")
    return each


def siege(seed: int, *, seconds: int = 30, workers: int = 5, keys: int = 60) -> int:
    """Have somebody overwrite 50 topics a second without end, and return how many repairs that drew.

    Raises:
        BrokenInvariant: L5, the repairs exceed the budgets of all peers together, or a view is wrong.
    """
    policy = Policy(repairing=RepairPolicy(delay_s=1.0, peers=100))
    mesh = filled(seed, workers=workers, keys=keys, policy=policy)
    safety = Safety(mesh)
    before, views = mesh.counters["repairs"], [peer.view() for peer in mesh.running()]
    for _ in range(seconds * 50):
        topic = mesh.key_topic(f"k{mesh.random.randrange(keys)}")
        mesh.publish_hostile(topic, mesh.random.randbytes(20))
        mesh.run(0.02)
    repairs = mesh.counters["repairs"] - before
    # Each peer: the first round of each topic, a burst, and one a second from then on.
    most = len(mesh.running()) * (keys + policy.repairing.burst + policy.repairing.rate * seconds)
    if repairs > most:
        raise BrokenInvariant("L5", f"{repairs} repairs in {seconds} s, the budget is {most:.0f}")
    if [peer.view() for peer in mesh.running()] != views or Liveness(mesh, safety.book).wrong_views():
        raise BrokenInvariant("L5", "a view changed")
    return repairs
