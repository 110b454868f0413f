"""What the fleet does on every broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import eventually
from tests.conformance.brokers import Broker
from tests.conformance.onlooker import leave, retained
from tests.conformance.scene import (
    PATIENCE_S,
    PREFIX,
    TOPIC,
    Scene,
    held_of_fleet,
    push,
    ready,
    scene,
    until,
    until_held,
)
from tests.conformance.table import protocol_of


@pytest.fixture
def fleet(broker: Broker, column: str, tmp_path: Path) -> Iterator[Scene]:
    """A fleet without members, on the broker."""
    with scene(tmp_path, broker.url) as fleet:
        fleet.given = {"protocol": protocol_of(column)}
        yield fleet


def test_a_push_reaches_a_live_worker_and_one_that_is_late(fleet: Scene, broker: Broker) -> None:
    writer, early = fleet.writer(), ready(fleet.worker("early"))
    report = push(writer, {"vad_threshold": 0.7, "model": "large"})
    assert report.applied == 1, report
    until(early, vad_threshold=0.7, model="large")
    eventually(lambda: set(retained(broker.port, f"{PREFIX}/+")) == {TOPIC, f"{PREFIX}/model"}, what="it is retained")
    late = ready(fleet.worker("late"))
    assert (late.current.vad_threshold, late.current.model) == (0.7, "large")


def test_what_strangers_leave_on_the_broker_is_repaired(fleet: Scene, broker: Broker) -> None:
    writer, worker = fleet.writer(), ready(fleet.worker("pi-3"))
    push(writer, {"vad_threshold": 0.6})
    older = retained(broker.port, TOPIC)[TOPIC]
    push(writer, {"vad_threshold": 0.7})
    good = retained(broker.port, TOPIC)[TOPIC]
    assert good != older
    for payload in (older, b"\x00\xff garbage", b""):
        leave(broker.port, TOPIC, payload)
        until_held(broker.port, TOPIC, good)
        assert worker.current.vad_threshold == 0.7
    counters = worker.status.counters
    assert counters["rejected malformed"], counters
    assert counters["rejected empty"], counters
    assert counters.get("Repaired", 0) + writer.agent.counters["Repaired"] >= 3, counters


def test_a_broker_that_was_killed_is_whole_again(fleet: Scene, broker: Broker) -> None:
    writer, worker = fleet.writer(), ready(fleet.worker("pi-3"))
    push(writer, {"vad_threshold": 0.6, "model": "large"})
    push(writer, {"vad_threshold": 0.7})
    eventually(lambda: len(held_of_fleet(broker.port)) >= 5, what="trust, two keys, an index and a segment are held")
    held = held_of_fleet(broker.port)
    broker.kill()
    eventually(lambda: not worker.status.connected, what="the worker notices")
    broker.start()
    eventually(lambda: held.items() <= held_of_fleet(broker.port).items(), deadline_s=PATIENCE_S, what="all is back")
    ready(worker)
    push(writer, {"language": "de"})
    until(worker, language="de", vad_threshold=0.7)
