from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.documents import assert_fits
from tests.cli.running import Plant

SECRET = "canary-in-a-mine-robot-0451"
MASK = "**********"


@pytest.fixture(scope="module", autouse=True)
def values(plant: Plant) -> None:
    """Values in all three kinds of scope, a secret among them; no worker."""
    for words in (
        ("_all", "log_level=WARNING", "--reason", "quiet"),
        ("stt-worker", "log_level=INFO", "audio.gain=2", 'words=["tars", "kitchen"]', "--by", "ann"),
        ("stt-worker@kitchen", "audio.gain=3"),
        ("stt-worker@hall", "audio.gain=4"),
        ("tts-worker", "volume_percent=80"),
    ):
        done = plant.cli("push", *words, "--plain")
        assert done.code == 0, done.err
    done = plant.cli("push", "stt-worker", f"api_key={SECRET}", "--secret", "api_key")
    assert done.code == 0, done.err


def test_list_shows_one_line_a_value(plant: Plant) -> None:
    done = plant.cli("list")
    assert done.code == 0, done.err
    rows = {(row[0], row[1]): row for row in done.rows()}
    assert rows["_all", "log_level"][2:5] == ["WARNING", "1", rows["_all", "log_level"][4]]
    assert rows["_all", "log_level"][6] == "quiet"
    assert rows["stt-worker", "words"][2] == '["tars", "kitchen"]'
    assert rows["stt-worker@hall", "audio.gain"][2] == "4"
    assert rows["stt-worker", "api_key"][2] == MASK
    assert len(rows) == 8


def test_lists_document_holds_who_when_and_why(plant: Plant) -> None:
    document = plant.cli("list", "stt-worker", "--json").document()
    assert_fits("list", document)
    assert document["source"] == "broker"
    assert set(document["scopes"].values()) == {"ready"}
    assert {one["scope"] for one in document["values"]} == {
        "_all",
        "stt-worker",
        "stt-worker@kitchen",
        "stt-worker@hall",
    }
    gain = next(one for one in document["values"] if one["scope"] == "stt-worker" and one["key"] == "audio.gain")
    assert (gain["value"], gain["by"], gain["secret"]) == (2, "ann", False)
    api_key = next(one for one in document["values"] if one["key"] == "api_key")
    assert (api_key["value"], api_key["secret"]) == (MASK, True)


@pytest.mark.parametrize(
    ("target", "key", "expected"),
    [
        ("stt-worker", "log_level", "INFO\n"),
        ("tts-worker", "log_level", "WARNING\n"),
        ("_all", "log_level", "WARNING\n"),
        ("stt-worker", "audio.gain", "2\n"),
        ("stt-worker@kitchen", "audio.gain", "3\n"),
        ("stt-worker", "audio", '{"gain": 2}\n'),
        ("stt-worker", "words", '["tars", "kitchen"]\n'),
        ("stt-worker", "api_key", f"{MASK}\n"),
    ],
)
def test_get_folds_the_scopes_as_a_worker_does(plant: Plant, target: str, key: str, expected: str) -> None:
    done = plant.cli("get", target, key)
    assert (done.code, done.out) == (0, expected), done.err


def test_gets_document_says_what_it_is_made_of(plant: Plant) -> None:
    document = plant.cli("get", "stt-worker@kitchen", "audio.gain", "--json").document()
    assert_fits("get", document)
    assert (document["set"], document["value"]) == (True, 3)
    assert [one["scope"] for one in document["from"]] == ["stt-worker", "stt-worker@kitchen"]


def test_get_of_what_is_not_set_is_a_no(plant: Plant) -> None:
    done = plant.cli("get", "stt-worker", "nothing.of_it", "--json")
    assert done.code == 1
    assert_fits("get", done.document())
    assert (done.document()["set"], done.document()["value"]) == (False, None)


