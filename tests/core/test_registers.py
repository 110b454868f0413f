"""Registers: a max over a set, so the order, repetition and grouping of what arrives do not matter."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tars_settings.core.delta import Delta
from tars_settings.core.register import KEPT, FleetView, Outcome, Registers, effective
from tests.fleets import ALICE, BOB, SCOPE, delta, set_, unset

KEYS = ("a", "b", "c")


def _made() -> tuple[Delta, ...]:
    """Deltas that collide in every way: equal epochs of one writer, of two, and of different gens."""
    made = []
    for signer in (ALICE, BOB):
        for epoch in (1, 2, 3, 3, 4):
            for keys in (("a",), ("a", "b"), ("b", "c"), ("c",)):
                assign = tuple(set_(key, f"{signer.name}-{epoch}-{len(made)}") for key in keys)
                made.append(delta(signer, epoch, *assign, gen=1))
    made.append(delta(ALICE, 1, set_("a", "next gen"), gen=2))
    made.append(delta(BOB, 5, unset("a"), set_("c")))
    return tuple(made)


MADE = _made()
several = st.lists(st.sampled_from(MADE), max_size=14)


def merged(*deltas: Delta) -> Registers:
    registers = Registers()
    for one in deltas:
        registers.offer(one)
    return registers


def state(registers: Registers) -> dict[str, bytes]:
    return {key: register.delta.stamp.blob() for key, register in registers.winners(SCOPE).items()}


def greatest(deltas: list[Delta]) -> dict[str, bytes]:
    """The definition, spelled out: each key's winner is the delta with the greatest stamp that assigns it."""
    best: dict[str, Delta] = {}
    for one in sorted(deltas, key=lambda one: one.stamp):
        best.update({item.key: one for item in one.body.assign})
    return {key: one.stamp.blob() for key, one in best.items()}


@given(several)
def test_a_winner_is_the_greatest_stamp_of_its_key(deltas: list[Delta]) -> None:
    assert state(merged(*deltas)) == greatest(deltas)


@given(several, st.randoms(use_true_random=False))
def test_merging_is_commutative(deltas: list[Delta], order: random.Random) -> None:
    shuffled = list(deltas)
    order.shuffle(shuffled)
    assert state(merged(*shuffled)) == state(merged(*deltas))
    assert merged(*shuffled).digest(SCOPE) == merged(*deltas).digest(SCOPE)


@given(several, several, several)
def test_merging_is_associative(first: list[Delta], second: list[Delta], third: list[Delta]) -> None:
    """What one peer holds is merged into another, in whatever grouping."""

    def join(into: Registers, held: Registers) -> Registers:
        for one in held.deltas(SCOPE):
            into.offer(one)
        return into

    left = join(join(merged(*first), merged(*second)), merged(*third))
    right = join(merged(*first), join(merged(*second), merged(*third)))
    assert state(left) == state(right) == greatest(first + second + third)


@given(several)
def test_merging_is_idempotent(deltas: list[Delta]) -> None:
    registers = merged(*deltas)
    before = state(registers), registers.highest(SCOPE)
    for one in tuple(registers.deltas(SCOPE)):
        assert registers.offer(one) is Outcome.DUPLICATE
    assert (state(registers), registers.highest(SCOPE)) == before


@settings(max_examples=60)
@given(several, st.sets(st.sampled_from(MADE)), st.randoms(use_true_random=False))
def test_merging_commutes_with_a_change_of_validity(
    deltas: list[Delta], void: set[Delta], order: random.Random
) -> None:
    """Where no writer loses more than it has kept, voiding before or after merging gives one state."""
    some_void = set(order.sample(sorted(void, key=lambda one: one.stamp), k=min(2, len(void))))

    def is_valid(one: Delta) -> bool:
        return one not in some_void

    after = merged(*deltas)
    dropped = after.rejudge(is_valid)
    assert state(after) == state(merged(*filter(is_valid, deltas)))
    assert all(one in some_void for one in dropped)


def test_deltas_are_seen_whole_whichever_copy_came_first() -> None:
    both = delta(ALICE, 1, set_("a"), set_("b"))
    assert set(merged(both).winners(SCOPE)) == {"a", "b"}


def test_fates_are_told() -> None:
    registers = Registers()
    newer, older = delta(ALICE, 2, set_("a")), delta(BOB, 1, set_("a"))
    assert registers.offer(newer) is Outcome.APPLIED
    assert registers.offer(newer) is Outcome.DUPLICATE
    assert registers.offer(older) is Outcome.SUPERSEDED


def test_one_writers_equal_epochs_are_ordered_by_digest() -> None:
    """One key on two hosts: without the digest the first to arrive would win, differently on each peer."""
    one, other = delta(ALICE, 1, set_("a", "here")), delta(ALICE, 1, set_("a", "there"))
    assert state(merged(one, other)) == state(merged(other, one))


