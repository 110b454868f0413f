"""Facts of the past: what was set at a moment, which gaps show themselves, and how a scope comes back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tars_settings.core.delta import Assignment, Delta
from tars_settings.core.past import Entry, Past
from tars_settings.core.register import Register, Registers, effective
from tars_settings.core.undo import back_to, differences, without
from tests.fleets import ALICE, BOB, SCOPE, delta, set_, unset


class Story:
    """Deltas in order, each naming what it replaced, as writers do."""

    def __init__(self) -> None:
        self.registers = Registers()
        self.deltas: list[Delta] = []

    def push(self, *assign: Assignment, **more: Any) -> Delta:
        items = tuple(self._over(item) for item in assign)
        made = delta(more.pop("by", ALICE), more.pop("epoch", len(self.deltas) + 1), *items, **more)
        self.deltas.append(made)
        self.registers.offer(made)
        return made

    def _over(self, item: Assignment) -> Assignment:
        held = self.registers.winner(SCOPE, item.key)
        over = msgspec.UNSET if held is None else held.delta.stamp.digest.hex()
        return msgspec.structs.replace(item, over=over)

    def past(self, *forgotten: Delta, void: dict[int, str] | None = None) -> Past:
        reasons = void or {}
        kept = (one for one in self.deltas if one not in forgotten)
        return Past(SCOPE, (Entry(one, reasons.get(one.stamp.epoch, "")) for one in kept))

    @property
    def now(self) -> dict[str, Register]:
        return self.registers.winners(SCOPE)

    def carry_out(self, pushes: tuple[tuple[Assignment, ...], ...]) -> dict[str, Any]:
        for push in pushes:
            self.push(*push)
        return says(self.now)


def says(winners: dict[str, Register]) -> dict[str, Any]:
    return {one.key: one.assignment.set for one in effective(winners.values())}


@pytest.fixture
def story() -> Story:
    made = Story()
    made.push(set_("a", 1), set_("b", 1))
    made.push(set_("a", 2))
    made.push(set_("a", 3), set_("c", 3))
    made.push(unset("b"))
    return made


def test_the_winners_after_an_epoch_are_those_of_then(story: Story) -> None:
    past = story.past()
    states = [says(past.after_epoch(n).winners) for n in range(5)]
    assert states == [{}, {"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 3, "b": 1, "c": 3}, {"a": 3, "c": 3}]
    assert all(past.after_epoch(n).missing == () for n in range(5))


def test_a_gap_shows_itself_by_key_and_digest(story: Story) -> None:
    first, second = story.deltas[:2]
    assert story.past(second).after_epoch(3).missing == ()
    (gap,) = story.past(second).after_epoch(2).missing
    assert (gap.key, gap.epoch, gap.digest) == ("a", 3, second.stamp.digest.hex())
    assert {(one.key, one.epoch) for one in story.past(first).after_epoch(1).missing} == {("a", 2), ("b", 4)}


def test_what_a_compromised_key_signed_does_not_come_back(story: Story) -> None:
    past = story.past(void={2: "compromised"})
    assert says(past.after_epoch(2).winners)["a"] == 1
    assert past.after_epoch(2).missing == ()


def test_what_a_floor_voided_counted_in_its_time(story: Story) -> None:
    past = story.past(void={2: "below-floor"})
    assert says(past.after_epoch(2).winners)["a"] == 2


def test_what_is_void_does_not_hide_the_gap_before_it(story: Story) -> None:
    first = story.deltas[0]
    gaps = story.past(first, void={2: "compromised"}).after_epoch(2).missing
    assert [(one.key, one.epoch, one.digest) for one in gaps] == [
        ("a", 2, first.stamp.digest.hex()),
        ("b", 4, first.stamp.digest.hex()),
    ]
    counted = story.past(first, void={2: "below-floor"}).after_epoch(2).missing
    assert [one.key for one in counted] == ["b"]


def test_a_chain_goes_on_where_two_replaced_each_other_after_the_moment() -> None:
    lesser, greater = sorted((ALICE, BOB), key=lambda one: one.kid)
    story = Story()
    first = story.push(set_("a", 1))
    story.push(set_("a", 2), epoch=2, by=greater)
    story.push(set_("a", 3), epoch=2, by=lesser)
    assert story.past().after_epoch(1).missing == ()
    (gap,) = story.past(first).after_epoch(1).missing
    assert gap.digest == first.stamp.digest.hex()


def test_an_epoch_of_the_newest_gen_is_meant(story: Story) -> None:
    story.push(set_("a", 9), epoch=1, gen=2)
    past = story.past()
    assert past.gen == 2
    assert says(past.after_epoch(0).winners)["a"] == 3
    assert [one.delta.stamp.gen for one in past.find("1")] == [2]


def test_a_push_is_found_by_epoch_or_by_the_beginning_of_its_digest(story: Story) -> None:
    past, second = story.past(), story.deltas[1]
    assert [one.delta for one in past.find("2")] == [second]
    assert [one.delta for one in past.find(second.stamp.digest.hex()[:12])] == [second]
    assert (past.find("99"), past.find("abc"), past.find("")) == ((), (), ())
    twin = story.push(set_("a", 5), epoch=2, by=BOB)
    assert {one.delta for one in story.past().find("2")} == {second, twin}


@pytest.mark.parametrize("epoch", range(5))
def test_a_rollback_says_what_was_said_then_and_unsets_the_rest(story: Story, epoch: int) -> None:
    moment = story.past().after_epoch(epoch)
    plan = back_to(story.now, moment)
    assert len(plan.pushes) == (epoch != 4), "one push, none where nothing differs"
    assert story.carry_out(plan.pushes) == says(moment.winners)


def test_a_ciphertext_comes_back_as_it_was() -> None:
    story, secret = Story(), msgspec.convert({"alg": "aes256gcm", "id": "k1", "ct": b"x" * 30}, Any)
    story.push(msgspec.convert({"key": "s", "secret": secret}, Assignment))
    kept = story.deltas[0].body.assign[0].secret
    story.push(set_("s", 1))
    ((push,),) = [back_to(story.now, story.past().after_epoch(1)).pushes]
    assert [item.secret for item in push] == [kept]


def test_one_push_is_taken_back_and_later_changes_stay(story: Story) -> None:
    third = story.deltas[2]
    story.push(set_("c", 4))
    plan = without(third, story.now, story.past().before(third))
    assert [one.key for one in plan.left] == ["c"]
    assert story.carry_out(plan.pushes) == {"a": 2, "c": 4}


def test_taking_back_a_whole_model_brings_back_what_it_covered() -> None:
    story = Story()
    story.push(set_("audio.gain", 3), set_("audio.rate", 16))
    whole = story.push(set_("audio", {"gain": 9}))
    plan = without(whole, story.now, story.past().before(whole))
    assert len(plan.pushes) == 2, "no key of a push lies below another"
    assert story.carry_out(plan.pushes) == {"audio.gain": 3, "audio.rate": 16}


def test_going_back_to_a_whole_model_sets_again_what_stood_over_it() -> None:
    story = Story()
    story.push(set_("audio", {"gain": 1}))
    story.push(set_("audio.gain", 2))
    story.push(set_("audio", {"gain": 7}))
    plan = back_to(story.now, story.past().after_epoch(2))
    assert story.carry_out(plan.pushes) == {"audio": {"gain": 1}, "audio.gain": 2}


def test_what_stands_over_a_whole_model_unchanged_is_set_again_after_it() -> None:
    story = Story()
    for gain in (1, 7):
        story.push(set_("audio", {"gain": gain}))
        story.push(set_("audio.gain", 2))
    plan = back_to(story.now, story.past().after_epoch(2))
    assert [one.key for one in plan.changes] == ["audio"]
    assert story.carry_out(plan.pushes) == {"audio": {"gain": 1}, "audio.gain": 2}


def test_many_keys_go_into_as_many_pushes_as_they_need() -> None:
    story = Story()
    for first in range(0, 150, 50):
        story.push(*(set_(f"k{n}", n) for n in range(first, first + 50)))
    for first in range(0, 150, 50):
        story.push(*(unset(f"k{n}") for n in range(first, first + 50)))
    plan = back_to(story.now, story.past().after_epoch(3))
    sizes = [len(push) for push in plan.pushes]
    assert len(sizes) == 3, "two do not hold 150 keys"
    assert max(sizes) <= 64
    assert len(story.carry_out(plan.pushes)) == 150


def test_large_values_are_split_by_bytes() -> None:
    story = Story()
    for n in range(3):
        story.push(set_(f"k{n}", "x" * 30_000))
    for n in range(3):
        story.push(unset(f"k{n}"))
    plan = back_to(story.now, story.past().after_epoch(3))
    assert list(map(len, plan.pushes)) == [1, 1, 1]
    assert len(story.carry_out(plan.pushes)) == 3


def test_equal_values_of_two_deltas_are_no_difference() -> None:
    one, other = Story(), Story()
    one.push(set_("a", 1), set_("b", True), set_("c", [1.5]))
    other.push(set_("z"))
    other.push(set_("a", 1), set_("b", 1), set_("c", [1.5]), unset("z"))
    found = differences(one.now.values(), other.now.values())
    assert [change.key for change in found] == ["b"], "true is not 1"
