"""A: anyone who can publish on the broker, and holds no key."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import tars_settings
from tars_settings.core.delta import Assignment, DeltaBody
from tars_settings.core.floor import floor_of
from tars_settings.core.topics import IndexTopic, KeyTopic, SegmentTopic, Topic, Topics, TrustTopic
from tars_settings.core.wire import Purpose, decode_single, encode
from tars_settings.errors import RejectedError
from tars_settings.gossip.effects import Effect, Rejected
from tars_settings.gossip.peer import Peer
from tars_settings.join import Live
from tars_settings.trust.document import follow, pin
from tars_settings.trust.validity import Verdict, read_delta, read_index
from tars_settings.writer import Writer
from tests.brokers import Mosquitto, eventually
from tests.fleets import ALICE, FLEET, ROOT, SCOPE, TOPICS, delta_payload, document, set_, trust_payload
from tests.hostile.strangers import Stranger
from tests.integration.fleets import TestFleet
from tests.join.conftest import InMemory, Stt

Joiner = Callable[..., Live[Any]]
VAD = "system/config/stt-worker/vad_threshold"
MODEL = "system/config/stt-worker/model"
HEADS = "/_head/"


def without(retained: dict[str, bytes], part: str) -> dict[str, bytes]:
    return {topic: payload for topic, payload in retained.items() if part not in topic}


def leave(memory: InMemory) -> None:
    """Have the writer leave: nobody is there who knows better."""
    memory.writer.close()
    memory._writer = None


def peer() -> tuple[Peer, list[Effect]]:
    effects: list[Effect] = []
    one = Peer(TOPICS, ROOT.public, effects.append)
    one.receive(TrustTopic(), trust_payload(), "live")
    return one, effects


def reasons(effects: list[Effect]) -> list[str]:
    return [one.reason for one in effects if isinstance(one, Rejected)]


def test_a03_a_fresh_worker_that_is_shown_old_values_and_the_newest_index_is_degraded(memory: InMemory) -> None:
    memory.push(vad_threshold=0.6)
    old = dict(memory.broker.retained)
    memory.push(vad_threshold=0.7)
    leave(memory)
    indexes = {topic: raw for topic, raw in memory.broker.retained.items() if topic.count("/") == 4 and HEADS in topic}
    assert indexes
    memory.broker.retained = {**without(old, HEADS), **indexes}
    live = memory.fleet("fresh").join(Stt)
    eventually(lambda: live.status.state == "degraded")
    # Its own keys are asked for once it is as complete as it can be.
    eventually(lambda: live.current.vad_threshold == 0.6, what="the old value was shown")
    assert live.status.lacking, "and it knows that something is missing"


def test_a03_one_peer_that_knows_better_is_enough(memory: InMemory, started: Joiner) -> None:
    knowing = started(name="knowing")
    memory.push(vad_threshold=0.6)
    old = dict(memory.broker.retained)
    memory.push(vad_threshold=0.7)
    eventually(lambda: knowing.current.vad_threshold == 0.7)
    leave(memory)
    for topic, payload in old.items():
        memory.broker.publish(topic, payload)
    assert memory.broker.retained[VAD] == old[VAD], "the whole state went back"
    fresh = memory.fleet("fresh").join(Stt)
    eventually(lambda: fresh.current.vad_threshold == 0.7)
    eventually(lambda: memory.broker.retained[VAD] != old[VAD], what="and it is repaired")


def test_a05_emptied_topics_change_nothing_and_are_filled_again(memory: InMemory, started: Joiner) -> None:
    keys = [f"k{n:02}" for n in range(98)]
    live = started()
    for some in (keys[:49], keys[49:]):
        memory.writer.push("stt-worker", dict.fromkeys(some, 1), plain=some).wait(10)
    memory.push(vad_threshold=0.6, model="large")
    eventually(lambda: live.current.vad_threshold == 0.6)
    before, snapshot = dict(memory.broker.retained), live.current
    struck = [topic for topic in before if topic.startswith("system/config/stt-worker/") and "/_" not in topic]
    assert len(struck) == 100
    for topic in struck:
        memory.broker.publish(topic, b"")
    eventually(lambda: live.status.counters.get("rejected empty", 0) >= 100, what="all were seen as damage")
    eventually(lambda: all(memory.broker.retained.get(topic) == before[topic] for topic in struck), deadline_s=40)
    assert live.current is snapshot

    def repairs() -> int:
        return live.status.counters.get("Repaired", 0) + memory.writer.agent.counters["Repaired"]

    # The broker shows a repair before the burst that made it is counted.
    eventually(lambda: repairs() >= len(struck), what="all repairs are counted")
    assert repairs() <= 2 * len(struck)


def test_a06_a_delta_counts_on_the_topics_of_its_keys_alone() -> None:
    one, effects = peer()
    keys = [f"key_{n}" for n in range(20)]
    for own, foreign in itertools.permutations(keys, 2):
        one.receive(KeyTopic(SCOPE, foreign), delta_payload(ALICE, 1, set_(own)), "live")
    assert reasons(effects) == ["wrong-topic"] * 380
    assert one.registers.winners(SCOPE) == {}


def test_a07_a_fleet_of_another_root_is_another_fleet_even_with_the_same_writers() -> None:
    one, effects = peer()
    foreign = delta_payload(ALICE, 9, fleet="0" * 32)
    assert read_delta(delta_payload(ALICE, 9), document())[1].verdict is Verdict.VALID, "the writer is listed"
    one.receive(KeyTopic(SCOPE, "vad"), foreign, "live")
    one.receive(TrustTopic(), trust_payload(2, fleet="0" * 32), "live")
    assert reasons(effects) == ["bad-signature", "untrusted"]
    assert one.registers.winners(SCOPE) == {}


def test_a08_a_signature_for_one_kind_never_passes_for_another() -> None:
    """The same bytes, signed for each purpose: they are read as what they were signed for, and as nothing else."""
    trust = document()
    read: dict[str, Callable[[bytes], object]] = {
        "delta": lambda payload: read_delta(payload, trust),
        "head": lambda payload: read_index(payload, trust),
        "trust": lambda payload: follow(pin(ROOT.public), payload),
    }
    bodies = {
        "delta": bytes(decode_single(delta_payload(ALICE, 1)).body),
        "trust": bytes(decode_single(trust_payload()).body),
        "head": b'{"scope":"stt-worker","counter":1,"gen":1,"epoch":1,"trust":1,"segments":[]}',
    }
    passed = []
    for kind, body in bodies.items():
        signer = ROOT if kind == "trust" else ALICE
        read[kind](signer.sign(kind, FLEET, body))  # type: ignore[arg-type]
        for purpose in set(get_args(Purpose)) - {kind}:
            try:
                read[kind](signer.sign(purpose, FLEET, body))
            except RejectedError:
                continue
            passed.append((kind, purpose))
    assert passed == []
    with pytest.raises(RejectedError):
        floor_of(decode_single(delta_payload(ALICE, 1)), b"", b"")


@pytest.fixture
def fleet(tmp_path: Path, mosquitto: Mosquitto) -> TestFleet:
    return TestFleet(tmp_path / "fleet", mosquitto.url)


def test_a10_a_crowd_of_junk_topics_hides_no_value(mosquitto: Mosquitto, fleet: TestFleet) -> None:
    """5,000 retained messages that came first: a wildcard replay of mosquitto ends at about 1,000."""
    with Stranger(mosquitto.port) as stranger:
        stranger.publish((f"system/config/stt-worker/junk_{n}", b"junk") for n in range(2_500))
        stranger.publish((f"system/config/stt-worker/_head/{n:032x}", b"junk") for n in range(2_500))
    with Writer(**fleet.writer_given()) as writer:
        receipt = writer.push(Stt, {"vad_threshold": 0.6, "model": "large"})
        assert receipt.wait(15, need="retained").stage == "retained"
        with tars_settings.join(Stt, **fleet.given("pi-3")) as live:
            assert live.wait_until_ready(15), live.status
            assert (live.current.vad_threshold, live.current.model) == (0.6, "large")
    assert len(mosquitto.retained("system/config/stt-worker/+")) >= 2_500, "the crowd was there"


BOMBS = {
    "nested lists": b"[" * 20_000,
    "nested objects": b'{"a":' * 8_000,
    "a nested body": b'{"v":1,"kid":"' + b"0" * 32 + b'","sig":"' + b"A" * 86 + b'==","body":' + b"[" * 20_000,
    "a long number": b"9" * 40_000,
    "a large exponent": b'{"v":1e999999999}',
    "a large version": b'{"v":' + b"9" * 30_000 + b"}",
    "half a surrogate": b'{"v":"\\ud800"}',
    "no UTF-8": b'{"v":"\xff\xfe"}',
    "NUL": b"\0" * 40_000,
    "NaN": b"NaN",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a12_bombs_are_malformed_wherever_they_are_put(name: str) -> None:
    one, effects = peer()
    topics: list[Topic] = [KeyTopic(SCOPE, "vad"), TrustTopic(), TrustTopic(2), IndexTopic(SCOPE, ALICE.kid)]
    for topic in topics:
        one.receive(topic, BOMBS[name], "live")
    one.receive(SegmentTopic(SCOPE, ALICE.kid, 1), BOMBS[name], "live")
    assert reasons(effects)[: len(topics)] == ["malformed"] * len(topics)
    assert one.registers.winners(SCOPE) == {}


def test_a16_a_flood_does_not_keep_a_push_away(mosquitto: Mosquitto, fleet: TestFleet) -> None:
    with Writer(**fleet.writer_given()) as writer, tars_settings.join(Stt, **fleet.given("pi-3")) as live:
        writer.push(Stt, {"vad_threshold": 0.6}).wait()
        assert live.wait_until_ready(15)
        with Stranger(mosquitto.port) as stranger:
            for wave in range(10):
                stranger.publish(((VAD, b"flood %d %d" % (wave, n)) for n in range(1_000)), retain=False)
            writer.push(Stt, {"vad_threshold": 0.7})
            eventually(lambda: live.current.vad_threshold == 0.7)
        eventually(lambda: live.status.counters.get("rejected malformed", 0) > 100, what="the flood was met")
        assert live.status.connected


def test_a18_a_taken_session_comes_back_and_no_two_processes_share_an_id(
    mosquitto: Mosquitto, fleet: TestFleet
) -> None:
    with Writer(**fleet.writer_given()) as writer, tars_settings.join(Stt, **fleet.given("pi-3")) as live:
        writer.push(Stt, {"vad_threshold": 0.6}).wait()
        assert live.wait_until_ready(15)
        ids = re.findall(r"as (ts-\S+) ", mosquitto.log.read_text())
        assert len(set(ids)) == 2, ids
        stolen = next(one for one in ids if "stt-worker" in one)
        with Stranger(mosquitto.port, stolen):
            eventually(lambda: f"Client {stolen} already connected" in mosquitto.log.read_text(), what="the theft")
            writer.push(Stt, {"vad_threshold": 0.7}).wait()
            eventually(lambda: live.current.vad_threshold == 0.7)


FORGED = "x\nERROR root: forged line\r\x1b[2J\x9b31m"


def test_a19_nothing_that_is_received_makes_a_line_of_the_log(
    memory: InMemory, started: Joiner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    live = started()
    topics = Topics()
    for topic in (VAD, f"system/config/stt-worker/{FORGED}", f"system/health/stt-worker/{FORGED}", FORGED):
        memory.broker.publish(topic, FORGED.encode())
    memory.broker.publish(
        "system/health/stt-worker/pi-9", b'{"v":1,"service":"a\\nb","instance":"\\u001b","state":"x"}'
    )
    body = DeltaBody("stt-worker", 1, 90, 1, (Assignment("vad_threshold", set=FORGED),), by="a\nb", reason=FORGED[:60])
    signed = memory.keys.writer.sign("delta", memory.keys.id, encode(body))
    memory.broker.publish(topics.format(KeyTopic("stt-worker", "vad_threshold")), signed)
    eventually(lambda: live.status.refused, what="the value met the model")
    eventually(lambda: live.status.counters.get("rejected malformed", 0) > 0)
    assert caplog.records
    for record in caplog.records:
        assert all(char.isprintable() for char in record.getMessage()), record
        assert "forged line" not in record.getMessage()
