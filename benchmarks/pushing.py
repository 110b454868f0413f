"""Pushing: how long until a value can be used in another process, and in the last of many?

All kinds of workers run at the same time and rest; values are pushed to one kind after the other. "Visible" is when the
worker's own code can read the value: swapped in (ours), in a dict (Redis, NATS KV, etcd), or, for the raw hop, in the
callback. ``python -m benchmarks.pushing [--full]``: the full form pushes to 100 workers too.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.crowd import KEY, Stamps
from benchmarks.harness import ROOT, Answer, Goal, Role, Samples, check, directory, main, ratio, until
from benchmarks.peers import Server, servers
from benchmarks.stage import SERVICE, Stage, mosquitto

FIELDS = 30
SIZES = (1, 10, 50)
WORDS = {
    "raw": "raw MQTT hop (paho, QoS 1)",
    "floor": "the hop, and verify, decode, merge, validate, swap, bare",
    "ours": "ours: checked, validated, swapped, then stored",
    "redis": "Redis hash and pub/sub",
    "nats": "NATS KV watch",
    "etcd": "etcd watch",
    "central": "central service over MQTT (in the way of py-tars), model rebuilt",
}
ROLES: dict[str, Role] = {"raw": "floor", "floor": "floor", "ours": "ours"}
SWITCH_MS = sys.getswitchinterval() * 1e3


Prepare = Callable[[int], Callable[[], object]]


class Publisher:
    """A paho client without a thread: publish() writes to the socket itself."""

    def __init__(self, port: int) -> None:
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", port, keepalive=3600)  # fifty workers take a while to start
        self.rest()

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = True) -> None:
        """Publish now."""
        self._client.publish(topic, payload, qos=1, retain=retain)

    def rest(self) -> None:
        """Take in what was acknowledged, and keep the session alive."""
        for _ in range(4):
            self._client.loop(timeout=0.001)

    def close(self) -> None:
        """End the session."""
        self._client.disconnect()


class Crowd:
    """Workers of one kind as processes. *prepare* makes a value ready (signs it) and returns what pushes it."""

    def __init__(self, kind: str, workers: int, there: Path, config: dict[str, Any], prepare: Prepare | None) -> None:
        self.kind = kind
        self.prepare = prepare
        self.stamps = Stamps(there / f"{kind}-{workers}", workers, create=True)
        command = [sys.executable, "-m", "benchmarks.crowd", kind, str(workers), str(there / f"{kind}-{workers}")]
        self._process = subprocess.Popen(
            [*command, json.dumps(config)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.pids: list[int] = json.loads(self._process.stdout.readline() or "[]")
        check(self.pids, f"the workers of {kind} did not start")

    def until_ready(self) -> None:
        """Wait until all have said so."""
        until(lambda: all(self.stamps.of(0)), f"{self.kind}: all workers are ready", within_s=180, every_s=0.05)

    def latencies_ms(self, seq: int) -> list[float]:
        """Push a value, wait until all have it, and return how long each took, in order."""
        assert self.prepare is not None
        push = self.prepare(seq)
        began_ns = time.monotonic_ns()
        push()
        until(lambda: all(self.stamps.of(seq)), f"{self.kind}: value {seq} is everywhere", every_s=0.001)
        return sorted((stamp - began_ns) / 1e6 for stamp in self.stamps.of(seq))

    def stop(self) -> None:
        """End all of them."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def crowds(
    stack: ExitStack, there: Path, workers: int, kinds: set[str], **more: Any
) -> tuple[list[Crowd], dict[str, str]]:
    """Return a crowd of each kind that can be had, all ready, and why others can't."""
    broker = stack.enter_context(mosquitto(there))
    running, missing = stack.enter_context(servers(there)) if kinds & {"redis", "nats", "etcd"} else ({}, {})
    stage = Stage(there / "fleet", broker.url, FIELDS)
    stage.put_on(broker.port)
    states = there / "states"
    states.mkdir(mode=0o700, exist_ok=True)
    publisher = Publisher(broker.port)
    stack.callback(publisher.close)
    common = {"port": broker.port, "fields": FIELDS, "states": str(states), **more}
    # One push makes "ours" and "floor" see it at once: each has a fleet of its own.
    second = Stage(there / "second", broker.url, 0)
    given = {name: str(value) for name, value in stage.fleet.given("x").items() if name != "broker"}
    made: list[Crowd] = []

    def add(kind: str, config: dict[str, Any], prepare: Prepare | None) -> None:
        if kind in kinds or kind == "central_service":
            crowd = Crowd(kind, 1 if kind == "central_service" else workers, there, {**common, **config}, prepare)
            stack.callback(crowd.stop)
            crowd.until_ready()
            made.append(crowd)

    def send(topic: str, payload: bytes | str, *, retain: bool = True) -> Callable[[], object]:
        return lambda: publisher.publish(topic, payload, retain=retain)

    floor_topic = f"bench/floor/{SERVICE}/{KEY}"
    floor_config = {"topic": floor_topic, "public": second.fleet.writer.public.hex(), "fleet": second.fleet.id}
    add("raw", {"topic": "bench/raw"}, lambda seq: send("bench/raw", str(seq)))
    add("floor", floor_config, lambda seq: send(floor_topic, second.delta(KEY, seq)))
    add(
        "ours",
        {"given": {**given, "broker": broker.url}, "epoch": stage.epoch},
        lambda seq: send(stage.topic(KEY), stage.delta(KEY, seq)),
    )
    for kind, server in running.items():
        add(kind, {"port": server.port}, _PUSHES[kind](server, stack))
    if "central" in kinds:
        add("central_service", {"topic": "central/config"}, None)
        asked = "central/set"
        add("central", {"topic": "central/config"}, lambda seq: send(asked, json.dumps({KEY: seq}), retain=False))
    stack.callback(publisher.rest)
    for crowd in made:
        crowd.rest = publisher.rest  # type: ignore[attr-defined]
    return [crowd for crowd in made if crowd.prepare is not None], missing


