"""E: someone who can write to a worker's disk, or read it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tars_settings import Settings
from tars_settings.join import Live
from tests.brokers import eventually
from tests.canary import MARK
from tests.join.conftest import InMemory, Stt
from tests.settings.stage import Stage, delta

Joiner = Callable[..., Live[Any]]
CANARY = f"{MARK}-do-not-leave-me-on-a-disk"


def columns_of(path: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(path) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [(table, row[1]) for table in tables for row in database.execute(f"PRAGMA table_info({table})")]


def flipped(value: Any) -> Any:
    if isinstance(value, bytes):
        return value[:-3] + bytes([value[-3] ^ 1]) + value[-2:] if len(value) > 2 else b"x"
    return value + 1 if isinstance(value, int) else value + "x"


def change(path: Path, table: str, column: str) -> int:
    """Change a column in every row, and return how many there were."""
    database = sqlite3.connect(path)
    with database:
        rows = database.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
        for row, value in rows:
            database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (flipped(value), row))
    database.close()
    return len(rows)


def test_e01_a_changed_column_of_the_replica_never_becomes_a_value(tmp_path: Path, monkeypatch: Any) -> None:
    stage = Stage(tmp_path / "state")
    stage.store(delta({"vad_threshold": 0.6}, 1), delta({"model": "large"}, 2))
    for name, text in stage.variables.items():
        monkeypatch.setenv(name, text)
    assert (Stt().vad_threshold, Stt().model) == (0.6, "large")
    good = stage.replica_path.read_bytes()
    seen: set[tuple[float, str]] = set()
    struck = 0
    for table, column in columns_of(stage.replica_path):
        stage.replica_path.write_bytes(good)
        rows = change(stage.replica_path, table, column)
        assert (stage.replica_path.read_bytes() != good) is (rows > 0)
        struck += rows
        found = Stt()
        seen.add((found.vad_threshold, found.model))
    assert struck >= 6
    assert seen <= {(vad, model) for vad in (0.5, 0.6) for model in ("base", "large")}
    assert (0.5, "base") in seen, "a changed signature or trust document takes the value away"


def test_e02_a_state_directory_that_went_back_is_caught_up_with_the_broker(
    memory: InMemory, started: Joiner, monkeypatch: Any
) -> None:
    live = started()
    memory.push(vad_threshold=0.6)
    eventually(lambda: live.current.vad_threshold == 0.6)
    live._agent.stop()
    state = memory.keys.state_dir("pi-3")
    shutil.copytree(state, state.with_name("older"))
    again = memory.join()
    memory.push(vad_threshold=0.7)
    eventually(lambda: again.current.vad_threshold == 0.7)
    again._agent.stop()
    shutil.rmtree(state)
    shutil.copytree(state.with_name("older"), state)
    with monkeypatch.context() as offline:
        for name, text in memory.keys.environment("pi-3").items():
            offline.setenv(name, text)
        assert Stt().vad_threshold == 0.6, "the disk went back, and nothing on it says so"
    back = memory.fleet().join(Stt)
    assert back.wait_until_ready(10)
    eventually(lambda: back.current.vad_threshold == 0.7)


class Keyed(Settings, service="stt-worker"):
    api_key: SecretStr | None = None


def test_e06_a_secret_is_in_no_file_and_in_no_message(memory: InMemory, started: Joiner) -> None:
    live = started(Keyed)
    memory.writer.push(Keyed, {"api_key": CANARY}).wait(10)
    eventually(lambda: live.current.api_key is not None and live.current.api_key.get_secret_value() == CANARY)
    live.mark_good()
    eventually(lambda: list(memory.keys.state_dir("pi-3").rglob("cache.db")), what="the LKG was written")
    assert CANARY not in repr(live.current) + str(live.status) + repr(live)
    live._agent.stop()
    memory.writer.close()  # or files come and go while they are read
    files = [path for path in memory.keys.directory.rglob("*") if path.is_file()]
    assert len(files) >= 4
    found = [path.name for path in files if CANARY.encode() in path.read_bytes()]
    found += [topic for topic, payload in memory.broker.retained.items() if CANARY.encode() in payload]
    assert found == []
