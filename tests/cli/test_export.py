from __future__ import annotations

import base64
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tars_settings.cli.demo.processes import Worker
from tars_settings.cli.demo.stage import in_force
from tests.brokers import Mosquitto, eventually
from tests.cli.documents import assert_fits
from tests.cli.running import Cli, Done, Plant

SECRET = "sk-robot-0451"
ELSEWHERE = "mqtt://127.0.0.1:9"


@pytest.fixture(scope="module")
def worker(plant: Plant) -> Worker:
    """A fleet with history in three scopes, a secret, a tombstone and two trust documents; one worker, no repairs."""
    made = plant.employ("stt-worker", "kitchen", TARS_SETTINGS_REPAIR="off")
    plant.awaited(made)
    for words in (
        ("_all", "log_level=WARNING", "--plain"),
        ("stt-worker", "vad_threshold=0.7"),
        ("stt-worker", "vad_threshold=0.8"),
        ("stt-worker", f"api_key={SECRET}"),
        ("stt-worker@kitchen", "silence_s=2", "suppress_echo=false"),
    ):
        done = plant.cli("push", *words)
        assert done.code == 0, done.err
    done = plant.cli("unset", "stt-worker@kitchen", "suppress_echo")
    assert done.code == 0, done.err
    public = plant.cli("keys", "new", "ops-2", "--file", str(plant.cli.home / "keys" / "ops-2.key")).out.strip()
    done = plant.cli("keys", "grant", "ops-2", "stt-worker", "--public", public)
    assert done.code == 0, done.err
    return made


@pytest.fixture(scope="module")
def export(plant: Plant, worker: Worker) -> Path:
    file = plant.cli.home / "fleet.jsonl"
    done = plant.cli("export", "--file", str(file))
    assert done.code == 0, done.err
    return file


def apart(plant: Plant, home: Path) -> Cli:
    """Return a host that knows the fleet's public key and nothing else."""
    return Cli(home, {"TARS_SETTINGS_FLEET": plant.made["fleet"], "TARS_SETTINGS_STATE_DIR": str(home / "state")})


