"""A fold that goes on from the last one says what a fold made anew says, whatever happened in between."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, Field

from tars_settings.core.delta import Delta, parse_delta
from tars_settings.core.register import Register, Registers
from tars_settings.sources.fold import Folder, _Flat
from tests.settings.stage import FLEET, SERVICE, secret
from tests.settings.stage import delta as signed


class Audio(BaseModel):
    gain: int = 1
    rate: int = 2
    names: list[str] = []


class Model(BaseModel):
    a: int = 1
    b: int = Field(default=2, validation_alias=AliasChoices("b", "old_b"))
    tags: list[int] = []
    token: str = ""
    audio: Audio = Audio()


PLAIN = ("a", "b", "old_b", "audio.gain", "audio.rate", "unknown", "unknown.below")
CONTAINERS: dict[str, Any] = {"tags": [1, 2], "audio": {"gain": 7, "strange": 1}, "audio.names": ["x"]}


def delta(values: dict[str, Any], epoch: int, **more: Any) -> Delta:
    return parse_delta(signed(values, epoch, **more), FLEET)[1]


def opened(register: Register) -> Any:
    return f"opened {register.delta.stamp.epoch}"


def fresh() -> Folder:
    return Folder(Model, {}, opened)


def said(folder: Folder, registers: Registers, left_out: frozenset[bytes]) -> Any:
    winners = [one for one in registers.winning(SERVICE) if one.delta.stamp.digest not in left_out]
    folded = folder.fold([("_all", ()), (SERVICE, winners)])
    placed = [(one.key, one.path, one.value, one.digest) for one in folded.placed]
    return folded.state, placed, sorted(folded.unknown), dict(folded.sealed)


def some_delta(draws: random.Random, epoch: int) -> Delta:
    kind = draws.choices(("plain", "plain of two", "container", "unset", "secret"), (12, 3, 2, 2, 1))[0]
    match kind:
        case "plain":
            return delta({draws.choice(PLAIN): epoch}, epoch)
        case "plain of two":
            return delta({"a": epoch, draws.choice(("b", "audio.gain")): -epoch}, epoch)
        case "container":
            key = draws.choice(tuple(CONTAINERS))
            return delta({key: CONTAINERS[key]}, epoch)
        case "unset":
            return delta({}, epoch, unset=[draws.choice((*PLAIN, *CONTAINERS))])
    return delta({}, epoch, secrets=[secret("s", key="token")])


@pytest.mark.parametrize("seed", range(12))
def test_a_fold_that_goes_on_says_what_a_fold_made_anew_says(seed: int) -> None:
    draws = random.Random(seed)
    registers, going_on = Registers(), fresh()
    epochs = list(range(1, 61))
    for n in range(0, len(epochs), 6):  # some arrive late
        part = epochs[n : n + 6]
        draws.shuffle(part)
        epochs[n : n + 6] = part
    for epoch in epochs:
        registers.offer(some_delta(draws, epoch))
        digests = [one.stamp.digest for one in registers.deltas(SERVICE)]
        left_out = frozenset(draws.sample(digests, 1)) if draws.random() < 0.1 else frozenset()
        assert said(going_on, registers, left_out) == said(fresh(), registers, left_out)


def test_a_plain_newer_value_is_taken_in_and_nothing_is_folded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    registers, folder = Registers(), fresh()
    registers.offer(delta({"a": 1, "audio.gain": 1, "tags": [1], "unknown": 1}, 1))
    said(folder, registers, frozenset())
    anew: list[object] = []
    monkeypatch.setattr(Folder, "_fold_one", lambda *_: anew.append(1))
    registers.offer(delta({"audio.gain": 5}, 2))
    state, placed, unknown, _ = said(folder, registers, frozenset())
    assert state == {"a": 1, "audio": {"gain": 5}, "tags": [1]}
    assert placed[-1][0] == "audio.gain"
    assert unknown == ["unknown"]
    assert not anew


def test_a_scope_that_says_what_it_said_is_laid_over_those_below_it() -> None:
    below, registers, folder = Registers(), Registers(), fresh()
    below.offer(delta({"a": 1, "audio.gain": 1}, 1, scope="_all"))
    registers.offer(delta({"b": 2, "audio.gain": 2}, 1))
    for _ in range(2):
        state = folder.fold([("_all", below.winning("_all")), (SERVICE, registers.winning(SERVICE))]).state
        assert state == {"a": 1, "b": 2, "audio": {"gain": 2}}


def test_what_a_trial_left_is_not_remembered_and_what_stays_is() -> None:
    folder = fresh()
    made = delta({"a": 1, "b": 2, "audio": {"rate": 3}}, 1)
    stays, undone = (Register(item.key, item, made, undone=item.key == "b") for item in made.body.assign[:2])
    assert folder.fold([(SERVICE, (stays, undone))]).state == {"a": 1, "b": 2}
    assert list(folder._plain) == [id(stays)], "the other is made anew for each view"


def test_what_was_handed_out_before_stays_as_it_was() -> None:
    registers, folder = Registers(), fresh()
    registers.offer(delta({"audio.gain": 1, "audio.rate": 1}, 1))
    before = folder.fold([(SERVICE, registers.winning(SERVICE))]).state
    registers.offer(delta({"audio.gain": 5}, 2))
    after = folder.fold([(SERVICE, registers.winning(SERVICE))]).state
    assert (before, after) == ({"audio": {"gain": 1, "rate": 1}}, {"audio": {"gain": 5, "rate": 1}})


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"audio": {"gain": 1}}, {"audio.rate": 3}),
        ({"audio.rate": 3}, {"audio": 4}),
        ({"a": 1}, {"tags": [1]}),
        ({"unknown": 1}, {"unknown.below": 1}),
    ],
)
def test_keys_that_say_something_of_each_other_are_folded_anew(first: dict[str, Any], then: dict[str, Any]) -> None:
    registers = Registers()
    registers.offer(delta(first, 1))
    held = registers.winning(SERVICE)
    folder = fresh()
    folder.fold([(SERVICE, held)])
    flat = folder._flat[SERVICE]
    assert isinstance(flat, _Flat)
    registers.offer(delta(then, 2))
    assert not flat.take(registers.winning(SERVICE), folder._path_of)
