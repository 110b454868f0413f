"""Each invariant can fail by its own name: a rule is broken on purpose in a scene where only that one can fall.

The mutants of ``test_mutants.py`` break rules in storms, where several invariants may fall first. Together with them,
and with ``test_other_layers.py``, each name of REVIEW 5.11 is accounted for here.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tars_settings.core.session import Received
from tars_settings.core.topics import FloorTopic, KeyTopic
from tars_settings.gossip.peer import Peer
from tars_settings.gossip.replicator import Replicator
from tars_settings.testing.invariants import BrokenInvariant, Liveness, Safety
from tars_settings.testing.merging import Merging
from tars_settings.testing.mesh import SCOPE, Mesh, MeshPeer
from tests.sim.test_mutants import (
    MUTANTS,
    Patch,
    heads_are_not_read,
    nothing_is_repaired,
    ties_by_epoch_and_writer,
)
from tests.sim.test_other_layers import OTHER_LAYERS

NAMES = {*(f"I{n}" for n in range(1, 14)), *(f"L{n}" for n in range(1, 8))}
BY_TRIAL = {"L4": "test_repair_without_suppression_is_caught", "L5": "test_repair_without_a_budget_is_caught"}


def at_rest(**world: object) -> tuple[Mesh, Safety]:
    """A fleet without faults that holds three keys, of which no peer's model has any."""
    mesh = Mesh(1, workers=2, writers=2, **world)  # type: ignore[arg-type]
    safety = Safety(mesh)
    mesh.run(3.0)
    for n in range(3):
        mesh.push("writer-0", {f"k{n}": n})
        mesh.run(3.0)
    return mesh, safety


def a_topic_is_cleared() -> set[str]:
    mesh, safety = at_rest()
    mesh.publish_hostile(mesh.key_topic("k1"), b"")
    mesh.run(360.0)
    return {one.name for one in Liveness(mesh, safety.book).missing()}


def somebody_joins() -> set[str]:
    mesh, safety = at_rest()
    joiner = MeshPeer("joiner", None)
    mesh.peers["joiner"] = joiner
    mesh.start(joiner)
    mesh.run(20.0)
    return broken_by(lambda: Liveness(mesh, safety.book).check_joiner(joiner, ("ready",)))


def one_key_signs_twice() -> set[str]:
    """Two hosts with one key push at the same moment, with the same epoch."""
    mesh, safety = at_rest(shared_key=True)
    for n in range(5):
        for writer in ("writer-0", "writer-1"):
            mesh.push(writer, {"k0": f"{writer} {n}"})
        mesh.run(1.0)
    return broken_by(lambda: Merging(mesh, safety.book).check_order(rounds=6))


def a_floor_comes_behind_a_tombstone() -> set[str]:
    """Who was away learns of the unset of k1 first, then of a floor below it that lets the older value stand."""
    mesh, _ = at_rest()
    mesh.push("writer-0", {}, unset=("k0",))
    mesh.run(3.0)
    away = mesh.peers["worker-0"]
    mesh.partition(away)
    mesh.compact("writer-0")
    mesh.run(5.0)
    mesh.push("writer-1", {}, unset=("k1",))
    mesh.run(5.0)
    assert mesh.counters["floors"] == len(mesh.peers) - 1
    behind = (mesh.key_topic("k1"), mesh.topics.format(FloorTopic(SCOPE)))
    return broken_by(lambda: [mesh.tell(away, Received(topic, mesh.broker.retained[topic])) for topic in behind])


def models_differ() -> set[str]:
    mesh, safety = at_rest()
    return broken_by(lambda: Merging(mesh, safety.book).check_models(("k0", "k1", "k2")))


def broken_by(check: Callable[[], object]) -> set[str]:
    try:
        check()
    except BrokenInvariant as broken:
        return {broken.name}
    return set()


def floors_take_every_tombstone(patch: Patch) -> None:
    """A floor clears away all tombstones, those above it too."""
    on_floor = Peer._on_floor

    def clearing(self: Peer, scope: str) -> None:
        self.registers.rejudge(lambda one: not any(item.unset for item in one.body.assign), (scope,))
        on_floor(self, scope)

    patch.setattr(Peer, "_on_floor", clearing)


def only_the_models_keys_are_merged(patch: Patch) -> None:
    """Who has no field for a key throws its delta away."""
    handle = Replicator.handle

    def narrow(self: Replicator, event: object, now_s: float) -> object:
        topic = self.topics.parse(event.topic) if isinstance(event, Received) else None
        if isinstance(topic, KeyTopic) and topic.key not in self._syncs[topic.scope].keys:
            return ()
        return handle(self, event, now_s)  # type: ignore[arg-type]

    patch.setattr(Replicator, "handle", narrow)


SCENES: dict[str, tuple[Callable[[], set[str]], Callable[[Patch], None]]] = {
    "I6": (a_floor_comes_behind_a_tombstone, floors_take_every_tombstone),
    "I12": (one_key_signs_twice, ties_by_epoch_and_writer),
    "I13": (models_differ, only_the_models_keys_are_merged),
    "L2": (a_topic_is_cleared, nothing_is_repaired),
    "L3": (somebody_joins, heads_are_not_read),
}


@pytest.mark.parametrize("name", SCENES)
def test_it_holds_and_falls_alone_when_its_rule_is_broken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, mutant = SCENES[name]
    assert scene() == set()
    mutant(monkeypatch)
    assert scene() == {name}


def test_every_invariant_has_a_mutant_that_breaks_it_and_nothing_else() -> None:
    by_storm = {name for names in MUTANTS.values() if len(names) == 1 for name in names}
    assert by_storm | SCENES.keys() | BY_TRIAL.keys() | OTHER_LAYERS.keys() == NAMES
