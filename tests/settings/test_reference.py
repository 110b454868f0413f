"""What a class says of itself to people: About, entries, references, and a dotenv template that loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr

from tars_settings import About, Settings, SettingsConfigDict
from tars_settings.schema import check, entries_of, markdown, rst, schema_hash, schema_of
from tars_settings.schema.shape import is_schema
from tars_settings.sources.template import dotenv, variable_of


class Audio(BaseModel):
    gain: float = Field(default=1.0, ge=0, description="Amplification")
    rate: Annotated[int, About(unit="Hz", complexity="advanced", help="Must fit the microphone.")] = 16_000


class Stt(Settings, service="stt-worker"):
    model_config = SettingsConfigDict(env_prefix="STT_", env_nested_delimiter="__")
    vad_threshold: float = Field(default=0.5, ge=0, le=1, description="Opens the gate", examples=[0.4])
    language: Literal["en", "de"] = "en"
    model: str
    words: list[str] = ["tars"]
    note: str = "a # b"
    api_key: SecretStr | None = Field(default=SecretStr("canary"), description="The key", examples=["canary"])
    audio: Annotated[Audio, About(help="The sound card.")] = Audio(gain=2)


class Flat(Settings, service="flat"):
    audio: Audio = Audio()
    level: str = Field(default="info", validation_alias="LOG_LEVEL")


SCHEMA = schema_of(Stt)


def test_what_is_said_about_a_field_travels_in_the_schema() -> None:
    rate = {one.key: one for one in entries_of(SCHEMA)}["audio.rate"]
    assert (rate.unit, rate.complexity, rate.help) == ("Hz", "advanced", "Must fit the microphone.")
    root = json.loads(SCHEMA)
    assert root["$defs"]["Audio"]["properties"]["rate"]["x-tars-unit"] == "Hz"
    assert root["properties"]["audio"]["x-tars-help"] == "The sound card.", "a model can be told about too"


def test_about_changes_nothing_of_what_validates() -> None:
    assert Stt(model="x", audio={"rate": "8000"}).audio.rate == 8000
    assert check(SCHEMA, "audio.rate", 8000) == []
    assert check(SCHEMA, "audio.rate", "fast") != []


def test_a_word_about_a_field_makes_another_schema() -> None:
    class Other(Settings, service="stt-worker"):
        x: Annotated[int, About(unit="s")] = 1

    class Same(Settings, service="stt-worker"):
        x: Annotated[int, About(unit="ms")] = 1

    assert schema_hash(schema_of(Other)) != schema_hash(schema_of(Same))


def test_entries_are_the_leaves_with_all_that_is_known() -> None:
    entries = {one.key: one for one in entries_of(SCHEMA)}
    assert sorted(entries) == [
        "api_key",
        "audio.gain",
        "audio.rate",
        "language",
        "model",
        "note",
        "vad_threshold",
        "words",
    ]
    threshold = entries["vad_threshold"]
    assert (threshold.told, threshold.default) == ("number, at least 0, at most 1", "0.5")
    assert threshold.text == "Opens the gate. For example 0.4."
    assert (entries["audio.gain"].default, entries["model"].required) == ("2.0", True)
    assert entries["language"].type == 'one of "en", "de"'
    assert entries["words"].type == "list of string"


@pytest.mark.parametrize("render", [markdown, rst, lambda schema: dotenv(Stt, schema)])
def test_no_rendering_shows_a_secret(render: Any) -> None:
    text = render(SCHEMA)
    assert "canary" not in text
    assert "secret" in text
    assert "Must fit the microphone." in text


@pytest.mark.parametrize(
    "node",
    [
        {"$ref": "#/$defs/tree"},
        {"examples": 5},
        {"x-tars-complexity": {"a": 1}, "x-tars-unit": 7, "description": ["x"]},
        {"type": ["string", "null"], "format": 4},
    ],
)
def test_a_schema_of_anyone_s_is_told_in_some_words(node: dict[str, Any]) -> None:
    """A list of itself (pydantic makes one of a recursive type), and keywords that hold what nobody expects."""
    tree = {"type": "array", "items": {"$ref": "#/$defs/tree"}}
    schema = json.dumps({"$defs": {"tree": tree}, "properties": {"x": node}}).encode()
    assert is_schema(schema), "workers' schemas of this form are heard"
    (entry,) = entries_of(schema)
    assert entry.key == "x"
    assert "tree" not in entry.type


def test_references_name_every_setting() -> None:
    for text in (markdown(SCHEMA), rst(SCHEMA)):
        assert all(one.key in text for one in entries_of(SCHEMA))
        assert text.startswith(("# stt-worker\n", "stt-worker\n==========\n"))


def test_a_template_loads_as_it_is_and_with_every_line_in_use(tmp_path: Path) -> None:
    template = dotenv(Stt, SCHEMA)
    path = tmp_path / "env"
    path.write_text(template.replace("STT_MODEL=", "STT_MODEL=base"))
    plain = Stt(_env_file=path)
    assert plain == Stt(model="base")
    used = [line.removeprefix("# ") for line in template.splitlines() if "STT_" in line and "API_KEY" not in line]
    assert len(used) == 7
    path.write_text("\n".join(used).replace("STT_MODEL=", "STT_MODEL=base"))
    assert Stt(_env_file=path) == plain, "the template's values are the defaults"


def test_a_variable_is_named_as_the_class_reads_it() -> None:
    assert variable_of(Stt, "audio.rate") == "STT_AUDIO__RATE"
    assert variable_of(Flat, "level") == "LOG_LEVEL"
    assert (variable_of(Flat, "audio.rate"), variable_of(Flat, "audio.rate", exact=True)) == ("AUDIO", "")
    assert "JSON of the whole model\n# AUDIO=\n" in dotenv(Flat, schema_of(Flat))
