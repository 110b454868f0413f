"""Lines of an ordinary .env file, and what becomes of each. No broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from tars_settings import Settings, SettingsConfigDict
from tars_settings.cli.envfile import parse_env, read_env
from tars_settings.cli.envimport import EnvOptions, Known, Plan, plan
from tars_settings.errors import ReplicaError, UsageError
from tars_settings.schema import schema_of, variables_of
from tests.real_input import WORKERS, described, dotenv_of, settings_classes


class Audio(BaseModel):
    gain: float = 1.0


class Kitchen(Settings):
    model_config = SettingsConfigDict(service="kitchen", env_prefix="KITCHEN_", env_nested_delimiter="__")
    threshold: float = Field(default=0.5, ge=0, le=1)
    words: list[str] = []
    name: str = "k"
    pem: str = ""
    api_key: SecretStr | None = None
    audio: Audio = Audio()
    legacy: int = Field(default=0, validation_alias="OLD_NAME")


SCHEMA = schema_of(Kitchen)


def planned(text: str, *, known: Known | None = None, **options: Any) -> Plan:
    known = Known((SCHEMA,)) if known is None else known
    return plan(parse_env(text), known, EnvOptions("kitchen", **options))


def set_by(text: str, **more: Any) -> dict[str, Any]:
    return {entry.key: entry.value for entry in planned(text, **more).entries}


def left_of(text: str, **more: Any) -> list[tuple[int, str, str]]:
    return [(left.number, left.name, left.why) for left in planned(text, **more).left]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("KITCHEN_THRESHOLD=0.7", {"threshold": 0.7}),
        ("kitchen_threshold=0.7", {"threshold": 0.7}),
        ("export KITCHEN_NAME=a b", {"name": "a b"}),
        ("KITCHEN_NAME='it # is'", {"name": "it # is"}),
        ("KITCHEN_NAME=it # is", {"name": "it"}),
        ("KITCHEN_NAME=a#b", {"name": "a#b"}),
        ("KITCHEN_NAME=0.7", {"name": "0.7"}),
        ('KITCHEN_WORDS=["a", "b"]', {"words": ["a", "b"]}),
        ("KITCHEN_AUDIO__GAIN=2", {"audio.gain": 2}),
        ('KITCHEN_AUDIO={"gain": 3}', {"audio": {"gain": 3}}),
        ("OLD_NAME=3", {"legacy": 3}),
        ('KITCHEN_PEM="-----BEGIN X-----\\nabc\\n"', {"pem": "-----BEGIN X-----\nabc\n"}),
        ('KITCHEN_PEM="-----BEGIN X-----\nabc\n"', {"pem": "-----BEGIN X-----\nabc\n"}),
    ],
)
def test_a_line_is_typed_by_the_schema(text: str, expected: dict[str, Any]) -> None:
    assert set_by(text) == expected
    assert left_of(text) == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("# a comment", (1, "", "comment")),
        ("#KITCHEN_NAME=x", (1, "KITCHEN_NAME", "commented out")),
        ("\n\nno assignment at all", (3, "", "malformed")),
        ("KITCHEN_NAME", (1, "KITCHEN_NAME", "no value")),
        ("KITCHEN_NAME=", (1, "KITCHEN_NAME", "empty")),
        ("KITCHEN_NAME=${HOME}/x", (1, "KITCHEN_NAME", "interpolation")),
        ("KITCHEN_PEM=-----BEGIN X-----\\nabc\\n", (1, "KITCHEN_PEM", "pem")),
        ("TARS_SETTINGS_BROKER=mqtt://x", (1, "TARS_SETTINGS_BROKER", "ours")),
        ("STRANGER=1", (1, "STRANGER", "unknown")),
        ("KITCHEN_LEGACY=1", (1, "KITCHEN_LEGACY", "unknown")),
        ("KITCHEN_THRESHOLD=7", (1, "KITCHEN_THRESHOLD", "does not fit")),
        ("KITCHEN_WORDS=a,b", (1, "KITCHEN_WORDS", "does not fit")),
    ],
)
def test_a_line_that_is_left_is_named_with_the_reason(text: str, left: tuple[int, str, str]) -> None:
    assert left_of(text) == [left]
    assert set_by(text) == {}


def test_of_repeats_the_last_counts_and_the_others_are_named() -> None:
    text = "KITCHEN_NAME=a\nKITCHEN_THRESHOLD=1\nKITCHEN_NAME=b\nkitchen_name=c\n"
    assert set_by(text) == {"name": "c", "threshold": 1}
    assert left_of(text) == [(1, "KITCHEN_NAME", "repeated"), (3, "KITCHEN_NAME", "repeated")]


def test_no_reason_and_no_note_holds_a_value() -> None:
    text = "KITCHEN_THRESHOLD=canary1\nKITCHEN_NAME=canary2 # canary3\nKITCHEN_API_KEY=canary4\ncanary5 x\n"
    found = planned(text)
    told = json.dumps([[left.message for left in found.left], found.notes])
    assert "canary" not in told
    assert [entry.shown for entry in found.entries if entry.key == "api_key"] == ["**********"]


def test_a_prefix_stands_in_for_the_classs_own() -> None:
    assert set_by("STT_NAME=x\nKITCHEN_NAME=y", prefix="STT_") == {"name": "x"}


def test_without_a_schema_names_go_by_rule_and_somebody_must_say_what_is_a_secret() -> None:
    text = "STT_VAD__GAIN=2\nSTT_KEY=x\nOTHER=1"
    nothing = Known()
    assert [left[2] for left in left_of(text, known=nothing, prefix="STT_")] == [
        "undescribed",
        "undescribed",
        "unknown",
    ]
    found = planned(text, known=nothing, prefix="STT_", plain=True, secret=("key",))
    assert {entry.key: entry.secret for entry in found.entries} == {"vad.gain": False, "key": True}


def test_a_strangers_schema_leads_no_line_astray() -> None:
    """It claims a variable that holds a secret for a setting that is none, and one that is none of the fleet's."""
    mark = {"type": "string", "x-tars-env": ["KITCHEN_API_KEY", "AWS_SECRET"]}
    rogue = json.dumps({"properties": {"note": mark}}).encode()
    text = "KITCHEN_API_KEY=canary\nAWS_SECRET=canary\n"
    assert set_by(text, known=Known((rogue,))) == {"note": "canary"}, "alone it is believed, as by push"
    assert set_by(text, known=Known((rogue, SCHEMA))) == {}
    assert [left[2] for left in left_of(text, known=Known((SCHEMA, rogue)))] == ["undescribed", "undescribed"]


