"""Deltas per second and core: how fast are signed deltas applied and stored, by the size of a burst?

``python -m benchmarks.deltas [--full]``
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Answer, Curve, Goal, Samples, check, cpu, directory, main, ratio, rounds, take_turns
from benchmarks.one_change import Bare
from benchmarks.stage import SERVICE, TOPICS, Stage, Worker, replica_of
from tars_settings.adapters.replica import SqliteReplica
from tars_settings.agent.cores import on_all_cores
from tars_settings.core.records import Row
from tars_settings.gossip.effects import Loaded, Wake
from tars_settings.gossip.replicator import Replicator
from tars_settings.trust.validity import Spread
from tars_settings.writer.archive import rows_of

FIELDS = 30
BURSTS = (1, 10, 100, 1000)
PUT_OFF = 2_000
"""Keys of a join whose signatures are checked behind readiness."""
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
        threads = _by_threads(there, rounds(full, 7, 20))
    for name in cases:
        answer.add(name, "1/s", samples[name], "floor" if name == VERIFY else "ours")
    answer.add("put-off signatures checked, one thread (clock time)", "1/s", threads["one"])
    answer.add("put-off signatures checked, as a worker does (clock time)", "1/s", threads["all"])
    question = "deltas applied per second and core, stored"
    second = (ratio(threads, "all", "one") - 1) * 100
    best = ratio(samples, _name(1000), VERIFY) * 100
    answer.goals += [
        Goal(question, "bursts of 1,000 against libsodium's verify rate", best, 85.0,
             at_most=False, unit="%", note=BEST),
        Goal(question, "what a second core adds to checking put-off signatures", second, 60.0,
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
    "Checking lets go of the interpreter, so that more threads can have the other cores where they are free. A worker"
    " waits for one signature, its index's; those of the deltas themselves come behind readiness, two hundred at a time"
    " on up to four threads. 10 of 64 us each are work with the interpreter, done before. A pool that stays, or slices"
    " of 400 or 1,000, gained a tenth more in some runs and nothing in others. What arrives live is checked in the one"
    " thread that swaps."
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


def _by_threads(there: Path, count: int) -> Samples:
    stage = Stage(there / "many", "mqtt://127.0.0.1:1", PUT_OFF)
    replica_of(stage, "a")
    rows = tuple(rows_of(stage.fleet.state_dir("a") / stage.fleet.id / "replica.sqlite3"))
    root = stage.fleet.root.public
    cases = {"one": lambda: _proving(rows, root, map), "all": lambda: _proving(rows, root, on_all_cores)}
    return take_turns(cases, count)


def _proving(rows: tuple[Row, ...], root: bytes, spread: Spread) -> float:
    """Return signatures a second of those that are put off behind readiness; clock time."""
    replicator = Replicator(TOPICS, root, nonce="0" * 32, random=lambda: 0.5, spread=spread)
    replicator.handle(Loaded(rows), 0.0)
    count = replicator.peer.unproven
    check(count == PUT_OFF, f"{count} signatures of {PUT_OFF} were put off")
    began_s = time.perf_counter()
    while replicator.peer.unproven:
        replicator.handle(Wake(), 0.0)
    took_s = time.perf_counter() - began_s
    check(len(replicator.peer.registers.winners(SERVICE)) == PUT_OFF, "a good signature was not accepted")
    return count / took_s


if __name__ == "__main__":
    sys.exit(main(measure))
