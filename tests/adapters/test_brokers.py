"""The test broker itself: a fixture that lies makes every test lie."""

from __future__ import annotations

import pytest

from tests import brokers
from tests.brokers import Mosquitto


def test_what_is_published_is_retained(mosquitto: Mosquitto, protocol: str) -> None:
    mosquitto.publish("a/b", b"\x00\xff\n", protocol=protocol)
    mosquitto.publish("a/c", b"gone", protocol=protocol)
    mosquitto.publish("a/c", b"", protocol=protocol)
    mosquitto.publish("a/d", b"live", retain=False, protocol=protocol)
    assert mosquitto.retained("a/#") == {"a/b": b"\x00\xff\n"}


def test_a_killed_broker_comes_back_empty_on_the_same_port(mosquitto: Mosquitto) -> None:
    mosquitto.publish("a", b"1")
    port, pid = mosquitto.port, mosquitto.pid
    mosquitto.kill()
    mosquitto.start()
    assert (mosquitto.port, mosquitto.retained("#")) == (port, {})
    assert mosquitto.pid != pid


def test_a_missing_binary_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "_EXTRA_PATH", "")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(AssertionError, match="not installed"):
        brokers.binary("mosquitto")
