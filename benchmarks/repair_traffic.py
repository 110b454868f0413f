"""Repair publishes per lost key, by the number of peers that hold it.

Two measurements. *Mesh*: real replicators in virtual time; every topic is cleared before everybody's eyes. *Model*: the
timer alone (``RepairPolicy.delay``), each peer hearing of the first publish after the given latency, against a uniform
delay as the floor that a simpler rule would reach.

``python -m benchmarks.repair_traffic [--full]``
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from statistics import mean

from benchmarks.harness import Answer, Curve, Goal, main, rounds
from tars_settings.gossip.repair import RepairPolicy
from tars_settings.gossip.replicator import Policy
from tars_settings.testing.trials import refill

LATENCY_S = 0.2
POLICY = RepairPolicy()


def by_model(peers: int, delay: Callable[[float], float], *, keys: int, latency_s: float = LATENCY_S) -> float:
    """Return the mean number of publishes: all whose timer ends before they hear of the first."""
    draws = random.Random(peers)
    counts = []
    for _ in range(keys):
        delays = sorted(delay(1.0 - draws.random()) for _ in range(peers))
        counts.append(sum(1 for one in delays if one <= delays[0] + latency_s))
    return mean(counts)


def first_repair_s(peers: int, *, keys: int) -> float:
    """Return the mean time until somebody publishes: the price of suppression where peers are few."""
    draws = random.Random(peers)
    return mean(min(POLICY.delay(1.0 - draws.random()) for _ in range(peers)) for _ in range(keys))


def uniform(u: float) -> float:
    """The simpler rule: any time within T."""
    return POLICY.delay_s * u


def measure(full: bool) -> Answer:
    """Measure both."""
    answer = Answer(
        "repair_traffic",
        "Repairs per lost key",
        f"mesh: real replicators in virtual time, every topic cleared before everybody's eyes; model: the timer alone,"
        f" T = {POLICY.delay_s:g} s, N = {POLICY.peers:,}, {LATENCY_S:g} s until a publish is heard of",
    )
    sizes, keys = (10, 100, 1_000, 10_000), rounds(full, 60, 400)
    for peers in (10, 50, 100) if full else (10, 50):
        found = refill(1, workers=peers - 1, keys=10, policy=Policy(repairing=POLICY))
        answer.add(f"mesh of {peers} peers: publishes for a lost key", "count", [found])
    ours = [by_model(peers, POLICY.delay, keys=keys) for peers in sizes]
    plain = [by_model(peers, uniform, keys=max(5, keys // 10)) for peers in sizes]
    for peers, mine, theirs in zip(sizes, ours, plain, strict=True):
        answer.add(f"model of {peers:,} peers: publishes for a lost key", "count", [mine])
        answer.add(f"model of {peers:,} peers: with a uniform delay", "count", [theirs], "floor")
        answer.add(f"model of {peers:,} peers: seconds until the first", "s", [first_repair_s(peers, keys=keys)])
    answer.goals.append(
        Goal("repairs per lost key", "publishes at 10,000 peers that all hold it", ours[-1], 3.0, unit="publishes")
    )
    lines: dict[str, list[float | None]] = {"ours": list(ours), "uniform delay": list(plain)}
    x = [float(one) for one in sizes]
    answer.curves.append(Curve("Publishes for a lost key", "peers that hold it", "publishes", x, lines))
    return answer


if __name__ == "__main__":
    sys.exit(main(measure))
