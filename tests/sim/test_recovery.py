"""A stolen key with a poisoned epoch, twenty workers, a partition: one trust document takes the fleet back."""

from __future__ import annotations

import pytest

from tars_settings.core.delta import Assignment, DeltaBody
from tars_settings.core.stamp import MAX_EPOCH
from tars_settings.core.topics import KeyTopic, TrustTopic
from tars_settings.core.wire import encode
from tars_settings.gossip.effects import Offered
from tars_settings.testing.faults import Faults
from tars_settings.testing.mesh import SCOPE, Mesh, MeshPeer
from tars_settings.trust import succession

GOOD = {"kept": "by the thief's key", "other": "by another"}


def values(peer: MeshPeer) -> dict[str, object]:
    return {key: value for key, value in peer.values().items() if key in GOOD}


def poison(mesh: Mesh) -> None:
    """Sign the last epoch there is with the stolen key, for every key that it may write."""
    body = DeltaBody(SCOPE, 1, MAX_EPOCH, 1, tuple(Assignment(key, set="poison") for key in sorted(GOOD)))
    payload = mesh.keys[1].sign("delta", mesh.fleet, encode(body))
    for key in GOOD:
        mesh.publish_at(0, mesh.topics.format(KeyTopic(SCOPE, key)), payload, retain=True)


def recover(mesh: Mesh, good_until: int) -> None:
    """What ``keys compromise`` does, at the writer whose key was not stolen."""
    peer = mesh.peers["writer-0"].replicator
    assert peer is not None
    trust, stolen = peer.peer.trust, mesh.keys[1]
    deltas = list(peer.peer.registers.deltas(SCOPE))
    good = succession.good_digests(deltas, stolen.kid, {SCOPE: good_until}, trust)
    body = succession.compromise(trust, stolen.name, [one.stamp.digest.hex() for one in good.values()])
    payload = mesh.sign_trust(body)
    mesh.tell(mesh.peers["writer-0"], Offered((payload,)))
    mesh.publish_at(0, mesh.topics.format(TrustTopic()), payload, retain=True)


@pytest.mark.parametrize("seed", range(4))
def test_a_poisoned_fleet_of_twenty_recovers_during_a_partition(seed: int) -> None:
    mesh = Mesh(seed, workers=20, faults=Faults(duplicate=0.1, reorder=0.2))
    workers = [peer for name, peer in mesh.peers.items() if name.startswith("worker")]
    spared, poisoned, connected = workers[:7], workers[7:13], workers[13:]
    mesh.run(10.0)
    mesh.push("writer-1", {"kept": GOOD["kept"]})
    mesh.run(5.0)
    mesh.push("writer-0", {"other": GOOD["other"]})
    mesh.run(5.0)
    assert all(values(peer) == GOOD for peer in workers)
    replicator = mesh.peers["writer-0"].replicator
    assert replicator is not None
    good_until = replicator.peer.registers.highest(SCOPE)[1]

    mesh.partition(*spared)
    poison(mesh)
    mesh.run(5.0)
    assert all(set(values(peer).values()) == {"poison"} for peer in poisoned + connected), "the poison worked"
    assert all(values(peer) == GOOD for peer in spared)
    mesh.partition(*poisoned)
    ref = mesh.push("writer-0", {"other": "blocked"})
    mesh.run(5.0)
    (refused,) = mesh.peers["writer-0"].stages[ref]
    assert (refused.stage, refused.error) == ("refused", "EpochExhaustedError")

    recover(mesh, good_until)
    mesh.run(20.0)
    assert all(values(peer) == GOOD for peer in connected), "recovered while a part of the fleet is cut off"
    assert all(set(values(peer).values()) == {"poison"} for peer in poisoned), "which does not know it yet"

    mesh.heal()
    mesh.faults = Faults()
    poison(mesh)  # the thief tries again
    assert mesh.run(240.0, until=lambda: mesh.replicas_agree() and mesh.broker_agrees())
    assert all(values(peer) == GOOD for peer in workers)
    ref = mesh.push("writer-0", {"other": "as ever"})
    mesh.run(10.0)
    assert mesh.peers["writer-0"].stages[ref][-1].stage == "retained"
    assert all(values(peer)["other"] == "as ever" for peer in workers)
    assert mesh.counters["partitions"] == 2
    assert mesh.counters["duplicates"] > 0
