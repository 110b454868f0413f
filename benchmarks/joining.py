"""Joining: how long until a worker is ready, with 50, 1,000 and 10,000 keys, cold and with a warm replica?

``python -m benchmarks.joining [--full]``
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from nacl.bindings import crypto_sign_open
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

import tars_settings
from benchmarks.harness import Answer, Curve, Goal, Samples, check, directory, main, ratio, take_turns
from benchmarks.peers import Server, servers
from benchmarks.stage import SERVICE, TOPICS, Stage, model, mosquitto
from tars_settings.agent.assemble import assemble
from tars_settings.agent.loop import Agent
from tars_settings.core.delta import parse_delta
from tars_settings.core.head import parse_segment
from tars_settings.core.names import scopes_of
from tars_settings.core.session import (
    Acknowledged,
    Publish,
    Received,
    SessionCommand,
    SessionUp,
    Subscribe,
    Subscribed,
)
from tars_settings.core.topics import IndexTopic, SegmentTopic
from tars_settings.core.wire import decode_single, pae
from tars_settings.gossip.effects import Event, Follow, Notice, ScopeSynced
from tars_settings.sources.environment import Environment
from tars_settings.trust import sodium

SIZES = (50, 1_000, 10_000)
COLD, WARM = "ours, cold: the agent to ready", "ours, rejoin with a current replica"
WHOLE = "ours, cold: join() of a class with that many fields, to ready"
FLOOR = "receive the segments, check the index, decode every delta (strictly)"
BARE = "the same, decoded by msgspec alone"
TOPICWISE = "a topic and a check per key (paho, QoS 0)"
PEERS = {"redis": "Redis HGETALL", "nats": "NATS KV, watch to the end", "etcd": "etcd range"}


def measure(full: bool) -> Answer:
    """Join in turn with the floor and the peers."""
    answer = Answer("joining", "Joining: from nothing to ready", "mosquitto on loopback; clock time and processor time")
    curve: dict[str, list[float | None]] = {}
    for keys in SIZES:
        few = 3 if keys == 10_000 else 7
        _measure_size(answer, keys, (few * 4) if full else few, curve)
    answer.curves.append(Curve("Time to ready", "keys", "ms", [float(one) for one in SIZES], curve))
    return answer


def _measure_size(answer: Answer, keys: int, rounds: int, curve: dict[str, list[float | None]]) -> None:
    with directory() as there, ExitStack() as stack:
        broker = stack.enter_context(mosquitto(there))
        stage = Stage(there / "fleet", broker.url, keys)
        stage.put_on(broker.port)
        running, missing = stack.enter_context(servers(there))
        turns = iter(range(10**6))
        _agent_joins(stage, "warm")
        cases: dict[str, Callable[[], float]] = {
            FLOOR: lambda: _floor(stage, broker.port, lambda raw: parse_delta(raw, stage.fleet.id)),
            BARE: lambda: _floor(stage, broker.port, decode_single),
            COLD: lambda: _agent_joins(stage, f"cold-{next(turns)}"),
            WARM: lambda: _agent_joins(stage, "warm"),
            TOPICWISE: lambda: _topicwise(stage, broker.port),
            **{PEERS[kind]: _reader(kind, server, keys, stack) for kind, server in running.items()},
        }
        if keys <= 1000:
            cases[WHOLE] = lambda: _joins(stage, f"whole-{next(turns)}", keys)
        samples = take_turns(cases, rounds)
        rejoin = _rejoin_goals(stage)
    _tell(answer, keys, samples, missing, curve)
    answer.goals += rejoin


def _tell(
    answer: Answer, keys: int, samples: Samples, missing: dict[str, str], curve: dict[str, list[float | None]]
) -> None:
    for name in (COLD, WARM, WHOLE, FLOOR, BARE, TOPICWISE, *PEERS.values()):
        role = "ours" if name.startswith("ours") else "floor" if name in (FLOOR, BARE, TOPICWISE) else "peer"
        found = answer.add(f"{keys:,} keys: {name}", "ms", samples[name], role) if name in samples else None
        curve.setdefault(name, []).append(found)
    for kind, reason in missing.items():
        answer.add_missing(f"{keys:,} keys: {PEERS[kind]}", reason)
    question = "join to ready"
    answer.goals += [
        Goal(question, f"{keys:,} keys: cold against the strict floor", ratio(samples, COLD, FLOOR), 1.3,
             note=f"Against decoding alone it is {ratio(samples, COLD, BARE):.1f} x. {WHY}"),
        Goal(question, f"{keys:,} keys: how much faster than a check per topic", ratio(samples, TOPICWISE, COLD), 10.0,
             at_most=False, note=TOPICWISE_NOTE),
    ]  # fmt: skip
    for kind, limit in (("nats", 1.0), ("redis", 1.1), ("etcd", 1.1)):
        measured = ratio(samples, COLD, PEERS[kind]) if PEERS[kind] in samples else None
        answer.goals.append(
            Goal(question, f"{keys:,} keys: cold against {PEERS[kind]}", measured, limit, note=PEERS_NOTE)
        )


WHY = (
    "The floor has no disk and no registers. A first join waits for one transaction, since the trust document is"
    " stored before it is used (3 ms on a quiet disk, 15 and more beside others), and makes five round trips, two of"
    " them markers that prove silence. With 10,000 keys it was 252 ms of work: envelope and body of each delta were"
    " decoded and encoded again, a hundred are now in one pass; signatures that are put off, and the survey of a"
    " keeper, were begun before anybody heard of readiness. What is left, 14 us a key, is strict decoding (4), digest"
    " (1), verdict (1), registers (1.4) and what is told of it. Tried without gain: another journal mode, a schema"
    " that is made in the first transaction."
)
REJOIN = "rejoin with a current replica"
TRIPS_NOTE = (
    "Answers of the broker that had to come one after the other, after the one to CONNECT. One is that the live"
    " subscription stands, so that nothing is missed from there on; one brings the trust document and the indexes. That"
    " nobody ever wrote to a scope can only be proven by silence: the broker's answer to the question, and two markers"
    " behind it."
)
TOPICWISE_NOTE = (
    "A check takes 60 us, strict decoding and merging 14: not checking is worth little more than six times, and ten"
    " were asked for. For few keys the disk decides, which the topic-wise reader does not wait for: it stores nothing."
)
PEERS_NOTE = (
    "It trusts its server, so that it checks, merges and stores nothing, and has one round trip where a reader that"
    " does not trust the broker has five; each key is a JSON value, where ours is a signed statement of 300 bytes."
)


class _Ready:
    """Notes when all scopes are ready."""

    def __init__(self, scopes: Iterable[str]) -> None:
        self.at_s = 0.0
        self._missing = set(scopes)

    def on_session(self, event: object) -> None:
        """Nothing."""

    def on_message(self, received: object) -> None:
        """Nothing."""

    def on_burst(self, notices: Iterable[Notice]) -> None:
        """Look for the word."""
        for one in notices:
            if isinstance(one, ScopeSynced) and one.state == "ready":
                self._missing.discard(one.scope)
        if not self._missing and not self.at_s:
            self.at_s = time.perf_counter()


def _agent_joins(
    stage: Stage,
    member: str,
    scopes: tuple[str, ...] = (SERVICE,),
    watch: Callable[[Agent], object] = lambda _: None,
) -> float:
    """Join with the real agent, transport and replica, in this thread; return the time to ready in ms.

    What is put off behind readiness (each delta's own signature, the replica) is done before this returns.
    """
    environment = Environment.read(**stage.fleet.given(member))
    ready = _Ready(scopes)
    began_s = time.perf_counter()
    agent = assemble(environment, name="bench")
    agent.add_listener(ready)
    watch(agent)
    agent.load()
    for scope in scopes:
        agent.feed(Follow(scope, ()))
    while not ready.at_s:
        agent._turn()
        check(time.perf_counter() - began_s < 120, "not ready within two minutes")
    check(len(agent.replicator.peer.registers.winners(SERVICE)) == stage.keys, "ready, and not all keys are there")
    while agent.replicator.peer.unproven or not agent.replicator.quiet:
        agent._turn()
    agent._end()
    return (ready.at_s - began_s) * 1e3


class _Chain:
    """Counts round trips: how many answers of the broker had to come one after the other, since CONNECT was answered.

    What is sent because of an event is one round trip later than the event, and what the broker says to it (a SUBACK,
    a retained message, a marker that comes back) is as late as what was sent. Whatever is sent at once is one.
    """

    def __init__(self, agent: Agent, scopes: Iterable[str]) -> None:
        self.at_ready = -1
        self._agent = agent
        self._scopes = tuple(scopes)
        self._now = 0
        self._sent: dict[int | str | bytes, int] = {}
        self._feed, agent.feed = agent.feed, self.feed  # type: ignore[method-assign]
        transport: Any = agent._transport
        self._carry_out, transport.carry_out = transport.carry_out, self.carry_out

    def feed(self, event: Event) -> None:
        """Note how late an event is, and whether it completed what it had to."""
        self._now = self._lateness(event)
        self._feed(event)
        if self.at_ready < 0 and all(self._agent.replicator.state_of(scope) == "ready" for scope in self._scopes):
            self.at_ready = self._now

    def _lateness(self, event: Event) -> int:
        match event:
            case Subscribed(ref) | Acknowledged(ref):
                return self._sent.get(ref, self._now)
            case Received(topic, payload):
                return self._sent.get(payload, self._sent.get(topic, self._now))
            case SessionUp():
                return 0
        return self._now

    def carry_out(self, command: SessionCommand) -> None:
        """Note how late a command is."""
        match command:
            case Subscribe(ref, filters):
                self._sent |= dict.fromkeys((ref, *filters), self._now + 1)
            case Publish(ref, _, payload):
                self._sent |= {ref: self._now + 1, payload: self._now + 1}
        self._carry_out(command)


def _rejoin_goals(stage: Stage) -> list[Goal]:
    """Rejoin, and count what the broker had to answer in a row, and the indexes whose signature was checked."""
    trips, checks = _rejoin(stage, (SERVICE,))
    of_all, _ = _rejoin(stage, scopes_of(SERVICE, "w"))
    keys = f"{stage.keys:,} keys"
    return [
        Goal(REJOIN, f"{keys}, a scope that was written to: round trips", trips, 2.0, unit="", note=TRIPS_NOTE),
        Goal(REJOIN, f"{keys}, the three scopes of a worker: round trips", of_all, 2.0, unit="", note=TRIPS_NOTE),
        Goal(REJOIN, f"{keys}: signatures of indexes checked in a scope", checks, 1.0, unit=""),
    ]


def _rejoin(stage: Stage, scopes: tuple[str, ...]) -> tuple[float, float]:
    chains: list[_Chain] = []
    checked: list[bytes] = []
    verify = sodium.verify

    def counting(encoding: bytes, signature: bytes, public: bytes) -> None:
        if encoding.startswith(pae("head", stage.fleet.id, "", b"")[:14]):
            checked.append(encoding)
        verify(encoding, signature, public)

    with patch.object(sodium, "verify", counting):
        _agent_joins(stage, "warm", scopes, lambda agent: chains.append(_Chain(agent, scopes)))
    return float(chains[0].at_ready), float(len(checked))


def _joins(stage: Stage, member: str, keys: int) -> float:
    cls = model(keys)
    began_s = time.perf_counter()
    with tars_settings.join(cls, **stage.fleet.given(member)) as live:
        check(live.wait_until_ready(120), "not ready")
        took_s = time.perf_counter() - began_s
        check(live.current.k00007 == 7, "another value than was pushed")
    return took_s * 1e3


def _receive(port: int, filters: list[str], expected: int, use: Callable[[str, bytes], object]) -> None:
    """Subscribe and hand on what is retained, until *expected* messages were used."""
    left = expected
    client = Client(CallbackAPIVersion.VERSION2)

    def on_message(_client: Client, _data: Any, message: Any) -> None:
        nonlocal left
        use(message.topic, message.payload)
        left -= 1

    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.subscribe([(one, 0) for one in filters])
    end_s = time.monotonic() + 60
    while left > 0 and time.monotonic() < end_s:
        client.loop(1.0)
    check(left == 0, f"{left} messages never came")
    client.disconnect()


def _floor(stage: Stage, port: int, decode: Callable[[bytes], object]) -> float:
    kid = stage.fleet.writer.kid
    index = TOPICS.format(IndexTopic(SERVICE, kid))
    names = [TOPICS.format(SegmentTopic(SERVICE, kid, n)) for n in stage.segments]
    found = 0

    def use(topic: str, payload: bytes) -> None:
        nonlocal found
        if topic == index:
            _verify(stage, payload, "head")
            return
        for raw in parse_segment(payload).deltas:
            decode(bytes(raw))
            found += 1

    began_s = time.perf_counter()
    _receive(port, [index, *names], 1 + len(names), use)
    took_s = time.perf_counter() - began_s
    check(found == stage.keys, "the floor did not decode every delta")
    return took_s * 1e3


def _verify(stage: Stage, payload: bytes, purpose: Any) -> None:
    envelope = decode_single(payload)
    encoding = pae(purpose, stage.fleet.id, envelope.kid, bytes(envelope.body))
    crypto_sign_open(envelope.sig + encoding, stage.fleet.writer.public)


def _topicwise(stage: Stage, port: int) -> float:
    def use(_topic: str, payload: bytes) -> None:
        _verify(stage, payload, "delta")
        parse_delta(payload, stage.fleet.id)

    began_s = time.perf_counter()
    _receive(port, [TOPICS.live_filter(SERVICE)], stage.keys, use)
    return (time.perf_counter() - began_s) * 1e3


def _reader(kind: str, server: Server, keys: int, stack: ExitStack) -> Callable[[], float]:
    values = {f"k{n:05d}": json.dumps(n) for n in range(keys)}
    read = _READERS[kind](server, values, stack)

    def timed() -> float:
        began_s = time.perf_counter()
        found = read()
        took_s = time.perf_counter() - began_s
        check(found == keys, f"{kind} gave {found} keys of {keys}")
        return took_s * 1e3

    return timed


def _redis(server: Server, values: dict[str, str], _stack: ExitStack) -> Callable[[], int]:
    import redis

    with redis.Redis(port=server.port) as client:
        client.hset("config", mapping=values)

    def read() -> int:
        with redis.Redis(port=server.port) as fresh:
            return len({name: json.loads(value) for name, value in fresh.hgetall("config").items()})

    return read


def _nats(server: Server, values: dict[str, str], stack: ExitStack) -> Callable[[], int]:
    import asyncio

    import nats

    loop = asyncio.new_event_loop()
    stack.callback(loop.close)

    async def fill() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{server.port}")
        bucket = await client.jetstream().create_key_value(bucket="config")
        for name, value in values.items():
            await bucket.put(name, value.encode())
        await client.close()

    async def read() -> int:
        client = await nats.connect(f"nats://127.0.0.1:{server.port}")
        bucket = await client.jetstream().key_value("config")
        found = {}
        watch = await bucket.watchall()
        async for update in watch:
            # The client's mark of the end comes first where the server was faster than its question how much is left.
            if update is not None:
                found[update.key] = json.loads(update.value)
            if len(found) == len(values):
                break
        await watch.stop()
        await client.close()
        return len(found)

    loop.run_until_complete(fill())
    return lambda: loop.run_until_complete(read())


def _etcd(server: Server, values: dict[str, str], _stack: ExitStack) -> Callable[[], int]:
    from benchmarks.etcd import Etcd

    client = Etcd(server.port)
    for name, value in values.items():
        client.put(f"config/{name}".encode(), value.encode())
    return lambda: len({name: json.loads(value) for name, value in Etcd(server.port).read(b"config/").items()})


_READERS: dict[str, Callable[[Server, dict[str, str], ExitStack], Callable[[], int]]] = {
    "redis": _redis,
    "nats": _nats,
    "etcd": _etcd,
}


if __name__ == "__main__":
    sys.exit(main(measure))