def _push_redis(server: Server, stack: ExitStack) -> Prepare:
    import redis

    client = stack.enter_context(redis.Redis(port=server.port))

    def prepare(seq: int) -> Callable[[], object]:
        both = client.pipeline(transaction=False)
        both.hset("config", KEY, json.dumps(seq))
        both.publish("config", json.dumps({KEY: seq}))
        return both.execute

    return prepare


def _push_nats(server: Server, stack: ExitStack) -> Prepare:
    import nats

    loop = asyncio.new_event_loop()
    stack.callback(loop.close)
    client = loop.run_until_complete(nats.connect(f"nats://127.0.0.1:{server.port}"))
    bucket = loop.run_until_complete(client.jetstream().create_key_value(bucket="config"))
    stack.callback(lambda: loop.run_until_complete(client.close()))
    return lambda seq: lambda: loop.run_until_complete(bucket.put(KEY, json.dumps(seq).encode()))


def _push_etcd(server: Server, _stack: ExitStack) -> Prepare:
    from benchmarks.etcd import Etcd

    client = Etcd(server.port)
    return lambda seq: lambda: client.put(f"config/{KEY}".encode(), str(seq).encode())


_PUSHES: dict[str, Callable[[Server, ExitStack], Prepare]] = {
    "redis": _push_redis,
    "nats": _push_nats,
    "etcd": _push_etcd,
}


def push_in_turn(made: list[Crowd], rounds: int, workers: int) -> tuple[Samples, Samples]:
    """Return, by kind, how long the middle worker and the last one took in each round, in ms."""
    middle: Samples = {crowd.kind: [] for crowd in made}
    last: Samples = {crowd.kind: [] for crowd in made}
    for turn in range(rounds + 3):
        for crowd in made[turn % len(made) :] + made[: turn % len(made)]:
            took = crowd.latencies_ms(turn + 1)
            crowd.rest()  # type: ignore[attr-defined]
            # What a worker does after the swap (the replica, last known good values) must not fall into others' turns.
            time.sleep(0.15 + 0.012 * workers if crowd.kind in ("ours", "central") else 0.004)
            if turn >= 3:
                middle[crowd.kind].append(statistics.median(took))
                last[crowd.kind].append(took[-1])
    return middle, last


