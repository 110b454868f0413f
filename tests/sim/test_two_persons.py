"""Two persons in a fleet: drafts, consents and a thief with one of the keys, under loss and partitions."""

from __future__ import annotations

import itertools

import pytest

from tars_settings.core.delta import Assignment, DeltaBody
from tars_settings.core.draft import read_draft
from tars_settings.core.wire import encode
from tars_settings.gossip.effects import Offered, Push, Rejected, Stage
from tars_settings.testing.faults import Faults
from tars_settings.testing.mesh import SCOPE, Mesh
from tars_settings.trust.cosign import consent
from tars_settings.trust.document import Demand, TrustBody, Writer

REFS = itertools.count(10_000)


def bound(mesh: Mesh) -> bytes:
    """Return a trust document in which writer-0 needs the consent of writer-1, who needs none."""
    first, second = mesh.keys
    demand = Demand(SCOPE, 1, (second.kid,))
    writers = (Writer(first.name, first.public, ("*",), cosign=(demand,)), Writer(second.name, second.public, ("*",)))
    return mesh.sign_trust(TrustBody(2, 1, (mesh.root.public,), 1, writers))


def told(mesh: Mesh, push: Push) -> Stage:
    author = mesh.peers["writer-0"]
    mesh.tell(author, push)
    mesh.run(60.0, until=lambda: bool(author.stages.get(push.ref)))
    return author.stages[push.ref][0]


def drafted(mesh: Mesh, value: int) -> bytes:
    """Return the body of a draft that the second writer consented to."""
    stage = told(mesh, Push(next(REFS), SCOPE, (Assignment("k", set=value),), draft=True))
    assert stage.stage == "drafted", stage
    return read_draft(consent(read_draft(stage.draft, mesh.fleet), mesh.keys[1]), mesh.fleet).raw_body


def publish(mesh: Mesh, body: bytes) -> Stage:
    return told(mesh, Push(next(REFS), SCOPE, (Assignment("k", set=0),), cosigned=body))


@pytest.mark.parametrize("seed", range(4))
def test_a_fleet_follows_two_persons_and_never_one(seed: int) -> None:
    mesh = Mesh(seed, faults=Faults(loss=0.03, duplicate=0.1, reorder=0.2))
    rejected: list[str] = []
    mesh.observers.append(lambda peer, effect: rejected.append(effect.reason) if isinstance(effect, Rejected) else None)
    mesh.run(10.0)
    mesh.tell(mesh.peers["writer-1"], Offered((bound(mesh),)))
    mesh.run(20.0)
    alone = told(mesh, Push(next(REFS), SCOPE, (Assignment("k", set=0),)))
    assert (alone.stage, alone.error) == ("refused", "NotCosignedError")
    for value in range(1, 4):
        assert publish(mesh, drafted(mesh, value)).stage == "signed"
        mesh.run(10.0)
    slow = drafted(mesh, 99)
    mesh.push("writer-1", {"other": 1})
    mesh.run(10.0)
    assert publish(mesh, slow).error == "ConflictError"

    mesh.partition(mesh.peers["worker-0"], mesh.peers["worker-1"])
    thief = DeltaBody(SCOPE, 1, 50, 2, (Assignment("k", set="stolen"),))
    payload = mesh.keys[0].sign("delta", mesh.fleet, encode(thief))
    mesh.publish_at(0, mesh.key_topic("k"), payload, retain=True)
    mesh.run(20.0)
    assert "not-cosigned" in rejected, "the thief was met"
    mesh.heal()
    mesh.faults = Faults()
    assert mesh.run(360.0, until=lambda: mesh.replicas_agree() and mesh.broker_agrees())
    assert {str(peer.values()["k"]) for peer in mesh.running()} == {"3"}
    assert mesh.counters["lost deliveries"] + mesh.counters["lost publishes"] > 0
