"""Storms: all faults mixed, a few hundred seeds; ``tox -e sim`` runs thousands.

What a seed finds becomes a test of its own beside the rule (``tests/gossip``): a storm is another one as soon as a
fault is added.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tars_settings.testing.sim import main, never_happened, run_seed, run_seeds

SEEDS = 200


@pytest.mark.timeout(600)
def test_storms_end_well_and_every_fault_was_met() -> None:
    counters: Counter[str] = Counter()
    broken = {}
    for outcome in run_seeds(range(SEEDS), min(2, os.cpu_count() or 1)):
        counters += outcome.counters
        if outcome.broken:
            broken[outcome.seed] = outcome.broken
    assert broken == {}, "replay with: tox -e sim -- --seed N"
    assert never_happened(counters) == ()


def test_a_seed_is_replayed_with_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "1"]) == 0
    out = capsys.readouterr().out
    assert "seed 1: everything held" in out
    assert " push\n" in out


def test_a_seed_gives_the_same_storm_again() -> None:
    assert run_seed(3).counters == run_seed(3).counters