def measure(full: bool) -> Answer:
    """Push to 1, 10 and 50 workers of each kind; in the full form to 100 too."""
    answer = Answer(
        "pushing",
        "From a push to a value that can be used in another process",
        "all workers on the one machine, mosquitto and the peers' servers too; clock time, from the call"
        " that publishes; a delta is signed before",
    )
    for workers in (*SIZES, 100) if full else SIZES:
        with directory() as there, ExitStack() as stack:
            made, missing = crowds(stack, there, workers, set(WORDS))
            middle, last = push_in_turn(made, (200 if full else 40) if workers < 50 else (60 if full else 15), workers)
        _tell(answer, workers, middle, last, missing)
    _busy(answer, full)
    return answer


def _tell(answer: Answer, workers: int, middle: Samples, last: Samples, missing: dict[str, str]) -> None:
    where = "one worker" if workers == 1 else f"the last of {workers}"
    found = middle if workers == 1 else last
    for kind, words in WORDS.items():
        if kind in found:
            answer.add(f"{where}: {words}", "ms", found[kind], ROLES.get(kind, "peer"))
        elif kind in missing:
            answer.add_missing(f"{where}: {words}", missing[kind])
    limit = 1.5 if workers == 1 else 2.2
    question = "push to visible, 1 worker" if workers == 1 else "push to the last of 50 and of 100"
    text = f"{where}: ours against the raw hop"
    floor = ratio(found, "floor", "raw")
    note = f"The floor is {floor:.2f} x in the same run. {WORK}"
    answer.goals.append(Goal(question, text, ratio(found, "ours", "raw"), limit, note=note))
    for kind in ("redis", "nats", "etcd"):
        measured = ratio(found, "ours", kind) if kind in found else None
        note = PEERS_NOTE if workers == 1 else CROWD_NOTE
        answer.goals.append(Goal(question, f"{where}: ours against {WORDS[kind]}", measured, 1.0, note=note))


WORK = (
    "What is on top is the work of one change (measured by itself) and a turn of the loop, both in a process that was"
    " at rest: its caches are cold, and everything takes four times as long as in a row. By processor time a push"
    " costs a worker 0.58 ms until the swap (it was 0.73), the bare steps 0.43, a raw client 0.15; of ten workers on"
    " two cores the last one waits for five times that. A message is taken out of what was read as a whole, without"
    " paho's reads (59 us became 37); listeners are told before anything else is looked at (40 us became 20);"
    " acknowledgements come after the swap, and the disk up to 50 ms later, so that no swap waits for another worker's"
    " transaction. Tried without gain: the collector off, caches emptied on purpose."
)
PEERS_NOTE = (
    "It checks no signature, validates nothing and swaps no model: it is nearer to the raw hop than our floor is."
)
CROWD_NOTE = (
    "Its workers have less to do: no signature, no validation, no model. Our floor, the bare steps, loses to"
    " Redis too. On two cores the last of many waits for the work of all others; on hosts of their own nobody does."
)
BUSY = (
    "Each call that lets go of the interpreter (waiting, receiving, checking a signature) may wait an interval to have"
    " it back. paho asks for a byte, a byte and the rest; read in one piece it is three waits at most, and on a free"
    " second core mostly one. It is found between 1.2 and 2.0 from run to run, a raw hop between 1.1 and 1.9. A"
    " receive and a check that hold on to the interpreter, by ctypes, were tried: no difference. sys.setswitchinterval"
    " is the application's to lower."
)


def _busy(answer: Answer, full: bool) -> None:
    kinds = {"raw", "ours", "redis"}
    with directory() as there, ExitStack() as stack:
        made, missing = crowds(stack, there, 1, kinds, busy=True)
        middle, _ = push_in_turn(made, 150 if full else 40, 1)
    for kind in ("raw", "ours", "redis"):
        what = f"a worker that is busy in Python: {WORDS[kind]}"
        if kind in middle:
            answer.add(what, "ms", middle[kind], ROLES.get(kind, "peer"))
        else:
            answer.add_missing(what, missing.get(kind, ""))
    intervals = statistics.median(middle["ours"]) / SWITCH_MS
    question = "the same in a worker that is busy in Python"
    answer.goals.append(Goal(question, "in switch intervals of 5 ms", intervals, 1.25, unit="intervals", note=BUSY))
    answer.notes.append(f"{os.cpu_count()} cores; the peers' servers check no signature, validate nothing and, but for"
                        " etcd and NATS, store nothing.")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(measure))
