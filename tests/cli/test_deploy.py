"""The examples for systemd and Compose: checked by their own tools where these are, and run in any case."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.brokers import DEADLINE_S, Mosquitto, eventually
from tests.cli.running import ROOT, TIMEOUT_S, Plant, clean_environment, found_plant

DEPLOY = ROOT / "docs" / "deploy"
UNIT = DEPLOY / "stt-worker.service"
COMPOSE = DEPLOY / "compose.yaml"
WORKER = DEPLOY / "worker"
DOCS = ROOT / "docs" / "deploying.rst"
PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 38, 65


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A fleet on a broker that runs the example's configuration, on another port and in another place."""
    home = tmp_path_factory.mktemp("deploy")
    kept = home / "kept"
    kept.mkdir()
    lines = [line for line in (DEPLOY / "mosquitto.conf").read_text().splitlines() if line and not line.startswith("#")]
    assert {"listener 1883", "persistence_location /mosquitto/data/"} <= set(lines)
    own = ("listener", "allow_anonymous")
    moved = [line.replace("/mosquitto/data/", f"{kept}/") for line in lines if not line.startswith(own)]
    with Mosquitto(home / "mosquitto", *moved) as broker:
        yield found_plant(home, broker)


def settings_of(path: Path) -> list[tuple[str, str]]:
    """Return the settings of a unit, in order; every line is a section, a comment, or one of them."""
    found: list[tuple[str, str]] = []
    for line in path.read_text().splitlines():
        if not line or line.startswith(("#", "[")):
            continue
        name, equals, value = line.partition("=")
        assert equals, line
        assert name.isalpha(), line
        found.append((name, value))
    return found


def all_of(unit: list[tuple[str, str]], name: str) -> list[str]:
    return [value for one, value in unit if one == name]


def variables_in(path: Path) -> dict[str, str]:
    """Return what a file of variables says, as EnvironmentFile= and env_file read it."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if line and not line.startswith("#"))


HARDENED = f"""
import ctypes, os, sys
prctl = ctypes.CDLL(None).prctl
assert prctl({PR_SET_NO_NEW_PRIVS}, 1, 0, 0, 0) == 0
prctl({PR_SET_MDWE}, 1, 0, 0, 0)  # Linux 6.3 knows it
os.umask(0o077)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""What the unit's NoNewPrivileges, MemoryDenyWriteExecute and UMask do, before the worker."""


class Started:
    """A worker that was started as an example says, until it is told to end."""

    def __init__(self, plant: Plant, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._plant = plant
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HARDENED, *command],
                env={**clean_environment(plant.cli.home), **environment},
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)

    def says(self, words: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return words in self.log.read_text()

    def follows(self) -> str:
        """See it join, follow a push, and leave when it is told to; return what it logged."""
        eventually(lambda: self.says("started with vad_threshold"), what=f"the worker starts: {self.log.read_text()}")
        eventually(lambda: self.says("'kind': 'Session', 'state': 'up'"), what="it connects")
        done = self._plant.cli("push", "stt-worker", "vad_threshold=0.7", "--plain")
        assert done.code == 0, done.err
        eventually(lambda: self.says("changed: vad_threshold"), what="it follows")
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DEADLINE_S) == 0, self.log.read_text()
        done = self._plant.cli("unset", "stt-worker", "vad_threshold")
        assert done.code == 0, done.err
        return self.log.read_text()


# --- systemd -------------------------------------------------------------------------------------------------------


def test_the_unit_s_command_works_as_the_unit_says(plant: Plant, tmp_path: Path) -> None:
    """With its state directory, its credentials and its variables, each where systemd puts them."""
    unit = settings_of(UNIT)
    state, credentials = tmp_path / "state", tmp_path / "credentials"
    (name,) = all_of(unit, "StateDirectory")
    assert all_of(unit, "StateDirectoryMode") == ["0700"]
    (state / name).mkdir(mode=0o700, parents=True)
    credentials.mkdir(mode=0o700)
    sources = {"secret.keys": Path(plant.made["files"]["secret_keys"]), "seal.key": _seal_key(tmp_path)}
    for one in all_of(unit, "LoadCredential"):
        credential, _, source = one.partition(":")
        assert source == f"/etc/stt-worker/{credential}"
        shutil.copy(sources.pop(credential), credentials / credential)
        (credentials / credential).chmod(0o440)
    assert not sources
    environment = dict(one.split("=", 1) for one in all_of(unit, "Environment"))
    environment = {
        key: value.replace("%S", str(state)).replace("%d", str(credentials)) for key, value in environment.items()
    }
    assert "%" not in "".join(environment.values())
    kept = tmp_path / "worker.env"
    kept.write_text(_typed("grep -v SECRET_KEYS", plant.cli.home))
    worker_env = variables_in(kept)
    assert set(worker_env) == {"TARS_SETTINGS_BROKER", "TARS_SETTINGS_FLEET"}
    (command,) = all_of(unit, "ExecStart")
    words = [word.replace("/opt/stt-worker/bin/python", sys.executable) for word in shlex.split(command)]
    words = [word.replace("/opt/stt-worker/", f"{WORKER}/") for word in words]
    given = {**environment, **worker_env, "CREDENTIALS_DIRECTORY": str(credentials)}
    with Started(plant, words, given, tmp_path / "log") as started:
        log = started.follows()
    assert "'kind': 'Applied'" in log
    assert list((state / name).rglob("*.db")), "the replica is in the state directory"


