"""What is known of the broker: the retain flag is believed once proven, replays on 3.1.1, clearing, sending again."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from tars_settings.core.session import Acknowledged, Publish, Received, SessionDown, SessionUp, Subscribe, Subscribed
from tars_settings.core.topics import IndexTopic, TrustTopic
from tars_settings.gossip.effects import Effect, Follow, HeldBack, Merged, Offered, Push, Repaired, Stage, Wake
from tars_settings.gossip.repair import RepairPolicy
from tars_settings.gossip.replicator import Policy, Replicator
from tars_settings.testing.mesh import Mesh
from tars_settings.trust.keys import SigningKey
from tests.fleets import ALICE, BOB, ROOT, SCOPE, TOPICS, delta_payload, index_payload, key_topic, set_, trust_payload

TRUST = TOPICS.format(TrustTopic())
VAD = key_topic("vad")


class Broker:
    """Retains, answers probes at once, and hands out nothing live by itself."""

    def __init__(self, signer: SigningKey | None = None, *, protocol: int = 5, acknowledge: bool = True) -> None:
        self.one = Replicator(
            TOPICS, ROOT.public, nonce="0" * 31 + "1", random=random.Random(1).random, signer=signer,
            policy=Policy(repairing=RepairPolicy(delay_s=1.0, peers=100), audit_s=10_000.0),
        )  # fmt: skip
        self.retained = {TRUST: trust_payload()}
        self.log: list[Effect] = []
        self.now_s = 0.0
        self.is_5 = protocol == 5
        self.acknowledge = acknowledge
        self.waiting: deque[Any] = deque()
        self.one.handle(Follow(SCOPE), 0.0)
        self.give(SessionUp(5 if self.is_5 else 4, self.is_5))

    def give(self, event: Any) -> tuple[Effect, ...]:
        self.waiting.append(event)
        return self.work_off() if len(self.waiting) == 1 else ()

    def work_off(self) -> tuple[Effect, ...]:
        """Carry out what the first event that waits leads to, answers in the order that they were asked for."""
        found: list[tuple[Effect, ...]] = []
        while self.waiting:
            found.append(self.one.handle(self.waiting[0], self.now_s))
            for effect in found[-1]:
                self.log.append(effect)
                self.carry_out(effect)
            self.waiting.popleft()
        return found[0]

    def carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Publish):
            if effect.retain:
                self.retained[effect.topic] = effect.payload
            if self.acknowledge or not effect.retain:
                self.give(Acknowledged(effect.ref))
            if "_marker" in effect.topic:
                self.give(Received(effect.topic, effect.payload))
        elif isinstance(effect, Subscribe):
            self.give(Subscribed(effect.ref))
            for topic in effect.filters if effect.replay else ():
                if self.retained.get(topic):
                    self.give(Received(topic, self.retained[topic], True))

    def pass_time(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.one.next_wake_s() <= end_s:
            self.now_s = max(self.now_s + 0.001, self.one.next_wake_s())
            self.give(Wake())
        self.now_s = end_s

    def seen(self, kind: type) -> list[Any]:
        return [one for one in self.log if isinstance(one, kind)]

    def probes(self, topic: str) -> int:
        return sum(topic in one.filters for one in self.seen(Subscribe) if one.replay)


GOOD, LOW = delta_payload(ALICE, 5), delta_payload(BOB, 4)


def suspecting(**more: Any) -> Broker:
    """A peer that holds the winner and has seen something lower, retained."""
    broker = Broker(**more)
    broker.give(Received(VAD, GOOD))
    broker.give(Received(VAD, LOW))
    assert broker.one._repairer.is_open(VAD)
    return broker


def test_a_live_retain_flag_is_first_checked_and_then_believed() -> None:
    broker = suspecting()
    broker.retained[VAD] = GOOD
    before = broker.probes(VAD)
    broker.give(Received(VAD, GOOD, True))
    assert broker.probes(VAD) == before + 1, "not believed yet: a probe has to say the same"
    assert not broker.one._repairer.is_open(VAD)
    broker.give(Received(VAD, LOW))
    broker.give(Received(VAD, GOOD, True))
    assert broker.probes(VAD) == before + 1, "believed now, on this connection"
    assert not broker.one._repairer.is_open(VAD)
    broker.give(SessionDown())
    broker.give(SessionUp())
    before = broker.probes(VAD)
    broker.give(Received(VAD, LOW))
    broker.give(Received(VAD, GOOD, True))
    assert broker.probes(VAD) == before + 1, "another connection, another broker perhaps"


def test_a_flag_that_lies_cancels_nothing() -> None:
    broker = suspecting()
    broker.retained[VAD] = LOW
    broker.give(Received(VAD, GOOD, True))
    assert broker.one._repairer.is_open(VAD)
    broker.pass_time(30)
    assert broker.retained[VAD] == GOOD
    assert broker.seen(Repaired)


def test_an_unset_flag_says_nothing() -> None:
    broker = suspecting()
    broker.give(Received(VAD, GOOD, False))
    assert broker.one._repairer.is_open(VAD), "the broker may retain it, or not"


def test_on_3_1_1_a_flag_means_a_replay_and_the_audit_finds_the_rest() -> None:
    broker = suspecting(protocol=4)
    broker.give(Received(VAD, GOOD, True))
    assert not broker.one._repairer.is_open(VAD)
    before = len(broker.seen(Merged))
    broker.give(Received(VAD, delta_payload(ALICE, 50), True))
    assert [one.way for one in broker.seen(Merged)[before:]] == ["probe"]


def test_an_empty_payload_is_damage_unless_a_floor_took_the_key() -> None:
    broker = Broker()
    broker.give(Received(VAD, GOOD))
    broker.retained[VAD] = b""
    broker.give(Received(VAD, b"", True))
    broker.pass_time(30)
    assert broker.retained[VAD] == GOOD


def test_a_later_trust_document_that_a_delta_names_is_asked_for_once_a_second_at_most() -> None:
    broker = Broker()
    before = broker.probes(TRUST)
    newer = trust_payload(2, gen=2)
    broker.retained[TRUST] = newer
    for n in range(50):
        broker.give(Received(key_topic(f"k{n}"), delta_payload(ALICE, 1, set_(f"k{n}"), gen=2, trust=2)))
    broker.pass_time(2.5)
    assert 1 <= broker.probes(TRUST) - before <= 3
    assert len(broker.one.peer.registers.winners(SCOPE)) == 50


def test_who_names_a_document_that_nobody_has_is_void_and_repaired_over() -> None:
    broker = Broker()
    broker.give(Received(VAD, GOOD))
    broker.retained[VAD] = delta_payload(ALICE, 9, gen=7, trust=2**31 - 1)
    broker.give(Received(VAD, broker.retained[VAD]))
    assert broker.seen(HeldBack)
    broker.pass_time(60)
    assert broker.retained[VAD] == GOOD


def test_an_unfinished_push_is_sent_again_once_a_session_and_not_beside_its_flight() -> None:
    broker = Broker(ALICE, acknowledge=False)
    broker.give(Push(1, SCOPE, (set_("vad"),)))
    sent = [one for one in broker.seen(Publish) if one.topic == VAD]
    assert len(sent) == 1
    broker.one._audit_s = broker.now_s
    broker.give(Wake())
    assert len([one for one in broker.seen(Publish) if one.topic == VAD]) == 1, "it is still on its way"
    broker.give(SessionDown())
    broker.acknowledge = True
    broker.give(SessionUp())
    again = [one for one in broker.seen(Publish) if one.topic == VAD]
    assert [one.payload for one in again] == [sent[0].payload] * 2
    broker.pass_time(5)
    assert [one.stage for one in broker.seen(Stage)] == ["signed", "accepted", "retained"]


def test_pushes_go_on_where_a_writer_is_missing_for_good() -> None:
    """Degraded is caught up as far as can be: the outbox is sent there too."""
    mesh = Mesh(41, workers=1)
    mesh.run(10)
    ref = mesh.push("writer-0", {"a": 1})
    mesh.run(0.06)
    mesh.disconnect(mesh.peers["writer-0"])
    liar = mesh.peers["writer-1"].signer
    assert liar is not None

    index = index_payload(liar, 3, {1: b"nobody has it"}, scope="worker", fleet=mesh.fleet)
    mesh.partition(mesh.peers["writer-1"])
    mesh.publish_hostile(mesh.topics.format(IndexTopic("worker", liar.kid)), index)
    mesh.connect(mesh.peers["writer-0"])
    mesh.run(30)
    assert mesh.peers["writer-0"].replicator is not None
    assert mesh.peers["writer-0"].replicator.state_of("worker") == "degraded"
    assert mesh.peers["writer-0"].stages[ref][-1].stage == "retained"


def test_every_scope_has_its_turn_in_the_audit() -> None:
    broker = Broker()
    broker.one.handle(Offered((trust_payload(),)), 0.0)
    for scope in ("tts-worker", "llm-worker"):
        broker.give(Follow(scope))
    for scope in (SCOPE, "tts-worker", "llm-worker"):
        broker.give(Received(key_topic("vad", scope), delta_payload(ALICE, 1, scope=scope)))
        broker.retained[key_topic("vad", scope)] = delta_payload(ALICE, 1, scope=scope)
    broker.pass_time(5)
    seen = []
    for _ in range(3):
        before = {scope: broker.probes(key_topic("vad", scope)) for scope in (SCOPE, "tts-worker", "llm-worker")}
        broker.one._audit_s = broker.now_s
        broker.give(Wake())
        broker.pass_time(5)
        seen.append([scope for scope in before if broker.probes(key_topic("vad", scope)) > before[scope]])
    assert sorted(scope for scopes in seen for scope in scopes) == ["llm-worker", SCOPE, "tts-worker"]
    assert all(len(scopes) == 1 for scopes in seen)


def test_a_stream_of_lies_about_trust_costs_a_question_a_second() -> None:
    broker = Broker()
    before = broker.probes(TRUST)
    for n in range(40):
        broker.give(Received(key_topic(f"k{n}"), delta_payload(ALICE, 1, set_(f"k{n}"), gen=2, trust=2 + n)))
        broker.pass_time(0.1)
    assert 3 <= broker.probes(TRUST) - before <= 6


def test_an_answer_voids_only_what_waited_before_its_question() -> None:
    """A document may be published between the question and a delta that names it."""
    one = Replicator(TOPICS, ROOT.public, nonce="0" * 31 + "1", random=random.Random(1).random)
    one.handle(Follow(SCOPE), 0.0)
    (live, *_) = [effect for effect in one.handle(SessionUp(), 0.0) if isinstance(effect, Subscribe)]
    asked = [effect for effect in one.handle(Subscribed(live.ref), 0.0) if isinstance(effect, Subscribe)]
    assert TRUST in asked[0].filters
    one.handle(Offered((trust_payload(),)), 0.0)
    late = delta_payload(ALICE, 1, gen=2, trust=2)
    assert [notice for notice in one.handle(Received(VAD, late), 0.1) if isinstance(notice, HeldBack)]
    one.handle(Received(TRUST, trust_payload(), True), 0.2)
    assert len(one.peer._held) == 1, "the answer is older than what it would judge"
    one.handle(Wake(), one.next_wake_s())
    one.handle(Received(TRUST, trust_payload(2, gen=2), True), 2.0)
    assert "vad" in one.peer.registers.winners(SCOPE)
