"""The robot's three workers, with their real names, types, defaults, secrets and dotenv files, over a real broker.

Forty values are pushed; one is pinned by a worker's environment; the broker loses its memory; a fourth worker is late.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tars_settings.core.head import segment_digest
from tars_settings.writer import Writer
from tests.brokers import Mosquitto, eventually
from tests.integration.fleets import ROOT, TestFleet, WorkerProcess
from tests.real_input import dotenv_of, settings_classes

PUSHED = 40
SEGMENT = re.compile(r"/_head/[0-9a-f]{32}/[0-9]+$")
SERVICES = ("stt-worker", "tts-worker", "router")


def another(value: Any) -> Any:
    """Return a value of the same type that is not the same."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, "pushed"]
    return f"{value}-pushed"


def is_pushable(cls: Any, name: str) -> bool:
    """Whether no dotenv line and no rule of its own stands against another value for a field."""
    default = cls.model_fields[name].default
    return not isinstance(default, SecretStr) and "URL" not in name.upper() and name != "VAD_AGGRESSIVENESS"


def changes(classes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return forty values to push, spread over the services, none of which a dotenv file sets."""
    free = {service: list(names_free(classes[service], service)) for service in SERVICES}
    wanted: dict[str, dict[str, Any]] = {service: {} for service in SERVICES}
    for _ in range(PUSHED):
        service = max(free, key=lambda one: (len(free[one]) > 0, -len(wanted[one])))
        if free[service]:
            name = free[service].pop(0)
            wanted[service][name] = another(classes[service].model_fields[name].default)
    return wanted


def names_free(cls: Any, service: str) -> list[str]:
    text = dotenv_of(service).read_text()
    set_there = {line.split("=")[0].strip() for line in text.splitlines() if "=" in line and not line.startswith("#")}
    names = [name for name in cls.model_fields if is_pushable(cls, name)]
    return [name for name in names if _env_name(name, cls.model_fields[name]) not in set_there]


def _env_name(name: str, field: Any) -> str:
    return str(field.validation_alias or name)


@pytest.fixture
def fleet(mosquitto: Mosquitto, tmp_path: Path) -> TestFleet:
    return TestFleet(tmp_path / "fleet", mosquitto.url)


@pytest.fixture
def workers(fleet: TestFleet) -> Iterator[dict[str, WorkerProcess]]:
    """One process a service, each with its dotenv file, stt with one value pinned by its environment."""
    with ExitStack() as stack:
        started = {}
        for service in SERVICES:
            pinned = {"SAMPLE_RATE": "8000"} if service == "stt-worker" else {}
            worker = WorkerProcess(fleet, service, "kitchen", dotenv=dotenv_of(service), **pinned)
            stack.callback(worker.kill)
            started[service] = worker
        for worker in started.values():
            eventually(lambda worker=worker: worker.assert_alive() and worker.values, what="first values")
        yield started


def status(fleet: TestFleet) -> dict[str, Any]:
    command = [sys.executable, "-m", "tars_settings", "status", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=fleet.environment("ops"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_the_robot_s_fleet(mosquitto: Mosquitto, fleet: TestFleet, workers: dict[str, WorkerProcess]) -> None:
    classes = settings_classes()
    wanted = changes(classes)
    assert sum(map(len, wanted.values())) == PUSHED
    with Writer(**fleet.writer_given()) as writer:
        for worker in workers.values():
            worker.until_ready()
        for service, values in wanted.items():
            report = writer.push(classes[service], values, reason="real input").wait(15)
            assert report.stage == "retained", report
            assert report.applied == 1, report
        writer.push(classes["stt-worker"], {"SAMPLE_RATE": 48_000}).wait(15)
        writer.push(classes["stt-worker"], {"OPENAI_API_KEY": "canary-in-the-kitchen"}).wait(15)
    for service, values in wanted.items():
        workers[service].until(**values)
    assert workers["stt-worker"].values["SAMPLE_RATE"] == 8000, "the environment pins it"

    shadowed = {one["service"]: one["shadowed"] for one in status(fleet)["workers"]}
    assert "SAMPLE_RATE" in shadowed["stt-worker"]["SAMPLE_RATE"]

    before = held_by(mosquitto)
    assert not [topic for topic, payload in before.items() if b"canary-in-the-kitchen" in payload]
    mosquitto.kill()
    mosquitto.start()
    eventually(lambda: before.items() <= held_by(mosquitto).items(), deadline_s=60, what="the fleet refills the broker")

    late = WorkerProcess(fleet, "stt-worker", "attic", dotenv=dotenv_of("stt-worker"))
    try:
        late.until_ready()
        late.until(**wanted["stt-worker"])
    finally:
        late.kill()


def held_by(broker: Mosquitto) -> dict[str, bytes]:
    """Return what the broker must get back: trust, deltas and indexes, and each segment that an index names."""
    held = {t: p for t, p in broker.retained("system/config/#").items() if "_schema" not in t}
    said = b"".join(held.values())
    return {t: p for t, p in held.items() if not SEGMENT.search(t) or segment_digest(p).encode() in said}
