"""What a run should meet now and then: rare states that a simulator which never reaches them proves nothing about.

``held``, ``endorsed deltas in force``, ``repair fights`` and ``live writes below a floor`` are counted here; a replay
that is cut, a disk that takes nothing and MQTT 3.1.1 are faults, which the mesh counts. Three belong to other layers,
and to their tests: a fork (``tests/integration/test_processes.py``), a start from the last known good values
(``tests/join/test_probation.py``), the step down to MQTT 3.1.1 (``tests/adapters/test_mqtt_hostile.py``).
"""

from __future__ import annotations

from tars_settings.gossip.effects import Effect, FloorRaised, HeldBack, RepairFight, TrustChanged
from tars_settings.testing.invariants import Safety, fate_of
from tars_settings.testing.mesh import Mesh, MeshPeer


class Sometimes:
    """Watches a mesh beside its *safety* and counts into ``mesh.counters``."""

    def __init__(self, mesh: Mesh, safety: Safety) -> None:
        self.mesh = mesh
        self.safety = safety
        mesh.observers.append(self.on_effect)

    def on_effect(self, peer: MeshPeer, effect: Effect) -> None:
        """Count what shows in an effect."""
        match effect:
            case HeldBack():
                self.mesh.counters["held"] += 1
            case RepairFight():
                self.mesh.counters["repair fights"] += 1
            case FloorRaised(voided=voided) if voided:
                self._count_voided(peer)
            case TrustChanged():
                self._count_endorsed(peer)

    def look(self) -> None:
        """Count what shows at rest."""
        for peer in self.mesh.running():
            self._count_endorsed(peer)

    def _count_voided(self, peer: MeshPeer) -> None:
        lives = fate_of(self.mesh, self.safety.book, peer)
        shown = self.safety.seen_last(peer).items()
        void = [place for place, stamp in shown if not lives(place[0], stamp.gen, stamp.epoch, stamp.digest)]
        self.mesh.counters["live writes below a floor"] += len(void)

    def _count_endorsed(self, peer: MeshPeer) -> None:
        if peer.replicator is None:
            return
        law = self.safety.book.law(peer.replicator.peer.trust.raw)
        shown = {digest for scope in self.mesh.scopes for digest in peer.view(scope).values()} & law.endorsed
        entries = [self.safety.book.entry(payload) for payload in self.mesh.signed] if shown else []
        self.mesh.counters["endorsed deltas in force"] += sum(
            entry is not None and entry.digest in shown and not law.is_in_office(entry) for entry in entries
        )
