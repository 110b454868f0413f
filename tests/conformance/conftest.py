"""Each broker, started for one test and ended with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.brokers import Mosquitto
from tests.conformance.brokers import Aedes, Amqtt, Broker, Nats, install_aedes, running
from tests.conformance.table import ALONE, measured, write

Learned = Callable[[str, str, str], None]
"""Takes fact, column and what was measured: it must be what the table says, unless the table is written anew."""

_new: dict[str, dict[str, str]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --learn."""
    parser.addoption("--learn", action="store_true", help="write the table of brokers anew instead of comparing")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, where the table is written anew, the tests that look at what was written before."""
    if config.getoption("--learn"):
        items[:] = [item for item in items if not item.get_closest_marker("reads_the_table")]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was learned."""
    if _new:
        write(_new)


@pytest.fixture
def learned(request: pytest.FixtureRequest) -> Learned:
    """Compare with the table, or remember for it."""

    def learn(fact: str, column: str, found: str) -> None:
        if request.config.getoption("--learn"):
            _new.setdefault(fact, {})[column] = found
        else:
            assert found == measured()[fact][column], f"{fact} of {column} is not what the table says"

    return learn


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

    def make(directory: Path) -> Mosquitto | Nats | Amqtt | Aedes:
        if column == "aedes":
            return Aedes(directory, request.getfixturevalue("aedes_modules"))
        return {"NATS": Nats, "amqtt": Amqtt}.get(column, Mosquitto)(directory)

    with running(tmp_path / "broker", make) as broker:
        yield broker
