"""A fleet to measure: keys, a trust document, and as many signed values on a broker as are asked for."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import UNSET
from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import BaseModel, Field, create_model

from benchmarks.harness import check
from tars_settings import Settings, SettingsConfigDict
from tars_settings.adapters.clock import SystemClock
from tars_settings.adapters.replica import SqliteReplica
from tars_settings.agent.follower import Follower
from tars_settings.agent.loop import Agent
from tars_settings.agent.trials import Trials
from tars_settings.core.delta import Assignment, DeltaBody, parse_delta
from tars_settings.core.head import (
    MAX_SEGMENT_BYTES,
    IndexBody,
    Segment,
    SegmentRef,
    encode_segment,
    index_of,
    segment_digest,
)
from tars_settings.core.records import DeltaRow, IndexRow, Row, SegmentRow
from tars_settings.core.session import Received
from tars_settings.core.topics import IndexTopic, KeyTopic, SegmentTopic, Topics, TrustTopic
from tars_settings.core.wire import Raw, claimed_digest, decode_single, digest_of, encode, pae
from tars_settings.gossip.replicator import Replicator
from tars_settings.schema import schema_hash, schema_of
from tars_settings.settings import SnapshotBuilder
from tars_settings.sources.environment import Environment
from tars_settings.sources.trials import TrialStore
from tests.brokers import Mosquitto
from tests.integration.fleets import TestFleet

SERVICE = "stt-worker"
TOPICS = Topics()
# A broker as anybody has it, but for limits that a bench of thousands of messages at once would run into.
LINES = ("max_queued_messages 0", "max_inflight_messages 0")


class Stage:
    """A fleet, and the deltas, segments and index of one writer over ``keys`` keys of one scope."""

    def __init__(self, directory: Path, broker: str, keys: int = 0) -> None:
        self.fleet = TestFleet(directory, broker)
        self.keys = keys
        self.epoch = 0
        self._newest: dict[str, str] = {}
        self.deltas = [self.delta(f"k{n:05d}", n) for n in range(keys)]
        self.segments = dict(enumerate(_packed(self.deltas), 1))
        self.index = self._index()

    def delta(self, key: str, value: Any) -> bytes:
        """Return the next signed delta of the one writer: what a push of one key leaves on the broker."""
        self.epoch += 1
        body = DeltaBody(
            SERVICE,
            1,
            self.epoch,
            1,
            (Assignment(key, set=value, over=self._newest.get(key, UNSET)),),
            at="2026-01-01T12:00:00Z",
            by="ops@bench",
            reason="bench",
        )
        raw = self.fleet.writer.sign("delta", self.fleet.id, encode(body))
        self._newest[key] = claimed_digest("delta", self.fleet.id, raw).hex()
        return raw

    def topic(self, key: str) -> str:
        """Return a key's topic."""
        return TOPICS.format(KeyTopic(SERVICE, key))

    def _index(self) -> bytes:
        refs = tuple(SegmentRef(n, segment_digest(payload)) for n, payload in self.segments.items())
        body = IndexBody(SERVICE, 1, 1, max(1, self.epoch), 1, refs)
        return self.fleet.writer.sign("head", self.fleet.id, encode(body))

    def head(self) -> dict[str, bytes]:
        """Return what a join reads: the trust document, the index and its segments, by topic."""
        kid = self.fleet.writer.kid
        held = {TOPICS.format(TrustTopic()): self.fleet.trust, TOPICS.format(IndexTopic(SERVICE, kid)): self.index}
        return held | {TOPICS.format(SegmentTopic(SERVICE, kid, n)): raw for n, raw in self.segments.items()}

    def retained(self) -> dict[str, bytes]:
        """Return all that the broker holds of this fleet, by topic."""
        return self.head() | {self.topic(f"k{n:05d}"): raw for n, raw in enumerate(self.deltas)}

    def put_on(self, port: int) -> None:
        """Leave it on a broker."""
        publish_all(port, self.retained())


def replica_of(stage: Stage, member: str) -> None:
    """Put a fleet's state into a member's replica, as a join that was left does."""
    kid, fleet = stage.fleet.writer.kid, stage.fleet
    fleet._found(member)
    rows: list[Row] = [DeltaRow(SERVICE, parse_delta(raw, fleet.id)[1].stamp.digest, raw) for raw in stage.deltas]
    index = index_of(decode_single(stage.index), stage.index, digest_of(pae("head", fleet.id, kid, _body(stage.index))))
    rows.append(IndexRow(SERVICE, kid, index.body.counter, index.digest, stage.index))
    rows += [SegmentRow(SERVICE, kid, n, raw) for n, raw in stage.segments.items()]
    replica = SqliteReplica(fleet.state_dir(member) / fleet.id / "replica.sqlite3")
    replica.apply(rows)
    replica.close()


