"""The repair timer: few publishes for a lost key, budgets, doubling, the alarm."""

from __future__ import annotations

import itertools
import math
import random
from statistics import mean

import pytest

from tars_settings.gossip.repair import Repairer, RepairPolicy

POLICY = RepairPolicy(delay_s=5.0, peers=10_000)


def publishes(policy: RepairPolicy, peers: int, latency_s: float, random_: random.Random) -> int:
    """How many of *peers* publish one lost key, each hearing of the first publish after *latency_s*."""
    delays = sorted(policy.delay(1.0 - random_.random()) for _ in range(peers))
    return sum(1 for one in delays if one <= delays[0] + latency_s)


def test_delays_lie_between_nothing_and_t() -> None:
    assert POLICY.delay(1.0) == 5.0
    assert POLICY.delay(1e-4) == pytest.approx(0.0, abs=1e-9)
    assert POLICY.delay(0.0) == POLICY.delay(1e-9) == 0.0
    assert RepairPolicy(peers=1).delay(0.5) == 0.0


@pytest.mark.parametrize(("peers", "most"), [(10, 1.5), (1_000, 2.0), (10_000, 2.6)])
def test_about_one_or_two_of_any_number_of_peers_publish(peers: int, most: float) -> None:
    rounds = random.Random(peers)
    assert mean(publishes(POLICY, peers, 0.2, rounds) for _ in range(60)) <= most


def test_a_uniform_delay_would_flood() -> None:
    """The figure that the rule is there for: without it hundreds of 10,000 publish."""
    rounds = random.Random(1)
    uniform = [sorted(rounds.uniform(0, 5.0) for _ in range(10_000)) for _ in range(5)]
    assert mean(sum(1 for one in delays if one <= delays[0] + 0.2) for delays in uniform) > 200


def repairer(**changed: float) -> Repairer:
    return Repairer(RepairPolicy(delay_s=1.0, peers=100, **changed), lambda: 0.0)  # type: ignore[arg-type]


def round_of(one: Repairer, topic: str, now_s: float) -> tuple[int, float]:
    """Suspect, wait, probe, allow; return the round and when it was."""
    one.suspect(topic, b"loser", now_s)
    due_s = one.next_wake_s()
    assert one.due(due_s) == (topic,)
    assert one.is_probing(topic)
    return one.allow(topic, due_s), due_s


def test_nothing_is_due_before_its_delay_and_nothing_twice() -> None:
    one = repairer()
    one.suspect("t", b"loser", 10.0)
    assert one.next_wake_s() == 11.0
    assert one.due(10.9) == ()
    assert one.due(11.0) == ("t",)
    assert one.due(99.0) == ()


def test_seeing_the_winner_cancels() -> None:
    one = repairer()
    one.suspect("t", b"loser", 0.0)
    one.settle("t")
    assert one.next_wake_s() == math.inf
    assert one.due(99.0) == ()
    assert not one.is_probing("t")


def test_pauses_double_up_to_a_bound_and_the_sixth_round_alarms() -> None:
    one, now_s, at = repairer(), 0.0, []
    for expected in range(1, 9):
        round_, now_s = round_of(one, "t", now_s)
        assert round_ == expected
        assert one.is_fight("t") == (round_ == 6)
        at.append(now_s)
    pauses = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert all(later >= 1.5 * earlier for earlier, later in itertools.pairwise(pauses))


def test_a_quiet_while_forgives() -> None:
    one = repairer(quiet_s=120.0)
    for _ in range(3):
        round_, now_s = round_of(one, "t", 0.0)
    assert round_ == 3
    assert round_of(one, "t", now_s + 121.0)[0] == 1


def test_repeated_topics_are_bounded_by_the_budget_whatever_their_number() -> None:
    """A hostile publisher alternates on 500 topics: after the first round one repair a second is left."""
    one = repairer(rate=1.0, burst=20.0, quiet_s=1e9, max_pause_s=1.0)
    for n in range(500):
        assert round_of(one, f"t/{n}", 0.0)[0] == 1
    allowed, now_s = 0, 10.0
    while now_s < 70.0:
        for n in range(500):
            one.suspect(f"t/{n}", b"loser", now_s)
        now_s += 0.5
        allowed += sum(1 for topic in one.due(now_s) if one.allow(topic, now_s))
    assert 20 < allowed <= 20 + 70


def test_a_refused_repair_is_tried_again_by_itself() -> None:
    one = repairer(first_rate=1.0, first_burst=1.0)
    assert round_of(one, "a", 0.0)[0] == 1
    assert round_of(one, "b", 0.0)[0] == 0
    assert one.next_wake_s() < math.inf
    assert one.due(one.next_wake_s()) == ("b",)


def test_a_new_session_forgets_suspicions_and_keeps_the_count() -> None:
    one = repairer()
    round_of(one, "t", 0.0)
    one.suspect("t", b"loser", 2.0)
    one.reset()
    assert one.next_wake_s() == math.inf
    assert round_of(one, "t", 5.0)[0] == 2


def test_memory_of_quiet_topics_goes() -> None:
    one = repairer(quiet_s=120.0)
    for n in range(100):
        round_of(one, f"t/{n}", 0.0)
    one.forget_quiet(1000.0)
    assert round_of(one, "t/0", 1000.0)[0] == 1
