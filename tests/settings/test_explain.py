"""explain(): the winner of each key, and what it shadows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import AliasChoices, BaseModel, Field, Secret, SecretStr

from tars_settings import Settings, SettingsConfigDict, explain
from tars_settings.provenance import Candidate
from tests.settings.stage import Stage, delta, secret


class Login(BaseModel):
    user: str = "u"
    password: SecretStr = "canary"  # type: ignore[assignment] # not validated: the trap


class Stt(Settings, service="stt-worker"):
    model_config = SettingsConfigDict(env_prefix="STT_", env_nested_delimiter="__")
    x: int = 1
    name: str = Field(default="n", validation_alias=AliasChoices("NAME_A", "NAME_B"))
    login: Login = Login()
    number: Secret[int] = Secret(31337)
    plain: str = "p"
    made: list[int] = Field(default_factory=list)


def _winner(settings: Settings, key: str) -> Candidate:
    winner = explain(settings, key).winner
    assert winner is not None
    return winner


def test_every_layer_is_named_strongest_first(stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage.store(
        delta({"x": 10}, 4, reason="noisy kitchen"),
        delta({"x": 11}, 9, scope="_all"),
        delta({"x": 12}, 2, scope="stt-worker@pi-3"),
    )
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "STT_X").write_text("20")
    (tmp_path / "env").write_text("# comment\nexport STT_X=30\n")
    monkeypatch.setenv("stt_X", "40")
    settings = Stt(x=50, _env_file=tmp_path / "env", _secrets_dir=secrets)
    explained = explain(settings, "x")
    assert [(one.source, one.value) for one in explained.candidates] == [
        ("argument", 50),
        ("environment", "40"),
        ("dotenv", "30"),
        ("secrets directory", "20"),
        ("fleet", 12),
        ("fleet", 10),
        ("fleet", 11),
        ("default", 1),
    ]
    assert [one.where for one in explained.candidates[1:4]] == [
        "stt_X", f"{tmp_path / 'env'}:2 STT_X", str(secrets / "STT_X"),
    ]  # fmt: skip
    fleet = explained.candidates[5]
    assert (fleet.scope, fleet.epoch, fleet.writer, fleet.reason) == ("stt-worker", 4, "ops-1", "noisy kitchen")
    assert (fleet.at, fleet.by, fleet.arrived) == ("2026-01-02T03:04:05Z", "a person", "replica")
    assert explained.value == 50
    assert "noisy kitchen" in str(explained)
    json.dumps(explained.as_dict())


def test_nested_leaves_and_aliases_are_named_by_their_variable(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.store(delta({"login.user": "fleet", "name": "fleet"}, 1))
    monkeypatch.setenv("STT_LOGIN__USER", "environment")
    monkeypatch.setenv("NAME_B", "second")
    settings = Stt()
    for key, where in {"login.user": "STT_LOGIN__USER", "name": "NAME_B"}.items():
        assert _winner(settings, key).where == where
        assert explain(settings, key).shadowed[0].source == "fleet"


def test_a_default_wins_where_nobody_says_anything(stage: Stage) -> None:
    stage.store(delta({"x": 2}, 1), delta({}, 2, unset=["x"]))
    explained = explain(Stt(), "x")
    assert [one.source for one in explained.candidates] == ["default"]
    assert _winner(Stt(), "made").where == "made by a factory"


def test_what_was_unset_out_of_a_whole_model_is_no_candidate(stage: Stage) -> None:
    stage.store(delta({"login": {"user": "fleet"}}, 1))
    assert _winner(Stt(), "login.user").source == "fleet"
    stage.store(delta({}, 2, unset=["login.user"]))
    assert [one.source for one in explain(Stt(), "login.user").candidates] == ["default"]


def test_all_keys_are_explained_in_declared_order() -> None:
    explained = explain(Stt())
    assert [one.key for one in explained] == [
        "x", "name", "login.user", "login.password", "number", "plain", "made",
    ]  # fmt: skip
    assert set(explained.as_dict()) == {one.key for one in explained}


def test_secrets_are_masked_by_type_and_by_how_they_came(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.store(delta({}, 1, secrets=[secret("canary", key="plain")]))
    monkeypatch.setenv("STT_NUMBER", "31337")
    monkeypatch.setenv("STT_LOGIN__PASSWORD", "canary")
    settings = Stt()
    assert settings.plain == "canary"
    told = f"{explain(settings)} {explain(settings)!r} {explain(settings).as_dict()} {explain(settings, 'login')!r}"
    assert "canary" not in told
    assert "31337" not in told
    assert explain(settings, "number").value == "**********"


def test_what_came_from_nowhere_is_not_known() -> None:
    for settings in (Stt.model_construct(), Stt().model_copy()):
        explained = explain(settings, "x")
        assert (explained.known, explained.winner) == (False, None)
        assert "not known" in str(explained)


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(KeyError, match="no key 'nope'"):
        explain(Stt(), "nope")
    with pytest.raises(KeyError):
        explain(Stt(), "__class__")
