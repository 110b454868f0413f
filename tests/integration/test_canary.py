"""A canary in every kind of secret field: wherever the library writes or speaks, it is not found."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AliasChoices,
    BaseModel,
    Field,
    Secret,
    SecretBytes,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

import tars_settings
from tars_settings import Settings, SettingsConfigDict
from tars_settings.errors import InvalidValueError, TarsSettingsError
from tars_settings.schema import markdown, rst, schema_of
from tars_settings.sources.template import dotenv
from tars_settings.testing import MemoryFleet
from tests.brokers import eventually
from tests.canary import MARK

CANARY = MARK
NUMBER = 733773377
TRACES = (CANARY, CANARY[::-1], str(NUMBER))


class Vault(BaseModel):
    token: SecretStr = SecretStr("")
    rest: dict[str, SecretStr] = {}


class Cloud(BaseModel):
    kind: Literal["cloud"] = "cloud"
    password: SecretStr = SecretStr("")


class Local(BaseModel):
    kind: Literal["local"] = "local"
    path: str = ""


class Robot(Settings, service="robot"):
    model_config = SettingsConfigDict(env_prefix="ROBOT_", env_nested_delimiter="__")
    name: str = "tars"
    text: SecretStr = SecretStr("")
    maybe: SecretStr | None = None
    binary: SecretBytes = SecretBytes(b"")
    number: Secret[int] = Secret(0)
    several: list[SecretStr] = []
    pair: tuple[SecretStr, SecretStr] = (SecretStr(""), SecretStr(""))
    by_name: dict[str, SecretStr] = {}
    vault: Vault = Vault()
    backend: Annotated[Cloud | Local, Field(discriminator="kind")] = Local()
    aliased: SecretStr = Field(default=SecretStr(""), validation_alias=AliasChoices("ROBOT_OLD", "ROBOT_ALIASED"))
    fussy: SecretStr = SecretStr("")
    crossed: SecretStr = SecretStr("")

    @field_validator("fussy")
    @classmethod
    def _quotes_itself(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value().endswith("!"):
            raise ValueError(f"{value.get_secret_value()} is not good enough")
        return value

    @model_validator(mode="after")
    def _quotes_another(self) -> Robot:
        if self.crossed.get_secret_value() == "bad-" + CANARY:
            raise ValueError(f"{self.crossed.get_secret_value()} does not go with {self.name}")
        return self


PUSHED: dict[str, Any] = {
    "text": CANARY,
    "maybe": CANARY,
    "binary": CANARY,
    "number": NUMBER,
    "several": ["x", CANARY],
    "pair": [CANARY, "x"],
    "by_name": {"a": CANARY},
    "vault.token": CANARY,
    "vault.rest": {"deep": CANARY},
    "backend": {"kind": "cloud", "password": CANARY},
    "aliased": CANARY,
    "fussy": CANARY,
    "crossed": CANARY,
}


def opened(settings: Robot) -> list[Any]:
    """Return every planted secret as the application reads it."""
    backend = settings.backend
    assert settings.maybe is not None
    assert isinstance(backend, Cloud)
    return [
        *(one.get_secret_value() for one in (settings.text, settings.maybe, settings.several[1], settings.pair[0])),
        settings.binary.get_secret_value().decode(),
        settings.by_name["a"].get_secret_value(),
        *(one.get_secret_value() for one in (settings.vault.token, settings.vault.rest["deep"], backend.password)),
        *(one.get_secret_value() for one in (settings.aliased, settings.fussy, settings.crossed)),
    ]


class Ear:
    """Collects whatever is said, and finds the canary in it."""

    def __init__(self) -> None:
        self.heard: dict[str, str] = {}

    def hear(self, where: str, *things: Any) -> None:
        self.heard[where] = "\n".join(f"{thing}\n{thing!r}" for thing in things)

    def hear_error(self, where: str, error: BaseException) -> None:
        """Its words, its data, and its traceback with the locals of every frame that is not the test's."""
        told: list[str] = []
        seen: BaseException | None = error
        while seen is not None:
            told += [str(seen), repr(seen), repr(seen.args), *getattr(seen, "__notes__", ())]
            told += [repr(seen.errors()), seen.json()] if isinstance(seen, ValidationError) else []
            for frame, _ in traceback.walk_tb(seen.__traceback__):
                if frame.f_code.co_filename != __file__:
                    told.append(f"{frame.f_code.co_name} {frame.f_locals!r}")
            seen = seen.__cause__ or seen.__context__
        self.heard[where] = "\n".join(told)

    def found(self) -> list[str]:
        return [where for where, text in self.heard.items() if any(trace in text for trace in TRACES)]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFleet]:
    with MemoryFleet(tmp_path / "fleet") as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def planted(fleet: MemoryFleet) -> tuple[tars_settings.Live[Robot], Any]:
    live = fleet.join(Robot)
    report = fleet.push(Robot, PUSHED)
    assert report.applied == 1
    eventually(lambda: live.current.text.get_secret_value() == CANARY)
    assert set(opened(live.current)) == {CANARY}
    assert live.current.number.get_secret_value() == NUMBER
    return live, report


