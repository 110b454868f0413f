"""Reading segments on the word of their index, large deltas, conflicts, keepers, what strangers may fill, files."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tars_settings.core.delta import Delta
from tars_settings.core.head import LargeRef, Segment, encode_segment
from tars_settings.core.records import DeltaRow, IndexRow, Row, SegmentRow
from tars_settings.core.session import Publish, Received, SessionUp, Subscribe, Subscribed
from tars_settings.core.topics import FloorTopic, IndexTopic, KeyTopic, SegmentTopic, TrustTopic
from tars_settings.gossip.conflicts import MAX_CONFLICTS
from tars_settings.gossip.effects import (
    Conflict,
    Effect,
    EpochGap,
    Follow,
    ForeignHead,
    Loaded,
    Merged,
    Offered,
    Persist,
    Rejected,
    Stage,
    Wake,
)
from tars_settings.gossip.peer import Peer
from tars_settings.gossip.replicator import PROOFS_PER_SLICE, Policy, Replicator
from tars_settings.gossip.sync import ScopeSync
from tars_settings.gossip.waiting import MAX_HELD, MAX_HELD_BYTES, MAX_KNOWN_BAD, Held, HeldStore, KnownBad, Standing
from tars_settings.testing.mesh import Mesh
from tars_settings.trust.document import Retirement
from tars_settings.trust.keys import SigningKey
from tests.fleets import (
    ALICE,
    BOB,
    MALLORY,
    ROOT,
    SCOPE,
    TOPICS,
    delta,
    delta_payload,
    document,
    index_payload,
    key_topic,
    segment_payload,
    set_,
    trust_payload,
)
from tests.fleets import writer as listed

HEAD = TOPICS.format(IndexTopic(SCOPE, ALICE.kid))


def new_peer() -> tuple[Peer, list[Any]]:
    effects: list[Effect] = []
    peer = Peer(TOPICS, ROOT.public, effects.append)
    peer.adopt_trust(document())
    effects.clear()
    return peer, effects


def of(kind: type, effects: Any) -> list[Any]:
    return [one for one in effects if isinstance(one, kind)]


def rows(effects: Any, kind: type) -> list[Any]:
    return [row for one in of(Persist, effects) for row in one.put if isinstance(row, kind)]


def read(peer: Peer, *payloads: bytes, counter: int = 1) -> None:
    segment = segment_payload(*payloads)
    peer.receive(IndexTopic(SCOPE, ALICE.kid), index_payload(ALICE, counter, {1: segment}), "probe")
    peer.receive(SegmentTopic(SCOPE, ALICE.kid, 1), segment, "probe")


def spoiled(payload: bytes) -> bytes:
    """Return the same body under a signature that does not fit: the digest is the same."""
    at = payload.index(b'"sig":"') + 7
    return payload[:at] + (b"A" if payload[at : at + 1] != b"A" else b"B") + payload[at + 1 :]


# --- on the word of the index ---------------------------------------------------------------------------------------


def test_a_segments_deltas_are_visible_at_once_and_stored_only_when_proven() -> None:
    peer, effects = new_peer()
    good = [delta_payload(ALICE, n, set_(f"k{n}", n)) for n in range(1, 6)]
    read(peer, *good)
    assert len(peer.registers.winners(SCOPE)) == peer.unproven == 5
    assert not rows(effects, DeltaRow)
    peer.prove_some(3)
    assert (peer.unproven, len(rows(effects, DeltaRow))) == (2, 3)
    peer.prove_some(99)
    assert {row.raw for row in rows(effects, DeltaRow)} == set(good)


def test_signatures_are_checked_by_what_is_given_for_it_and_each_delta_gets_its_own_verdict() -> None:
    effects: list[Effect] = []
    asked: list[int] = []

    def spread(check: Any, deltas: Any) -> Any:
        asked.append(len(deltas))
        return [check(delta) for delta in reversed(deltas)][::-1]

    peer = Peer(TOPICS, ROOT.public, effects.append, spread=spread)
    peer.receive(TrustTopic(), trust_payload(), "live")
    payloads = [delta_payload(ALICE, n, set_(f"k{n}", n)) for n in range(1, 8)]
    payloads[2] = spoiled(payloads[2])
    read(peer, *payloads)
    peer.prove_some(5)
    peer.prove_some(5)
    assert asked == [5, 2]
    assert peer.unproven == 0
    assert {row.raw for row in rows(effects, DeltaRow)} == {*payloads} - {payloads[2]}
    assert "k3" not in peer.registers.winners(SCOPE)


def test_nothing_unproven_is_published() -> None:
    peer, effects = new_peer()
    fine, false = delta_payload(ALICE, 1, set_("a")), spoiled(delta_payload(ALICE, 2, set_("b")))
    read(peer, fine, false)
    assert peer.registers.winners(SCOPE).keys() == {"a", "b"}
    assert peer.desired(KeyTopic(SCOPE, "a")) == fine
    assert peer.desired(KeyTopic(SCOPE, "b")) is None
    assert [row.raw for row in rows(effects, DeltaRow)] == [fine]


def test_a_false_signature_voids_the_delta_names_its_writer_and_asks_again() -> None:
    peer, effects = new_peer()
    older = delta_payload(BOB, 1, set_("a", "older"))
    peer.receive(KeyTopic(SCOPE, "a"), older, "live")
    read(peer, spoiled(delta_payload(ALICE, 2, set_("a", "false"))))
    peer.prove_some(99)
    (rejected,) = of(Rejected, effects)
    assert (rejected.reason, rejected.kid) == ("bad-signature", ALICE.kid)
    assert peer.desired(KeyTopic(SCOPE, "a")) == older
    assert peer.take_disturbed() == {SCOPE}
    read(peer, spoiled(delta_payload(ALICE, 2, set_("a", "false"))), counter=2)
    assert peer.unproven == 0, "it is not believed a second time"


def test_a_true_copy_takes_the_place_of_a_false_one() -> None:
    peer, effects = new_peer()
    true = delta_payload(ALICE, 2, set_("a"))
    read(peer, spoiled(true))
    peer.receive(KeyTopic(SCOPE, "a"), true, "live")
    assert peer.desired(KeyTopic(SCOPE, "a")) == true
    assert [row.raw for row in rows(effects, DeltaRow)] == [true]
    assert peer.unproven == 0


@pytest.mark.parametrize("wrong", ["another writer's", "another scope's", "not granted", "garbage"])
def test_a_segment_carries_its_own_writers_valid_deltas_and_nothing_else(wrong: str) -> None:
    peer, _ = new_peer()
    payload = {
        "another writer's": delta_payload(BOB, 1),
        "another scope's": delta_payload(ALICE, 1, scope="tts-worker"),
        "not granted": delta_payload(ALICE, 1, gen=2),
        "garbage": b'{"v":1,"kid":"x"}',
    }[wrong]
    read(peer, payload, delta_payload(ALICE, 7, set_("fine")))
    assert peer.registers.winners(SCOPE).keys() == {"fine"}


def test_a_compromised_writers_unproven_deltas_go_with_its_head() -> None:
    peer, _ = new_peer()
    read(peer, delta_payload(ALICE, 1, set_("a")))
    peer.adopt_trust(document(version=2, writers=(listed(ALICE, status="compromised"), listed(BOB))))
    assert (peer.unproven, peer.registers.winners(SCOPE)) == (0, {})
    assert peer.heads[SCOPE, ALICE.kid].index is None


def test_what_was_void_in_a_segment_is_read_again_when_trust_changes() -> None:
    effects: list[Effect] = []
    peer = Peer(TOPICS, ROOT.public, effects.append)
    peer.adopt_trust(document(writers=(listed(ALICE, (f"{SCOPE}.a",)), listed(BOB))))
    read(peer, delta_payload(ALICE, 1, set_("a")), delta_payload(ALICE, 2, set_("b")))
    assert peer.registers.winners(SCOPE).keys() == {"a"}
    peer.adopt_trust(document(version=2))
    assert peer.registers.winners(SCOPE).keys() == {"a", "b"}


def replicator(signer: SigningKey | None = None, seed: int = 1, **policy: Any) -> Replicator:
    made = Replicator(
        TOPICS, ROOT.public, nonce="0" * 31 + "1", random=random.Random(seed).random, signer=signer,
        policy=Policy(**policy),
    )  # fmt: skip
    made.handle(Follow(SCOPE), 0.0)
    made.handle(Offered((trust_payload(),)), 0.0)
    return made


def test_signatures_are_checked_in_slices_on_wakes() -> None:
    one = replicator()
    payloads = [delta_payload(ALICE, n, set_(f"k{n}")) for n in range(1, PROOFS_PER_SLICE + 50)]
    parts = [payloads[n : n + 60] for n in range(0, len(payloads), 60)]
    segments = {n: segment_payload(*part) for n, part in enumerate(parts, 1)}
    one.handle(Received(HEAD, index_payload(ALICE, 1, segments)), 1.0)
    for n, segment in segments.items():
        effects = one.handle(Received(TOPICS.format(SegmentTopic(SCOPE, ALICE.kid, n)), segment), 1.0)
        assert not rows(effects, DeltaRow)
    assert one.next_wake_s() <= 1.0
    assert len(rows(one.handle(Wake(), 1.0), DeltaRow)) == PROOFS_PER_SLICE
    one.handle(Wake(), 1.1)
    assert one.peer.unproven == 0
    assert one.next_wake_s() > 1.1


def test_a_replica_is_read_by_its_heads_and_its_rows_are_not_written_again() -> None:
    first = replicator()
    effects = list(first.handle(Received(HEAD, index_payload(ALICE, 1, {1: SEGMENT})), 1.0))
    effects += first.handle(Received(TOPICS.format(SegmentTopic(SCOPE, ALICE.kid, 1)), SEGMENT), 1.0)
    effects += first.handle(Wake(), 1.0)
    stored: list[Row] = [row for one in of(Persist, effects) for row in one.put]
    assert {type(row) for row in stored} == {IndexRow, SegmentRow, DeltaRow}
    second = replicator()
    loaded = second.handle(Loaded(tuple(stored)), 0.0)
    assert second.peer.unproven == 3, "one signature for all"
    loaded += second.handle(Wake(), 0.0)
    assert second.peer.unproven == 0
    assert not rows(loaded, DeltaRow)
    assert second.peer.registers.digest(SCOPE) == first.peer.registers.digest(SCOPE)


PAYLOADS = tuple(delta_payload(ALICE, n, set_(f"k{n}")) for n in range(1, 4))
SEGMENT = segment_payload(*PAYLOADS)


@pytest.mark.parametrize("damaged", [SegmentRow, IndexRow, DeltaRow])
def test_a_damaged_row_of_a_replica_costs_nothing_that_another_row_has(damaged: type) -> None:
    stored: list[Row] = [
        IndexRow(SCOPE, ALICE.kid, 1, b"", index_payload(ALICE, 1, {1: SEGMENT})),
        SegmentRow(SCOPE, ALICE.kid, 1, SEGMENT),
        *(DeltaRow(SCOPE, delta(ALICE, n, set_(f"k{n}")).stamp.digest, raw) for n, raw in enumerate(PAYLOADS, 1)),
    ]
    changed = [
        type(row)(**{name: getattr(row, name) for name in row.__struct_fields__} | {"raw": row.raw.replace(b"k", b"q")})
        if isinstance(row, damaged)
        else row
        for row in stored
    ]
    one = replicator()
    one.handle(Loaded(tuple(changed)), 0.0)
    one.handle(Wake(), 0.0)
    assert one.peer.registers.winners(SCOPE).keys() == {"k1", "k2", "k3"}


# --- large deltas -----------------------------------------------------------------------------------------------------


def large_head(*deltas: Delta) -> tuple[bytes, bytes]:
    segment = encode_segment(Segment(1, (), tuple(LargeRef.of(one) for one in deltas)))
    return index_payload(ALICE, 1, {1: segment}), segment


def test_a_large_delta_is_asked_for_on_each_of_its_keys_and_missed_while_it_would_win_one() -> None:
    peer, _ = new_peer()
    large = delta(ALICE, 5, set_("a", "x" * 9000), set_("b"))
    index, segment = large_head(large)
    peer.receive(IndexTopic(SCOPE, ALICE.kid), index, "probe")
    peer.receive(SegmentTopic(SCOPE, ALICE.kid, 1), segment, "probe")
    sync = ScopeSync(SCOPE, ())
    sync.answered = {TOPICS.format(IndexTopic(SCOPE, kid)): True for kid in (ALICE.kid, BOB.kid)}
    assert set(sync.questions(peer)) == {key_topic("a"), key_topic("b")}
    peer.receive(KeyTopic(SCOPE, "a"), delta_payload(BOB, 6, set_("a")), "probe")
    sync.answered |= {key_topic("a"): True, key_topic("b"): True}
    assert [text for text in sync.lacks(peer) if "delta" in text], "it would still win b"
    peer.receive(KeyTopic(SCOPE, "b"), large.raw, "probe")
    assert list(sync.lacks(peer)) == []


def test_a_large_delta_that_greater_ones_cover_is_not_missed() -> None:
    peer, _ = new_peer()
    index, segment = large_head(delta(ALICE, 5, set_("a", "x" * 9000)))
    peer.receive(IndexTopic(SCOPE, ALICE.kid), index, "probe")
    peer.receive(SegmentTopic(SCOPE, ALICE.kid, 1), segment, "probe")
    peer.receive(KeyTopic(SCOPE, "a"), delta_payload(BOB, 6, set_("a")), "probe")
    sync = ScopeSync(SCOPE, ())
    sync.answered = {TOPICS.format(IndexTopic(SCOPE, kid)): True for kid in (ALICE.kid, BOB.kid)}
    assert list(sync.questions(peer)) == list(sync.lacks(peer)) == []


# --- what an answer may change, and what is compared ---------------------------------------------------------------


def test_a_segment_that_was_taken_changes_nothing_while_others_are_missing() -> None:
    peer, _ = new_peer()
    first, second = (segment_payload(delta_payload(ALICE, n, set_(f"k{n}"))) for n in (1, 2))
    peer.receive(IndexTopic(SCOPE, ALICE.kid), index_payload(ALICE, 1, {1: first, 2: second}), "probe")
    sync = ScopeSync(SCOPE, ())
    peer.receive(SegmentTopic(SCOPE, ALICE.kid, 1), first, "probe")
    assert not sync.rests_on(peer, SegmentTopic(SCOPE, ALICE.kid, 1))
    assert sync.rests_on(peer, SegmentTopic(SCOPE, ALICE.kid, 2)), "there was an answer, and it is not here"
    peer.receive(SegmentTopic(SCOPE, ALICE.kid, 2), second, "probe")
    assert sync.rests_on(peer, SegmentTopic(SCOPE, ALICE.kid, 2)), "it was the last"


def test_all_that_is_held_is_compared_once_and_own_keys_whenever_they_are_asked_for() -> None:
    peer, _ = new_peer()
    read(peer, delta_payload(ALICE, 1, set_("own")), delta_payload(ALICE, 2, set_("other")))
    sync = ScopeSync(SCOPE, ("own",))
    assert {key_topic("own"), key_topic("other"), HEAD} <= set(sync.survey(peer, everything=True))
    sync.keys.add("late")
    assert list(sync.survey(peer, everything=True)) == [key_topic("late"), key_topic("own")]
    sync.restart(0.0, 1.0)
    assert key_topic("other") in set(sync.survey(peer, everything=True)), "a session that begins compares anew"


# --- mentions ---------------------------------------------------------------------------------------------------------


def test_what_a_retired_writer_signed_after_its_retirement_is_not_missed() -> None:
    effects: list[Effect] = []
    peer = Peer(TOPICS, ROOT.public, effects.append)
    retired = listed(BOB, status="retired", retired={SCOPE: Retirement(1, 9, 3)})
    peer.adopt_trust(document(writers=(listed(ALICE), retired)))
    sync = ScopeSync(SCOPE, ())
    sync.answered = {TOPICS.format(IndexTopic(SCOPE, kid)): True for kid in (ALICE.kid, BOB.kid)}
    peer.receive(IndexTopic(SCOPE, BOB.kid), index_payload(BOB, 3, {}), "probe")
    peer.receive(IndexTopic(SCOPE, ALICE.kid), index_payload(ALICE, 1, {}, seen={BOB.kid: 7}), "probe")
    assert list(sync.lacks(peer)) == []
    peer.receive(IndexTopic(SCOPE, ALICE.kid), index_payload(ALICE, 2, {}, seen={MALLORY.kid: 7}), "probe")
    assert list(sync.lacks(peer)) == [], "nor is a stranger's"


def test_epochs_are_not_raised_by_what_another_writers_head_claims() -> None:
    mesh = Mesh(31, workers=1)
    mesh.run(20)
    liar = mesh.peers["writer-1"].signer
    assert liar is not None
    index = index_payload(liar, 99, {}, scope="worker", fleet=mesh.fleet, epoch=2**53 - 1)
    mesh.publish_hostile(mesh.topics.format(IndexTopic("worker", liar.kid)), index)
    mesh.run(5)
    replicator = mesh.peers["writer-0"].replicator
    assert replicator is not None
    held = replicator.peer.head("worker", liar.kid).index
    assert held is not None
    assert held.body.epoch == 2**53 - 1, "the fault happened"
    ref = mesh.push("writer-0", {"a": 1})
    mesh.run(5)
    assert mesh.peers["writer-0"].stages[ref][0].epoch == 1


# --- conflicts ------------------------------------------------------------------------------------------------------


def test_two_deltas_that_replace_the_same_are_a_conflict_told_once_on_every_side() -> None:
    base = delta(ALICE, 1, set_("a", 0))
    over = base.stamp.digest.hex()
    one, two = delta(ALICE, 2, set_("a", 1, over=over)), delta(BOB, 2, set_("a", 2, over=over))
    for order in ((base, one, two), (base, two, one), (two, one, base)):
        peer, effects = new_peer()
        for copy in (*order, *order):
            peer.receive(KeyTopic(SCOPE, "a"), copy.raw, "live")
        (found,) = of(Conflict, effects)
        assert (found.winner.stamp, found.loser.stamp) == (max(one.stamp, two.stamp), min(one.stamp, two.stamp))
        assert list(peer.conflicts) == [found]


def test_who_saw_what_was_replaced_is_in_no_conflict() -> None:
    peer, effects = new_peer()
    last = delta(ALICE, 1, set_("a"))
    peer.receive(KeyTopic(SCOPE, "a"), last.raw, "live")
    for epoch in range(2, 9):
        last = delta((ALICE, BOB)[epoch % 2], epoch, set_("a", epoch, over=last.stamp.digest.hex()))
        peer.receive(KeyTopic(SCOPE, "a"), last.raw, "live")
    assert not of(Conflict, effects)


def test_two_first_values_are_a_conflict_too_and_the_record_is_bounded() -> None:
    peer, _ = new_peer()
    for n in range(MAX_CONFLICTS + 20):
        for key in (ALICE, BOB):
            peer.receive(KeyTopic(SCOPE, f"k{n}"), delta_payload(key, n + 1, set_(f"k{n}")), "live")
    assert len(list(peer.conflicts)) == MAX_CONFLICTS
    assert [one.key for one in peer.conflicts][-1] == f"k{MAX_CONFLICTS + 19}"


def test_a_partition_shows_its_conflict_when_it_heals() -> None:
    mesh = Mesh(33, workers=2)
    mesh.run(10)
    mesh.push("writer-0", {"a": 0})
    mesh.run(10)
    mesh.partition(mesh.peers["writer-1"])
    signed = delta_over(mesh, "writer-1", "a")
    mesh.push("writer-0", {"a": 1})
    mesh.run(5)
    mesh.peers["writer-1"].partitioned = False
    mesh.publish_hostile(mesh.key_topic("a"), signed)
    mesh.connect(mesh.peers["writer-1"])
    mesh.run(60)
    for peer in mesh.running():
        assert peer.replicator is not None
        assert [one.key for one in peer.replicator.conflicts()] == ["a"]


def delta_over(mesh: Mesh, writer: str, key: str) -> bytes:
    """Return what a writer signs who has seen what it holds now, and nothing since."""
    peer = mesh.peers[writer]
    assert peer.signer is not None
    over = peer.view()[key].hex()
    return delta_payload(peer.signer, 2, set_(key, "late", over=over), scope="worker", fleet=mesh.fleet)


# --- keepers ----------------------------------------------------------------------------------------------------------


def filters(one: Replicator) -> set[str]:
    return {name for effect in one.handle(SessionUp(), 1.0) if isinstance(effect, Subscribe) for name in effect.filters}


def test_about_eight_of_a_fleet_are_keepers_and_only_they_follow_heads() -> None:
    fleet = [replicator(seed=seed, fleet_size=200) for seed in range(200)]
    keepers = [one for one in fleet if one.is_keeper]
    assert 2 <= len(keepers) <= 18
    for one in fleet:
        assert (TOPICS.head_filter(SCOPE) in filters(one)) == one.is_keeper
    assert all(replicator(seed=seed).is_keeper for seed in range(20)), "in a fleet of unknown size everybody is one"
    assert replicator(ALICE, fleet_size=10_000).is_keeper, "who writes keeps heads"
    assert not replicator(repair="keepers", keeper=False).is_keeper


def survey(keeper: bool) -> set[str]:
    """Return what a peer with four keys, two of them in its model, compares with the broker once it is ready."""
    one = replicator(repair="keepers", keeper=keeper)
    one.handle(Follow(SCOPE, ("k1", "mine")), 0.0)
    for n in range(1, 5):
        one.handle(Received(key_topic(f"k{n}"), delta_payload(BOB, n, set_(f"k{n}"))), 0.0)
    (live, *_) = [effect for effect in one.handle(SessionUp(), 1.0) if isinstance(effect, Subscribe)]
    asked: set[str] = set()
    waiting = list(one.handle(Subscribed(live.ref), 1.0))
    for _ in range(200):
        if not waiting:
            break
        effect = waiting.pop(0)
        if isinstance(effect, Subscribe):
            asked |= set(effect.filters)
            waiting += one.handle(Subscribed(effect.ref), 1.0)
            if TOPICS.format(TrustTopic()) in effect.filters:
                waiting += one.handle(Received(TOPICS.format(TrustTopic()), trust_payload(), retain=True), 1.0)
        elif isinstance(effect, Publish) and "_marker" in effect.topic:
            waiting += one.handle(Received(effect.topic, effect.payload), 1.0)
    assert one.state_of(SCOPE) == "ready"
    return asked


def test_a_worker_compares_its_own_keys_and_a_keeper_everything() -> None:
    assert {key_topic("k1"), key_topic("mine")} <= survey(keeper=False)
    assert not {key_topic("k4"), TOPICS.format(FloorTopic(SCOPE))} & survey(keeper=False)
    everything = {key_topic(key) for key in ("k1", "mine", "k4")} | {TOPICS.format(FloorTopic(SCOPE))}
    assert everything <= survey(keeper=True)


def test_a_fleet_with_few_keepers_converges_and_refills_an_empty_broker() -> None:
    mesh = Mesh(35, workers=12, writers=1, policy=Policy(fleet_size=40, audit_s=60.0))
    mesh.run(20)
    for n in range(10):
        mesh.push("writer-0", {f"k{n}": n})
        mesh.run(1)
    keepers = [peer for peer in mesh.running() if peer.replicator is not None and peer.replicator.is_keeper]
    assert 1 <= len(keepers) < 12
    mesh.stop_broker()
    mesh.start_broker({})
    mesh.run(300)
    assert mesh.replicas_agree()
    assert mesh.broker_agrees()


# --- gaps, foreign heads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then", "gap"),
    [((1, 1), (1, 2), False), ((1, 1), (1, 3), True), ((1, 1), (2, 1), False), ((1, 1), (2, 2), True)],
)
def test_a_leap_of_more_than_one_epoch_says_that_something_was_missed(
    first: tuple[int, int], then: tuple[int, int], gap: bool
) -> None:
    one = replicator()
    one.handle(Offered((trust_payload(2, gen=2),)), 0.0)
    for n, (gen, epoch) in enumerate((first, then)):
        effects = one.handle(Received(key_topic(f"k{n}"), delta_payload(ALICE, epoch, set_(f"k{n}"), gen=gen)), 1.0)
    assert bool(of(EpochGap, effects)) == gap


def test_a_second_host_with_our_key_is_noticed_and_our_own_past_is_not() -> None:
    one = replicator(ALICE)
    assert not of(ForeignHead, one.handle(Received(HEAD, index_payload(ALICE, 4, {})), 1.0))
    (alarm,) = of(ForeignHead, one.handle(Received(HEAD, index_payload(ALICE, 5, {})), 1.0))
    assert alarm.counter == 5
    assert not of(ForeignHead, one.handle(Received(HEAD, index_payload(ALICE, 5, {})), 1.0))


# --- what strangers may fill -----------------------------------------------------------------------------------------


def test_what_is_held_and_what_is_known_to_be_bad_is_bounded() -> None:
    one = replicator()
    for n in range(MAX_HELD + 100):
        one.handle(Received(key_topic(f"k{n}"), delta_payload(MALLORY, 1, set_(f"k{n}"), trust=9)), 1.0)
    for n in range(MAX_KNOWN_BAD + 100):
        one.handle(Received(key_topic(f"k{n}"), b"junk %d" % n), 1.0)
    assert len(one.peer._held) == MAX_HELD
    assert len(one.peer._bad) == MAX_KNOWN_BAD
    assert one.peer.registers.scopes() == ()
    assert not one.peer.heads


def test_held_bytes_are_bounded_too() -> None:
    store, size = HeldStore(), 40_000
    for n in range(100):
        store.put(b"%d" % n, Held(KeyTopic(SCOPE, "a"), bytes(size), "live", "trust-behind"))
    assert len(store) == MAX_HELD_BYTES // size
    assert len(store.take()) == MAX_HELD_BYTES // size
    assert len(store) == 0
    bad = KnownBad()
    bad.put(b"x", "malformed", "")
    bad.clear()
    assert bad.get(b"x") is None


def test_the_same_delta_signed_twice_is_no_damage() -> None:
    """A writer's key may give two signatures over one digest; peers that hold either must not fight."""
    peer, _ = new_peer()
    read(peer, spoiled(delta_payload(ALICE, 1, set_("a"))))
    assert peer.receive(KeyTopic(SCOPE, "a"), delta_payload(ALICE, 1, set_("a")), "live") is Standing.CURRENT


# --- files ------------------------------------------------------------------------------------------------------------


def test_an_export_is_as_good_as_a_broker() -> None:
    mesh = Mesh(37, workers=1)
    mesh.run(10)
    for n in range(20):
        mesh.push("writer-0", {f"k{n}": n, "many": "x" * 3000})
        mesh.run(0.5)
    mesh.run(5)
    source = mesh.peers["worker-0"].replicator
    assert source is not None
    payloads = source.export()
    fresh = Replicator(
        mesh.topics, mesh.root.public, nonce="0" * 32, random=random.Random(1).random, policy=Policy(compact_above=0)
    )
    fresh.handle(Follow("worker"), 0.0)
    effects = fresh.handle(Offered(payloads), 0.0)
    assert not of(Rejected, effects)
    assert fresh.peer.registers.digest("worker") == source.peer.registers.digest("worker")
    (kid,) = [kid for kid, head in source.peer.heads.within("worker") if head.segments]
    assert fresh.peer.head("worker", kid).segments == source.peer.head("worker", kid).segments
    assert fresh.peer.trust.raw == source.peer.trust.raw
    assert of(Merged, effects)
    assert not of(Stage, effects)
