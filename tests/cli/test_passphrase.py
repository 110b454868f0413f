"""``keys passphrase``: root and writer keys that a copied file alone does not give away."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.brokers import eventually
from tests.cli.documents import assert_fits
from tests.cli.running import Plant

PASS = {"TARS_SETTINGS_PASSPHRASE": "correct horse"}


@pytest.mark.parametrize("role", ["root_key", "writer_key"])
def test_a_locked_key_signs_with_its_passphrase_and_not_without(plant: Plant, role: str) -> None:
    path = Path(plant.made["files"][role])
    seed = path.read_text().split()[-1]
    assert plant.cli("keys", "passphrase", str(path)).code == 3
    done = plant.cli("keys", "passphrase", str(path), "--json", TARS_SETTINGS_NEW_PASSPHRASE="correct horse")
    assert done.code == 0, done.err
    assert_fits("keys passphrase", done.document())
    assert seed not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    name = plant.cli("keys", "list", "--offline", "--json").document()["writers"][0]["name"]
    grant = ("keys", "grant", name, "*", "_all")
    words = grant if role == "root_key" else ("push", "_all", "log_level=DEBUG", "--plain")
    without = plant.cli(*words)
    assert without.code == 3
    assert "PASSPHRASE" in without.err
    wrong = plant.cli(*words, TARS_SETTINGS_PASSPHRASE="battery staple")
    assert wrong.code == 3
    assert "battery" not in wrong.err
    right = plant.cli(*words, **PASS)
    assert right.code == 0, right.err

    opened = plant.cli("keys", "passphrase", str(path), "--remove", **PASS)
    assert opened.code == 0, opened.err
    assert path.read_text().split()[-1] == seed


def test_the_seal_key_of_a_host_rotates_and_keeps_the_one_before(plant: Plant) -> None:
    worker = plant.employ("stt-worker", "kitchen", TARS_SETTINGS_PROBATION_S="0")
    plant.awaited(worker)
    home = {"TARS_SETTINGS_STATE_DIR": str(plant.cli.home / "stt-worker-kitchen")}
    directory = plant.cli.home / "stt-worker-kitchen"
    eventually(lambda: [*directory.rglob("seal.key")], what="it has sealed something")
    (path,) = directory.rglob("seal.key")
    before = path.read_text().split()[-1]
    done = plant.cli("keys", "rotate-seal", "--json", **home)
    assert done.code == 0, done.err
    assert_fits("keys rotate-seal", done.document())
    assert path.read_text().split()[-1] == before
    assert path.read_text().split()[-2] != before
    inline = plant.cli("keys", "rotate-seal", **home, TARS_SETTINGS_SEAL_KEY=before)
    assert inline.code == 3
    nothing = plant.cli("keys", "rotate-seal", TARS_SETTINGS_STATE_DIR=str(plant.cli.home / "none"))
    assert nothing.code == 3
