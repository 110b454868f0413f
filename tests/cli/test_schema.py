"""``schema``: what settings there are, from a class or from what workers published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.documents import assert_fits
from tests.cli.running import Cli, Plant

MODULE = """
from typing import Annotated
from pydantic import Field, SecretStr
from tars_settings import About, Settings, SettingsConfigDict

class Ear(Settings, service="ear"):
    model_config = SettingsConfigDict(env_prefix="EAR_")
    threshold: float = Field(default=0.5, ge=0, le=1, description="Opens the gate")
    rate: Annotated[int, About(unit="Hz", complexity="advanced")] = 16000
    key: SecretStr = SecretStr("canary")
"""


@pytest.fixture
def ear(cli: Cli) -> Cli:
    """A command line beside a module with a class."""
    (cli.home / "robot.py").write_text(MODULE)
    return cli


def test_show_tells_what_a_class_takes(ear: Cli) -> None:
    done = ear("schema", "show", "--model", "robot:Ear")
    assert done.code == 0, done.err
    assert done.rows() == [
        ["key", "password", "(secret)", ""],
        ["threshold", "number, at least 0, at most 1", "0.5", "Opens the gate."],
    ]
    assert "1 advanced settings are not shown" in done.err
    assert len(ear("schema", "show", "--model", "robot:Ear", "--advanced").rows()) == 3
    document = ear("schema", "show", "--model", "robot:Ear", "--json").document()
    assert_fits("schema show", document)
    assert [one["unit"] for one in document["schemas"][0]["settings"]] == ["", "Hz", ""]


def test_check_names_what_does_not_fit(ear: Cli) -> None:
    done = ear("schema", "check", "-", "threshold=3", "rate=8000", "nothing=1", "--model", "robot:Ear", "--json")
    assert done.code == 1
    assert_fits("schema check", done.document())
    told = {one["key"]: one["complaints"] for one in done.document()["checked"]}
    assert told == {"threshold": ["must be at most 1"], "rate": [], "nothing": ["no schema in use has this key"]}
    assert ear("schema", "check", "-", "threshold=1", "--model", "robot:Ear").code == 0


@pytest.mark.parametrize("form", ["json", "env", "markdown", "rst"])
def test_export_prints_what_a_file_takes(ear: Cli, form: str) -> None:
    done = ear("schema", "export", "--model", "robot:Ear", "--format", form)
    assert done.code == 0, done.err
    assert "threshold" in done.out.lower()
    assert "canary" not in done.out
    document = ear("schema", "export", "--model", "robot:Ear", "--format", form, "--json").document()
    assert_fits("schema export", document)
    assert document["text"].strip() == done.out.strip()


def test_an_exported_template_is_a_dotenv_file(ear: Cli, tmp_path: Path) -> None:
    text = ear("schema", "export", "--model", "robot:Ear", "--format", "env").out
    assert "# EAR_THRESHOLD=0.5\n" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show",), "name a service"),
        (("export", "--model", "robot:Ear", "--format", "pdf"), "json, env, markdown or rst"),
        (("export", "ear", "--format", "env"), "needs --model"),
    ],
)
def test_a_wrong_call_is_told_what_to_type(ear: Cli, words: tuple[str, ...], message: str) -> None:
    done = ear("schema", *words)
    assert (done.code, message in done.err) == (2, True)


def test_schemas_come_from_the_workers(plant: Plant) -> None:
    plant.employ("stt-worker", "kitchen")
    plant.awaited()
    document = plant.cli("schema", "show", "stt-worker", "--advanced", "--json").document()
    assert "vad_threshold" in {one["key"] for one in document["schemas"][0]["settings"]}
    exported = json.loads(plant.cli("schema", "export", "stt-worker").out)
    assert exported["x-tars-service"] == "stt-worker"
    assert plant.cli("schema", "check", "stt-worker", "vad_threshold=7").code == 1
    nobody = plant.cli("schema", "show", "nobody")
    assert nobody.code == 1
    assert "--model module:Class" in nobody.err
