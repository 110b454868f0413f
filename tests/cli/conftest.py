"""A command line, and a fleet with a broker for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.brokers import Mosquitto
from tests.cli.inside import Inside
from tests.cli.running import Cli, Plant, open_plant


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command, at home in an empty directory, without any setting."""
    home = tmp_path / "home"
    home.mkdir()
    return Cli(home)


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """A fleet whose command runs in this process, with a running broker; shared by the tests of a module."""
    home = tmp_path_factory.mktemp("inside")
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(home / "mosquitto"))
        yield Inside(home, broker, stack)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A fleet with a running broker, shared by the tests of a module; workers end with it."""
    with open_plant(tmp_path_factory.mktemp("plant")) as made:
        yield made
