"""Live snapshots: built from captured sources, frozen, and never bad."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
from typing import Any

import pytest
from pydantic import BaseModel, Field, PrivateAttr, SecretStr, ValidationError, computed_field, model_validator
from pydantic_settings import BaseSettings

from tars_settings import FleetSettingsSource, Settings, SettingsConfigDict, explain
from tars_settings.core.delta import Assignment, Trial
from tars_settings.core.names import scopes_of
from tars_settings.core.register import FleetView, Registers
from tars_settings.errors import FrozenSnapshotError, NoServiceError
from tars_settings.provenance import resolutions
from tars_settings.settings import SnapshotBuilder, diff
from tars_settings.trust.document import TrustDocument, follow
from tests.settings.stage import (
    INSTANCE,
    OTHER,
    PIN,
    SECRET,
    SERVICE,
    TRUST,
    Stage,
    delta,
    parsed,
    secret,
    trust_raw,
    view_of,
)


class Audio(BaseModel):
    gain: float = 1.0
    rate: int = 16000


class Stt(Settings, service="stt-worker"):
    model_config = SettingsConfigDict(env_prefix="STT_", env_nested_delimiter="__")
    vad_threshold: float = Field(default=0.5, ge=0, le=1)
    low: int = 1
    high: int = 10
    audio: Audio = Audio(gain=2.0)
    words: list[str] = []
    pairs: dict[str, list[Audio]] = {}
    api_key: SecretStr | None = None
    _uses: int = PrivateAttr(default=0)

    @model_validator(mode="after")
    def _ordered(self) -> Stt:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        self.words = [word.lower() for word in self.words]
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def width(self) -> int:
        return self.high - self.low


def builder(stage: Stage, cls: type[Any] = Stt, **more: Any) -> SnapshotBuilder[Any]:
    return SnapshotBuilder(cls, environment=stage.environment, **more)


EMPTY = FleetView()


TRIED = delta({"audio.gain": 5.0}, 2, trial=Trial(600, (Assignment("audio.gain", set=3.0),)))


def on_trial(*raws: bytes, over: bool) -> FleetView:
    """Return what deltas say while their trials run, or when they are over."""
    registers = Registers()
    for raw in raws:
        registers.offer(parsed(raw))
    return FleetView.of(registers, scopes_of(SERVICE, INSTANCE), lambda _: over)


def test_what_is_tried_is_used_until_that_is_over_and_explained_as_such(stage: Stage) -> None:
    build = builder(stage).build
    for over, gain, told in ((False, 5.0, "running"), (True, 3.0, "undone")):
        built = build(on_trial(TRIED, over=over))
        assert built.snapshot.audio.gain == gain
        assert [one.stamp.epoch for one in built.used] == [2]
        winner = explain(built.snapshot, "audio.gain").winner
        assert (winner.trial, winner.value) == (told, gain)
        assert ("on trial" if told == "running" else "undone after its trial") in str(winner)


def test_what_a_refused_delta_hid_is_tried_as_long_as_it_runs(stage: Stage) -> None:
    """As after a restart: the last good values were read from the disk, which says what to go back to."""
    bad = delta({"audio": {"gain": "loud"}}, 3)
    build = builder(stage, last_good=on_trial(TRIED, over=True)).build
    for over, gain in ((False, 5.0), (True, 3.0)):
        built = build(on_trial(TRIED, bad, over=over))
        assert [one.delta.stamp.epoch for one in built.refused] == [3]
        assert built.snapshot.audio.gain == gain


def test_a_change_is_a_new_snapshot_and_no_change_is_the_same(stage: Stage) -> None:
    build = builder(stage).build
    first = build(view_of(delta({"vad_threshold": 0.6}, 1)))
    same = build(view_of(delta({"vad_threshold": 0.6}, 2)))
    other = build(view_of(delta({"vad_threshold": 0.7}, 3)))
    assert same.snapshot is first.snapshot
    assert other.snapshot is not first.snapshot
    assert (first.snapshot.vad_threshold, other.snapshot.vad_threshold) == (0.6, 0.7)
    assert diff(first.snapshot, other.snapshot) == {"vad_threshold"}
    winner = explain(same.snapshot, "vad_threshold").winner
    assert winner is not None
    assert winner.epoch == 2


def test_the_environment_is_read_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_LOW", "3")
    made = builder(stage)
    monkeypatch.setenv("STT_LOW", "4")
    assert made.build(EMPTY).snapshot.low == 3


def test_before_validators_may_take_their_input_apart(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Greedy(BaseModel):
        name: str = ""
        size: int = 0

        @model_validator(mode="before")
        @classmethod
        def _takes(cls, given: dict[str, Any]) -> dict[str, Any]:
            return {"name": given.pop("name", "gone"), "size": given.pop("size", -1)}

    class Holder(Settings, service="stt-worker"):
        from_env: Greedy = Greedy(name="d")
        from_fleet: Greedy = Greedy(name="d")
        other: int = 0

    monkeypatch.setenv("FROM_ENV", '{"name": "e", "size": 1}')
    made = builder(stage, Holder)
    whole = delta({"from_fleet": {"name": "f", "size": 2}}, 1)
    for number in range(3):
        snapshot = made.build(view_of(whole, delta({"other": number, "nope": 1}, 2))).snapshot
        assert (snapshot.from_env.name, snapshot.from_fleet.size, snapshot.other) == ("e", 2, number)


def test_the_environment_shadows_and_it_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_LOW", "3")
    monkeypatch.setenv("STT_AUDIO__GAIN", "7")
    built = builder(stage).build(view_of(delta({"low": 5, "audio.gain": 1, "audio.rate": 8000, "nope": 1}, 1)))
    assert (built.snapshot.low, built.snapshot.audio) == (3, Audio(gain=7, rate=8000))
    assert built.shadowed == {"low": "environment STT_LOW", "audio.gain": "environment STT_AUDIO__GAIN"}
    assert built.unknown == ("nope",)


def test_a_required_field_may_come_from_the_fleet_alone(stage: Stage) -> None:
    class Needs(Settings, service="stt-worker"):
        needed: int

    made = builder(stage, Needs)
    with pytest.raises(ValidationError, match="needed") as caught:
        made.build(EMPTY)
    assert caught.value.__context__ is None
    assert made.build(view_of(delta({"needed": 1}, 1))).snapshot.needed == 1
    built = made.build(view_of(delta({"needed": 1}, 1), delta({}, 2, unset=["needed"])))
    assert built.snapshot.needed == 1
    assert [one.delta.stamp.epoch for one in built.refused] == [2]


def test_a_users_own_basesettings_can_be_live(stage: Stage) -> None:
    class Own(BaseSettings):
        size: int = 1

        @classmethod
        def settings_customise_sources(cls, settings_cls, **sources):  # type: ignore[no-untyped-def, override]
            return (*sources.values(), FleetSettingsSource(settings_cls, service="stt-worker"))

    class Without(BaseSettings):
        size: int = 1

    snapshot = builder(stage, Own).build(view_of(delta({"size": 4}, 1))).snapshot
    assert snapshot.size == 4
    assert explain(snapshot, "size").known
    with pytest.raises(NoServiceError, match="Without"):
        builder(stage, Without)


# --- refusal ---------------------------------------------------------------------------------------------------------


def test_a_delta_that_does_not_validate_is_refused_whole_and_its_keys_keep_what_they_had(stage: Stage) -> None:
    build = builder(stage).build
    good = delta({"vad_threshold": 0.6, "low": 2}, 1)
    bad = delta({"vad_threshold": 9, "low": 3}, 2)
    build(view_of(good))
    built = build(view_of(good, bad))
    assert (built.snapshot.vad_threshold, built.snapshot.low) == (0.6, 2)
    (refused,) = built.refused
    assert refused.delta.stamp == parsed(bad).stamp
    assert refused.keys == ("vad_threshold",)
    assert refused.message == "Input should be less than or equal to 1"
    later = build(view_of(good, bad, delta({"words": ["a"]}, 3)))
    assert (later.snapshot.vad_threshold, later.snapshot.low, later.snapshot.words) == (0.6, 2, ["a"])
    mended = build(view_of(good, bad, delta({"vad_threshold": 0.7}, 4)))
    assert (mended.snapshot.vad_threshold, mended.snapshot.low, mended.refused) == (0.7, 3, ())


def test_a_refused_delta_is_tried_again_with_every_change(stage: Stage) -> None:
    build = builder(stage).build
    first = delta({"low": 20}, 1)
    built = build(view_of(first))
    assert built.snapshot.low == 1
    assert "is above high" in built.refused[0].message
    built = build(view_of(first, delta({"high": 30}, 2)))
    assert (built.snapshot.low, built.snapshot.high, built.refused) == (20, 30, ())


def test_the_order_of_arrival_does_not_decide(stage: Stage) -> None:
    older, newer = delta({"low": 8}, 1), delta({"high": 3}, 2, by=OTHER)
    seen_first, seen_last = builder(stage).build, builder(stage).build
    seen_first(view_of(older))
    seen_last(view_of(newer))
    results = [build(view_of(older, newer)) for build in (seen_first, seen_last)]
    assert [(one.snapshot.low, one.snapshot.high) for one in results] == [(8, 10)] * 2


def test_a_refused_whole_model_shows_the_leaves_that_it_hid(stage: Stage) -> None:
    build = builder(stage).build
    leaf = delta({"audio.rate": 8000}, 1)
    build(view_of(leaf))
    built = build(view_of(leaf, delta({"audio": {"gain": "loud"}}, 2)))
    assert built.snapshot.audio == Audio(gain=2.0, rate=8000)


def test_refused_keys_keep_the_last_known_good_of_the_run_before(stage: Stage) -> None:
    stage.store()
    stage.keep(delta({"vad_threshold": 0.25}, 1))
    built = builder(stage, trust=lambda: TRUST).build(view_of(delta({"vad_threshold": 5}, 2)))
    assert built.snapshot.vad_threshold == 0.25
    assert [one.delta.stamp.epoch for one in built.refused] == [2]


def test_a_refused_key_does_not_go_on_with_what_became_void(stage: Stage) -> None:
    document: TrustDocument = TRUST
    made = builder(stage, trust=lambda: document)
    stolen = delta({"vad_threshold": 0.9}, 1)
    assert made.build(view_of(stolen)).snapshot.vad_threshold == 0.9
    document = follow(PIN, trust_raw(2, status="compromised"))
    built = made.build(view_of(delta({"vad_threshold": 5}, 2, by=OTHER)))
    assert built.snapshot.vad_threshold == 0.5


def test_a_secret_without_its_key_is_refused_by_the_name_of_the_key(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = delta({"low": 3}, 1, secrets=[secret("canary", key="api_key")])
    built = builder(stage).build(view_of(held))
    assert built.snapshot.api_key == SecretStr("canary")
    without = Stage(stage.environment.state_dir)
    without.environment = without.environment.model_copy(update={"secret_keys_text": None})
    built = builder(without).build(view_of(held))
    assert (built.snapshot.low, built.snapshot.api_key) == (1, None)
    (refused,) = built.refused
    assert refused.keys == ("api_key",)
    assert f"'{SECRET.id}'" in refused.message


def test_messages_do_not_hold_values(stage: Stage) -> None:
    class Talks(Settings, service="stt-worker"):
        token: SecretStr = SecretStr("")

        @model_validator(mode="after")
        def _check(self) -> Talks:
            if self.token.get_secret_value():
                raise ValueError(f"{self.token.get_secret_value()} is bad")
            return self

    built = builder(stage, Talks).build(view_of(delta({}, 1, secrets=[secret("canary", key="token")])))
    assert built.refused[0].message == "Value error, ********** is bad"


def test_nothing_of_the_fleet_raises(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    bad = [delta({"low": value}, n) for n, value in enumerate((None, "x", [1], {"a": 1}, 1e308, True), 1)]
    for number in range(1, len(bad) + 1):
        assert builder(stage).build(view_of(*bad[:number])).snapshot.low == 1


# --- frozen ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def snapshot(stage: Stage) -> Any:
    values = {"words": ["A", "B"], "pairs": {"x": [{"gain": 3}]}, "audio.rate": 5}
    return builder(stage).build(view_of(delta(values, 1))).snapshot


def test_a_snapshot_is_an_instance_of_the_users_class(snapshot: Stt) -> None:
    assert isinstance(snapshot, Stt)
    assert type(snapshot).__name__ == "Stt"
    assert snapshot.width == 9
    assert snapshot.model_dump()["pairs"] == {"x": [{"gain": 3.0, "rate": 16000}]}
    assert "serializer" not in snapshot.model_dump_json()
    plain = copy.deepcopy(snapshot)
    assert snapshot == plain
    assert plain == snapshot
    assert (snapshot != plain) is False


CHANGES = {
    "a field": lambda s: setattr(s, "low", 3),
    "a field is deleted": lambda s: delattr(s, "low"),
    "a nested field": lambda s: setattr(s.audio, "gain", 9),
    "a list": lambda s: s.words.append("c"),
    "a list item": lambda s: s.words.__setitem__(0, "c"),
    "a dict": lambda s: s.pairs.update(y=[]),
    "a dict item": lambda s: s.pairs.__setitem__("x", []),
    "a model in containers": lambda s: setattr(s.pairs["x"][0], "gain", 9),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_snapshot_does_not_change(snapshot: Stt, change: Any) -> None:
    before = snapshot.model_dump_json()
    with pytest.raises(FrozenSnapshotError):
        change(snapshot)
    assert snapshot.model_dump_json() == before


COPIES = {
    "model_copy": lambda s: s.model_copy(deep=True),
    "deepcopy": copy.deepcopy,
    "pickle": lambda s: pickle.loads(pickle.dumps(s)),
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES.keys())
def test_copies_are_plain_and_mutable(snapshot: Stt, make: Any) -> None:
    before = snapshot.model_dump_json()
    for change in CHANGES.values():
        made = make(snapshot)
        assert type(made) is Stt
        assert not explain(made, "high").known
        change(made)
        assert made != snapshot
    assert snapshot.model_dump_json() == before


def test_a_shallow_copy_is_mutable(snapshot: Stt) -> None:
    for made in (copy.copy(snapshot), snapshot.model_copy(), snapshot.model_copy(update={"low": 4})):
        made.low = 5
        assert (type(made), made.low, snapshot.low) == (Stt, 5, 1)


def test_private_attributes_stay_usable(snapshot: Stt) -> None:
    snapshot._uses += 1
    assert snapshot._uses == 1


def test_defaults_of_the_class_are_not_frozen_with_it(snapshot: Stt) -> None:
    del snapshot
    Stt.model_fields["audio"].default.gain = 2.0
    fresh = Stt()
    fresh.words.append("x")
    assert Stt().words == []


def test_provenance_goes_with_its_instance(stage: Stage) -> None:
    gc.collect()  # what other tests left in cycles must not go meanwhile
    before = len(resolutions)
    made = Stt()
    assert len(resolutions) == before + 1
    del made
    assert len(resolutions) == before


# --- diff ------------------------------------------------------------------------------------------------------------


def test_diff_names_leaves_and_what_holds_them() -> None:
    first, second = Stt(), Stt(audio=Audio(gain=5), words=["x"])
    assert diff(first, second) == {"audio", "audio.gain", "words"}
    assert diff(first, Stt()) == frozenset()


def test_nan_is_no_change() -> None:
    class Loose(Settings):
        x: float = float("nan")

    assert diff(Loose(), Loose(x=float("nan"))) == frozenset()
