"""Fixtures of a worker's host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.settings.stage import Stage


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("TARS_SETTINGS_", "STT_")):
            monkeypatch.delenv(name)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A host that belongs to a fleet, with nothing stored yet."""
    made = Stage(tmp_path / "state")
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    return made
