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

from nacl.bindings import crypto_sign_open
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

import tars_settings
from benchmarks.harness import Answer, Curve, Goal, Samples, check, directory, main, ratio, take_turns
from benchmarks.peers import Server, servers
from benchmarks.stage import SERVICE, TOPICS, Stage, model, mosquitto
from tars_settings.agent.assemble import assemble
from tars_settings.core.delta import parse_delta
from tars_settings.core.head import parse_segment
from tars_settings.core.topics import IndexTopic, SegmentTopic
from tars_settings.core.wire import decode_single, pae
from tars_settings.gossip.effects import Follow, Notice, ScopeSynced
from tars_settings.sources.environment import Environment

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
    _tell(answer, keys, samples, missing, curve)


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
    " stored before it is used (5 to 40 ms here, more than all else for 50 keys), and makes five round trips, two of"
    " them markers that prove silence. With 10,000 keys it is the merge, 18 us each, half of it strict decoding: an"
    " order that survives a stolen key takes more than a dict. It was 72 ms for 50 keys and 400 ms of work for 10,000:"
    " the index and an empty schema waited for the disk too, the collector looked at every delta, and each delta's"
    " digest was computed twice."
)
TOPICWISE_NOTE = (
    "A check takes 60 us, strict decoding and merging 18: not checking is worth little more than four times, and ten"
    " were asked for. For few keys the disk decides, which the topic-wise reader does not wait for: it stores nothing."
)
PEERS_NOTE = (
    "It trusts its server, so that it checks, merges and stores nothing, and has one round trip where a reader that"
    " does not trust the broker has five; each key is a JSON value, where ours is a signed statement of 300 bytes."
)


class _Ready:
    """Notes when the scope is ready."""

    at_s = 0.0

    def on_session(self, event: object) -> None:
        """Nothing."""

    def on_message(self, received: object) -> None:
        """Nothing."""

    def on_burst(self, notices: Iterable[Notice]) -> None:
        """Look for the word."""
        if any(isinstance(one, ScopeSynced) and one.state == "ready" for one in notices):
            self.at_s = time.perf_counter()


def _agent_joins(stage: Stage, member: str) -> float:
    """Join with the real agent, transport and replica, in this thread; return the time to ready in ms.

    What is put off behind readiness (each delta's own signature, the replica) is done before this returns.
    """
    environment = Environment.read(**stage.fleet.given(member))
    ready = _Ready()
    began_s = time.perf_counter()
    agent = assemble(environment, name="bench")
    agent.add_listener(ready)
    agent.load()
    agent.feed(Follow(SERVICE, ()))
    while not ready.at_s:
        agent._turn()
        check(time.perf_counter() - began_s < 120, "not ready within two minutes")
    check(len(agent.replicator.peer.registers.winners(SERVICE)) == stage.keys, "ready, and not all keys are there")
    while agent.replicator.peer.unproven or not agent.replicator.quiet:
        agent._turn()
    agent._end()
    return (ready.at_s - began_s) * 1e3


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
