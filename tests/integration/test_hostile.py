"""Whatever is published without a key changes no value, is counted, and the winner is on the broker again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import tars_settings
from tars_settings import Settings
from tars_settings.core.delta import Assignment, DeltaBody
from tars_settings.core.wire import encode
from tars_settings.join import Live
from tars_settings.trust.keys import SigningKey
from tars_settings.writer import Writer
from tests.brokers import Mosquitto, eventually
from tests.integration.fleets import TestFleet

TOPIC = "system/config/stt-worker/vad_threshold"
OTHER_TOPIC = "system/config/stt-worker/model"


class Stt(Settings, service="stt-worker"):
    vad_threshold: float = 0.5
    model: str = "base"


class Scene:
    """One live worker, one writer, a pushed value, and the broker."""

    def __init__(self, broker: Mosquitto, fleet: TestFleet, live: Live[Stt], writer: Writer, protocol: str) -> None:
        self.broker = broker
        self.fleet = fleet
        self.live = live
        self.writer = writer
        self.protocol = protocol
        self.older = self.push(0.55)
        self.good = self.push(0.6)

    def push(self, value: float) -> bytes:
        self.writer.push(Stt, {"vad_threshold": value}).wait()
        eventually(lambda: self.live.current.vad_threshold == value)
        return self.broker.retained(TOPIC)[TOPIC]

    def publish(self, payload: bytes, topic: str = TOPIC) -> None:
        self.broker.publish(topic, payload, protocol=self.protocol)

    def count(self, reason: str) -> int:
        return self.live.status.counters.get(f"rejected {reason}", 0)

    def assert_unharmed(self, topic: str = TOPIC, payload: bytes | None = None) -> None:
        wanted = payload or self.good
        eventually(lambda: self.broker.retained(topic).get(topic) == wanted, what="the winner is back on the broker")
        assert self.live.current.vad_threshold == 0.6
        assert self.live.current.model == "base"


@pytest.fixture
def scene(mosquitto: Mosquitto, tmp_path: Path, protocol: str) -> Iterator[Scene]:
    fleet = TestFleet(tmp_path / "fleet", mosquitto.url, audit_s=2.0)
    with ExitStack() as stack:
        writer = stack.enter_context(Writer(**fleet.writer_given(), protocol=protocol))
        live = stack.enter_context(tars_settings.join(Stt, **fleet.given("pi-3"), protocol=protocol))
        assert live.wait_until_ready(15), live.status
        yield Scene(mosquitto, fleet, live, writer, protocol)


def signed(key: SigningKey, fleet: str, epoch: int, value: float = 0.9, name: str = "vad_threshold") -> bytes:
    body = DeltaBody("stt-worker", 1, epoch, 1, (Assignment(name, set=value),))
    return key.sign("delta", fleet, encode(body))


def test_forged_signature(scene: Scene) -> None:
    good = signed(scene.fleet.writer, scene.fleet.id, 50)
    forged = good.replace(b'"set":0.9', b'"set":0.8')
    assert forged != good
    scene.publish(forged)
    eventually(lambda: scene.count("bad-signature") > 0)
    scene.assert_unharmed()


def test_a_stranger_s_signature(scene: Scene) -> None:
    scene.publish(signed(SigningKey("writer", "ops", os.urandom(32)), scene.fleet.id, 50))
    eventually(lambda: scene.count("unknown-writer") > 0)
    scene.assert_unharmed()


def test_replayed_older_delta(scene: Scene) -> None:
    assert scene.older != scene.good
    before = scene.live.status.counters.get("Repaired", 0)
    scene.publish(scene.older)
    scene.assert_unharmed()
    # What a burst publishes is on the broker before it is counted.
    eventually(lambda: scene.live.status.counters.get("Repaired", 0) + _repairs(scene.writer) > before)


def _repairs(writer: Writer) -> int:
    return writer.agent.counters["Repaired"]


def test_delta_moved_to_another_key_s_topic(scene: Scene) -> None:
    scene.writer.push(Stt, {"model": "base"}).wait()
    eventually(lambda: OTHER_TOPIC in scene.broker.retained(OTHER_TOPIC))
    model = scene.broker.retained(OTHER_TOPIC)[OTHER_TOPIC]
    scene.publish(scene.good, OTHER_TOPIC)
    eventually(lambda: scene.count("wrong-topic") > 0)
    scene.assert_unharmed(OTHER_TOPIC, model)


def test_delta_of_another_fleet(scene: Scene) -> None:
    """The same writer's key, in a fleet of another root: the fleet is inside what is signed."""
    scene.publish(signed(scene.fleet.writer, os.urandom(16).hex(), 50))
    eventually(lambda: scene.count("bad-signature") > 0)
    scene.assert_unharmed()


def test_garbage(scene: Scene) -> None:
    scene.publish(b"\x00\xff garbage")
    eventually(lambda: scene.count("malformed") > 0)
    scene.assert_unharmed()


def test_a_mebibyte_of_garbage(scene: Scene) -> None:
    """On 3.1.1 it arrives and is refused by its size; on MQTT 5 the broker withholds it, and the audit finds it."""
    scene.publish(b"x" * 2**20)
    if scene.protocol == "3.1.1":
        eventually(lambda: scene.count("malformed") > 0)
    scene.assert_unharmed()


def test_empty_retained_payload(scene: Scene) -> None:
    scene.publish(b"")
    eventually(lambda: scene.count("empty") > 0)
    scene.assert_unharmed()
