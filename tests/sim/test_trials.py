"""Trials in virtual time: whatever is lost, killed or comes late, all workers use the same in the end."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tars_settings.core.delta import Delta
from tars_settings.core.register import FleetView
from tars_settings.core.trial import Countdowns, TrialMark
from tars_settings.gossip.effects import Effect, Merged
from tars_settings.testing.mesh import SCOPE, Faults, Mesh, MeshPeer
from tests.sim.test_mesh import QUICK, settle

SEEDS = range(3)
TRIAL_S = 300
OLD: dict[str, Any] = {"a": "old", "b": "old"}
NEW: dict[str, Any] = {"a": "new", "c": "new"}
BEFORE = {"a": "old", "b": "old"}
AFTER = {"a": "new", "b": "old", "c": "new"}


class Users:
    """What the workers of a mesh use: the countdowns of production, with the mesh's time and disks."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.kept: dict[str, tuple[TrialMark, ...]] = {}
        self.runs = {peer.name: Countdowns() for peer in self.workers()}
        self.ended: set[str] = set()
        mesh.observers.append(self._see)

    def workers(self) -> list[MeshPeer]:
        return [peer for peer in self.mesh.peers.values() if peer.name.startswith("worker")]

    def _see(self, peer: MeshPeer, effect: Effect) -> None:
        if isinstance(effect, Merged) and effect.delta.trial is not None and peer.name in self.runs:
            self._meet(peer, effect.delta, fresh=effect.way == "live")

    def _meet(self, peer: MeshPeer, delta: Delta, *, fresh: bool) -> None:
        runs = self.runs[peer.name]
        runs.meet(delta, self.mesh.now_s, age_s=0.0 if fresh else self.mesh.now_s - float(delta.body.at))
        self._note(peer)

    def _note(self, peer: MeshPeer) -> None:
        runs, now_s = self.runs[peer.name], self.mesh.now_s
        if runs.wants_note(now_s) and peer.replicator is not None:
            held = {delta.stamp.digest for delta in peer.replicator.peer.registers.deltas(SCOPE)}
            self.kept[peer.name] = runs.marks(now_s, int(now_s * 1000), held)

    def restart(self, peer: MeshPeer, down_s: float, *, wipe: bool = False) -> None:
        """Kill a worker and start it again, with what its disk remembers, if that is left."""
        self.mesh.wipe(peer) if wipe else self.mesh.kill(peer)
        if wipe:
            self.kept.pop(peer.name, None)
        self.run(down_s)
        self.runs[peer.name] = Countdowns(self.kept.get(peer.name, ()), wall_ms=int(self.mesh.now_s * 1000))
        self.mesh.start(peer)

    def run(self, seconds: float) -> None:
        """Let time pass, and have every worker look at its trials once a second."""
        for _ in range(int(seconds)):
            self.mesh.run(1.0)
            for peer in self.workers():
                self.ended |= {peer.name for _ in self.runs[peer.name].tick(self.mesh.now_s)}
                self._note(peer)

    def values(self, peer: MeshPeer) -> dict[str, Any]:
        """Return what a worker uses."""
        assert peer.replicator is not None
        registers = peer.replicator.peer.registers
        for delta in tuple(registers.deltas(SCOPE)):
            self._meet(peer, delta, fresh=False)
        view = FleetView.of(registers, [SCOPE], self.runs[peer.name].is_undone)
        return {one.key: one.assignment.set for scoped in view.scopes for one in scoped.registers}

    def all_use(self, wanted: dict[str, Any]) -> bool:
        return all(self.values(peer) == wanted for peer in self.workers())


def nobody(users: Users) -> None:
    users.run(TRIAL_S)
    assert len(users.ended) == 5


def confirmed_in_time(users: Users) -> None:
    users.mesh.push("writer-1", NEW)
    users.run(TRIAL_S)


def confirmed_late(users: Users) -> None:
    users.run(TRIAL_S + 60)
    assert users.all_use(BEFORE)
    users.mesh.push("writer-1", NEW)


def reverted(users: Users) -> None:
    users.mesh.push("writer-1", {"a": "old"}, unset=("c",))
    users.run(10)
    assert users.all_use(BEFORE), "before its time is over"


ENDS: dict[str, tuple[Callable[[Users], None], dict[str, Any]]] = {
    "nobody": (nobody, BEFORE),
    "confirmed in time": (confirmed_in_time, AFTER),
    "confirmed late": (confirmed_late, AFTER),
    "reverted": (reverted, BEFORE),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_all_workers_end_up_using_the_same(seed: int, end: str) -> None:
    finish, wanted = ENDS[end]
    mesh, random = Mesh(seed, policy=QUICK, workers=5), Random(seed)
    users = Users(mesh)
    mesh.run(5.0)
    mesh.push("writer-0", OLD)
    users.run(10)
    mesh.faults = Faults(loss=0.05, duplicate=0.1, reorder=0.2)
    mesh.push("writer-0", NEW, trial_s=TRIAL_S)
    users.run(60)
    assert users.all_use(AFTER)
    mesh.kill(mesh.peers["writer-0"])
    for number, peer in enumerate(random.sample(users.workers(), 3)):
        users.restart(peer, random.randrange(20), wipe=number == 0)
        users.run(random.randrange(1, 20))
    mesh.faults = Faults()
    users.run(20)
    assert users.all_use(AFTER), "the countdown goes on, and is not over"
    finish(users)
    mesh.start(mesh.peers["writer-0"])
    late = users.workers()[0]
    users.restart(late, 1, wipe=True)
    users.run(60)
    settle(mesh)
    assert users.all_use(wanted)
    assert mesh.counters["pushes on trial"] == 1
    assert mesh.counters["kills"] >= 4
    assert mesh.counters["wipes"] == 2
    assert mesh.counters["lost deliveries"]


@pytest.mark.parametrize("seed", SEEDS)
def test_merging_knows_nothing_of_trials(seed: int) -> None:
    """Two meshes, the same but for the trials, end up with the same winners."""
    winners: list[dict[str, Any]] = []
    for trial_s in (0, TRIAL_S):
        mesh, random = Mesh(seed, policy=QUICK), Random(seed)
        mesh.run(5.0)
        mesh.faults = Faults(loss=0.05, duplicate=0.1, reorder=0.2)
        for n in range(12):
            # One writer: a tie between two would be broken by the digest, which no two meshes share.
            keys = random.sample(("a", "b", "c", "d"), 2)
            mesh.push("writer-0", {keys[0]: n}, unset=(keys[1],), trial_s=trial_s)
            mesh.run(random.choice((0.0, 2.0)))
        settle(mesh)
        assert mesh.counters["pushes on trial"] == (12 if trial_s else 0)
        worker = mesh.peers["worker-0"].replicator
        assert worker is not None
        held = worker.peer.registers.winners(SCOPE)
        winners.append({key: (one.delta.stamp.epoch, one.assignment.set) for key, one in held.items()})
    assert winners[0] == winners[1]
