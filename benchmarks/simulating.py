"""The simulator's speed: events of real replicators in virtual time per second of a core.

``python -m benchmarks.simulating [--full]``
"""

from __future__ import annotations

import sys
import time

from benchmarks.harness import Answer, Goal, check, main, rounds
from tars_settings.testing.sim import run_seed
from tars_settings.testing.trials import filled


def measure(full: bool) -> Answer:
    """Run storms, and a calm mesh."""
    answer = Answer("simulating", "The simulator", "events handled per second of processor time; signatures are real")
    storms = [_storm(seed) for seed in range(rounds(full, 8, 60))]
    answer.add("storms: events a second", "1/s", [events / took for events, took in storms])
    answer.add("storms: events in one", "count", [events for events, _ in storms])
    answer.add("storms: seconds for 2,000 seeds on one core", "s", [2000 * sum(t for _, t in storms) / len(storms)])
    calm = [_calm(seed) for seed in range(rounds(full, 4, 20))]
    answer.add("a calm mesh of 50 workers, 20 pushes: events a second", "1/s", calm)
    rates = sorted(events / took for events, took in storms)
    answer.goals.append(
        Goal("simulator", "events a second in storms", rates[len(rates) // 2], 20_000, at_most=False, unit="1/s")
    )
    return answer


def _storm(seed: int) -> tuple[float, float]:
    began_s = time.process_time()
    outcome = run_seed(seed)
    took_s = time.process_time() - began_s
    check(not outcome.broken, f"seed {seed} is broken: {outcome.broken}")
    return float(outcome.counters["events"]), took_s


def _calm(seed: int) -> float:
    began_s = time.process_time()
    mesh = filled(seed, workers=50, keys=20)
    return mesh.counters["events"] / (time.process_time() - began_s)


if __name__ == "__main__":
    sys.exit(main(measure))
