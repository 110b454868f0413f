"""The pytest plugin: fixtures for tests of workers. It does nothing until one of them is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tars_settings.testing.memory import MemoryFleet


@pytest.fixture
def override_settings() -> Iterator[Callable[..., None]]:
    """A function that overrides values until the test ends: ``override_settings(SttSettings, vad_threshold=0.9)``."""
    from tars_settings.testing.overriding import override  # noqa: PLC0415 - nothing is imported before it is used

    with ExitStack() as stack:
        yield lambda cls, values=None, **more: stack.enter_context(override(cls, values, **more))


@pytest.fixture
def memory_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFleet]:
    """A fleet in memory that this process belongs to: ``join()`` and ``Settings()`` find it in the environment."""
    from tars_settings.testing.memory import MemoryFleet  # noqa: PLC0415 - as above

    with MemoryFleet(tmp_path / "tars-settings") as fleet:
        for name, value in fleet.environment().items():
            monkeypatch.setenv(name, value)
        yield fleet


@pytest.fixture
def no_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that belongs to no fleet, whatever the environment of whoever runs the tests says."""
    for name in [one for one in os.environ if one.startswith("TARS_SETTINGS_")]:
        monkeypatch.delenv(name)
