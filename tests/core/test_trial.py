"""Trials as values: what they go back to, what they leave alone, and counting down."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tars_settings.core.delta import Assignment, Ciphertext, Delta, Trial, parse_delta
from tars_settings.core.register import FleetView, Registers, nothing_tried
from tars_settings.core.trial import CHECKPOINTS, MAX_MARKS, Countdowns, TrialMark, trial_of
from tars_settings.errors import MalformedError, RefusedError
from tars_settings.gossip.compact import plan
from tests.fleets import ALICE, BOB, FLEET, SCOPE, delta, delta_payload, set_, unset

SECRET = Assignment("key", secret=Ciphertext("xchacha20poly1305", "k", bytes(40)))


def winners(*made: Delta) -> Any:
    registers = Registers()
    for one in made:
        registers.offer(one)
    return registers.winners(SCOPE)


def says(*made: Delta, is_undone: Any = nothing_tried) -> dict[str, Any]:
    registers = Registers()
    for one in made:
        registers.offer(one)
    view = FleetView.of(registers, [SCOPE], is_undone)
    return {one.key: one.assignment.set for scoped in view.scopes for one in scoped.registers}


def tried(epoch: int, *assign: Assignment, within_s: int = 600, before: tuple[Delta, ...] = ()) -> Delta:
    return delta(ALICE, epoch, *assign, trial=trial_of(assign, within_s, winners(*before)))


# --- the form ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trial",
    [
        Trial(0, (set_("vad"),)),
        Trial(604_801, (set_("vad"),)),
        Trial(600, ()),
        Trial(600, (set_("other"),)),
        Trial(600, (set_("vad"), set_("other"))),
        Trial(600, (set_("vad", over="0" * 64),)),
        Trial(600, (Assignment("vad"),)),
        Trial(600, (Assignment("vad", set=1, unset=True),)),
        Trial(600, (set_("vad", 2**70),)),
        Trial(600, (set_("vad"),), "not hex"),
    ],
    ids=lambda trial: repr(trial)[:60],
)
def test_a_trial_that_does_not_undo_its_own_keys_is_malformed(trial: Trial) -> None:
    good = Trial(600, (set_("vad", 0.5),), "0" * 32)
    assert parse_delta(delta_payload(ALICE, 1, set_("vad"), trial=good), FLEET)[1].trial == good
    with pytest.raises((MalformedError, OverflowError)):
        parse_delta(delta_payload(ALICE, 1, set_("vad"), trial=trial), FLEET)


# --- what it goes back to ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "key", "undo"),
    [
        ((), "vad", unset("vad")),
        ((delta(ALICE, 1, set_("vad", 0.5)),), "vad", set_("vad", 0.5)),
        ((delta(ALICE, 1, set_("vad", 0.5)), delta(BOB, 2, unset("vad"))), "vad", unset("vad")),
        ((delta(ALICE, 1, SECRET),), "key", SECRET),
        ((delta(ALICE, 1, set_("m", {"a": 1, "b": 2})),), "m.a", set_("m.a", 1)),
        ((delta(ALICE, 1, set_("m", {"b": 2})),), "m.a", unset("m.a")),
        ((delta(ALICE, 1, set_("m", {"a": {"x": 1, "y": 2}})), delta(BOB, 2, set_("m.a.x", 9))), "m.a",
         set_("m.a", {"y": 2, "x": 9})),
        ((delta(ALICE, 1, set_("m", {"a": {"x": 1}})), delta(BOB, 2, unset("m.a.x"))), "m", set_("m", {"a": {}})),
        ((delta(ALICE, 1, set_("m", {"a": 1})), delta(BOB, 2, unset("m.b.x"))), "m", set_("m", {"a": 1})),
        ((delta(ALICE, 1, set_("m.a", 1)), delta(BOB, 2, unset("m"))), "m.a", unset("m.a")),
        ((delta(ALICE, 1, set_("m.a", 1)), delta(BOB, 2, set_("m", {"b": 1}))), "m.a", unset("m.a")),
    ],
)  # fmt: skip
def test_what_it_goes_back_to_is_what_was_in_force(before: tuple[Delta, ...], key: str, undo: Assignment) -> None:
    assert trial_of((set_(key, "new"),), 600, winners(*before)).undo == (undo,)


def test_a_trial_of_what_is_on_trial_goes_back_to_what_was_before_either() -> None:
    first = delta(ALICE, 1, set_("vad", 0.5))
    second = tried(2, set_("vad", 0.6), before=(first,))
    assert trial_of((set_("vad", 0.7),), 600, winners(first, second)).undo == (set_("vad", 0.5),)


@pytest.mark.parametrize(
    "before", [delta(ALICE, 1, set_("m.a", 1)), delta(ALICE, 1, Assignment("m.a", secret=SECRET.secret))]
)
def test_what_no_one_assignment_could_restore_is_refused(before: Delta) -> None:
    with pytest.raises(RefusedError, match=r"m\.a|secret"):
        trial_of((set_("m", {}),), 600, winners(before))


def test_the_end_of_a_trial_changes_what_is_used_and_no_winner() -> None:
    before = delta(ALICE, 1, set_("vad", 0.5))
    trial = tried(2, set_("vad", 0.9), set_("new", 1), before=(before,))
    for order in itertools.permutations((before, trial)):
        assert says(*order, is_undone=lambda _: False) == {"vad": 0.9, "new": 1}
        assert says(*order) == {"vad": 0.5}
        assert {one.delta.stamp.digest for one in winners(*order).values()} == {trial.stamp.digest}
    later = delta(BOB, 3, set_("vad", 0.7))
    assert says(before, trial, later) == {"vad": 0.7}


def test_what_unsets_on_trial_is_no_tombstone_that_compaction_lets_go() -> None:
    before = delta(ALICE, 1, set_("vad", 0.5))
    registers = Registers()
    for one in (
        before,
        delta(ALICE, 2, unset("old")),
        tried(3, unset("vad"), before=(before,)),
        delta(ALICE, 4, unset("x")),
    ):
        registers.offer(one)
    found = plan(registers, SCOPE)
    assert found is not None
    assert found.gone == ("old", "x")
    assert len(found.live) == 1


# --- counting down ----------------------------------------------------------------------------------------------------


TRIAL = delta(ALICE, 2, set_("vad", 0.9), trial=Trial(600, (set_("vad", 0.5),)))
DIGEST = TRIAL.stamp.digest


def restarted(runs: Countdowns, now_s: float, wall_ms: int, later_ms: int) -> Countdowns:
    """Return the countdowns of the next process, which starts when its clock says so much more."""
    return Countdowns(runs.marks(now_s, wall_ms, {DIGEST}), wall_ms=wall_ms + later_ms)


def test_a_trial_ends_when_its_time_is_over_and_only_when_somebody_looks() -> None:
    runs = Countdowns()
    assert runs.is_undone(TRIAL), "what was never met is not tried"
    runs.meet(TRIAL, 100.0)
    runs.meet(TRIAL, 300.0)
    assert (runs.left_s(TRIAL, 150.0), runs.is_undone(TRIAL)) == (550.0, False)
    assert not runs.tick(699.0)
    assert not runs.is_undone(TRIAL)
    assert runs.tick(700.0) == (TRIAL,)
    assert runs.is_undone(TRIAL)
    runs.meet(TRIAL, 800.0)
    assert runs.is_undone(TRIAL), "it does not begin again"


def test_who_meets_it_late_has_the_rest_by_the_time_that_the_delta_says() -> None:
    late, too_late, ahead = Countdowns(), Countdowns(), Countdowns()
    late.meet(TRIAL, 0.0, age_s=400.0)
    too_late.meet(TRIAL, 0.0, age_s=600.0)
    ahead.meet(TRIAL, 0.0, age_s=-9e9)
    assert [one.left_s(TRIAL, 0.0) for one in (late, too_late, ahead)] == [200.0, 0.0, 600.0]
    assert too_late.is_undone(TRIAL)


def test_a_restart_goes_on_counting_and_the_delta_is_not_asked_again() -> None:
    runs = Countdowns()
    runs.meet(TRIAL, 0.0)
    again = restarted(runs, 200.0, 1_000_000, 100_000)
    again.meet(TRIAL, 5.0, age_s=0.0)
    assert again.left_s(TRIAL, 5.0) == pytest.approx(300.0)
    over = restarted(again, 305.0, 5_000, 1)
    over.meet(TRIAL, 0.0)
    assert over.is_undone(TRIAL)


def test_a_clock_that_goes_back_at_every_start_keeps_no_trial_alive() -> None:
    runs, starts = Countdowns(), 0
    runs.meet(TRIAL, 0.0)
    while not runs.is_undone(TRIAL):
        starts += 1
        runs = restarted(runs, 0.0, 1_000_000_000, -10_000)
        runs.meet(TRIAL, 0.0)
        assert starts < 100
    assert starts == CHECKPOINTS


def test_a_forged_or_lost_mark_makes_no_trial_longer_than_its_delta_says() -> None:
    forged = Countdowns((TrialMark(DIGEST.hex(), 604_800_000, 2**60),), wall_ms=0)
    forged.meet(TRIAL, 0.0)
    assert forged.left_s(TRIAL, 0.0) <= 600.0
    assert restarted(Countdowns(), 0.0, 0, 0).is_undone(TRIAL)


def test_marks_are_written_now_and_then_and_only_of_what_is_held() -> None:
    runs = Countdowns()
    assert not runs.wants_note(0.0)
    runs.meet(TRIAL, 0.0)
    assert runs.wants_note(0.0)
    assert runs.marks(0.0, 0, {DIGEST}) == (TrialMark(DIGEST.hex(), 600_000, 0),)
    assert not runs.wants_note(74.0)
    assert runs.next_s() == 75.0
    assert runs.wants_note(75.0)
    assert runs.marks(75.0, 75_000, ()) == ()
    many = [delta(ALICE, n, set_("vad"), trial=Trial(600 + n, (unset("vad"),))) for n in range(1, MAX_MARKS + 9)]
    for one in many:
        runs.meet(one, 0.0)
    kept = runs.marks(0.0, 0, {one.stamp.digest for one in many})
    assert len(kept) == MAX_MARKS
    assert min(one.left_ms for one in kept) == 601_000
