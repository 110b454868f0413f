"""B: a broker that lies, or that somebody else holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tars_settings
from tars_settings.adapters.memory import MemoryBroker, MemoryTransport
from tars_settings.core.delta import Assignment, DeltaBody
from tars_settings.core.session import Received
from tars_settings.core.wire import encode
from tars_settings.join import Fleet, Live
from tars_settings.writer import Writer
from tests.brokers import eventually
from tests.fakes import FakeBroker, Peer
from tests.join.conftest import InMemory, Stt

Joiner = Callable[..., Live[Any]]
VAD = "system/config/stt-worker/vad_threshold"
MODEL = "system/config/stt-worker/model"


def to(broker: MemoryBroker) -> Callable[..., MemoryTransport]:
    return lambda *_: MemoryTransport(broker)


def test_b01_a_split_view_ends_where_one_peer_sees_both_sides(memory: InMemory) -> None:
    """Behind one broker it can't be seen: both workers are ready, each with what it was shown."""
    memory.push(vad_threshold=0.6)
    other = MemoryBroker()
    other.retained = dict(memory.broker.retained)
    memory.push(vad_threshold=0.7)
    given = memory.keys.given
    with Fleet(transport=to(other), **given("b")) as second:
        shown_old = second.join(Stt)
        assert shown_old.wait_until_ready(10)
        with Fleet(transport=memory.transport, **given("a")) as first:
            shown_new = first.join(Stt)
            assert shown_new.wait_until_ready(10)
            assert (shown_old.current.vad_threshold, shown_new.current.vad_threshold) == (0.6, 0.7), "two views"
        with Fleet(transport=to(other), **given("a")) as moved:
            assert moved.join(Stt).current.vad_threshold == 0.7
            eventually(lambda: shown_old.current.vad_threshold == 0.7, what="the worker that moved brought the newest")


def test_b02_one_push_can_not_be_mixed_with_an_older_one(memory: InMemory) -> None:
    memory.push(vad_threshold=0.6, model="old")
    old = dict(memory.broker.retained)
    memory.push(vad_threshold=0.7, model="new")
    memory.writer.close()
    memory._writer = None
    mixed = {topic: payload for topic, payload in old.items() if "_head" not in topic}
    memory.broker.retained = {**mixed, VAD: memory.broker.retained[VAD]}
    assert memory.broker.retained[MODEL] != memory.broker.retained[VAD], "a new one and an old one"
    live = memory.fleet("fresh").join(Stt)
    seen: list[tuple[float, str]] = []

    def arrived() -> bool:
        snapshot = live.current
        seen.append((snapshot.vad_threshold, snapshot.model))
        return seen[-1] == (0.7, "new")

    eventually(arrived)
    assert set(seen) <= {(0.5, "base"), (0.6, "old"), (0.7, "new")}


class Dropping(MemoryBroker):
    """Acknowledges everything, and forgets what is published under a scope's keys."""

    dropped = 0

    def publish(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        if topic.startswith("system/config/stt-worker/"):
            self.dropped += 1
        else:
            super().publish(topic, payload, retain=retain)


def test_b03_an_acknowledgement_is_not_believed(memory: InMemory) -> None:
    broker = Dropping()
    with Writer(transport=to(broker), **memory.keys.writer_given()) as writer:
        report = writer.push(Stt, {"vad_threshold": 0.6}).wait(30, need="retained")
    assert broker.dropped > 0
    assert report.stage in ("accepted", "unconfirmed")


def test_b04_what_nobody_asked_for_is_not_kept(memory: InMemory, started: Joiner) -> None:
    live = started()
    body = DeltaBody("tts-worker", 1, 1, 1, (Assignment("voice", set="foreign"),))
    unasked = memory.keys.writer.sign("delta", memory.keys.id, encode(body))
    topics = ("system/config/tts-worker/voice", "system/config/_all/voice", "$SYS/broker/uptime", "", "a/b")
    sessions = tuple(memory.broker._sessions)
    for session in sessions:
        for topic in topics:
            session.deliver(Received(topic, unasked, True))
    memory.push(vad_threshold=0.6)
    eventually(lambda: live.current.vad_threshold == 0.6)
    agent = live._agent
    assert len(sessions) == 2
    assert "tts-worker" not in agent.replicator.peer.registers.scopes()
    assert live.current.model == "base"
    assert live.status.connected


def test_b05_a_broker_that_never_ends_its_replay_holds_no_start_up(memory: InMemory, started: Joiner) -> None:
    live = started(name="pi-3")
    memory.push(vad_threshold=0.6)
    eventually(lambda: live.current.vad_threshold == 0.6)
    live.close()

    def accept_and_be_silent(peer: Peer) -> None:
        peer.welcome()
        peer.linger()

    with FakeBroker(accept_and_be_silent) as broker:
        given = {**memory.keys.given("pi-3"), "broker": f"mqtt://127.0.0.1:{broker.port}"}
        with tars_settings.join(Stt, **given) as again:
            assert again.current.vad_threshold == 0.6, "at once, from the replica"
            eventually(lambda: again.status.connected, what="the broker took the session")
            assert not again.wait_until_ready(1)
            assert again.status.state != "ready"
        assert broker.accepted >= 1