def _typed(words: str, directory: Path) -> str:
    """Return what a line of the docs prints, typed where ``init --dir fleet`` was: without what asks for root."""
    line = next(one for one in DOCS.read_text().splitlines() if words in one)
    command = line.strip().removeprefix("$ ").partition(" | sudo")[0]
    done = subprocess.run(
        ["sh", "-c", command], cwd=directory, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    return done.stdout


def _seal_key(directory: Path) -> Path:
    path = directory / "seal.key"
    path.write_text(_typed("/dev/urandom", directory))
    return path


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed: the unit was parsed and its command run, and not verified")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/stt-worker/bin/python", sys.executable))
    done = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    copy.write_text(copy.read_text().replace("NoNewPrivileges", "NoNewPrivilege"))
    broken = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert "NoNewPrivilege" in broken.stderr, "and it would find it"


# --- Compose -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> Any:
    """The example, parsed."""
    return yaml.safe_load(COMPOSE.read_text())


def test_what_the_compose_file_names_is_there(compose: Any) -> None:
    services = compose["services"]
    worker = services["stt-worker"]
    assert set(worker["depends_on"]) <= set(services)
    assert worker["environment"]["TARS_SETTINGS_BROKER"] == "mqtt://broker:1883"
    named = [mount.partition(":")[0] for one in services.values() for mount in one.get("volumes", ())]
    assert {one for one in named if not one.startswith(".")} == set(compose["volumes"])
    assert all((DEPLOY / one).is_file() for one in named if one.startswith("."))
    assert set(worker["secrets"]) == set(compose["secrets"])
    copied = [line.split()[1] for line in worker["build"]["dockerfile_inline"].splitlines() if line.startswith("COPY")]
    context = DEPLOY / worker["build"]["context"]
    assert [(context / one).is_file() for one in copied] == [True]
    assert {one.suffix for one in context.iterdir() if one.is_file()} == {".py"}, "no key is near the image"
    assert worker["read_only"]
    assert worker["environment"]["TARS_SETTINGS_STATE_DIR"] in {one.partition(":")[2] for one in worker["volumes"]}


def test_the_compose_worker_s_command_works_as_the_file_says(plant: Plant, compose: Any, tmp_path: Path) -> None:
    worker = compose["services"]["stt-worker"]
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    assert plant.cli.home / worker["env_file"] == Path(plant.made["files"]["worker_environment"])
    given = {**variables_in(Path(plant.made["files"]["worker_environment"])), **worker["environment"]}
    assert Path(given["TARS_SETTINGS_SECRET_KEYS"]).name in worker["secrets"]
    assert plant.cli.home / compose["secrets"]["secret.keys"]["file"] == Path(plant.made["files"]["secret_keys"])
    given |= {
        "TARS_SETTINGS_BROKER": plant.broker.url,
        "TARS_SETTINGS_STATE_DIR": str(state),
        "TARS_SETTINGS_SECRET_KEYS": plant.made["files"]["secret_keys"],
    }
    python, script = worker["command"]
    assert python == "python"
    command = [sys.executable, script.replace("/app/", f"{WORKER}/")]
    with Started(plant, command, given, tmp_path / "log") as started:
        started.follows()
    assert "stt-worker@kitchen" in plant.cli("status").out


def test_compose_finds_nothing_wrong_with_the_file(plant: Plant, tmp_path: Path) -> None:
    docker = shutil.which("docker")
    asked = [docker, "compose", "version"] if docker else ["false"]
    if subprocess.run(asked, capture_output=True, timeout=TIMEOUT_S, check=False).returncode:
        pytest.skip("docker compose is not installed: the file was parsed and its command run, and not verified")
    assert docker is not None
    shutil.copytree(DEPLOY, tmp_path, dirs_exist_ok=True)
    shutil.copytree(plant.cli.home / "fleet", tmp_path / "fleet")
    command = [docker, "compose", "-f", str(tmp_path / COMPOSE.name), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
