"""``python -m tars_settings.testing.sim``: storms by seed, on every core, and one command that replays one of them."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tars_settings.testing.invariants import BrokenInvariant
from tars_settings.testing.mesh import RunawayError
from tars_settings.testing.storm import Storm

MUST_HAPPEN = (
    "lost publishes", "lost deliveries", "duplicates", "reorders", "queue drops", "replays cut", "disconnects", "kills",
    "power losses", "transactions lost", "crashes between effects", "wipes", "disk rollbacks", "rows damaged",
    "writes refused", "partitions", "broker stops", "broker amnesias", "broker rollbacks", "bridge cuts",
    "bridge swaps",
    "hostile: garbage", "hostile: empty", "hostile: moved", "hostile: replayed", "hostile: lowered",
    "hostile: unretained",
    "hostile: forged", "hostile: stranger", "hostile: foreign fleet", "hostile: newer version",
    "hostile: hoarded state",
    "epoch poison", "equivocations", "halves", "oversteps", "gens ahead", "lying indexes", "revocations",
    "revocations under partition", "endorsements", "retirements", "trust documents", "trust quarrels",
    "root rotations", "floors", "clock jumps",
    "muted publishes", "long absences", "absences across a floor", "sieges", "runs on MQTT 3.1.1",
    "runs with a shared key", "repairs", "pushes", "pushes on trial", "held", "endorsed deltas in force",
    "repair fights", "live writes below a floor",
)  # fmt: skip
"""Faults that a batch of a few hundred seeds must have met (a knob without effect proves nothing), and rare states."""


@dataclass(frozen=True)
class Outcome:
    """What became of one seed; ``broken`` is empty where everything held."""

    seed: int
    broken: str
    counters: Counter[str]
    log: tuple[str, ...] = ()


def run_seed(seed: int) -> Outcome:
    """Run one storm."""
    storm = Storm(seed)
    try:
        storm.run()
    except (BrokenInvariant, RunawayError) as error:
        return Outcome(seed, str(error), storm.mesh.counters, tuple(storm.log))
    except Exception as error:  # noqa: BLE001 - a crash of the replicator is a finding too, with its seed
        trace = "".join(traceback.format_exception(error)[-6:])
        return Outcome(seed, f"crashed: {trace}", storm.mesh.counters, tuple(storm.log))
    return Outcome(seed, "", storm.mesh.counters, tuple(storm.log))


def run_seeds(seeds: Iterable[int], processes: int) -> Iterator[Outcome]:
    """Run storms on several cores and yield what became of them, in order."""
    if processes == 1:
        yield from map(run_seed, seeds)
        return
    # A pool of multiprocessing's own starts a process that can't import for ever anew; this one says so.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(run_seed, seeds, chunksize=8)


def never_happened(counters: Counter[str]) -> tuple[str, ...]:
    """Return the faults that were never injected."""
    return tuple(name for name in MUST_HAPPEN if not counters[name])


def main(arguments: list[str] | None = None) -> int:
    """Run, print, and return 1 where something is broken or a fault never happened."""
    asked = _parser().parse_args(arguments)
    if asked.seed is not None:
        return _replay(asked.seed)
    started_s = time.monotonic()
    seeds = range(asked.start, asked.start + asked.seeds)
    counters: Counter[str] = Counter()
    broken: list[Outcome] = []
    for done, outcome in enumerate(run_seeds(seeds, asked.processes), start=1):
        counters += outcome.counters
        if outcome.broken:
            broken.append(outcome)
            print(f"seed {outcome.seed}: {outcome.broken}", flush=True)  # noqa: T201
        if done % 500 == 0:
            print(f"{done} of {asked.seeds} seeds", file=sys.stderr, flush=True)  # noqa: T201
    return _conclude(asked.seeds, counters, broken, time.monotonic() - started_s)


def _conclude(seeds: int, counters: Counter[str], broken: list[Outcome], took_s: float) -> int:
    for name, count in sorted(counters.items()):
        print(f"{count:>10,}  {name}")  # noqa: T201
    idle = never_happened(counters) if seeds >= 100 else ()
    for name in idle:
        print(f"never happened: {name}")  # noqa: T201
    for outcome in sorted(broken, key=lambda one: one.seed)[:20]:
        print(f"replay with: python -m tars_settings.testing.sim --seed {outcome.seed}")  # noqa: T201
    print(f"{seeds} seeds, {len(broken)} broken, {took_s:.0f} s")  # noqa: T201
    return 1 if broken or idle else 0


def _replay(seed: int) -> int:
    outcome = run_seed(seed)
    for line in outcome.log:
        print(line)  # noqa: T201
    print(f"seed {seed}: {outcome.broken or 'everything held'}")  # noqa: T201
    return 1 if outcome.broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tars_settings.testing.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds to run (default 2000)")
    parser.add_argument("--from", dest="start", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="replay one seed and print what was done")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
