"""The command line as a process, and a fleet for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tars_settings
from tars_settings.cli.demo.processes import Worker
from tests.brokers import DEADLINE_S, Mosquitto
from tests.cli.forks import Forks

ROOT = Path(__file__).parents[2]
PACKAGE = Path(tars_settings.__file__).parents[1]
_OURS = ("TARS_SETTINGS_", "STT_", "TTS_", "ROUTER_", "XDG_")
TIMEOUT_S = 60
_forks = Forks()


def clean_environment(home: Path) -> dict[str, str]:
    """Return this process's environment without what could reach the command, at home in *home*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(PACKAGE), "NO_COLOR": "1", "COLUMNS": "80"}


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it said."""

    code: int
    out: str
    err: str

    def document(self) -> Any:
        """Return the JSON document on stdout: exactly one."""
        return json.loads(self.out)

    def rows(self) -> list[list[str]]:
        """Return the lines of a pipe, cut at tabs."""
        return [line.split("\t") for line in self.out.splitlines()]


@dataclass
class Cli:
    """Runs ``tars-settings`` at *home*, with *environment* over a clean one."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *words: str) -> list[str]:
        """Return the command's words."""
        return [sys.executable, "-m", "tars_settings", *words]

    def variables(self) -> dict[str, str]:
        """Return the command's environment."""
        return clean_environment(self.home) | self.environment

    def __call__(self, *words: str, **variables: str) -> Done:
        """Run it to its end."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open("rb") as nothing:
            code = _forks.run(words, self.variables() | variables, self.home, (nothing, out, err), TIMEOUT_S)
            texts = [(stream.seek(0), stream.read().decode())[1] for stream in (out, err)]
        return Done(code, *texts)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it, in a session of its own."""
        return subprocess.Popen(
            self.command(*words),
            env=self.variables(),
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


@dataclass
class Plant:
    """A fleet that ``init`` made, its broker, and worker processes."""

    cli: Cli
    broker: Mosquitto
    made: Mapping[str, Any]
    workers: list[Worker] = field(default_factory=list)

    def employ(self, service: str, instance: str, **variables: str) -> Worker:
        """Start a worker and return it when its schema can be seen."""
        directory = self.cli.home / f"{service}-{instance}"
        environment = clean_environment(self.cli.home)
        environment |= {name: self.made["environment"][name] for name in self.made["worker"]}
        environment |= {
            "TARS_SETTINGS_INSTANCE": instance,
            "TARS_SETTINGS_STATE_DIR": str(directory),
            "TARS_SETTINGS_REPAIR_DELAY_S": "0.2",
        }
        worker = Worker(service, instance, environment | variables, directory.with_suffix(".log"))
        self.workers.append(worker)
        worker.wait_for(lambda one: one["event"] == "started", "that it started", deadline_s=DEADLINE_S)
        return worker

    def awaited(self, *workers: Worker) -> None:
        """Wait until workers are ready."""
        for worker in workers or self.workers:
            worker.wait_for(lambda one: one["event"] == "ready" and one["ready"], "ready", deadline_s=DEADLINE_S)

    def value(self, key: str) -> Any:
        """Return what the first worker has at a key now."""
        return dict(self.workers[0].look()["values"])[key]

    def end(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.end()


@contextmanager
def open_plant(home: Path, *employed: tuple[str, str]) -> Iterator[Plant]:
    """Yield a fleet with a broker at *home*, with ready workers (service, instance); they end with it."""
    home.mkdir(exist_ok=True)
    with Mosquitto(home / "mosquitto") as broker:
        plant = found_plant(home, broker)
        try:
            for service, instance in employed:
                plant.employ(service, instance)
            plant.awaited()
            yield plant
        finally:
            plant.end()


def found_plant(home: Path, broker: Mosquitto, *options: str) -> Plant:
    """Return a fleet at *home* whose commands need no further environment."""
    cli = Cli(home, {"TARS_SETTINGS_BROKER": broker.url})
    done = cli("init", "--dir", str(home / "fleet"), "--json", *options)
    assert done.code == 0, done.err
    made = done.document()
    assert made["published"], done.err
    cli.environment |= made["environment"]
    return Plant(cli, broker, made)
