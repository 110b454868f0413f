"""Repair publishes per lost key, by the number of peers that hold it.

Two measurements. *Mesh*: real replicators in virtual time; every topic is cleared before everybody's eyes. *Model*: the
timer alone (``RepairPolicy.delay``), each peer hearing of the first publish after the given latency, against a uniform
delay as the floor that a simpler rule would reach.

    python benchmarks/repair_traffic.py [--mesh 10 50] [--model 10 1000 10000] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from statistics import mean

from tars_settings.gossip.repair import RepairPolicy
from tars_settings.gossip.replicator import Policy
from tars_settings.testing.trials import refill

LATENCY_S = 0.2
POLICY = RepairPolicy()


def by_model(peers: int, delay: Callable[[float], float], *, keys: int, latency_s: float = LATENCY_S) -> float:
    """Return the mean number of publishes: all whose timer ends before they hear of the first."""
    rounds = random.Random(peers)
    counts = []
    for _ in range(keys):
        delays = sorted(delay(1.0 - rounds.random()) for _ in range(peers))
        counts.append(sum(1 for one in delays if one <= delays[0] + latency_s))
    return mean(counts)


def first_repair_s(peers: int, *, keys: int) -> float:
    """Return the mean time until somebody publishes: the price of suppression where peers are few."""
    rounds = random.Random(peers)
    return mean(min(POLICY.delay(1.0 - rounds.random()) for _ in range(peers)) for _ in range(keys))


def uniform(u: float) -> float:
    """The simpler rule: any time within T."""
    return POLICY.delay_s * u


def rows(mesh: list[int], model: list[int], keys: int) -> list[dict[str, float | str]]:
    """Measure."""
    return [_by_mesh(peers) for peers in mesh] + [_by_model(peers, keys) for peers in model]


def _by_mesh(peers: int) -> dict[str, float | str]:
    publishes = refill(1, workers=peers - 1, keys=10, policy=Policy(repairing=POLICY))
    return {"by": "mesh", "peers": peers, "publishes per key": publishes}


def _by_model(peers: int, keys: int) -> dict[str, float | str]:
    return {
        "by": "model",
        "peers": peers,
        "publishes per key": by_model(peers, POLICY.delay, keys=keys),
        "uniform delay": by_model(peers, uniform, keys=max(5, keys // 10)),
        "first after s": first_repair_s(peers, keys=keys),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=int, nargs="*", default=[10, 50, 100])
    parser.add_argument("--model", type=int, nargs="*", default=[10, 100, 1000, 10_000])
    parser.add_argument("--keys", type=int, default=200, help="lost keys per row of the model")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = rows(asked.mesh, asked.model, asked.keys)
    if asked.json:
        print(json.dumps(found))
        return 0
    columns = ("by", "peers", "publishes per key", "uniform delay", "first after s")
    print("  ".join(f"{name:>18}" for name in columns))
    for row in found:
        cells = (row.get(name, "") for name in columns)
        print("  ".join(f"{cell:>18.2f}" if isinstance(cell, float) else f"{cell:>18}" for cell in cells))
    print(f"T = {POLICY.delay_s:g} s, N = {POLICY.peers:,}, latency of the model {LATENCY_S:g} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