def lines_of(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines()


def test_an_export_holds_everything_verbatim_and_no_secret(plant: Plant, export: Path) -> None:
    held = set(in_force(plant.broker.retained("system/config/#")).values())
    assert held <= {line.encode() for line in plant.cli("export").out.splitlines()}
    assert SECRET.encode() not in export.read_bytes()
    assert stat.S_IMODE(export.stat().st_mode) == 0o600


def test_an_export_is_never_written_over(plant: Plant, export: Path) -> None:
    before = export.read_bytes()
    done = plant.cli("export", "--file", str(export), "--offline")
    assert done.code == 1
    assert "overwritten" in done.err
    assert export.read_bytes() == before


@pytest.mark.usefixtures("export")
def test_the_replica_exports_the_same_offline(plant: Plant) -> None:
    online = plant.cli("export").out.splitlines()
    assert online
    done = plant.cli("export", "--offline", "--json", TARS_SETTINGS_BROKER=ELSEWHERE)
    assert done.code == 0, done.err
    document = done.document()
    assert_fits("export", document)
    assert (document["source"], document["lacking"]) == ("replica", [])
    assert sorted(document["envelopes"]) == sorted(online)


@pytest.mark.usefixtures("export")
def test_one_service_and_since_an_epoch(plant: Plant) -> None:
    done = plant.cli("export", "stt-worker", "--offline", "--json")
    assert set(done.document()["scopes"]) == {"stt-worker", "stt-worker@kitchen"}
    assert done.document()["counts"]["delta"] == 5
    done = plant.cli("export", "stt-worker", "--since", "2", "--offline", "--json")
    assert done.document()["counts"] == {"trust": 2, "delta": 1}, (
        "only the secret is above epoch 2, and no head comes along"
    )
    assert plant.cli("export", "--since", "x").code == 2


def test_the_command_verifies_a_file_with_the_fleets_key_alone(plant: Plant, export: Path, tmp_path: Path) -> None:
    done = apart(plant, tmp_path)("export", "--verify", str(export), "--json")
    assert done.code == 0, done.err
    document = done.document()
    assert_fits("export --verify", document)
    assert document["counts"]["rejected"] == 0
    assert len(document["envelopes"]) == len(lines_of(export))
    assert not (tmp_path / "state").exists(), "nothing was written"


def tampered(lines: list[bytes]) -> list[bytes]:
    return [
        line.replace(b'"epoch":2', b'"epoch":9') if b'"assign"' in line and b'"v":1' in line else line for line in lines
    ]


TAMPERINGS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "changed": (tampered, "bad-signature"),
    "garbage": (lambda lines: [*lines, b"{no json"], "malformed"),
    "no trust": (lambda lines: [line for line in lines if b'"roots"' not in line], "no-trust"),
    "no segment": (lambda lines: [line for line in lines if not line.startswith(b'{"v":1,"deltas"')], ""),
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_what_does_not_pass_is_named(plant: Plant, export: Path, tmp_path: Path, how: str) -> None:
    change, reason = TAMPERINGS[how]
    file = tmp_path / "bad.jsonl"
    file.write_bytes(b"\n".join(change(lines_of(export))) + b"\n")
    assert file.read_bytes() != export.read_bytes()
    done = apart(plant, tmp_path)("export", "--verify", str(file), "--json")
    assert done.code == 1
    assert set(done.document()["refused"]) == ({reason} if reason else set())
    # A changed delta is changed in its writer's segment, too, and then nothing names that one.
    assert bool(done.document()["lacking"]) == (how in ("changed", "no segment"))


def test_another_fleets_export_is_refused(plant: Plant, export: Path, tmp_path: Path) -> None:
    stranger = Cli(tmp_path)
    other = stranger("init", "--dir", str(tmp_path / "other"), "--json").document()
    stranger.environment |= {"TARS_SETTINGS_FLEET": other["fleet"], "TARS_SETTINGS_STATE_DIR": str(tmp_path / "s")}
    done = stranger("import", str(export), "--json")
    assert done.code == 1
    assert done.document()["counts"]["applied"] == 0
    assert not (tmp_path / "s").exists()


def test_an_import_makes_nothing_older_win(plant: Plant, export: Path, tmp_path: Path) -> None:
    host = apart(plant, tmp_path)
    old = tmp_path / "old.jsonl"
    newest = {b'"epoch":2', b'"epoch":3'}
    old.write_bytes(b"\n".join(line for line in lines_of(export) if not any(mark in line for mark in newest)) + b"\n")
    assert host("import", str(export), "--offline").code == 0
    before = host("list", "--offline", "--json").document()["values"]
    done = host("import", str(old), "--offline", "--json")
    assert done.code == 0, done.err
    assert done.document()["counts"]["applied"] == 0
    assert host("list", "--offline", "--json").document()["values"] == before
    assert any(one["epoch"] == 3 for one in before)


def test_a_dry_run_changes_nothing(plant: Plant, export: Path, tmp_path: Path) -> None:
    host = apart(plant, tmp_path)
    done = host("import", str(export), "--dry-run", "--json")
    assert done.code == 0, done.err
    assert_fits("import", done.document())
    assert done.document()["counts"]["applied"] > 0
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_host_without_any_key_seeds_another_broker(plant: Plant, export: Path, tmp_path: Path, protocol: str) -> None:
    host = apart(plant, tmp_path)
    with Mosquitto(tmp_path / "broker") as other:
        done = host("import", str(export), "--json", TARS_SETTINGS_BROKER=other.url, TARS_SETTINGS_PROTOCOL=protocol)
        assert done.code == 0, done.err
        held = in_force(other.retained("system/config/#"))
    assert set(held.values()) <= set(lines_of(export))
    assert {topic.removeprefix("system/config/") for topic in held if "/_" not in topic.replace("/_all/", "/all/")} == {
        "_all/log_level",
        "stt-worker/vad_threshold",
        "stt-worker/api_key",
        "stt-worker@kitchen/silence_s",
        "stt-worker@kitchen/suppress_echo",
    }


def test_the_doctor_checks_the_seals_of_a_worker(plant: Plant, worker: Worker, tmp_path: Path) -> None:
    source, state = plant.cli.home / "stt-worker-kitchen", tmp_path / "state"
    eventually(lambda: worker.look() and list(source.glob("*/lkg-*/cache.db")), what="last known good values are kept")
    shutil.copytree(source, state)
    words = ("doctor", "--offline", "--json", "--state-dir", str(state))
    seals = [one for one in plant.cli(*words).document()["findings"] if one["name"] == "seal"]
    assert [(one["severity"], "stt-worker" in one["message"]) for one in seals] == [("ok", True)]
    key = next(state.glob("*/seal.key"))
    key.chmod(0o600)
    key.write_text(f"{base64.b64encode(bytes(32)).decode()}\n")
    done = plant.cli(*words)
    seals = [one for one in done.document()["findings"] if one["name"] == "seal"]
    assert (done.code, [one["severity"] for one in seals]) == (1, ["problem"])
    assert seals[0]["change"]


# --- the backup drill: docs/backup.rst --------------------------------------------------------------------------------


def wipe(plant: Plant) -> None:
    """Lose the broker with all that it holds, and the operator's replica."""
    fleet_dir = Path(plant.made["files"]["replica"]).parent
    plant.broker.kill()
    shutil.rmtree(fleet_dir)
    Path(plant.made["files"]["trust"]).unlink(missing_ok=True)
    plant.broker.start()
    assert plant.broker.retained("system/config/#") == {}, "the broker lost everything, and no worker repairs"


def restored(plant: Plant, source: Path) -> Done:
    done = plant.cli("import", str(source), "--json")
    assert done.code == 0, done.err
    assert_fits("import", done.document())
    assert done.document()["broker"]["missing"] == []
    return done


def values_told(worker: Worker, after: int) -> list[dict[str, Any]]:
    return [one["values"] for one in worker._told[after:] if "values" in one]


def listed(plant: Plant) -> list[dict[str, Any]]:
    """What the fleet sets, without what schemas say of it: workers publish those again in their own time."""
    signed = ("scope", "key", "value", "unset", "secret", "gen", "epoch", "digest", "writer", "at", "by", "reason")
    return [{name: one[name] for name in signed} for one in plant.cli("list", "--json").document()["values"]]


def test_drill_everything_comes_back_from_a_file_and_from_a_workers_state(
    plant: Plant, worker: Worker, export: Path
) -> None:
    before = in_force(plant.broker.retained("system/config/#"))
    shown = listed(plant)
    held = worker.look()["values"]
    told = worker.told()
    for source in (export, plant.cli.home / "stt-worker-kitchen"):
        wipe(plant)
        counts = restored(plant, source).document()["counts"]
        assert counts["applied"] >= len([topic for topic in before if "/_head/" not in topic]) - 1
        after = in_force(plant.broker.retained("system/config/#"))
        assert before.items() <= after.items(), "byte for byte"
        assert {topic.rpartition("/")[0] for topic in after.keys() - before.keys()} <= {"system/config/_trust"}
        assert listed(plant) == shown
    assert worker.look()["values"] == held
    assert all(values == held for values in values_told(worker, told)), "no worker lost a value in between"
    done = plant.cli("push", "_all", "log_level=ERROR")
    assert done.code == 0, done.err
    eventually(lambda: worker.look()["values"]["log_level"] == "ERROR", what="the worker follows again")