def test_a_secret_is_shown_when_its_key_is_named_and_that_is_noted(plant: Plant) -> None:
    done = plant.cli("--verbose", "get", "stt-worker", "api_key", "--reveal", "api_key")
    assert (done.code, done.out) == (0, f"{SECRET}\n")
    assert "revealed: stt-worker api_key" in done.err
    assert "tars_settings.audit" in done.err
    assert SECRET not in done.err


def test_another_key_named_reveals_nothing(plant: Plant) -> None:
    done = plant.cli("list", "--reveal", "log_level", "--json")
    assert done.code == 0, done.err
    assert SECRET not in done.out
    assert "revealed" not in done.err
    done = plant.cli("list", "--reveal", "api_key", "--json")
    assert SECRET in done.out


def test_a_secret_whose_key_is_not_here_stays_one(plant: Plant, tmp_path: Path) -> None:
    cli = plant.cli
    other = cli("init", "--dir", str(tmp_path / "other"), "--json").document()
    keys = {"TARS_SETTINGS_SECRET_KEYS": other["files"]["secret_keys"]}
    done = cli("get", "stt-worker", "api_key", "--reveal", "api_key", **keys)
    assert done.code == 1
    assert "api_key" in done.err
    assert done.out == ""
    assert cli("get", "stt-worker", "api_key", **keys).out == f"{MASK}\n"


def test_offline_reads_the_replica(plant: Plant) -> None:
    online = plant.cli("list", "--json").document()
    done = plant.cli("list", "--offline", "--json", TARS_SETTINGS_BROKER="mqtt://127.0.0.1:9")
    assert done.code == 0, done.err
    assert_fits("list", done.document())
    assert done.document()["source"] == "replica"
    assert done.document()["values"] == online["values"]


def test_without_the_broker_the_replica_is_shown_and_that_is_said(plant: Plant) -> None:
    done = plant.cli("get", "stt-worker", "audio.gain", "--broker", "mqtt://127.0.0.1:9")
    assert (done.code, done.out) == (0, "2\n")
    assert "127.0.0.1:9" in done.err
    assert "replica" in done.err


def test_a_reader_needs_no_writers_key(plant: Plant, tmp_path: Path) -> None:
    variables = {
        name: value
        for name, value in plant.cli.variables().items()
        if name not in ("TARS_SETTINGS_WRITER_KEY", "TARS_SETTINGS_STATE_DIR")
    }
    reader = type(plant.cli)(tmp_path, {name: variables[name] for name in variables if name.startswith("TARS_")})
    done = reader("get", "stt-worker", "audio.gain")
    assert (done.code, done.out) == (0, "2\n"), done.err


def test_what_came_over_the_network_can_not_steer_a_terminal(plant: Plant) -> None:
    done = plant.cli("push", "router", "greeting=\x1b[31mred\x07", "--plain", "--reason", "a\x1b]0;title\x07b")
    assert done.code == 0, done.err
    listed = plant.cli("list", "router")
    assert "\x1b" not in listed.out + listed.err
    assert "\\x1b[31mred\\x07" in listed.out
    assert plant.cli("get", "router", "greeting").out == "\x1b[31mred\x07\n", "a pipe gets the value itself"
    assert plant.cli("unset", "router", "greeting").code == 0


def test_a_leaf_that_was_unset_below_a_set_model_is_gone_and_listed(plant: Plant) -> None:
    """As a worker folds it: the model stays, without that leaf."""
    for words in (("push", "other", 'audio={"gain": 2, "rate": 8000}', "--plain"), ("unset", "other", "audio.gain")):
        done = plant.cli(*words)
        assert done.code == 0, done.err
    assert plant.cli("get", "other", "audio").out == '{"rate": 8000}\n'
    gone = plant.cli("get", "other", "audio.gain", "--json")
    assert gone.code == 1
    assert [(one["key"], one["unset"]) for one in gone.document()["from"]] == [("audio", False), ("audio.gain", True)]
    assert_fits("get", gone.document())
    assert {row[1]: row[2] for row in plant.cli("list", "other").rows() if row[0] == "other"} == {
        "audio": '{"gain": 2, "rate": 8000}',
        "audio.gain": "(unset)",
    }
