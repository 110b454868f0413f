"""``keys``: who may write, changed over a real broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.documents import assert_fits
from tests.cli.running import Cli, Done, Plant

TRUST = "system/config/_trust"


@pytest.fixture(scope="module", autouse=True)
def worker(plant: Plant) -> None:
    """One worker that hears."""
    plant.employ("stt-worker", "kitchen")
    plant.awaited()


def listed(plant: Plant) -> dict[str, Any]:
    done = plant.cli("keys", "list", "--json")
    assert done.code == 0, done.err
    assert_fits("keys list", done.document())
    return dict(done.document())


def writer_of(plant: Plant, name: str) -> dict[str, Any]:
    return dict(next(one for one in listed(plant)["writers"] if one["name"] == name))


def new_writer(plant: Plant, name: str, *grants: str) -> dict[str, str]:
    """Make a writer's key, grant it something, and return the environment that pushes with it."""
    path = plant.cli.home / "fleet" / f"{name}.key"
    made = plant.cli("keys", "new", name, "--file", str(path), "--json")
    assert made.code == 0, made.err
    assert_fits("keys new", made.document())
    done = plant.cli("keys", "grant", name, *grants, "--public", made.document()["public"], "--json")
    assert done.code == 0, done.err
    assert_fits("keys grant", done.document())
    return {"TARS_SETTINGS_WRITER_KEY": str(path)}


def push(plant: Plant, word: str, **variables: str) -> Done:
    return plant.cli("push", "stt-worker", word, "--json", **variables)


def test_list_shows_the_root_and_the_first_writer(plant: Plant) -> None:
    found = listed(plant)
    assert (found["version"], found["threshold"], len(found["roots"]), found["source"]) == (1, 1, 1, "broker")
    assert [(one["status"], one["grants"]) for one in found["writers"]] == [("active", ["*", "_all"])]
    assert found["secret_keys"] == ["k1"]
    assert found["signed_by"] == [found["roots"][0]["kid"]]
    rows = plant.cli("keys", "list", "--offline").rows()
    assert [row[0] for row in rows] == ["root", "writer", "secret"]


def test_a_new_writer_writes_what_was_granted_and_nothing_else(plant: Plant) -> None:
    key = new_writer(plant, "tuner", "stt-worker.vad_threshold")
    done = push(plant, "vad_threshold=0.61", **key)
    assert done.code == 0, done.err
    assert plant.value("vad_threshold") == 0.61
    refused = push(plant, "silence_s=2", **key)
    assert refused.code == 1
    assert refused.document()["error"]["kind"] == "NotGrantedError"
    assert plant.value("silence_s") == 1.0


def test_a_grant_replaces_the_grants_before_it(plant: Plant) -> None:
    key = new_writer(plant, "night", "stt-worker.vad_threshold")
    assert plant.cli("keys", "grant", "night", "stt-worker.silence_s").code == 0
    assert writer_of(plant, "night")["grants"] == ["stt-worker.silence_s"]
    assert push(plant, "vad_threshold=0.9", **key).code == 1
    assert push(plant, "silence_s=1.5", **key).code == 0


def test_new_and_grant_refuse_what_would_go_wrong_later(plant: Plant) -> None:
    path = str(plant.cli.home / "fleet" / "writer.key")
    again = plant.cli("keys", "new", "ops", "--file", path)
    assert again.code == 3
    assert "left alone" in again.err
    before = plant.broker.retained(TRUST)
    for words, code in (
        (("nobody", "stt-worker"), 1),
        (("bad", "STT"), 2),
        (("bad", "stt-worker", "--public", "ed25519:abc"), 2),
        (("stt", "stt-worker", "--public", listed(plant)["roots"][0]["public"]), 1),
        (("night", "stt-worker", "--root-key", path), 3),
    ):
        done = plant.cli("keys", "grant", *words, "--json")
        assert done.code == code, (words, done.err)
        assert_fits("error", done.document())
    assert plant.broker.retained(TRUST) == before


def test_without_a_root_key_the_command_says_what_to_type(plant: Plant, tmp_path: Path) -> None:
    elsewhere = tmp_path / "away"
    elsewhere.mkdir(mode=0o700)
    key = elsewhere / "writer.key"
    key.write_text((plant.cli.home / "fleet" / "writer.key").read_text())
    key.chmod(0o600)
    away = {"TARS_SETTINGS_WRITER_KEY": str(key), "TARS_SETTINGS_STATE_DIR": str(elsewhere)}
    done = plant.cli("keys", "grant", listed(plant)["writers"][0]["name"], "*", **away)
    assert done.code == 3
    assert "--root-key" in done.err
    assert "keys sign" in done.err


def test_a_document_travels_on_a_stick_to_the_root_key_and_back(plant: Plant, tmp_path: Path) -> None:
    public = plant.cli("keys", "new", "courier", "--json").document()["public"]
    stick, signed = tmp_path / "stick.json", tmp_path / "signed.json"
    tmp_path.chmod(0o700)
    hidden = tmp_path / "safe"
    hidden.mkdir(mode=0o700)
    root = plant.cli.home / "fleet" / "root.key"
    root.rename(hidden / "root.key")
    try:
        drafted = plant.cli("keys", "grant", "courier", "stt-worker", "--public", public, "--out", str(stick), "--json")
        assert drafted.code == 0, drafted.err
        assert_fits("keys grant", drafted.document())
        assert drafted.document()["lacking"]
        early = plant.cli("keys", "publish", str(stick))
        assert early.code == 1
        # Where the root key is there is no broker, no replica and no writer's key.
        safe = Cli(hidden, {"TARS_SETTINGS_FLEET": plant.made["fleet"], "TARS_SETTINGS_STATE_DIR": str(hidden)})
        done = safe("keys", "sign", str(stick), "--root-key", str(hidden / "root.key"), "--out", str(signed), "--json")
        assert done.code == 0, done.err
        assert_fits("keys sign", done.document())
        published = plant.cli("keys", "publish", str(signed), "--json")
        assert published.code == 0, published.err
        assert_fits("keys publish", published.document())
    finally:
        (hidden / "root.key").rename(root)
    assert writer_of(plant, "courier")["status"] == "active"
    late = plant.cli("keys", "publish", str(signed))
    assert late.code == 1, "a document that is in force already is no news"


def test_what_a_retired_writer_wrote_stands_and_nothing_after(plant: Plant) -> None:
    key = new_writer(plant, "leaver", "stt-worker")
    assert push(plant, "suppress_echo=false", **key).code == 0
    unasked = plant.cli("keys", "retire", "leaver")
    assert unasked.code == 2
    assert "--yes" in unasked.err
    done = plant.cli("keys", "retire", "leaver", "--reason", "left the team", "--yes", "--json")
    assert done.code == 0, done.err
    assert_fits("keys retire", done.document())
    assert writer_of(plant, "leaver")["status"] == "retired"
    assert push(plant, "suppress_echo=true", **key).code == 1
    assert plant.cli("get", "stt-worker", "suppress_echo", "--json").document()["value"] is False
    assert plant.value("suppress_echo") is False
    again = plant.cli("keys", "retire", "leaver", "--yes")
    assert again.code == 1


def test_export_prints_the_public_line_and_the_trust_document(plant: Plant) -> None:
    done = plant.cli("keys", "export")
    assert done.out.strip() == f"TARS_SETTINGS_FLEET={plant.made['fleet']}"
    trust = plant.cli("keys", "export", "--trust")
    assert trust.out.strip().encode() == plant.broker.retained(TRUST)[TRUST]
    assert_fits("keys export", plant.cli("keys", "export", "--trust", "--json").document())
