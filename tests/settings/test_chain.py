"""The fleet in the chain: precedence, names, nesting, and what a bad replica does not do."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from pydantic_settings import SettingsConfigDict as PlainConfigDict

from tars_settings import FleetSettingsSource, Settings, SettingsConfigDict, explain
from tars_settings.errors import ConfigurationError
from tars_settings.settings import service_of
from tests.ordinary import as_ordinary_user, ordinary_dir
from tests.settings.stage import FLEET, OTHER, STRANGER, Stage, delta, secret, trust_raw


class Band(BaseModel):
    low: int = 1
    high: int = 2


class Audio(BaseModel):
    gain: float = 1.0
    rate: int = 16000
    band: Band = Band()


class Stt(Settings, service="stt-worker"):
    model_config = SettingsConfigDict(env_prefix="STT_", env_nested_delimiter="__")
    vad_threshold: float = Field(default=0.5, ge=0, le=1)
    model: str = "small"
    audio: Audio = Audio(gain=2.0, rate=8000)
    words: list[str] = []
    api_key: SecretStr | None = None


def test_a_class_names_its_service_as_keyword_or_in_model_config() -> None:
    class InConfig(Settings):
        model_config = SettingsConfigDict(service="tts-worker")

    class Child(InConfig):
        model_config = SettingsConfigDict(env_prefix="T_")

    assert [service_of(cls) for cls in (Stt, InConfig, Child, Settings)] == [
        "stt-worker", "tts-worker", "tts-worker", None,
    ]  # fmt: skip


def test_without_a_fleet_settings_are_plain() -> None:
    assert Stt().model_dump() == Stt.model_construct().model_dump()


def test_the_fleet_lies_above_defaults_and_below_everything_else(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = {"vad_threshold": 0.1, "model": "fleet", "audio.rate": 1, "audio.gain": 3.5}
    stage.store(delta(values, 1))
    (tmp_path / "env").write_text("STT_AUDIO__RATE=2\n")
    monkeypatch.setenv("STT_MODEL", "environment")
    settings = Stt(vad_threshold=0.9, _env_file=tmp_path / "env")
    assert (settings.vad_threshold, settings.model) == (0.9, "environment")
    assert (settings.audio.rate, settings.audio.gain) == (2, 3.5)


def test_scopes_lie_over_each_other_all_lowest(stage: Stage) -> None:
    stage.store(
        delta({"model": "all", "audio.gain": 1.5, "vad_threshold": 0.1}, 900, scope="_all"),
        delta({"model": "service", "vad_threshold": 0.2}, 20),
        delta({"model": "instance"}, 3, scope="stt-worker@pi-3"),
        delta({"model": "elsewhere"}, 999, scope="stt-worker@pi-4"),
    )
    settings = Stt()
    assert (settings.model, settings.vad_threshold, settings.audio.gain) == ("instance", 0.2, 1.5)


def test_a_leaf_changes_that_leaf_only(stage: Stage) -> None:
    stage.store(delta({"audio.band.low": 7}, 1))
    assert Stt().audio == Audio(gain=2.0, rate=8000, band=Band(low=7, high=2))


def test_a_leaf_over_a_default_factory_changes_that_leaf_only(stage: Stage) -> None:
    class Made(Settings, service="stt-worker"):
        audio: Audio = Field(default_factory=lambda: Audio(gain=4, rate=5))

    stage.store(delta({"audio.gain": 9.0}, 1))
    assert Made().audio == Audio(gain=9, rate=5)


def test_a_leaf_leaves_what_the_environment_made_of_the_rest(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(Stt):
        audio: Audio = Audio(gain=2.0, band=Band(low=5))

    monkeypatch.setenv("STT_AUDIO__RATE", "44100")
    before = Cut().audio
    stage.store(delta({"audio.gain": 9.0}, 1))
    assert Cut().audio == before.model_copy(update={"gain": 9.0})


def test_a_newer_whole_model_replaces_older_leaves_and_a_newer_leaf_changes_it(stage: Stage) -> None:
    stage.store(
        delta({"audio.rate": 1}, 1),
        delta({"audio": {"gain": 0.5, "band": {"low": 5}}}, 2),
        delta({"audio.band.high": 6}, 3, by=OTHER),
    )
    assert Stt().audio == Audio(gain=0.5, rate=16000, band=Band(low=5, high=6))


def test_unsetting_a_leaf_takes_it_out_of_an_older_whole_model(stage: Stage) -> None:
    stage.store(delta({"audio": {"gain": 0.5, "rate": 7}}, 1), delta({}, 2, unset=["audio.rate"]))
    assert Stt().audio == Audio(gain=0.5, rate=16000)


def test_unset_shows_the_next_lower_scope(stage: Stage) -> None:
    stage.store(delta({"model": "all"}, 1, scope="_all"), delta({"model": "x"}, 1), delta({}, 2, unset=["model"]))
    assert Stt().model == "all"


def test_keys_that_the_model_does_not_have_are_set_aside(stage: Stage) -> None:
    stage.store(delta({"of_a_newer_release": 1, "model": "x", "audio.nope": 1, "words.below": 2}, 1))
    stage.store(delta({"audio": {"gain": 4, "also_newer": 1}}, 2))
    settings = Stt()
    assert (settings.model, settings.audio.gain) == ("x", 4)


def test_lists_are_the_users_own_copy(stage: Stage) -> None:
    class Loose(Settings, service="stt-worker"):
        anything: Any = None

    stage.store(delta({"anything": [{"a": 1}]}, 1))
    first = Loose()
    first.anything[0]["a"] = 2
    assert Loose().anything == [{"a": 1}]


class Aliased(Settings, service="stt-worker"):
    model_config = SettingsConfigDict(populate_by_name=True)
    host: str = Field(default="d", validation_alias=AliasChoices("PRIMARY", "SECONDARY"))
    port: int = Field(default=1, validation_alias=AliasChoices(AliasPath("NET", "port"), "PORT"))
    only_path: int = Field(default=1, validation_alias=AliasPath("NET", "x"))


@pytest.mark.parametrize("name", ["PRIMARY", "SECONDARY", "HOST"])
def test_the_fleet_never_beats_the_environment_through_another_alias(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stage.store(delta({"host": "fleet", "port": 5}, 1))
    assert (Aliased().host, Aliased().port) == ("fleet", 5)
    monkeypatch.setenv(name, "environment")
    # Two names of one field at once would not validate, and the whole delta would be left out.
    assert (Aliased().host, Aliased().port) == ("environment", 5)


def test_an_argument_by_name_beats_the_fleet(stage: Stage) -> None:
    stage.store(delta({"host": "fleet"}, 1))
    assert Aliased(host="argument").host == "argument"


def test_nested_aliases_are_spoken(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Inner(BaseModel):
        gain: int = Field(default=1, validation_alias="GAIN")
        rate: int = Field(default=2, alias="RATE")

    class Outer(Settings, service="stt-worker"):
        model_config = SettingsConfigDict(env_nested_delimiter="__")
        inner: Inner = Inner(GAIN=5, RATE=6)

    stage.store(delta({"inner.gain": 50}, 1))
    assert Outer().inner.model_dump() == {"gain": 50, "rate": 6}
    monkeypatch.setenv("INNER__GAIN", "3")
    assert Outer().inner.gain == 3


def test_members_of_a_discriminated_union_are_reached(stage: Stage) -> None:
    class Cat(BaseModel):
        kind: Literal["cat"] = "cat"
        lives: int = 9

    class Dog(BaseModel):
        kind: Literal["dog"] = "dog"
        barks: bool = True

    class Home(Settings, service="stt-worker"):
        pet: Cat | Dog = Field(default=Cat(lives=3), discriminator="kind")

    stage.store(delta({"pet.lives": 4}, 1))
    assert Home().pet == Cat(lives=4)
    stage.store(delta({"pet.kind": "dog", "pet.barks": False}, 2), delta({}, 3, unset=["pet.lives"]))
    assert Home().pet == Dog(barks=False)


def test_keys_below_a_mapping_are_its_keys(stage: Stage) -> None:
    class Open(Settings, service="stt-worker"):
        limits: dict[str, int] = {}
        maybe: Audio | None = None

    stage.store(delta({"limits.CPU": 2, "limits.mem": 3, "maybe.gain": 5}, 1))
    assert Open().limits == {"CPU": 2, "mem": 3}
    assert Open().maybe == Audio(gain=5)


class Mixin:
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (env_settings, init_settings)


def test_a_users_own_order_of_sources_is_respected_and_ours_comes_last(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mixed(Mixin, Settings, service="stt-worker"):
        model: str = "d"
        words: list[str] = []

    class Child(Mixed):
        pass

    stage.store(delta({"model": "fleet", "words": ["f"]}, 1))
    monkeypatch.setenv("MODEL", "environment")
    for cls in (Mixed, Child):
        assert cls(model="argument").model == "environment"
        assert cls().words == ["f"]


def test_a_user_may_place_our_source_elsewhere(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    class First(Settings, service="stt-worker"):
        model: str = "d"

        @classmethod
        def settings_customise_sources(cls, settings_cls, **sources):  # type: ignore[no-untyped-def, override]
            return (FleetSettingsSource(settings_cls), *sources.values())

    stage.store(delta({"model": "fleet"}, 1))
    monkeypatch.setenv("MODEL", "environment")
    assert First().model == "fleet"


class Own(BaseSettings):
    model_config = PlainConfigDict(env_prefix="STT_")
    model: str = "d"
    size: int = 1

    @classmethod
    def settings_customise_sources(cls, settings_cls, **sources):  # type: ignore[no-untyped-def, override]
        return (*sources.values(), FleetSettingsSource(settings_cls, service="stt-worker"))


def test_our_source_works_alone_in_a_users_own_basesettings(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.store(delta({"model": "fleet"}, 1), delta({"size": "no number"}, 2), delta({"unknown": 1}, 3))
    assert Own().model_dump() == {"model": "fleet", "size": 1}
    assert "stt-worker@2 (size)" in caplog.text


def test_secrets_are_decrypted_and_masked(stage: Stage) -> None:
    stage.store(delta({}, 1, secrets=[secret("canary", key="api_key")]))
    settings = Stt()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "canary"
    assert "canary" not in repr(settings) + str(explain(settings)) + repr(explain(settings))


def test_a_secret_without_its_key_leaves_out_its_whole_delta(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage.store(delta({"model": "older"}, 1), delta({"words": ["x"]}, 2, secrets=[secret("canary", key="api_key")]))
    assert Stt().words == ["x"]
    monkeypatch.delenv("TARS_SETTINGS_SECRET_KEYS")
    settings = Stt()
    assert (settings.model, settings.words, settings.api_key) == ("older", [], None)
    assert "stt-worker@2" in caplog.text


HOSTILE = {
    "an unlisted writer": delta({"model": "evil"}, 9, by=STRANGER),
    "another fleet": delta({"model": "evil"}, 9, fleet="f" * 32),
    "a changed byte": delta({"model": "good"}, 9).replace(b"good", b"evil"),
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_unsigned_on_the_disk_reaches_settings(
    stage: Stage, caplog: pytest.LogCaptureFixture, raw: bytes
) -> None:
    stage.store(delta({"model": "signed"}, 1), raw)
    assert Stt().model == "signed"
    assert "do not count" in caplog.text


def test_a_trust_document_of_another_root_makes_nothing_valid(stage: Stage) -> None:
    forged = STRANGER.sign("trust", FLEET, b"{}")
    stage.store(delta({"model": "evil"}, 1), trust=[forged])
    assert Stt().model == "small"


def test_a_compromised_writers_values_are_void(stage: Stage) -> None:
    stage.store(delta({"model": "before"}, 1))
    assert Stt().model == "before"
    stage.store(trust=[trust_raw(), trust_raw(2, status="compromised")])
    assert Stt().model == "small"


def test_a_corrupt_replica_is_no_reason_not_to_start(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.store(delta({"model": "fleet"}, 1))
    stage.replica_path.write_bytes(b"not a database " * 400)
    assert Stt().model == "small"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "replica" in caplog.text


def test_a_corrupt_replica_is_read_from_the_last_known_good(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.keep(delta({"model": "kept"}, 1))
    stage.store()
    stage.replica_path.write_bytes(b"not a database " * 400)
    settings = Stt()
    assert settings.model == "kept"
    assert "last known good" in caplog.text
    winner = explain(settings, "model").winner
    assert winner is not None
    assert winner.arrived == "last known good"


def test_no_replica_is_one_line_of_information(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert Stt().model == "small"
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_settings_write_nothing_even_where_they_could(stage: Stage) -> None:
    stage.store(delta({"model": "fleet"}, 1))
    before = sorted(stage.environment.state_dir.rglob("*"))
    Stt()
    assert sorted(stage.environment.state_dir.rglob("*")) == before


def test_a_read_only_state_directory_is_read(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with ordinary_dir() as directory:

        def read_only() -> None:
            there = Stage(directory / "state")
            there.store(delta({"model": "fleet"}, 1))
            inner = there.replica_path.parent
            inner.chmod(stat.S_IRUSR | stat.S_IXUSR)
            monkeypatch.setenv("TARS_SETTINGS_STATE_DIR", str(directory / "state"))
            with pytest.raises(PermissionError):
                (inner / "probe").touch()
            assert Stt().model == "fleet"

        as_ordinary_user(read_only)


# --- what does not validate ------------------------------------------------------------------------------------------


def test_values_that_do_not_validate_fall_back_to_the_last_known_good(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.keep(delta({"vad_threshold": 0.25, "model": "kept"}, 1))
    stage.store(delta({"vad_threshold": 7, "words": ["new"]}, 2), delta({"model": "newer"}, 3))
    settings = Stt()
    assert (settings.vad_threshold, settings.model, settings.words) == (0.25, "kept", [])
    assert "running on the last known good" in caplog.text


def test_without_a_last_known_good_the_named_deltas_are_left_out_whole(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.store(
        delta({"vad_threshold": 7, "model": "bad"}, 1),
        delta({"words": ["fine"]}, 2),
        delta({"audio.rate": "x", "audio.gain": 3}, 3),
    )
    settings = Stt()
    assert (settings.vad_threshold, settings.model, settings.words) == (0.5, "small", ["fine"])
    assert settings.audio == Audio(gain=2.0, rate=8000)
    assert "stt-worker@1 (vad_threshold)" in caplog.text
    assert "stt-worker@3 (audio.rate)" in caplog.text


def test_a_last_known_good_that_does_not_validate_either_is_passed_over(stage: Stage) -> None:
    stage.keep(delta({"vad_threshold": "narrowed by a new release"}, 1))
    stage.store(delta({"vad_threshold": 8}, 2), delta({"model": "fine"}, 3))
    assert (Stt().vad_threshold, Stt().model) == (0.5, "fine")


class Range(Settings, service="stt-worker"):
    low: int = 1
    high: int = 10
    other: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


def test_a_rule_across_fields_leaves_out_the_newest(stage: Stage) -> None:
    stage.store(delta({"low": 5}, 1), delta({"high": 3}, 2), delta({"other": "fine"}, 3))
    settings = Range()
    assert (settings.low, settings.high, settings.other) == (5, 10, "fine")


def test_what_fits_in_the_end_is_taken_back(stage: Stage) -> None:
    stage.store(delta({"high": 0}, 1), delta({"other": "newest, and innocent"}, 2))
    settings = Range()
    assert (settings.high, settings.other) == (10, "newest, and innocent")


def test_a_required_field_that_nobody_sets_raises(stage: Stage) -> None:
    class Needs(Settings, service="stt-worker"):
        needed: int
        model: str = ""

    stage.store(delta({"model": "fleet"}, 1))
    with pytest.raises(ValidationError, match="needed") as caught:
        Needs()
    assert caught.value.__notes__ == ["needed: no source sets it"]  # type: ignore[attr-defined]
    stage.store(delta({"needed": 5}, 2))
    assert Needs().needed == 5


# --- errors ----------------------------------------------------------------------------------------------------------


def _everything(error: BaseException) -> str:
    told = [str(error), repr(error), *getattr(error, "__notes__", ()), repr(getattr(error, "doc", ""))]
    if isinstance(error, ValidationError):
        told += [repr(error.errors()), error.json()]
    seen = error.__context__ or error.__cause__
    return "\n".join(told) + (_everything(seen) if seen is not None else "")


class Talkative(Settings, service="stt-worker"):
    model_config = SettingsConfigDict(env_prefix="STT_")
    size: int = 1
    words: list[str] = []
    api_key: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _quotes(self) -> Talkative:
        if self.token.get_secret_value():
            raise ValueError(f"the token {self.token.get_secret_value()} is bad")
        return self


@pytest.mark.parametrize("name", ["STT_SIZE", "STT_TOKEN", "STT_WORDS"])
def test_errors_name_the_source_and_never_the_value(stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "canary-9")
    monkeypatch.setenv("STT_API_KEY", "canary-8")
    with pytest.raises(ValueError, match=r"validation error|STT_|words") as caught:
        Talkative()
    assert "canary" not in _everything(caught.value)
    frames = []
    trace = caught.value.__traceback__
    while trace is not None:
        if "tars_settings" in trace.tb_frame.f_code.co_filename and "tests" not in trace.tb_frame.f_code.co_filename:
            frames.append(repr(trace.tb_frame.f_locals))
        trace = trace.tb_next
    assert frames
    assert "canary" not in "".join(frames)


class Open(Settings, service="stt-worker"):
    model_config = SettingsConfigDict(env_prefix="STT_")
    size: int = 1


def test_a_class_without_secrets_has_inputs_in_errors_and_never_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_SIZE", "canary-9")
    with pytest.raises(ValidationError) as caught:
        Open()
    assert [line["input"] for line in caught.value.errors()] == ["canary-9"]
    assert "canary" not in f"{caught.value}{caught.value!r}"


@pytest.mark.parametrize(
    "line",
    ["ANOTHER_PROGRAMS_KEY=canary-9", "DATABASE=postgres://robot:canary-9@db/1", "IDENTITY=sk-canary-9-canary-9"],
)
def test_what_a_class_does_not_know_is_masked_where_it_looks_like_a_secret(tmp_path: Path, line: str) -> None:
    (tmp_path / "env").write_text(f"{line}\nSTT_SIZE=many\n")
    with pytest.raises(ValidationError) as caught:
        Open(_env_file=tmp_path / "env")
    assert [line["type"] for line in caught.value.errors()] == ["int_parsing", "extra_forbidden"]
    assert "canary" not in _everything(caught.value)


def test_what_a_class_does_not_know_and_looks_harmless_is_in_errors_as_pydantics_users_expect(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("COLOR=canary-9\n")
    with pytest.raises(ValidationError) as caught:
        Open(_env_file=tmp_path / "env")
    assert [line["input"] for line in caught.value.errors()] == ["canary-9"]
    assert "canary" not in f"{caught.value}{caught.value!r}"


def test_an_argument_is_in_no_frame_of_ours() -> None:
    with pytest.raises(ValidationError) as caught:
        Talkative(size="canary-9")
    trace, frames = caught.value.__traceback__, []
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "__init__":
            frames.append(repr(trace.tb_frame.f_locals))
        trace = trace.tb_next
    assert frames
    assert "canary" not in "".join(frames)


def test_notes_name_the_variable_and_the_line(stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nSTT_SIZE=many\n")
    with pytest.raises(ValidationError) as caught:
        Talkative(_env_file=tmp_path / "env")
    assert caught.value.__notes__ == [f"size: from the dotenv {tmp_path / 'env'}:2 STT_SIZE"]  # type: ignore[attr-defined]
    (tmp_path / "env").write_text("FOREIGN=1\n")
    with pytest.raises(ValidationError) as caught:
        Talkative(_env_file=tmp_path / "env")
    assert caught.value.__notes__ == [f"foreign: from the dotenv {tmp_path / 'env'}:1 FOREIGN"]  # type: ignore[attr-defined]
    monkeypatch.setenv("STT_SIZE", "many")
    with pytest.raises(ValidationError) as caught:
        Talkative()
    assert caught.value.__notes__ == ["size: from the environment STT_SIZE"]  # type: ignore[attr-defined]


def test_the_environments_error_is_raised_although_the_fleet_is_fine(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.store(delta({"model": "fleet", "vad_threshold": 9}, 1))
    monkeypatch.setenv("STT_VAD_THRESHOLD", "loud")
    with pytest.raises(ValidationError) as caught:
        Stt()
    assert [line["loc"] for line in caught.value.errors()] == [("vad_threshold",)]


def test_a_malformed_variable_of_ours_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARS_SETTINGS_FLEET", "ed25519:canary")
    with pytest.raises(ConfigurationError, match=r"TARS_SETTINGS_FLEET is malformed.*tars-settings init") as caught:
        Stt()
    assert "canary" not in _everything(caught.value)
    assert os.environ["TARS_SETTINGS_FLEET"]
