"""How cost grows: keys in a scope, scopes of a worker, workers on a broker, deltas a second.

Real replicators everywhere. Broker and network of the many workers are simulated: a dictionary that answers at once.
``python -m benchmarks.growth [--full]``
"""

from __future__ import annotations

import gc
import random
import resource
import sys
import time
from collections import deque
from pathlib import Path

from benchmarks.harness import Answer, Curve, check, cpu, directory, main
from benchmarks.stage import SERVICE, TOPICS, Stage, Worker
from tars_settings.core.session import Acknowledged, Publish, Received, SessionUp, Subscribe, Subscribed
from tars_settings.gossip.effects import Effect, Event, Follow, Wake
from tars_settings.gossip.replicator import Replicator

KEYS = (10, 100, 1_000, 10_000)
SCOPES = (1, 10, 100, 1_000)
WORKERS = (10, 100, 1_000)
MORE_WORKERS = (10_000, 100_000)
FIELDS = 30
BATCH = 1_000
"""Workers that are held in memory at a time."""


def measure(full: bool) -> Answer:
    """Grow one number at a time."""
    answer = Answer("growth", "How cost grows", "processor time, real replicators; workers on a broker are simulated")
    _keys(answer)
    _scopes(answer)
    _workers(answer, WORKERS + (MORE_WORKERS if full else ()))
    _million(answer)
    return answer


def _keys(answer: Answer) -> None:
    """One change in scopes of more and more keys, of which the model has thirty; and taking the head in."""
    change: list[float | None] = []
    taking: list[float | None] = []
    for keys in KEYS:
        with directory() as there:
            stage = Stage(there / "fleet", "mqtt://127.0.0.1:1", keys)
            began_s = time.thread_time()
            worker = Worker(stage, FIELDS)
            took_ms = (time.thread_time() - began_s) * 1e3
            taking.append(answer.add(f"take in the head of {keys:,} keys", "ms", [took_ms]))
            took = [_one_change(stage, worker, n) for n in range(40)][10:]
            change.append(answer.add(f"one change in a scope of {keys:,} keys", "us", took))
    x = [float(one) for one in KEYS]
    answer.curves.append(Curve("One change, by the keys of its scope", "keys in the scope", "us", x, {"ours": change}))
    answer.curves.append(Curve("Taking a head in", "keys in the scope", "ms", x, {"ours": taking}))


def _one_change(stage: Stage, worker: Worker, n: int) -> float:
    key = f"k{n % min(FIELDS, stage.keys):05d}"
    topic, raw = stage.topic(key), stage.delta(key, 1000 + n)
    worker.swaps = 0
    took = cpu(lambda: worker.receive(raw, topic)) * 1e6
    check(worker.swaps == 1, "a change did not swap")
    return took


def _scopes(answer: Answer) -> None:
    """One change for a process that follows more and more scopes (services in one process)."""
    change: list[float | None] = []
    for scopes in SCOPES:
        with directory() as there:
            stage = Stage(there / "fleet", "mqtt://127.0.0.1:1", FIELDS)
            worker = Worker(stage, FIELDS)
            for n in range(scopes - 1):
                worker.agent.feed(Follow(f"other-{n}", ()))
            took = [_one_change(stage, worker, n) for n in range(60)][20:]
            change.append(answer.add(f"one change in a process that follows {scopes:,} more scopes", "us", took))
    x = [float(one) for one in SCOPES]
    answer.curves.append(Curve("One change, by the scopes of a process", "scopes", "us", x, {"ours": change}))


