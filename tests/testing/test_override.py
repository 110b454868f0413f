"""override(): above everything else, nested, restored, and seen by live objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, Field, SecretStr, ValidationError

import tars_settings
from tars_settings import Settings, SettingsConfigDict
from tars_settings.errors import UsageError
from tars_settings.testing import MemoryFleet, override
from tars_settings.testing.plugin import memory_fleet, no_fleet, override_settings

__all__ = ["memory_fleet", "no_fleet", "override_settings"]
pytestmark = pytest.mark.usefixtures("no_fleet")


class Audio(BaseModel):
    gain: float = 1.0
    rate: int = 16_000


class Stt(Settings, service="stt-worker"):
    model_config = SettingsConfigDict(env_prefix="STT_", env_nested_delimiter="__")
    threshold: float = Field(default=0.5, ge=0, le=1)
    model: str = Field(default="base", validation_alias=AliasChoices("FIRST", "SECOND"))
    audio: Audio = Audio(gain=3)
    api_key: SecretStr = SecretStr("")


class Child(Stt, service="child"):
    pass


def test_an_override_wins_over_environment_and_arguments_and_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_THRESHOLD", "0.1")
    with override(Stt, {"threshold": 0.9}):
        assert (Stt().threshold, Stt(threshold=0.2).threshold) == (0.9, 0.9)
    assert (Stt().threshold, Stt(threshold=0.2).threshold) == (0.1, 0.2)


def test_overrides_nest_and_the_innermost_wins() -> None:
    with override(Stt, threshold=0.9, model="large"):
        with override(Stt, {"threshold": 0.8}):
            assert (Stt().threshold, Stt().model) == (0.8, "large")
        assert Stt().threshold == 0.9
    assert (Stt().threshold, Stt().model) == (0.5, "base")


def test_an_error_within_restores_too() -> None:
    with pytest.raises(ZeroDivisionError), override(Stt, threshold=0.9):
        raise ZeroDivisionError
    assert Stt().threshold == 0.5


def test_a_leaf_of_a_nested_model_changes_that_leaf_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_AUDIO__RATE", "8000")
    with override(Stt, {"audio.gain": 9}):
        assert (Stt().audio.gain, Stt().audio.rate) == (9, 8000)


def test_an_override_wins_over_another_alias_of_the_same_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRST", "environment")
    with override(Stt, model="override"):
        assert Stt().model == "override"


def test_subclasses_are_overridden_with_their_parent() -> None:
    with override(Stt, threshold=0.9):
        assert Child().threshold == 0.9
    with override(Child, threshold=0.9):
        assert (Child().threshold, Stt().threshold) == (0.9, 0.5)


def test_an_override_is_validated_and_explained() -> None:
    with override(Stt, threshold=7), pytest.raises(ValidationError, match="threshold"):
        Stt()
    with override(Stt, threshold=0.9):
        winner = tars_settings.explain(Stt(), "threshold").winner
        assert winner is not None
        assert (winner.source, winner.value) == ("override of a test", 0.9)


def test_a_key_that_the_class_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="no key 'thresold'"), override(Stt, thresold=0.9):
        pass


def test_live_objects_are_overridden_and_hear_of_it(memory_fleet: MemoryFleet) -> None:
    live = memory_fleet.join(Stt)
    memory_fleet.push(Stt, threshold=0.6)
    watch = live.watch("threshold")
    with override(Stt, threshold=0.9):
        assert live.current.threshold == 0.9
        change = watch.next(5)
        assert change is not None
        assert (change.old.threshold, change.new.threshold) == (0.6, 0.9)
        memory_fleet.push(Stt, threshold=0.7)
        memory_fleet.push(Stt, model="large")
        assert (live.current.threshold, live.current.model) == (0.9, "large")
        winner = tars_settings.explain(live.current, "threshold").winner
        assert winner is not None
        assert winner.source == "override of a test"
    assert live.current.threshold == 0.7, "what was pushed meanwhile"


def test_a_live_object_that_joins_within_is_overridden_and_restored(memory_fleet: MemoryFleet) -> None:
    with override(Stt, threshold=0.9):
        live = memory_fleet.join(Stt)
        assert live.current.threshold == 0.9
    assert live.current.threshold == 0.5


def test_an_override_that_does_not_validate_leaves_a_live_object_as_it_was(memory_fleet: MemoryFleet) -> None:
    live = memory_fleet.join(Stt)
    with pytest.raises(ValidationError, match="threshold"), override(Stt, threshold=7):
        raise AssertionError("it was entered")
    assert live.current.threshold == 0.5
    assert Stt().threshold == 0.5


def test_a_fleet_in_memory_is_found_by_code_that_joins_by_itself(memory_fleet: MemoryFleet) -> None:
    memory_fleet.push(Stt, threshold=0.6)
    with tars_settings.join(Stt) as live:
        assert live.wait_until_ready(10)
        assert live.current.threshold == 0.6
        report = memory_fleet.push(Stt, threshold=0.7)
        assert [reply.fate for reply in report.replies] == ["applied"]
    assert Stt().threshold == 0.7, "from the replica, without a connection"


def test_fleets_in_memory_do_not_hear_each_other() -> None:
    with MemoryFleet() as one, MemoryFleet() as other:
        here, there = one.join(Stt), other.join(Stt)
        one.push(Stt, threshold=0.6)
        assert (here.current.threshold, there.current.threshold) == (0.6, 0.5)
    assert not one.directory.exists()


def test_instances_of_a_fleet_in_memory(memory_fleet: MemoryFleet) -> None:
    first, second = memory_fleet.join(Stt, "pi-1"), memory_fleet.join(Stt, "pi-2")
    report = memory_fleet.push(Stt, {"audio.gain": 2})
    assert report.applied == 2
    assert first.current.audio.gain == second.current.audio.gain == 2


def test_the_fixture_overrides_until_the_test_ends(override_settings: Any) -> None:
    override_settings(Stt, {"audio.gain": 2}, threshold=0.9)
    assert (Stt().threshold, Stt().audio.gain) == (0.9, 2)


pytest_plugins = ["pytester"]


def test_the_plugin_brings_the_fixtures_into_a_users_tests(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(tars_settings.__file__).parents[1]))
    pytester.makepyfile(
        """
        import tars_settings
        from tars_settings import Settings

        class Stt(Settings, service="stt-worker"):
            threshold: float = 0.5

        def test_one(override_settings):
            override_settings(Stt, threshold=0.9)
            assert Stt().threshold == 0.9

        def test_two(memory_fleet):
            assert Stt().threshold == 0.5
            with tars_settings.join(Stt) as live:
                assert live.wait_until_ready(10)
                memory_fleet.push(Stt, threshold=0.6)
                assert live.current.threshold == 0.6
        """
    )
    outcome = pytester.runpytest_subprocess("-p", "tars_settings.testing.plugin", "-p", "no:tars_settings")
    outcome.assert_outcomes(passed=2)
