"""A live subscription that a broker refuses, as a member of a cluster does while a leader is elected."""

from __future__ import annotations

import math
from typing import Any

from tars_settings.core.session import SessionDown, SessionUp, Subscribe, Subscribed
from tars_settings.gossip.effects import Rejected, Wake
from tars_settings.gossip.hearing import FIRST_S, MAX_DOUBLING, Hearing
from tests.fleets import SCOPE, TOPICS
from tests.gossip.test_replicator import of, trusting


def live_subscriptions(effects: Any) -> list[Subscribe]:
    return [one for one in of(Subscribe, effects) if not one.replay]


def test_it_is_asked_for_again_and_a_grant_ends_that() -> None:
    one = trusting()
    (first,) = live_subscriptions(one.handle(SessionUp(), 1.0))
    assert TOPICS.live_filter(SCOPE) in first.filters
    refused = one.handle(Subscribed(first.ref, granted=False), 1.0)
    assert of(Rejected, refused)
    assert [sub for sub in of(Subscribe, refused) if sub.replay], "probing goes on meanwhile"
    assert one.next_wake_s() <= 2.5
    (again,) = live_subscriptions(one.handle(Wake(), 6.0))
    assert set(again.filters) == set(first.filters)
    assert [sub for sub in of(Subscribe, one.handle(Subscribed(again.ref), 6.0)) if sub.replay], "and catches up"
    assert not any(live_subscriptions(one.handle(Wake(), 6.0 + wait_s)) for wait_s in range(1, 1000))


def test_a_scope_that_was_not_refused_is_left_alone() -> None:
    hearing = Hearing(lambda: 0.5)
    hearing.note(("here",), 0.0, granted=True)
    hearing.note(("there",), 0.0, granted=False)
    assert hearing.take() == ("there",)


def test_it_is_asked_for_ever_more_seldom() -> None:
    hearing, now_s, pauses = Hearing(lambda: 0.5), 0.0, []
    for _ in range(12):
        hearing.note((SCOPE,), now_s, granted=False)
        pauses.append(hearing.due_s - now_s)
        now_s = hearing.due_s
        assert hearing.take() == (SCOPE,)
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == FIRST_S * MAX_DOUBLING


def test_a_refusal_that_goes_on_is_no_reason_to_catch_up_again() -> None:
    hearing = Hearing(lambda: 0.5)
    assert hearing.note((SCOPE,), 0.0, granted=False)
    assert not hearing.note((SCOPE,), 5.0, granted=False)
    assert hearing.note((SCOPE, "another"), 6.0, granted=False)
    assert hearing.note((SCOPE,), 15.0, granted=True)


def test_a_new_session_begins_anew() -> None:
    one = trusting()
    (first,) = live_subscriptions(one.handle(SessionUp(), 1.0))
    one.handle(Subscribed(first.ref, granted=False), 1.0)
    one.handle(SessionDown(), 2.0)
    one.handle(SessionUp(), 3.0)
    hearing = Hearing(lambda: 0.5)
    hearing.note((SCOPE,), 0.0, granted=False)
    hearing.reset()
    assert (hearing.due_s, hearing.take()) == (math.inf, ())
