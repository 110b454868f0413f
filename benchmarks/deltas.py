"""Deltas per second and core: how fast are signed deltas applied and stored, by the size of a burst?

``python -m benchmarks.deltas [--full]``
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.harness import Answer, Curve, Goal, check, cpu, directory, main, ratio, rounds, take_turns
from benchmarks.one_change import Bare
from benchmarks.stage import Stage, Worker
from tars_settings.adapters.replica import SqliteReplica

FIELDS = 30
BURSTS = (1, 10, 100, 1000)
VERIFY = "libsodium's verify alone"


def measure(full: bool) -> Answer:
    """Feed bursts to a worker with a real replica, in turn with libsodium alone."""
    answer = Answer(
        "deltas",
        "Deltas applied per second and core",
        "processor time of bytes to swapped and stored (SQLite, one transaction a burst, synchronous FULL)",
    )
    with directory() as there:
        stage = Stage(there / "fleet", "mqtt://127.0.0.1:1", FIELDS)
        bare = Bare(stage.fleet.writer.public, stage.fleet.id)
        values = itertools.count(1000)

        def fresh(count: int) -> list[tuple[str, bytes]]:
            keys = [f"k{n % FIELDS:05d}" for n in range(count)]
            return [(stage.topic(key), stage.delta(key, next(values))) for key in keys]

        cases: dict[str, Callable[[], float]] = {}
        for burst in BURSTS:
            cases[_name(burst)] = _applying(stage, there / f"replica-{burst}", fresh, burst)
        cases[VERIFY] = lambda: _rate(lambda batch: [bare.verify(raw) for _, raw in batch], fresh(300))
        samples = take_turns(cases, rounds(full, 6, 30))
        by_threads = {"one": lambda: _threads(bare, fresh(600), 1), "two": lambda: _threads(bare, fresh(600), 2)}
        threads = take_turns(by_threads, rounds(full, 5, 20))
    for name in cases:
        answer.add(name, "1/s", samples[name], "floor" if name == VERIFY else "ours")
    answer.add("verified by one thread (clock time)", "1/s", threads["one"], "floor")
    answer.add("verified by two threads (clock time)", "1/s", threads["two"], "floor")
    question = "deltas applied per second and core, stored"
    best = ratio(samples, _name(1000), VERIFY) * 100
    answer.goals += [
        Goal(question, "bursts of 1,000 against libsodium's verify rate", best, 85.0,
             at_most=False, unit="%", note=BEST),
        Goal(question, "what a second thread adds to verifying", (ratio(threads, "two", "one") - 1) * 100, 60.0,
             at_most=False, unit="%", note=THREADS),
    ]  # fmt: skip
    line = [answer_of(answer, _name(burst)) for burst in BURSTS]
    x = [*map(float, BURSTS)]
    answer.curves.append(Curve("Deltas applied and stored", "deltas in a burst", "a second", x, {"ours": line}))
    return answer


BEST = (
    "A burst is one validation, one swap and one transaction; what is left for each delta is strict decoding, its"
    " place in the registers, its row in SQLite, and the notice of it, 43 us together: it was 65. SQLite was 24 of"
    " them, and is 18 since rows of one kind are put and dropped by one statement each. 85 % would leave 11 us for all"
    " of that."
)
THREADS = (
    "Checking lets go of the interpreter, so that a second thread can have the other core where it is free. How much it"
    " gains is the machine's affair: 0 to 26 % here, in other runs, and two processes side by side gained no more than"
    " 70 %. So the library checks in one thread: a worker waits for one signature, its index's; the others come behind"
    " readiness."
)


def _name(burst: int) -> str:
    return f"applied and stored, bursts of {burst:,}"


def answer_of(answer: Answer, what: str) -> float | None:
    """Return the median of a row."""
    return next(row.median for row in answer.rows if row.what == what)


def _applying(
    stage: Stage, where: Path, fresh: Callable[[int], list[tuple[str, bytes]]], burst: int
) -> Callable[[], float]:
    where.mkdir(mode=0o700)
    worker = Worker(stage, FIELDS)
    worker.agent._replica = SqliteReplica(where / "replica.sqlite3")

    def apply(batch: list[tuple[str, bytes]]) -> None:
        for start in range(0, len(batch), burst):
            for topic, raw in batch[start : start + burst]:
                worker.take(topic, raw)
            worker.agent._finish_burst()

    def timed() -> float:
        before = worker.agent.counters["applied"] + worker.agent.counters["superseded"]
        batch = fresh(max(burst, 100))
        found = _rate(apply, batch)
        done = worker.agent.counters["applied"] + worker.agent.counters["superseded"] - before
        check(done == len(batch), f"{done} deltas of {len(batch)} were applied")
        check(worker.agent.counters["unstored"] == 0, "they were not stored")
        return found

    return timed


def _rate(work: Callable[[list[tuple[str, bytes]]], object], batch: list[tuple[str, bytes]]) -> float:
    return len(batch) / cpu(lambda: work(batch))


def _threads(bare: Bare, batch: list[tuple[str, bytes]], count: int) -> float:
    shares = [batch[n::count] for n in range(count)]

    def verify(share: list[tuple[str, bytes]]) -> None:
        for _, raw in share:
            bare.verify(raw)

    with ThreadPoolExecutor(count) as pool:
        began_s = time.perf_counter()
        list(pool.map(verify, shares))
        return len(batch) / (time.perf_counter() - began_s)


if __name__ == "__main__":
    sys.exit(main(measure))