def _body(envelope: bytes) -> bytes:
    return bytes(decode_single(envelope).body)


def _packed(deltas: list[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 64
    for raw in deltas:
        if size + len(raw) + 1 > MAX_SEGMENT_BYTES:
            yield encode_segment(Segment(1, tuple(map(Raw, held))))
            held, size = [], 64
        held.append(raw)
        size += len(raw) + 1
    if held:
        yield encode_segment(Segment(1, tuple(map(Raw, held))))


def publish_all(port: int, messages: dict[str, bytes]) -> None:
    """Leave retained messages on a broker, and return when it has acknowledged all."""
    client = Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", port)
    client.loop_start()
    sent: list[MQTTMessageInfo] = [client.publish(topic, raw, qos=1, retain=True) for topic, raw in messages.items()]
    for one in sent:
        one.wait_for_publish(60)
    client.disconnect()
    client.loop_stop()
    check(all(one.is_published() for one in sent), "the broker did not acknowledge what was left on it")


@functools.cache
def model(fields: int) -> type[Settings]:
    """Return a Settings class with that many fields, k00000 and so on, whole numbers within bounds."""
    given: dict[str, Any] = {f"k{n:05d}": (int, Field(default=-1, ge=-1, le=10**9)) for n in range(fields)}
    cls = create_model("Bench", __base__=Settings, **given)
    cls.model_config = SettingsConfigDict(**{**cls.model_config, "service": SERVICE, "env_prefix": "BENCH_"})
    return cls


@functools.cache
def plain_model(fields: int, base: type[BaseModel] = BaseModel) -> Any:
    """Return the same fields on a plain model, or on BaseSettings with the same variables."""
    given: dict[str, Any] = {f"k{n:05d}": (int, Field(default=-1, ge=-1, le=10**9)) for n in range(fields)}
    cls = create_model("Plain", __base__=base, **given)
    if base is not BaseModel:
        cls.model_config = {**cls.model_config, **SettingsConfigDict(env_prefix="BENCH_")}
    return cls


class Worker:
    """A worker without network and disk: the real replicator, agent and follower, driven by hand in this thread."""

    def __init__(self, stage: Stage, fields: int) -> None:
        environment = Environment.read(**stage.fleet.given("bare"))
        replicator = Replicator(TOPICS, environment.root, nonce="0" * 32, random=random.Random(1).random)
        self.agent = Agent(replicator, None, NoReplica(), SystemClock())
        cls = model(fields)
        builder = SnapshotBuilder(cls, environment=environment, trust=lambda: replicator.peer.trust)
        schema = schema_of(cls)
        self.follower = Follower(
            self.agent,
            builder,
            service=SERVICE,
            instance="bare",
            keys=(),
            schema=(schema_hash(schema), schema),
            lkg=None,
            trials=Trials(TrialStore(environment, SERVICE), self.agent.clock, replicator.peer.registers.holds),
            session="0",
        )
        self.swaps = 0
        self.follower.on_swap = self._on_swap
        self.follower.begin()
        for topic, raw in stage.head().items():
            self.take(topic, raw)
        self.agent._finish_burst()
        self.swaps = 0

    def _on_swap(self, snapshot: Any, epoch: int) -> None:
        self.current, self.epoch = snapshot, epoch
        self.swaps += 1

    def take(self, topic: str, raw: bytes) -> None:
        """Take a message in, as one of a burst."""
        self.agent.feed(Received(topic, raw, retain=True))

    def receive(self, raw: bytes, topic: str) -> None:
        """Take a message in that is a burst of its own, to the swap and what follows it."""
        self.agent.feed(Received(topic, raw, retain=True))
        self.agent._finish_burst()


class NoReplica:
    """A disk that costs nothing."""

    def load(self, scopes: object = None) -> list[Row]:  # noqa: ARG002
        """Return nothing."""
        return []

    def apply(self, put: object, drop: object = (), *, durable: bool = True) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Close nothing."""


@contextmanager
def mosquitto(directory: Path, *lines: str) -> Iterator[Mosquitto]:
    """Yield a broker on a port of its own."""
    with Mosquitto(directory / f"broker-{os.urandom(4).hex()}", *LINES, *lines) as broker:
        yield broker