def _workers(answer: Answer, sizes: tuple[int, ...]) -> None:
    """Join and tell more and more workers, each a real replicator before a broker that answers at once.

    Workers say nothing to each other (repairs aside, which are measured apart), so each is run alone; a thousand are
    held at a time. What is simulated is the broker and the network: they cost nothing here.
    """
    join: list[float] = []
    push: list[float] = []
    with directory() as there:
        stage = Stage(there / "fleet", "mqtt://127.0.0.1:1", FIELDS)
        gc.collect()
        before_kib, held_kib = _resident_kib(), 0.0
        for workers in sizes:
            found = [_batch(stage, min(BATCH, workers)) for _ in range(max(1, workers // BATCH))]
            join.append(answer.add(f"{workers:,} workers: joining, all together", "s", [sum(one[0] for one in found)]))
            push.append(answer.add(f"{workers:,} workers: one push, all together", "s", [sum(one[1] for one in found)]))
            if workers == BATCH:  # what is left to the process by smaller ones is used again, and counts
                held_kib = (found[0][3] - before_kib) / workers
        answer.add("a worker's messages in a join, both ways", "count", [found[0][2]])
        check(held_kib > 0, "a thousand replicators take no memory")
        answer.add("memory of a replicator with 30 keys", "KiB", [held_kib])
    x = [float(one) for one in sizes]
    lines: dict[str, list[float | None]] = {"joining a fleet of 30 keys": [*join], "one push": [*push]}
    answer.curves.append(Curve("Work of all workers together", "workers", "seconds of a core", x, lines))
    joins_ms = [total * 1e3 / workers for total, workers in zip(join, sizes, strict=True)]
    pushes_us = [total * 1e6 / workers for total, workers in zip(push, sizes, strict=True)]
    answer.notes.append(
        f"Where there are {sizes[0]:,} workers, each one's processor spends {joins_ms[0]:.1f} ms on a join and"
        f" {pushes_us[0]:.0f} us on a push; of {sizes[-1]:,}, {joins_ms[-1]:.1f} ms and {pushes_us[-1]:.0f} us."
    )


def _batch(stage: Stage, count: int) -> tuple[float, float, float, float]:
    """Return seconds of joining and of one push for *count* workers, messages of a join, and the process's KiB."""
    gc.collect()
    began_s = time.process_time()
    workers = [Simulated(stage, n) for n in range(count)]
    for worker in workers:
        worker.join()
    joined_s = time.process_time() - began_s
    gc.collect()
    kib = _resident_kib()
    messages = sum(worker.messages for worker in workers) / count
    topic, raw = stage.topic("k00007"), stage.delta("k00007", stage.epoch)
    began_s = time.process_time()
    for worker in workers:
        worker.hear(topic, raw)
    pushed_s = time.process_time() - began_s
    check(all(worker.has(raw) for worker in workers), "not every worker has the push")
    return joined_s, pushed_s, messages, kib


def _resident_kib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024


class Simulated:
    """A real replicator before a broker of one dictionary."""

    def __init__(self, stage: Stage, number: int) -> None:
        self._retained = stage.retained()
        self._replicator = Replicator(
            TOPICS, stage.fleet.root.public, nonce=f"{number:032x}", random=random.Random(number).random
        )
        self._inbox: deque[Event] = deque()
        self.messages = 0
        self._now_s = 0.0

    def join(self) -> None:
        """Connect, follow one scope and answer until it is ready and nothing is open."""
        self._inbox += [Follow(SERVICE, ()), SessionUp(5, retain_as_published=True)]
        self._settle()
        while self._replicator.next_wake_s() < self._now_s + 1.0:
            self._now_s = max(self._now_s, self._replicator.next_wake_s())
            self._inbox.append(Wake())
            self._settle()
        check(self._replicator.state_of(SERVICE) == "ready", "a simulated worker is not ready")

    def hear(self, topic: str, raw: bytes) -> None:
        """Take a live message."""
        self._inbox.append(Received(topic, raw, retain=True))
        self._settle()

    def has(self, raw: bytes) -> bool:
        """Whether it holds a delta."""
        return any(one.raw == raw for one in self._replicator.peer.registers.deltas(SERVICE))

    def _settle(self) -> None:
        while self._inbox:
            for effect in self._replicator.handle(self._inbox.popleft(), self._now_s):
                self._answer(effect)

    def _answer(self, effect: Effect) -> None:
        match effect:
            case Subscribe(ref, filters, _, replay):
                self._inbox.append(Subscribed(ref, granted=True))
                held = [(one, self._retained[one]) for one in filters if replay and one in self._retained]
                self._inbox += [Received(topic, raw, retain=True) for topic, raw in held]
                self.messages += 2 + len(held)
            case Publish(ref, topic, payload):
                self._inbox += [Acknowledged(ref, ok=True), Received(topic, payload, retain=False)]
                self.messages += 3


def _million(answer: Answer) -> None:
    """A million workers, from measured parts."""
    answer.notes += [MESSAGES, REPORTS, STAMPEDE, SCOPES_SPLIT]


MESSAGES = (
    "A push of one key to 1,000,000 workers is 1,000,000 messages of about 420 bytes: 0.42 GB that leave the brokers. A"
    " mosquitto process sends one in 30 to 40 us (the slope of the raw hop from 10 to 50 workers, which share its cores"
    " here), so that one broker would need half a minute; forty of them, in a cluster or behind bridges, with 25,000"
    " workers each, about a second. Linear all the way: a broker more for each 25,000 workers."
)
REPORTS = (
    "A worker's own work does not grow with the fleet: one check and one validation for each push. Of the reports that"
    " a push asks for about a hundred come, however many workers there are; the regular ones, 1.2 KB each ten minutes,"
    " are 1,700 a second and 2 MB/s for a million, spread over the brokers. Nobody but an onlooker subscribes to them."
)
STAMPEDE = (
    "A million workers that start at once without replicas read an index and its segments, 33 KB for a hundred keys: 33"
    " GB. Full jitter spreads that over half a minute, and forty brokers over 28 MB/s each; with replicas it is the"
    " index alone, 1 KB."
)
SCOPES_SPLIT = (
    "What is not constant is a scope's size: above about a thousand keys a change costs more with each key (the view of"
    " the scope is walked once), and a writer's index names at most 400 segments of 32 KiB, about 40,000 keys. Split"
    " such a scope into services or instances; the number of scopes that a process follows costs a change nothing."
)

if __name__ == "__main__":
    sys.exit(main(measure))
