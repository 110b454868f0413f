from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tars_settings.adapters.replica import SqliteReplica
from tars_settings.cli import founding
from tars_settings.core.records import TrustRow
from tars_settings.errors import ReplicaError
from tars_settings.trust.document import follow, pin
from tars_settings.trust.keys import SigningKey, fleet_text, parse_fleet
from tests.brokers import Mosquitto
from tests.cli.documents import assert_fits
from tests.cli.running import Cli


def _everything(directory: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


def test_init_writes_private_files_into_a_private_directory(cli: Cli, tmp_path: Path) -> None:
    done = cli("init", "--dir", str(tmp_path / "fleet"), "--json")
    assert done.code == 0, done.err
    assert_fits("init", done.document())
    for directory in (tmp_path / "fleet", *(path for path in (tmp_path / "fleet").rglob("*") if path.is_dir())):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    files = [Path(path) for path in done.document()["files"].values()]
    assert len(files) == 7
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_umask_does_not_open_what_is_written(cli: Cli, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = cli("init", "--dir", str(tmp_path / "fleet"), "--json").document()
    finally:
        os.umask(before)
    assert {stat.S_IMODE(Path(path).stat().st_mode) for path in made["files"].values()} == {0o600}


def test_the_keys_are_those_that_the_documents_speak_of(cli: Cli, tmp_path: Path) -> None:
    made = cli("init", "--dir", str(tmp_path / "fleet"), "--writer", "ops", "--json").document()
    root = SigningKey.from_text(Path(made["files"]["root_key"]).read_text())
    writer = SigningKey.from_text(Path(made["files"]["writer_key"]).read_text())
    assert (root.role, writer.role, writer.name) == ("root", "writer", "ops")
    assert fleet_text(root.public) == made["fleet"]
    trust = follow(pin(parse_fleet(made["fleet"])), Path(made["files"]["trust"]).read_bytes().strip())
    assert trust.version == 1
    entry = trust.writer(writer.kid)
    assert entry is not None
    assert entry.grants == ("*", "_all")
    rows = SqliteReplica(Path(made["files"]["replica"]), create=False).load()
    assert [row.raw for row in rows if isinstance(row, TrustRow)] == [trust.raw]


def test_people_get_the_lines_that_a_worker_needs_and_no_secret(cli: Cli) -> None:
    done = cli("init")
    lines = done.out.splitlines()
    names = [line.removeprefix("export ").partition("=")[0] for line in lines]
    assert names == ["TARS_SETTINGS_BROKER", "TARS_SETTINGS_FLEET", "TARS_SETTINGS_SECRET_KEYS"]
    assert "Keep offline" in done.err
    state_dir = cli.home / ".local" / "state" / "tars-settings"
    for name in ("root.key", "writer.key", "secret.keys"):
        secret = (state_dir / name).read_text().splitlines()[-1].split()[-1]
        assert secret not in done.out + done.err


def test_its_environment_files_can_be_sourced(cli: Cli, tmp_path: Path) -> None:
    directory = tmp_path / "it's a fleet"
    made = cli("init", "--dir", str(directory), "--json").document()
    script = '. "$1" && env'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", made["files"]["operator_environment"]],
        capture_output=True,
        text=True,
        check=True,
    )
    sourced = dict(line.split("=", 1) for line in done.stdout.splitlines() if line.startswith("TARS_SETTINGS_"))
    assert sourced == {"TARS_SETTINGS_BROKER": "mqtt://localhost:1883", **made["environment"]}
    lines = Path(made["files"]["worker_environment"]).read_text().splitlines()
    assert {line.partition("=")[0] for line in lines} == set(made["worker"])


def test_a_second_init_is_refused_and_changes_nothing(cli: Cli, tmp_path: Path) -> None:
    directory = tmp_path / "fleet"
    assert cli("init", "--dir", str(directory)).code == 0
    before = _everything(directory)
    done = cli("init", "--dir", str(directory), "--json")
    assert done.code == 1
    assert str(directory / "root.key") in done.err
    assert_fits("error", done.document())
    assert _everything(directory) == before


@pytest.mark.parametrize("name", ["root.key", "writer.key", "secret.keys", "trust.json", "env", "worker.env"])
def test_a_single_file_in_the_way_is_enough(cli: Cli, tmp_path: Path, name: str) -> None:
    directory = tmp_path / "fleet"
    directory.mkdir(mode=0o700)
    (directory / name).symlink_to("/nowhere")
    done = cli("init", "--dir", str(directory))
    assert done.code == 1
    assert str(directory / name) in done.err
    assert list(directory.iterdir()) == [directory / name]


@pytest.mark.parametrize("place", ["/proc/fleet", "/dev/null/fleet"])
def test_where_it_can_not_write_it_fails_at_once(cli: Cli, place: str) -> None:
    done = cli("init", "--dir", place)
    assert done.code == 3
    assert place.rpartition("/")[0] in done.err
    assert "Traceback" not in done.err


def test_a_directory_that_others_may_enter_is_not_used(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir(mode=0o755)
    done = cli("init", "--dir", str(tmp_path / "fleet"))
    assert done.code == 3
    assert "chmod 700" in done.err
    assert list((tmp_path / "fleet").iterdir()) == []


def test_what_was_written_goes_again_when_a_later_step_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise ReplicaError("the disk is full")

    monkeypatch.setattr(founding, "store_trust", full)
    with pytest.raises(ReplicaError):
        founding.found(tmp_path / "fleet", writer="ops", state_dir=tmp_path / "fleet")
    assert list((tmp_path / "fleet").iterdir()) == []


def test_where_a_broker_is_named_the_trust_document_is_published(cli: Cli, mosquitto: Mosquitto) -> None:
    done = cli("init", "--broker", mosquitto.url, "--json")
    assert done.code == 0, done.err
    made = done.document()
    assert made["published"] is True
    assert made["environment"]["TARS_SETTINGS_BROKER"] == mosquitto.url
    trust = Path(made["files"]["trust"]).read_bytes().strip()
    assert mosquitto.retained("system/config/_trust") == {"system/config/_trust": trust}


def test_another_fleets_trust_document_is_left_alone(cli: Cli, mosquitto: Mosquitto, tmp_path: Path) -> None:
    assert cli("init", "--broker", mosquitto.url).code == 0
    before = mosquitto.retained("system/config/#")
    done = cli("init", "--dir", str(tmp_path / "other"), "--broker", mosquitto.url, "--json")
    assert done.code == 0, done.err
    assert done.document()["published"] is False
    assert "another fleet" in done.err
    assert mosquitto.retained("system/config/#") == before


def test_without_its_broker_the_fleet_is_made_all_the_same(cli: Cli) -> None:
    done = cli("init", "--broker", "mqtt://127.0.0.1:9", "--json")
    assert done.code == 0, done.err
    assert done.document()["published"] is False
    assert "not published yet" in done.err
