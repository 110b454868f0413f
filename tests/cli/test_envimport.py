"""``import --service``: an ordinary .env file becomes pushes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tars_settings.cli.demo.processes import Worker
from tests.brokers import eventually
from tests.cli.documents import assert_fits
from tests.cli.running import Plant
from tests.real_input import dotenv_of

SECRET = "sk-in-a-file-of-ours"
FILE = f"""\
# of the kitchen
STT_VAD_THRESHOLD=0.6
STT_VAD_THRESHOLD=0.7
export STT_LOG_LEVEL=DEBUG
STT_API_KEY={SECRET}
STT_SILENCE_S=99
STT_BACKEND=
TARS_SETTINGS_BROKER=mqtt://elsewhere
STRANGER=1
"""


@pytest.fixture(scope="module")
def worker(plant: Plant) -> Worker:
    made = plant.employ("stt-worker", "kitchen")
    plant.awaited(made)
    eventually(lambda: plant.broker.retained("system/config/stt-worker/_schema/+"), what="its schema is there")
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "stt.env"
    path.write_text(FILE)
    return path


@pytest.mark.usefixtures("worker")
def test_a_dry_run_shows_what_it_would_do_and_pushes_nothing(plant: Plant, file: Path) -> None:
    before = plant.broker.retained("system/config/#")
    done = plant.cli("import", str(file), "--service", "stt-worker", "--dry-run", "--json")
    assert done.code == 1, "a value does not fit"
    assert_fits("import --service", done.document())
    assert [one["key"] for one in done.document()["set"]] == ["vad_threshold", "log_level", "api_key"]
    assert done.document()["pushes"] == []
    assert plant.broker.retained("system/config/#") == before
    assert SECRET not in done.out + done.err


def test_the_command_pushes_the_file_and_says_what_it_left(plant: Plant, worker: Worker, file: Path) -> None:
    done = plant.cli("import", str(file), "--service", "stt-worker", "--reason", "from .env")
    assert done.code == 1, "a value does not fit"
    rows = {row[0]: row for row in done.rows()}
    assert rows["3"][2:] == ["set", "vad_threshold", "0.7"]
    assert rows["5"][2:] == ["set", "api_key", "**********"]
    assert {number for number, row in rows.items() if row[2] == "left"} == {"2", "6", "7", "8", "9"}
    assert "3 settings set for stt-worker, 5 lines left, 1 comment" in done.err
    assert SECRET not in done.out + done.err
    eventually(lambda: worker.look()["values"]["vad_threshold"] == 0.7, what="the worker has it")
    held = plant.broker.retained("system/config/stt-worker/#")
    assert SECRET.encode() not in b"".join(held.values())
    assert plant.cli("get", "stt-worker", "api_key", "--reveal", "api_key").out == f"{SECRET}\n"


def test_more_keys_than_a_delta_takes_become_several(plant: Plant, tmp_path: Path) -> None:
    file = tmp_path / "many.env"
    file.write_text("".join(f"MANY_K{number}={number}\n" for number in range(70)))
    words = ("import", str(file), "--service", "many", "--env-prefix", "MANY_", "--plain", "--json")
    done = plant.cli(*words)
    assert done.code == 0, done.err
    assert [one["epoch"] for one in done.document()["pushes"]] == [1, 2]
    held = plant.cli("list", "many", "--offline", "--json").document()["values"]
    assert {one["key"]: one["value"] for one in held if one["scope"] == "many"} == {f"k{n}": n for n in range(70)}


def test_a_real_file_reaches_the_fleet_by_names_alone(plant: Plant) -> None:
    """No worker of that service ever ran: names go by rule, and nothing is taken for plain that nobody called so."""
    words = ("import", str(dotenv_of("router")), "--service", "router-2", "--json")
    cautious = plant.cli(*words, "--dry-run").document()
    assert cautious["set"] == []
    assert {one["why"] for one in cautious["left"]} >= {"undescribed"}
    done = plant.cli(*words, "--plain")
    assert done.code == 0, done.err
    assert done.document()["set"]
    assert [one["stage"] for one in done.document()["pushes"]] == ["retained"]


@pytest.mark.parametrize(
    "words",
    [
        ("nothing.env",),
        (".", "--service", "stt-worker"),
        ("stt.env", "stt.env", "--service", "stt-worker"),
    ],
)
def test_what_can_not_be_meant_is_usage(plant: Plant, file: Path, words: tuple[str, ...]) -> None:
    (file.parent / "nothing.env").write_text("A=1\n")
    paths = [str(file.parent / word) if word.endswith("env") or word == "." else word for word in words]
    assert plant.cli("import", *paths).code == 2


def test_a_secret_that_the_file_does_not_set_is_refused_before_anything_is_pushed(plant: Plant, file: Path) -> None:
    before = plant.broker.retained("system/config/#")
    done = plant.cli("import", str(file), "--service", "stt-worker", "--secret", "nothing.of_it")
    assert done.code == 2
    assert plant.broker.retained("system/config/#") == before
