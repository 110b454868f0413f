"""A fleet under one kind of fault at a time: each is counted, and all agree in the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tars_settings.gossip.repair import RepairPolicy
from tars_settings.gossip.replicator import Policy
from tars_settings.testing.invariants import Liveness, Safety
from tars_settings.testing.mesh import SCOPE, Faults, Mesh

QUICK = Policy(repairing=RepairPolicy(delay_s=1.0, peers=100), audit_s=60.0)
SEEDS = range(8)


def pushes(mesh: Mesh, count: int = 12, pause_s: float = 1.0) -> None:
    """Every writer in turn, on few keys, so that they collide."""
    for n in range(count):
        writer = f"writer-{n % 2}"
        mesh.push(writer, {f"k{n % 4}": n, f"k{(n + 1) % 4}": -n}, unset=("old",) if n % 5 == 4 else ())
        mesh.run(pause_s)


def settle(mesh: Mesh) -> None:
    """Stop every fault, and ask that all agree within six audits."""
    mesh.faults = Faults()
    mesh.heal()
    assert mesh.run(360.0, until=lambda: False) is False
    assert mesh.replicas_agree()
    assert mesh.broker_agrees()


def unreliable(mesh: Mesh) -> None:
    mesh.faults = Faults(loss=0.05, duplicate=0.1, reorder=0.2)
    pushes(mesh, 30)


def restarts(mesh: Mesh) -> None:
    for peer in tuple(mesh.peers.values()):
        pushes(mesh, 2)
        mesh.kill(peer)
        pushes(mesh, 2, 0.1)
        mesh.start(peer)


def power_losses(mesh: Mesh) -> None:
    for peer in tuple(mesh.peers.values()):
        pushes(mesh, 2, 0.02)
        mesh.crash(peer)
        pushes(mesh, 2, 0.1)
        mesh.start(peer)


def crashes_between_effects(mesh: Mesh) -> None:
    for fuse in range(12):
        mesh.peers[f"writer-{fuse % 2}"].fuse = fuse
        mesh.peers["worker-0"].fuse = fuse
        pushes(mesh, 2, 3.0)


def wipes(mesh: Mesh) -> None:
    pushes(mesh)
    for peer in tuple(mesh.peers.values()):
        mesh.wipe(peer)
        mesh.run(1.0)
        mesh.start(peer)
        mesh.run(5.0)


def amnesia(mesh: Mesh) -> None:
    pushes(mesh)
    mesh.stop_broker()
    mesh.start_broker({})


def rollback(mesh: Mesh) -> None:
    pushes(mesh, 4)
    saved = dict(mesh.broker.retained)
    pushes(mesh, 8)
    mesh.stop_broker()
    mesh.start_broker(saved)


def partitions(mesh: Mesh) -> None:
    mesh.run(5.0)
    mesh.partition(mesh.peers["worker-0"], mesh.peers["writer-0"])
    pushes(mesh)
    mesh.heal()
    mesh.run(0.1)
    mesh.partition(mesh.peers["worker-1"], mesh.peers["writer-1"])
    pushes(mesh, 3)


def full_queues(mesh: Mesh) -> None:
    mesh.faults = Faults(queue_limit=3, replay_limit=2)
    pushes(mesh, 20, 0.01)


SCENES: dict[str, tuple[Callable[[Mesh], None], tuple[str, ...]]] = {
    "loss, duplicates and reordering": (unreliable, ("lost deliveries", "lost publishes", "duplicates", "reorders")),
    "restarts": (restarts, ("kills",)),
    "power losses": (power_losses, ("power losses",)),
    "crashes between effects": (crashes_between_effects, ("crashes between effects",)),
    "wiped disks": (wipes, ("wipes",)),
    "a broker without its memory": (amnesia, ("broker amnesias", "repairs")),
    "a broker with an older memory": (rollback, ("broker rollbacks", "repairs")),
    "partitions": (partitions, ("partitions",)),
    "full queues": (full_queues, ("queue drops",)),
}


@pytest.mark.parametrize("protocol", [5, 4], ids=["5", "3.1.1"])
@pytest.mark.parametrize("scene", SCENES)
def test_all_agree_after(scene: str, protocol: int) -> None:
    act, faults = SCENES[scene]
    counted = dict.fromkeys(faults, 0)
    for seed in SEEDS:
        mesh = Mesh(seed, workers=3, writers=2, policy=QUICK, protocol=protocol)
        safety = Safety(mesh)
        mesh.run(3.0)
        act(mesh)
        settle(mesh)
        assert list(Liveness(mesh, safety.book).missing()) == []
        assert safety.steps > 0
        for fault in faults:
            counted[fault] += mesh.counters[fault]
    assert all(counted.values()), f"a knob had no effect: {counted}"


@pytest.mark.parametrize("seed", SEEDS)
def test_bridged_brokers_that_swapped_their_values_agree(seed: int) -> None:
    mesh = Mesh(seed, workers=4, writers=2, policy=QUICK, brokers=2)
    Safety(mesh)
    mesh.run(3.0)
    pushes(mesh, 4)
    mesh.bridge.cut()
    mesh.push("writer-0", {"k0": "here"}, unset=("k1",))
    mesh.push("writer-1", {"k1": "there"}, unset=("k0",))
    mesh.run(5.0)
    assert not mesh.replicas_agree(), "the cut had no effect"
    mesh.bridge.heal()
    assert mesh.counters["bridge swaps"] > 0
    settle(mesh)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_key_on_two_hosts_ends_the_same_everywhere(seed: int) -> None:
    mesh = Mesh(seed, workers=3, writers=2, policy=QUICK, shared_key=True)
    Safety(mesh)
    mesh.run(3.0)
    for n in range(5):
        mesh.partition(mesh.peers["writer-0"], mesh.peers["worker-0"])
        mesh.heal()
        mesh.push("writer-0", {"k": f"here {n}"})
        mesh.push("writer-1", {"k": f"there {n}"})
        mesh.run(1.0)
    settle(mesh)
    said = {one.stamp.epoch for one in mesh.running()[0].replicator.peer.registers.deltas(SCOPE)}  # type: ignore[union-attr]
    assert said


def test_a_lost_broker_is_refilled_by_about_one_publish_a_topic() -> None:
    mesh = Mesh(1, workers=10, writers=1, policy=Policy(repairing=RepairPolicy(delay_s=5.0, peers=10_000)))
    mesh.run(3.0)
    for n in range(20):
        mesh.push("writer-0", {f"k{n}": n})
        mesh.run(0.5)
    topics = len(mesh.broker.retained)
    mesh.stop_broker()
    mesh.start_broker({})
    mesh.run(60.0)
    assert mesh.broker_agrees()
    assert topics * 0.9 <= mesh.counters["repairs"] <= topics * 2


def test_the_same_seed_gives_the_same_run() -> None:
    runs = []
    for _ in range(2):
        mesh = Mesh(7, faults=Faults(loss=0.05, duplicate=0.1, reorder=0.2))
        pushes(mesh)
        runs.append((mesh.counters, mesh.broker.retained, [peer.view() for peer in mesh.running()]))
    assert runs[0] == runs[1]
