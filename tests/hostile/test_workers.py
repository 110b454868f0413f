"""C: a worker that somebody else holds: its secret keys, its disk, its session with the broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tars_settings.adapters.memory import MemoryBroker, MemoryTransport
from tars_settings.core.delta import Assignment, DeltaBody
from tars_settings.core.presence import Presence, ScopeReport, encode_presence
from tars_settings.core.session import Acknowledged, Publish, Subscribe, Unsubscribe
from tars_settings.core.wire import encode
from tars_settings.errors import ConfigurationError
from tars_settings.join import Fleet, Live
from tars_settings.trust.keys import SigningKey
from tars_settings.writer import Writer
from tests.brokers import eventually
from tests.join.conftest import InMemory, Stt

Joiner = Callable[..., Live[Any]]
VAD = "system/config/stt-worker/vad_threshold"


def test_c01_nothing_that_a_worker_holds_signs_a_setting(memory: InMemory, started: Joiner) -> None:
    live = started()
    memory.push(vad_threshold=0.6)
    eventually(lambda: live.current.vad_threshold == 0.6)
    with pytest.raises(ConfigurationError, match="WRITER_KEY"):
        Writer(transport=memory.transport, **memory.keys.given("pi-3"))
    body = DeltaBody("stt-worker", 1, 50, 1, (Assignment("vad_threshold", set=0.9),))
    for name in ("ops", "root"):
        pretended = SigningKey("writer", name, memory.keys.secret.material)
        memory.broker.publish(VAD, pretended.sign("delta", memory.keys.id, encode(body)))
    eventually(lambda: live.status.counters.get("rejected unknown-writer", 0) > 0)
    assert live.current.vad_threshold == 0.6
    seed = memory.keys.writer.to_text().split()[-1].encode()
    state = [path.read_bytes() for path in memory.keys.state_dir("pi-3").rglob("*") if path.is_file()]
    assert state
    assert not any(seed in content for content in state)


class ReadOnly(MemoryTransport):
    """A session that the broker's access list lets publish presence and nothing else: 3.1.1 acknowledges and drops."""

    dropped = 0

    def carry_out(self, command: Subscribe | Unsubscribe | Publish) -> None:
        if isinstance(command, Publish) and command.topic.startswith("system/config"):
            ReadOnly.dropped += 1
            self.deliver(Acknowledged(command.ref))
        else:
            super().carry_out(command)


def read_only(broker: MemoryBroker) -> Callable[..., MemoryTransport]:
    return lambda *_: ReadOnly(broker)


def test_c02_two_keepers_are_enough_where_workers_may_not_publish(memory: InMemory, started: Joiner) -> None:
    memory.push(vad_threshold=0.6)
    keepers = [memory.join(name=f"keeper-{n}", repair="all") for n in (1, 2)]
    given = {**memory.keys.given("pi-3"), "repair": "off"}
    with Fleet(transport=read_only(memory.broker), **given) as fleet:
        live = fleet.join(Stt)
        assert live.wait_until_ready(10)
        memory.writer.close()
        memory._writer = None
        good = dict(memory.broker.retained)
        config = [topic for topic in good if topic.startswith("system/config/stt-worker/")]
        for topic in config:
            memory.broker.publish(topic, b"")
        eventually(lambda: all(memory.broker.retained.get(topic) == good[topic] for topic in config), deadline_s=30)
        assert sum(keeper.status.counters.get("Repaired", 0) for keeper in keepers) > 0
        assert live.current.vad_threshold == 0.6


def test_c04_a_lie_in_presence_changes_no_value_and_no_epoch(memory: InMemory, started: Joiner) -> None:
    live = started()
    first = memory.writer.push(Stt, {"vad_threshold": 0.6})
    first.wait(10)
    lie = Presence(
        1, "stt-worker", "ghost", "ready", {"stt-worker": ScopeReport(9, 2**53 - 1, "f" * 64)},
        acked={first.digest: "applied", "f" * 64: "refused"}, ext={"session": "0" * 16},
    )  # fmt: skip
    memory.broker.publish("system/health/stt-worker/ghost", encode_presence(lie))
    eventually(lambda: [one for one in memory.writer.presences("stt-worker") if one.instance == "ghost"], what="heard")
    second = memory.writer.push(Stt, {"vad_threshold": 0.7})
    report = second.wait(2)
    eventually(lambda: live.current.vad_threshold == 0.7)
    assert second.epoch == first.epoch + 1
    assert report.stage == "retained", "which rests on what was read back, not on what a worker says"
    assert [one.fate for one in report.replies if one.instance == "pi-3"] == ["applied"]
