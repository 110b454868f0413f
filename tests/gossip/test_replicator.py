"""The replicator from outside: events in, effects out."""

from __future__ import annotations

import itertools
import random
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tars_settings.core.delta import Trial
from tars_settings.core.records import MarkRow, OutboxRow
from tars_settings.core.session import Acknowledged, Publish, Received, SessionUp, Subscribe, Subscribed
from tars_settings.core.topics import IndexTopic, SegmentTopic, TrustTopic
from tars_settings.gossip.effects import (
    Effect,
    Follow,
    HeldBack,
    Loaded,
    Merged,
    Offered,
    Persist,
    Push,
    Rejected,
    Stage,
    TrustChanged,
    Wake,
)
from tars_settings.gossip.replicator import Policy, Replicator
from tars_settings.trust.keys import SigningKey
from tests.fleets import (
    ALICE,
    BOB,
    MALLORY,
    ROOT,
    SCOPE,
    TOPICS,
    delta_payload,
    index_payload,
    key_topic,
    segment_payload,
    set_,
    trust_payload,
    unset,
    writer,
)

TRUST = TOPICS.format(TrustTopic())


def replicator(signer: SigningKey | None = None, seed: int = 1, **policy: Any) -> Replicator:
    made = Replicator(
        TOPICS, ROOT.public, nonce="0" * 31 + "1", random=random.Random(seed).random, signer=signer,
        policy=Policy(**policy),
    )  # fmt: skip
    made.handle(Follow(SCOPE), 0.0)
    return made


def trusting(signer: SigningKey | None = None) -> Replicator:
    made = replicator(signer)
    made.handle(Offered((trust_payload(),)), 0.0)
    return made


def of(kind: type, effects: tuple[Effect, ...]) -> list[Any]:
    return [one for one in effects if isinstance(one, kind)]


def receive(one: Replicator, topic: str, payload: bytes, *, retain: bool = False) -> tuple[Effect, ...]:
    return one.handle(Received(topic, payload, retain), 1.0)


