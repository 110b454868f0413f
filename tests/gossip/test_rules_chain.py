"""The trust chain: steps are kept for who comes later; two documents of one version; what endorsement recovers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tars_settings.core.delta import Assignment, DeltaBody
from tars_settings.core.records import TrustRow
from tars_settings.core.topics import KeyTopic, TrustTopic
from tars_settings.core.wire import decode_envelope, encode
from tars_settings.gossip.effects import Effect, HeldBack, Offered, Persist, Rejected, TrustChanged, TrustQuarrel
from tars_settings.gossip.peer import Peer
from tars_settings.gossip.waiting import Standing
from tars_settings.testing.mesh import Mesh
from tars_settings.trust.document import Retirement, TrustBody
from tars_settings.trust.keys import SigningKey
from tests.fleets import ALICE, BOB, MALLORY, ROOT, ROOT_2, ROOT_3, SCOPE, TOPICS, delta, set_, trust_payload
from tests.fleets import writer as listed

V1 = trust_payload()
V2 = trust_payload(2, roots=(ROOT_2,), signed_by=(ROOT, ROOT_2))
V3 = trust_payload(3, roots=(ROOT_3,), signed_by=(ROOT_2, ROOT_3))
V4 = trust_payload(4, roots=(ROOT_3,))


def new_peer() -> tuple[Peer, list[Any]]:
    effects: list[Effect] = []
    return Peer(TOPICS, ROOT.public, effects.append), effects


def test_a_document_of_other_roots_is_held_until_the_steps_between_are_here() -> None:
    peer, effects = new_peer()
    assert peer.receive(TrustTopic(), V4, "probe") is Standing.ALONE
    assert [one.reason for one in effects if isinstance(one, HeldBack)] == ["chain-missing"]
    assert peer.wanted_versions() == (1, 2, 3)
    for version, payload in ((1, V1), (2, V2)):
        peer.receive(TrustTopic(version), payload, "probe")
    assert peer.trust.version == 2
    assert peer.wanted_versions() == (3,)
    peer.receive(TrustTopic(3), V3, "probe")
    assert peer.trust.version == 4, "what was held is followed as soon as it can be"
    assert [peer.desired(TrustTopic(n)) for n in (None, 1, 2, 3, 4)] == [V4, V1, V2, V3, V4]


def test_steps_may_come_in_any_order_with_the_newest_asked_again() -> None:
    for order in itertools.permutations([(1, V1), (2, V2), (3, V3)]):
        peer, _ = new_peer()
        peer.receive(TrustTopic(), V4, "probe")
        for _ in range(3):
            for version, payload in order:
                peer.receive(TrustTopic(version), payload, "probe")
        assert peer.trust.version == 4


def test_each_document_needs_the_threshold_of_the_one_before_and_of_its_own() -> None:
    peer, _ = new_peer()
    for payload in (V1, V2, trust_payload(3, roots=(ROOT_2, ROOT_3), threshold=2, signed_by=(ROOT_2,))):
        peer.receive(TrustTopic(), payload, "live")
    assert peer.trust.version == 2
    peer.receive(TrustTopic(), trust_payload(3, roots=(ROOT_3,), signed_by=(ROOT_3,)), "live")
    assert peer.trust.version == 2


def test_a_document_that_nobody_can_lead_to_is_void_in_the_end() -> None:
    peer, effects = new_peer()
    peer.receive(TrustTopic(), V1, "probe")
    fake = trust_payload(9, roots=(MALLORY,), signed_by=(MALLORY,))
    assert peer.receive(TrustTopic(), fake, "live") is Standing.ALONE
    assert peer.release_held() == (TOPICS.format(TrustTopic()),)
    assert [one.reason for one in effects if isinstance(one, Rejected)] == ["untrusted"]
    assert peer.receive(TrustTopic(), fake, "live") is Standing.WORSE, "and is repaired from now on"
    assert peer.wanted_versions() == tuple(range(2, 9)), "and its steps are asked for now and then"


def test_a_step_is_only_believed_on_its_own_topic() -> None:
    peer, effects = new_peer()
    assert peer.receive(TrustTopic(7), V1, "live") is Standing.ALONE
    assert peer.trust.is_pin
    assert [one.reason for one in effects if isinstance(one, Rejected)] == ["malformed"]


def test_of_two_documents_of_one_version_the_higher_digest_wins_and_an_alarm_says_so() -> None:
    one, two = (trust_payload(2, reason=reason) for reason in ("one", "two"))
    ends = set()
    for order in ((one, two), (two, one)):
        peer, effects = new_peer()
        for payload in (V1, *order):
            peer.receive(TrustTopic(), payload, "live")
        ends.add(peer.trust.raw)
        (alarm,) = [effect for effect in effects if isinstance(effect, TrustQuarrel)]
        assert alarm.version == 2
        assert alarm.in_force == peer.trust.digest.hex() > alarm.other
        rows = [row for effect in effects if isinstance(effect, Persist) for row in effect.put]
        dropped = [row for effect in effects if isinstance(effect, Persist) for row in effect.drop]
        kept = [row for row in rows if isinstance(row, TrustRow) and row not in dropped]
        assert [row.version for row in kept] == [1, 2], "the loser's row goes: the winner may not follow from it"
    assert len(ends) == 1


def test_a_quarrel_over_the_roots_themselves_ends_the_same_on_all_sides() -> None:
    one = trust_payload(2, roots=(ROOT_2,), signed_by=(ROOT, ROOT_2))
    two = trust_payload(2, roots=(ROOT_3,), signed_by=(ROOT, ROOT_3))
    ends = set()
    for order in ((one, two), (two, one)):
        peer, _ = new_peer()
        for payload in (V1, *order):
            peer.receive(TrustTopic(), payload, "live")
        ends.add(peer.trust.raw)
    assert len(ends) == 1, "neither variant's roots signed the other: only the document before both can judge"


def test_other_cosignatures_on_one_document_are_no_damage_and_too_few_are() -> None:
    body = encode(TrustBody(2, 1, (ROOT_2.public, ROOT_3.public), 1, (listed(ALICE), listed(BOB))))
    first = ROOT.sign("trust", ROOT.kid, body)
    with_2 = ROOT_2.cosign("trust", ROOT.kid, decode_envelope(first))
    with_3 = ROOT_3.cosign("trust", ROOT.kid, decode_envelope(first))
    peer, _ = new_peer()
    for payload in (V1, with_2):
        peer.receive(TrustTopic(), payload, "live")
    assert peer.receive(TrustTopic(), with_3, "live") is Standing.CURRENT
    assert peer.receive(TrustTopic(), first, "live") is Standing.WORSE
    assert peer.trust.raw == with_2


def test_cosignatures_are_malformed_where_one_writer_signs() -> None:
    """They are outside the digest: with them a stranger could make peers hold different bytes of one delta."""
    peer, effects = new_peer()
    peer.receive(TrustTopic(), V1, "live")
    more = MALLORY.cosign("delta", ROOT.kid, decode_envelope(delta(ALICE, 1).raw))
    assert peer.receive(KeyTopic(SCOPE, "vad"), more, "live") is Standing.ALONE
    assert [one.reason for one in effects if isinstance(one, Rejected)] == ["malformed"]
    assert peer.registers.scopes() == ()


# --- in a fleet -------------------------------------------------------------------------------------------------------


def rotated(mesh: Mesh, version: int, old: SigningKey, new: SigningKey) -> bytes:
    keys = [peer.signer for peer in mesh.peers.values() if peer.signer is not None]
    body = TrustBody(version, 1, (new.public,), 1, tuple(listed(key) for key in keys))
    return new.cosign("trust", mesh.fleet, decode_envelope(old.sign("trust", mesh.fleet, encode(body))))


def test_the_steps_are_on_the_broker_for_who_comes_after_two_rotations() -> None:
    mesh = Mesh(21, workers=3)
    mesh.run(20)
    late = mesh.peers["worker-0"]
    mesh.partition(late)
    steps = [rotated(mesh, 2, mesh.root, ROOT_2), rotated(mesh, 3, ROOT_2, ROOT_3)]
    for step in steps:
        mesh.tell(mesh.peers["writer-0"], Offered((step,)))
        mesh.run(5)
    mesh.run(60)
    topics = [mesh.topics.format(TrustTopic(n)) for n in (2, 3)]
    assert [mesh.broker.retained.get(topic) for topic in topics] == steps
    mesh.heal()
    mesh.run(30)
    assert late.replicator is not None
    assert late.replicator.peer.trust.version == 3


def digest_of(mesh: Mesh, writer: str, key: str) -> str:
    return mesh.peers[writer].view()[key].hex()


def test_one_document_recovers_from_a_poisoned_epoch() -> None:
    """Raise gen, mark the key as compromised, endorse what was good: the rest of it is void, and writing goes on."""
    mesh = Mesh(23, workers=3)
    mesh.run(20)
    mesh.push("writer-1", {"good": 1})
    mesh.push("writer-0", {"honest": 1})
    mesh.run(5)
    stolen = mesh.peers["writer-1"].signer
    assert stolen is not None
    good = digest_of(mesh, "writer-0", "good")
    body = DeltaBody("worker", 1, 2**53 - 1, 1, (Assignment("honest", set="poison"),))
    mesh.publish_hostile(mesh.key_topic("honest"), stolen.sign("delta", mesh.fleet, encode(body)))
    mesh.run(5)
    assert mesh.peers["worker-0"].values()["honest"] == "poison", "the fault happened"
    ref = mesh.push("writer-0", {"honest": 2})
    mesh.run(5)
    assert mesh.peers["writer-0"].stages[ref][-1].error == "EpochExhaustedError"
    keys = [peer.signer for peer in mesh.peers.values() if peer.signer is not None]
    writers = tuple(listed(key, status="compromised") if key.kid == stolen.kid else listed(key) for key in keys)
    recovery = mesh.root.sign(
        "trust", mesh.fleet, encode(TrustBody(2, 2, (mesh.root.public,), 1, writers, endorsed=(good,)))
    )
    mesh.tell(mesh.peers["writer-0"], Offered((recovery,)))
    mesh.run(200)
    assert all(peer.values() == {"good": 1, "honest": 1} for peer in mesh.running())
    again = mesh.push("writer-0", {"honest": 3})
    mesh.run(20)
    first = mesh.peers["writer-0"].stages[again][0]
    assert (first.stage, first.gen, first.epoch) == ("signed", 2, 1)
    mesh.run(100)
    assert all(peer.values() == {"good": 1, "honest": 3} for peer in mesh.running())
    assert mesh.replicas_agree()
    fresh = mesh.peers["worker-0"]
    mesh.wipe(fresh)
    mesh.heal()
    mesh.run(60)
    assert fresh.values().get("honest") == 3


def test_a_voided_winner_gives_way_to_the_best_of_the_last_three() -> None:
    peer, effects = new_peer()
    peer.receive(TrustTopic(), V1, "live")
    for epoch in range(1, 6):
        one = delta(ALICE if epoch < 4 else BOB, epoch, set_("vad", epoch))
        peer.receive(KeyTopic(SCOPE, "vad"), one.raw, "live")
    retired = trust_payload(
        2, writers=(listed(ALICE), listed(BOB, status="retired", retired={SCOPE: Retirement(1, 4, 9)}))
    )
    peer.receive(TrustTopic(), retired, "live")
    winner = peer.registers.winner(SCOPE, "vad")
    assert winner is not None
    assert winner.delta.stamp.epoch == 4
    gone = trust_payload(3, writers=(listed(ALICE), listed(BOB, status="compromised")))
    peer.receive(TrustTopic(), gone, "live")
    winner = peer.registers.winner(SCOPE, "vad")
    assert winner is not None
    assert winner.delta.stamp.epoch == 3
    assert [one.voided for one in effects if isinstance(one, TrustChanged)] == [0, 1, 1]


@pytest.mark.parametrize("status", ["retired", "compromised"])
def test_endorsement_vouches_for_a_deltas_bytes_and_not_for_a_head(status: str) -> None:
    peer, _ = new_peer()
    vouched, other = delta(BOB, 1, set_("a")), delta(BOB, 2, set_("b"))
    endorsed = (vouched.stamp.digest.hex(),)
    peer.receive(TrustTopic(), trust_payload(writers=(listed(BOB, status=status),), endorsed=endorsed), "live")
    for key, one in (("a", vouched), ("b", other)):
        peer.receive(KeyTopic(SCOPE, key), one.raw, "live")
    assert peer.registers.winners(SCOPE).keys() == {"a"}
    assert peer.trust.writers_of(SCOPE) == (() if status == "compromised" else (BOB.kid,))