def test_a_gen_outranks_every_epoch() -> None:
    poisoned, recovered = delta(ALICE, 2**53 - 1, set_("a")), delta(BOB, 1, set_("a"), gen=2)
    for order in ((poisoned, recovered), (recovered, poisoned)):
        winner = merged(*order).winner(SCOPE, "a")
        assert winner is not None
        assert winner.delta is recovered


def test_the_last_three_of_a_writer_stay_for_the_day_the_newest_is_voided() -> None:
    deltas = [delta(ALICE, epoch, set_("a", epoch)) for epoch in range(1, 7)]
    registers = merged(*deltas)
    assert [one.stamp.epoch for one in sorted(registers.deltas(SCOPE), key=lambda one: one.stamp)] == [4, 5, 6]
    assert [one.stamp.epoch for one in registers.take_forgotten()] == [1, 2, 3]
    assert registers.take_forgotten() == ()
    registers.rejudge(lambda one: one.stamp.epoch < 7 - KEPT + 1)
    winner = registers.winner(SCOPE, "a")
    assert winner is not None
    assert winner.delta.stamp.epoch == 4


def test_live_deltas_of_a_writer_are_its_greatest_of_some_key() -> None:
    wide, narrow, other = delta(ALICE, 1, set_("a"), set_("b")), delta(ALICE, 2, set_("a")), delta(BOB, 3, set_("b"))
    registers = merged(wide, narrow, other)
    assert registers.live_of(SCOPE, ALICE.kid) == (wide, narrow)
    assert registers.live_of(SCOPE, BOB.kid) == (other,)


# --- folding -----------------------------------------------------------------------------------------------------


def folded(*deltas: Delta) -> dict[str, Any]:
    registers = merged(*deltas)
    return {one.key: one.assignment.set for one in effective(registers.winners(SCOPE).values())}


def test_setting_a_whole_model_replaces_older_leaves() -> None:
    assert folded(delta(ALICE, 1, set_("audio.gain", 1)), delta(ALICE, 2, set_("audio", {"rate": 2}))) == {
        "audio": {"rate": 2}
    }


def test_a_newer_leaf_lies_on_top_of_a_whole_model() -> None:
    assert folded(delta(ALICE, 1, set_("audio", {"gain": 0})), delta(ALICE, 2, set_("audio.gain", 1))) == {
        "audio": {"gain": 0},
        "audio.gain": 1,
    }


def test_unsetting_a_model_removes_older_leaves_and_no_newer_ones() -> None:
    older, removal = delta(ALICE, 1, set_("audio.gain", 1), set_("audio.rate", 1)), delta(ALICE, 2, unset("audio"))
    assert folded(older, removal, delta(BOB, 3, set_("audio.gain", 3))) == {"audio.gain": 3}


def test_unsetting_a_leaf_leaves_the_model() -> None:
    deltas = (
        delta(ALICE, 1, set_("audio", {"gain": 0})),
        delta(ALICE, 2, set_("audio.gain", 1)),
        delta(ALICE, 3, unset("audio.gain")),
    )
    assert folded(*deltas) == {"audio": {"gain": 0}}


def test_a_neighbour_with_the_same_beginning_is_not_below() -> None:
    assert folded(delta(ALICE, 1, set_("audiobook", 1)), delta(ALICE, 2, unset("audio"))) == {"audiobook": 1}


KEY_TREE = ("a", "a.b", "a.c", "a.b.d", "ab")


@given(st.lists(st.tuples(st.sampled_from(KEY_TREE), st.booleans()), max_size=12), st.randoms(use_true_random=False))
def test_folding_equals_replaying_in_stamp_order(steps: list[tuple[str, bool]], order: random.Random) -> None:
    deltas = [
        delta(ALICE, epoch, unset(key) if is_unset else set_(key, epoch))
        for epoch, (key, is_unset) in enumerate(steps, start=1)
    ]
    expected: dict[str, Any] = {}
    for epoch, (key, is_unset) in enumerate(steps, start=1):
        expected = {one: value for one, value in expected.items() if one != key and not one.startswith(key + ".")}
        if not is_unset:
            expected[key] = epoch
    order.shuffle(deltas)
    assert folded(*deltas) == expected


def test_views_lay_scopes_lowest_precedence_first() -> None:
    registers = merged(delta(ALICE, 9, set_("a", "all"), scope="_all"), delta(ALICE, 1, set_("a", "service")))
    view = FleetView.of(registers, ["_all", SCOPE])
    assert [scope.registers[0].assignment.set for scope in view.scopes] == ["all", "service"]
    assert len(view.deltas()) == 2