GOOD = delta_payload(ALICE, 5, set_("vad", 0.5))
WRONG = {
    "garbage": (key_topic("vad"), b"\x00\xffgarbage"),
    "a mebibyte of garbage": (key_topic("vad"), b"x" * 2**20),
    "empty": (key_topic("vad"), b""),
    "moved to another key": (key_topic("other"), GOOD),
    "moved to another scope": (key_topic("vad", "tts-worker"), GOOD),
    "moved to an instance": (key_topic("vad", f"{SCOPE}@pi"), GOOD),
    "another fleet's": (key_topic("vad"), delta_payload(ALICE, 9, set_("vad"), fleet="0" * 32)),
    "unknown writer": (key_topic("vad"), delta_payload(MALLORY, 9, set_("vad"))),
    "forged": (key_topic("vad"), GOOD.replace(b'"set":0.5', b'"set":0.9')),
    "a later version": (key_topic("vad"), b'{"v":2,"kid":"x"}'),
    "a trust document": (key_topic("vad"), trust_payload()),
    "a delta as an index": (TOPICS.format(IndexTopic(SCOPE, ALICE.kid)), GOOD),
    "another writer's index": (TOPICS.format(IndexTopic(SCOPE, BOB.kid)), index_payload(ALICE, 1, {})),
    "another scope's index": (TOPICS.format(IndexTopic(SCOPE, ALICE.kid)), index_payload(ALICE, 1, {}, scope="tts")),
    "a stranger's trust document": (TRUST, trust_payload(version=9, signed_by=(MALLORY,))),
    "an older trust document": (TRUST, trust_payload(version=1, gen=0)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_rejected_and_changes_nothing(name: str) -> None:
    topic, payload = WRONG[name]
    one = trusting()
    one.handle(Follow("tts-worker"), 0.0)
    one.handle(Follow(f"{SCOPE}@pi"), 0.0)
    one.handle(Offered((trust_payload(version=3),)), 0.0)
    before = one.peer.trust.raw
    for _ in range(2):  # a repetition takes the short way and must say the same
        effects = receive(one, topic, payload)
        assert [notice.topic for notice in of(Rejected, effects)] == [topic]
        assert not of(Merged, effects)
        assert not of(Persist, effects)
    assert one.peer.trust.raw == before
    assert one.peer.registers.scopes() == ()


seeds_of_bytes = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([GOOD, trust_payload(), index_payload(ALICE, 1, {}), segment_payload(GOOD)]).flatmap(
        lambda good: st.tuples(st.integers(0, len(good) - 1), st.binary(min_size=1, max_size=3)).map(
            lambda change: good[: change[0]] + change[1] + good[change[0] + len(change[1]) :]
        )
    ),
)
topics_of_ours = st.sampled_from(
    [
        key_topic("vad"), TRUST, TRUST + "/1", TOPICS.format(IndexTopic(SCOPE, ALICE.kid)),
        TOPICS.format(SegmentTopic(SCOPE, ALICE.kid, 1)), f"system/config/{SCOPE}/_floor",
        f"system/config/{SCOPE}/_schema/{'0' * 32}", "system/health/stt/pi", f"system/health/_marker/{'0' * 31}1/m",
        "somewhere/else", "", "system/config/\x00", "system/config/" + "x" * 400,
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(topics_of_ours, seeds_of_bytes, st.booleans())
def test_no_byte_string_escapes_handle_as_anything_but_a_notice(topic: str, payload: bytes, retain: bool) -> None:
    one = trusting()
    receive(one, key_topic("vad"), GOOD)
    before = one.peer.registers.digest(SCOPE), one.peer.trust.raw
    if payload in (GOOD, trust_payload(), index_payload(ALICE, 1, {}), segment_payload(GOOD)):
        return
    effects = receive(one, topic, payload, retain=retain)
    assert not of(Merged, effects)
    assert all(isinstance(effect, Rejected | HeldBack) for effect in effects), effects
    assert (one.peer.registers.digest(SCOPE), one.peer.trust.raw) == before


def test_a_delta_is_stored_and_told_before_anything_else_comes_of_it() -> None:
    effects = receive(trusting(), key_topic("vad"), GOOD)
    (row,) = of(Persist, effects)[0].put
    assert row.raw == GOOD
    assert [notice.fate for notice in of(Merged, effects)] == ["applied"]


def test_a_copy_is_a_duplicate_and_an_older_one_superseded() -> None:
    one = trusting()
    wide = delta_payload(ALICE, 5, set_("vad"), set_("gain"))
    receive(one, key_topic("vad"), wide)
    assert [notice.fate for notice in of(Merged, receive(one, key_topic("vad"), delta_payload(BOB, 4)))] == [
        "superseded"
    ]
    assert not of(Persist, receive(one, key_topic("gain"), wide))
    assert one.peer.registers.winners(SCOPE).keys() == {"vad", "gain"}


def test_without_a_trust_document_deltas_are_held_unstored_and_judged_when_it_comes() -> None:
    one = replicator()
    effects = receive(one, key_topic("vad"), GOOD)
    assert of(HeldBack, effects)
    assert not of(Persist, effects)
    effects = receive(one, TRUST, trust_payload())
    assert of(TrustChanged, effects)
    assert "vad" in one.peer.registers.winners(SCOPE)


def test_a_trust_document_is_stored_durably_before_anything_is_judged_by_it() -> None:
    one = replicator()
    receive(one, key_topic("vad"), GOOD)
    effects = receive(one, TRUST, trust_payload())
    kinds = [type(effect) for effect in effects]
    assert effects[kinds.index(Persist)].durable  # type: ignore[union-attr]
    assert kinds.index(Persist) < kinds.index(TrustChanged) < kinds.index(Merged)


def test_a_delta_of_a_gen_to_come_is_held_until_the_root_raised_it() -> None:
    one = trusting()
    assert of(HeldBack, receive(one, key_topic("vad"), delta_payload(ALICE, 1, gen=2, trust=2)))
    assert one.peer.registers.winners(SCOPE) == {}
    receive(one, TRUST, trust_payload(version=2, gen=2))
    assert "vad" in one.peer.registers.winners(SCOPE)


def test_scopes_that_are_not_followed_are_not_kept() -> None:
    one = trusting()
    assert receive(one, key_topic("a", "tts-worker"), delta_payload(ALICE, 1, set_("a"), scope="tts-worker")) == ()
    assert one.peer.registers.scopes() == ()


def test_every_row_of_the_replica_is_verified_again() -> None:
    first = trusting()
    rows = [row for effect in of(Persist, receive(first, key_topic("vad"), GOOD)) for row in effect.put]
    trust = [row for effect in of(Persist, replicator().handle(Offered((trust_payload(),)), 0.0)) for row in effect.put]
    second = replicator()
    second.handle(Loaded((*rows, *trust)), 0.0)
    assert second.peer.registers.digest(SCOPE) == first.peer.registers.digest(SCOPE)
    changed = [type(row)(row.scope, row.digest, row.raw.replace(b"0.5", b"0.9")) for row in rows]
    third = replicator()
    effects = third.handle(Loaded((*changed, *trust)), 0.0)
    assert [notice.topic for notice in of(Rejected, effects)] == ["replica delta"]
    assert [row for effect in of(Persist, effects) for row in effect.drop] == changed
    assert third.peer.registers.winners(SCOPE) == {}


def test_rows_wait_for_a_trust_document_that_was_lost() -> None:
    rows = [row for one in of(Persist, receive(trusting(), key_topic("vad"), GOOD)) for row in one.put]
    one = replicator()
    assert not of(Persist, one.handle(Loaded(tuple(rows)), 0.0))
    receive(one, TRUST, trust_payload())
    assert "vad" in one.peer.registers.winners(SCOPE)


# --- pushing -----------------------------------------------------------------------------------------------------


class Wire:
    """A broker that answers at once: enough to carry one writer to ready and through a push."""

    def __init__(self, one: Replicator) -> None:
        self.one, self.retained, self.log, self.now_s = one, {TRUST: trust_payload()}, [], itertools.count(1)
        self.acknowledge = True
        self.waiting: deque[Any] = deque()

    def give(self, event: Any) -> None:
        self.waiting.append(event)
        if len(self.waiting) > 1:
            return  # what answers an effect comes after what came before
        while self.waiting:
            for effect in self.one.handle(self.waiting[0], float(next(self.now_s)) / 1000):
                self.log.append(effect)
                self.carry_out(effect)
            self.waiting.popleft()

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Publish(ref, topic, payload, retain):
                if retain:
                    self.retained[topic] = payload
                if self.acknowledge:
                    self.give(Acknowledged(ref))
                if "_marker" in topic:
                    self.give(Received(topic, payload, False))
            case _ if type(effect).__name__ == "Subscribe":
                self.give(Subscribed(effect.ref))  # type: ignore[union-attr]
                for topic in effect.filters if effect.replay else ():  # type: ignore[union-attr]
                    if topic in self.retained:
                        self.give(Received(topic, self.retained[topic], True))


@pytest.fixture
def wire() -> Wire:
    made = Wire(trusting(ALICE))
    made.give(SessionUp())
    assert made.one.state_of(SCOPE) == "ready"
    return made


def push(wire: Wire, *assign: Any, **more: Any) -> list[Stage]:
    start = len(wire.log)
    wire.give(Push(7, SCOPE, assign or (set_("vad"),), **more))
    return of(Stage, tuple(wire.log[start:]))


def test_a_push_is_signed_accepted_and_retained(wire: Wire) -> None:
    stages = push(wire)
    assert [one.stage for one in stages] == ["signed", "accepted", "retained"]
    assert {(one.gen, one.epoch) for one in stages} == {(1, 1)}


def test_mark_and_outbox_are_committed_before_anything_is_published(wire: Wire) -> None:
    start = len(wire.log)
    push(wire)
    log = wire.log[start:]
    commit = next(n for n, one in enumerate(log) if isinstance(one, Persist) and one.durable)
    assert {type(row) for row in log[commit].put} >= {MarkRow, OutboxRow}
    publishes = [n for n, one in enumerate(log) if isinstance(one, Publish) and one.retain]
    assert publishes
    assert commit < publishes[0]


def test_delta_segments_and_index_go_out_in_that_order(wire: Wire) -> None:
    start = len(wire.log)
    push(wire, set_("a"), set_("b"))
    topics = [TOPICS.parse(one.topic) for one in wire.log[start:] if isinstance(one, Publish) and one.retain]
    assert [type(topic).__name__ for topic in topics] == ["KeyTopic", "KeyTopic", "SegmentTopic", "IndexTopic"]


def test_epochs_grow_by_one_over_what_was_seen(wire: Wire) -> None:
    wire.give(Received(key_topic("b"), delta_payload(BOB, 41, set_("b")), False))
    assert push(wire)[0].epoch == 42
    assert push(wire)[0].epoch == 43


def test_what_a_push_was_to_replace_must_be_there_still(wire: Wire) -> None:
    held = push(wire, set_("a"), set_("b"))[0].digest
    assert push(wire, set_("a", 2), set_("b", 2), instead_of=held)[0].stage == "signed"
    (late,) = push(wire, set_("a", 3), set_("b", 3), instead_of=held)
    assert (late.stage, late.error) == ("refused", "ConflictError")
    (lost,) = push(wire, set_("new"), instead_of=held)
    assert lost.stage == "refused"


def test_a_push_on_trial_goes_back_to_what_is_in_force_when_it_is_signed(wire: Wire) -> None:
    wire.give(Received(key_topic("a"), delta_payload(BOB, 4, set_("a", "bob's")), False))
    push(wire, set_("a", "tried"), set_("b"), trial_s=600, canary="0" * 32)
    held = wire.one.peer.registers.winner(SCOPE, "a")
    assert held is not None
    assert held.delta.trial == Trial(600, (set_("a", "bob's"), unset("b")), "0" * 32)
    push(wire, unset("b"))
    (refused,) = push(wire, set_("b"), set_("m"), trial_s=604_801)
    assert (refused.stage, refused.error) == ("refused", "IllegalNameError")


def test_a_foreign_epoch_leap_is_refused_at_the_writer_only(wire: Wire) -> None:
    push(wire)
    wire.give(Received(key_topic("b"), delta_payload(BOB, 2**53 - 2, set_("b")), False))
    assert "b" in wire.one.peer.registers.winners(SCOPE), "a reader takes it: a local bound would make peers disagree"
    assert [(one.stage, one.error) for one in push(wire)] == [("refused", "EpochExhaustedError")]
    assert push(wire, force=True)[0].epoch == 2**53 - 1
    assert [(one.stage, one.error) for one in push(wire, force=True)] == [("refused", "EpochExhaustedError")]


def test_expecting_another_epoch_refuses(wire: Wire) -> None:
    push(wire)
    assert [(one.stage, one.error) for one in push(wire, expect_epoch=0)] == [("refused", "ConflictError")]
    assert push(wire, expect_epoch=1)[0].stage == "signed"


def test_a_delta_names_what_it_replaces(wire: Wire) -> None:
    first = push(wire)[0]
    push(wire)
    winner = wire.one.peer.registers.winner(SCOPE, "vad")
    assert winner is not None
    assert winner.assignment.over == first.digest


def test_refused_pushes_publish_nothing(wire: Wire) -> None:
    wire.give(Received(TRUST, trust_payload(version=2, writers=()), False))  # drops writers: refused itself
    narrow = trust_payload(version=2, writers=(writer(ALICE, ("tts-worker",)), writer(BOB)))
    wire.give(Received(TRUST, narrow, False))
    before = dict(wire.retained)
    assert [(one.stage, one.error) for one in push(wire)] == [("refused", "NotGrantedError")]
    assert {topic: payload for topic, payload in wire.retained.items() if topic != TRUST} == {
        topic: payload for topic, payload in before.items() if topic != TRUST
    }


def test_a_reader_can_not_push() -> None:
    one = trusting()
    (stage,) = of(Stage, one.handle(Push(1, SCOPE, (set_("a"),)), 1.0))
    assert (stage.stage, stage.error) == ("refused", "NotGrantedError")


def test_a_push_that_can_not_catch_up_is_refused_in_time() -> None:
    one = trusting(ALICE)
    assert not of(Stage, one.handle(Push(1, SCOPE, (set_("a"),)), 1.0))
    due_s = one.next_wake_s()
    assert due_s == 6.0
    (stage,) = of(Stage, one.handle(Wake(), due_s))
    assert (stage.stage, stage.error) == ("refused", "NotSyncedError")


def test_what_was_not_finished_is_sent_again_byte_for_byte_after_a_crash(wire: Wire) -> None:
    wire.acknowledge = False
    push(wire)
    committed = [row for one in wire.log if isinstance(one, Persist) and one.durable for row in one.put]
    (payload,) = {one.payload for one in wire.log if isinstance(one, Publish) and one.topic == key_topic("vad")}
    again = Wire(replicator(ALICE))
    again.give(Loaded(tuple(committed)))
    assert again.one.peer.trust.is_pin, "the trust document did not survive; the push must"
    again.give(SessionUp())
    assert again.retained[key_topic("vad")] == payload


def test_a_superseded_delta_is_not_sent_again(wire: Wire) -> None:
    wire.acknowledge = False
    push(wire)
    rows = [row for one in wire.log if isinstance(one, Persist) and one.durable for row in one.put]
    again = Wire(replicator(ALICE))
    again.retained[key_topic("vad")] = newer = delta_payload(BOB, 9)
    again.retained[TOPICS.format(SegmentTopic(SCOPE, BOB.kid, 1))] = segment = segment_payload(newer)
    again.retained[TOPICS.format(IndexTopic(SCOPE, BOB.kid))] = index_payload(BOB, 9, {1: segment})
    again.give(Loaded(tuple(rows)))
    again.give(SessionUp())
    assert again.retained[key_topic("vad")] == newer


def test_a_writer_never_uses_an_epoch_twice_after_losing_all_but_its_mark(wire: Wire) -> None:
    push(wire)
    push(wire)
    marks = [row for one in wire.log if isinstance(one, Persist) for row in one.put if isinstance(row, MarkRow)]
    again = Wire(replicator(ALICE))
    again.give(Loaded((marks[-1],)))
    again.give(SessionUp())
    assert push(again)[0].epoch == 3


def test_a_live_subscription_that_is_never_answered_is_asked_for_again() -> None:
    """A broker that loses one SUBACK must not leave a worker joining for ever."""
    one = Replicator(TOPICS, ROOT.public, nonce="0" * 32, random=lambda: 0.5)
    one.handle(Follow(SCOPE), 0.0)
    (first,) = [effect for effect in one.handle(SessionUp(4, False), 0.0) if isinstance(effect, Subscribe)]
    assert one.next_wake_s() == one.policy.sync_bound_s
    effects = one.handle(Wake(), one.policy.sync_bound_s)
    (again,) = [effect for effect in effects if isinstance(effect, Subscribe)]
    assert again.filters == first.filters
    one.handle(Subscribed(again.ref), 6.0)
    assert one.next_wake_s() > 6.0
