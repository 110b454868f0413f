"""A worker always starts, on the best validated values that it has, and says in one line what happened."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import tars_settings
from tars_settings import Settings
from tars_settings.sources.environment import Environment
from tars_settings.writer import Writer
from tests.brokers import Mosquitto, eventually, free_port
from tests.integration.fleets import TestFleet
from tests.ordinary import modes_matter


class Stt(Settings, service="stt-worker"):
    vad_threshold: float = 0.5
    model: str = "base"


@pytest.fixture
def fleet(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[TestFleet]:
    """A fleet whose worker pi-3 has seen a pushed 0.7 and was stopped; then the broker is stopped."""
    fleet = TestFleet(tmp_path / "fleet", mosquitto.url)
    with Writer(**fleet.writer_given()) as writer, tars_settings.join(Stt, **fleet.given("pi-3")) as live:
        assert live.wait_until_ready(15)
        report = writer.push(Stt, {"vad_threshold": 0.7}).wait()
        assert report.applied == 1, report
        eventually(lambda: live.current.vad_threshold == 0.7)
    mosquitto.stop()
    return fleet


def environment_of(fleet: TestFleet) -> Environment:
    return Environment.read(**fleet.given("pi-3"))


def in_environment(fleet: TestFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in fleet.environment("pi-3").items():
        if name.startswith("TARS_SETTINGS_"):
            monkeypatch.setenv(name, value)


def messages(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if word in record.getMessage()]


def test_without_a_broker_the_replica_serves(fleet: TestFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    in_environment(fleet, monkeypatch)
    assert Stt().vad_threshold == 0.7
    with tars_settings.join(Stt) as live:
        assert live.current.vad_threshold == 0.7
        assert live.status.state == "joining"
        assert not live.status.connected


def test_without_a_broker_and_without_a_replica_defaults_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = TestFleet(tmp_path / "fleet", f"mqtt://127.0.0.1:{free_port()}")
    caplog.set_level(logging.INFO)
    with tars_settings.join(Stt, **fleet.given("new")) as live:
        assert live.current.vad_threshold == 0.5
        eventually(lambda: messages(caplog, "no connection to the broker"))


def test_with_a_corrupt_replica(
    fleet: TestFleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = environment_of(fleet).replica_path
    content = bytearray(path.read_bytes())
    content[:4096] = os.urandom(4096)
    path.write_bytes(content)
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(path).execute("select * from sqlite_master").fetchall()
    in_environment(fleet, monkeypatch)
    caplog.set_level(logging.INFO)
    assert Stt().vad_threshold in (0.5, 0.7)
    assert len(messages(caplog, "is damaged")) == 1, caplog.text
    with tars_settings.join(Stt) as live:
        assert live.current.vad_threshold in (0.5, 0.7)


def test_with_flipped_bytes_in_the_replica_no_forged_value_is_served(
    fleet: TestFleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite does not notice; the signature does."""
    path = environment_of(fleet).replica_path
    content = path.read_bytes()
    assert b'"set":0.7' in content
    path.write_bytes(content.replace(b'"set":0.7', b'"set":0.1'))
    in_environment(fleet, monkeypatch)
    caplog.set_level(logging.INFO)
    assert Stt().vad_threshold in (0.5, 0.7)
    assert messages(caplog, "bad-signature"), caplog.text


def test_with_a_read_only_state_directory(
    mosquitto: Mosquitto, fleet: TestFleet, read_only: None, caplog: pytest.LogCaptureFixture
) -> None:
    mosquitto.start()
    caplog.set_level(logging.INFO)
    with Writer(**fleet.writer_given()) as writer, tars_settings.join(Stt, **fleet.given("pi-3")) as live:
        assert live.current.vad_threshold == 0.7
        assert live.wait_until_ready(15)
        writer.push(Stt, {"vad_threshold": 0.8}).wait()
        eventually(lambda: live.current.vad_threshold == 0.8)
        eventually(lambda: live.status.unstored, what="it is stored a moment after it is used, and can't be")
    assert len(messages(caplog, "not stored")) == 1, caplog.text


@pytest.fixture
def read_only(fleet: TestFleet) -> Iterator[None]:
    """Make the worker's state unwritable, for root too."""
    directory = fleet.state_dir("pi-3") / fleet.id
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.rglob("*"))}
    for path in modes:
        path.chmod(0o500 if path.is_dir() else 0o400)
    with modes_matter():
        with pytest.raises(PermissionError):
            (directory / "probe").touch()
        yield
    for path, mode in modes.items():
        path.chmod(mode)


def test_with_a_tampered_last_known_good(
    fleet: TestFleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment = environment_of(fleet)
    environment.replica_path.unlink()
    cache = environment.lkg_dir("stt-worker") / "cache.db"
    content = cache.read_bytes()
    assert b'"set":0.7' in content
    cache.write_bytes(content.replace(b'"set":0.7', b'"set":0.1'))
    in_environment(fleet, monkeypatch)
    caplog.set_level(logging.INFO)
    assert Stt().vad_threshold == 0.5
    assert len(messages(caplog, "seal broken")) >= 1, caplog.text
