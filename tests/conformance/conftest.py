"""Each broker, started for one test and ended with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.brokers import Aedes, Amqtt, Broker, Nats, install_aedes
from tests.conformance.table import ALONE
from tests.brokers import Mosquitto


@pytest.fixture(scope="session")
def aedes_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that npm has put aedes into."""
    return install_aedes(tmp_path_factory.mktemp("aedes"))


@pytest.fixture(params=ALONE)
def column(request: pytest.FixtureRequest) -> str:
    """Each column of the table that is one broker alone."""
    return str(request.param)


@pytest.fixture
def broker(column: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """The column's broker, running and empty."""
    directory = tmp_path / "broker"
    broker: Mosquitto | Nats | Amqtt | Aedes
    if column == "aedes":
        broker = Aedes(directory, request.getfixturevalue("aedes_modules"))
    else:
        broker = {"NATS": Nats, "amqtt": Amqtt}.get(column, Mosquitto)(directory)
    with broker:
        yield broker
