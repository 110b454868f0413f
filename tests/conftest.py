"""Fixtures that every test may use."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import canary
from tests.brokers import Mosquitto


def pytest_configure(config: pytest.Config) -> None:
    """Search all files for secrets at the end, and heed Ctrl-C.

    A run that a shell put into the background has it ignored, and hands that on to every child.
    """
    config.pluginmanager.register(canary)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running, empty mosquitto without persistence; anyone may connect."""
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture(params=["5", "3.1.1"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Both versions of MQTT, one after the other."""
    return str(request.param)