def test_variables_are_in_the_published_schema() -> None:
    names = variables_of(SCHEMA)
    assert names["KITCHEN_AUDIO__GAIN"] == "audio.gain"
    assert names["OLD_NAME"] == "legacy"
    assert variables_of(SCHEMA, "")["THRESHOLD"] == "threshold"


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"A=\xff\xfe")
    with pytest.raises(UsageError):
        read_env(file)


def test_a_file_that_is_not_there_is_told_in_the_systems_words(tmp_path: Path) -> None:
    with pytest.raises(ReplicaError) as caught:
        read_env(tmp_path / "nothing.env")
    assert str(caught.value) == f"{tmp_path / 'nothing.env'} can't be read: No such file or directory"


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("A=1", None),
        ("export A=1", "A: the word 'export' was passed over"),
        ("exported=1", None),
        ("A=export 1", None),
        ("A=a#b", "A: the '#' is part of the value"),
        ("A='a#b'", None),
        ('A="a #b"', None),
        ("A=a #b", "A: what follows ' #' was taken for a comment; put the value into quotes where it is none"),
    ],
)
def test_what_is_said_of_a_line_that_is_taken(line: str, note: str | None) -> None:
    found = parse_env(f"\n{line}\n")
    assert [one.number for one in found.lines] == [2]
    assert found.notes == (() if note is None else ((2, note),))


@pytest.mark.parametrize("worker", WORKERS)
def test_real_files_become_what_pydantic_reads_from_them(worker: str) -> None:
    """Every line that sets something of a worker's is taken, or left with a reason; and means what it meant."""
    cls = settings_classes()[worker]
    found = plan(read_env(dotenv_of(worker)), Known((schema_of(cls),), cls), EnvOptions(worker))
    assert found.entries
    read = cls()
    for entry in found.entries:
        value = getattr(read, entry.key)
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        assert plain == entry.value, f"line {entry.line.number}"
    ours = {field["env"].upper() for field in described(worker)}
    lost = [left for left in found.left if left.name.upper() in ours and left.why in ("unknown", "does not fit")]
    assert [(left.number, left.why) for left in lost] == []
    assert all(entry.secret for entry in found.entries if cls.model_fields[entry.key].annotation is SecretStr)