def files_of(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_pushed_secrets_are_in_no_word_and_no_file(fleet: MemoryFleet, logs: pytest.LogCaptureFixture) -> None:
    ear = Ear()
    live, report = planted(fleet)
    watch = live.watch()
    fleet.push(Robot, {"text": CANARY + "2", "name": "case"})
    change = watch.next(5)
    assert change is not None
    live.mark_good()
    plain = Robot()
    assert plain.text.get_secret_value() == CANARY + "2", "the canary is there"
    for name, settings in (("snapshot", live.current), ("Settings()", plain)):
        ear.hear(name, settings, settings.model_dump_json())
        explained = tars_settings.explain(settings)
        ear.hear(f"explain {name}", explained, explained.as_dict(), *explained, *(one.candidates for one in explained))
    ear.hear("live", live, live.status, change, watch, report, fleet.writer)
    ear.hear("winners", fleet.writer.view("robot"))
    ear.hear("presences", fleet.writer.presences("robot"))
    ear.hear("schemas", *fleet.writer.schemas("robot"))
    ear.hear("broker", fleet.broker.retained)
    ear.hear("references", markdown(schema_of(Robot)), rst(schema_of(Robot)), dotenv(Robot, schema_of(Robot)))
    live.close()
    fleet.writer.close()
    files = files_of(fleet.directory)
    assert any(path.name == "replica.sqlite3" for path in files)
    assert any(path.name == "cache.db" for path in files), "the last known good values"
    for path in files:
        ear.heard[str(path)] = path.read_bytes().decode("latin-1")
    ear.hear("log", logs.text, *(vars(record) for record in logs.records))
    assert ear.found() == []
    assert logs.records, "something was said"


@pytest.mark.parametrize(
    "values", [{"fussy": CANARY + "!"}, {"number": CANARY}, {"vault.rest": [CANARY]}, PUSHED | {"maybe": 1}]
)
def test_a_push_that_is_refused_at_the_writer_keeps_the_secret(
    fleet: MemoryFleet, logs: pytest.LogCaptureFixture, values: dict[str, Any]
) -> None:
    ear = Ear()
    with pytest.raises(InvalidValueError) as caught:
        fleet.writer.push(Robot, values)
    ear.hear_error("error", caught.value)
    ear.hear("log", logs.text)
    assert ear.found() == []


def test_a_push_that_a_worker_refuses_keeps_the_secret(fleet: MemoryFleet, logs: pytest.LogCaptureFixture) -> None:
    ear = Ear()
    live, _ = planted(fleet)
    report = fleet.push(Robot, {"crossed": "bad-" + CANARY, "name": "case"})
    assert [reply.fate for reply in report.replies] == ["refused"]
    assert "does not go with" in report.replies[0].message, "the validator's own words, masked"
    ear.hear("status", live.status, live.current, report, report.replies)
    ear.hear("broker", fleet.broker.retained)
    ear.hear("log", logs.text)
    assert ear.found() == []


ENVIRONMENT: dict[str, Callable[[pytest.MonkeyPatch], Any]] = {
    "a number": lambda patch: patch.setenv("ROBOT_NUMBER", CANARY),
    "no JSON": lambda patch: patch.setenv("ROBOT_SEVERAL", f"[{CANARY}"),
    "another shape": lambda patch: patch.setenv("ROBOT_VAULT", f'["{CANARY}"]'),
    "its own words": lambda patch: patch.setenv("ROBOT_FUSSY", CANARY + "!"),
    "another's words": lambda patch: patch.setenv("ROBOT_CROSSED", "bad-" + CANARY),
    "an unknown tag": lambda patch: patch.setenv("ROBOT_BACKEND", f'{{"kind": "{CANARY}", "password": "{CANARY}"}}'),
    "a leaf that is none": lambda patch: patch.setenv("ROBOT_VAULT__REST", f'["{CANARY}"]'),
}


@pytest.mark.parametrize("mistake", ENVIRONMENT)
def test_a_mistake_in_the_environment_is_told_without_the_secret(
    monkeypatch: pytest.MonkeyPatch, logs: pytest.LogCaptureFixture, mistake: str
) -> None:
    ear = Ear()
    monkeypatch.setenv("ROBOT_TEXT", CANARY)
    monkeypatch.setenv("ROBOT_OLD", CANARY)
    ENVIRONMENT[mistake](monkeypatch)
    with pytest.raises((ValueError, TarsSettingsError)) as caught:
        Robot(maybe=CANARY)
    ear.hear_error("error", caught.value)
    ear.hear("log", logs.text)
    assert ear.heard["error"]
    assert ear.found() == []


def test_a_join_that_fails_tells_no_secret(
    fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch, logs: pytest.LogCaptureFixture
) -> None:
    ear = Ear()
    monkeypatch.setenv("ROBOT_NUMBER", CANARY)
    monkeypatch.setenv("ROBOT_TEXT", CANARY)
    with pytest.raises(ValidationError) as caught, tars_settings.join(Robot):
        pass
    ear.hear_error("error", caught.value)
    ear.hear("log", logs.text)
    assert ear.found() == []


def test_the_ear_hears(fleet: MemoryFleet) -> None:
    ear = Ear()
    live, _ = planted(fleet)
    ear.hear("plain", live.current.text.get_secret_value())
    ear.hear("pickle", pickle.dumps(live.current))
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        ear.hear_error("error", error)
    assert ear.found() == ["plain", "pickle", "error"]
