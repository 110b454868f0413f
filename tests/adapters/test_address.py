"""Broker addresses: what is understood, what is refused, and that passwords stay inside."""

from __future__ import annotations

import pytest

from tars_settings.adapters.address import BrokerAddress
from tars_settings.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker", BrokerAddress("mqtt", "broker", 1883)),
        (" mqtt://broker/\n", BrokerAddress("mqtt", "broker", 1883)),
        ("MQTT://Broker:77", BrokerAddress("mqtt", "broker", 77)),
        ("mqtts://broker", BrokerAddress("mqtts", "broker", 8883)),
        ("ws://broker", BrokerAddress("ws", "broker", 80, path="/mqtt")),
        ("wss://broker/a/b", BrokerAddress("wss", "broker", 443, path="/a/b")),
        ("mqtt://[::1]:1", BrokerAddress("mqtt", "::1", 1)),
        ("mqtt://u@broker", BrokerAddress("mqtt", "broker", 1883, "u")),
        ("mqtt://u:@broker", BrokerAddress("mqtt", "broker", 1883, "u", "")),
        ("mqtt://u%40x:p%3A%2F%C3%A9@broker", BrokerAddress("mqtt", "broker", 1883, "u@x", "p:/é")),
        ("unix:///run/a%20b.sock", BrokerAddress("unix", "/run/a b.sock")),
        ("unix://u:p@/run/s", BrokerAddress("unix", "/run/s", 0, "u", "p")),
        (
            "mqtts://b?ca=/c+a.pem&cert=/ce%26rt&key=/k",
            BrokerAddress("mqtts", "b", 8883, ca_file="/c+a.pem", cert_file="/ce&rt", key_file="/k"),
        ),
    ],
)
def test_understood(url: str, expected: BrokerAddress) -> None:
    assert BrokerAddress.parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker",
        "broker:1883",
        "http://broker",
        "mqtt://",
        "mqtt://:hunter2@broker",
        "mqtt://hunter2@broker:0",
        "mqtt://hunter2@broker:x",
        "mqtt://hunter2@broker:70000",
        "mqtt://hunter2@broker/path",
        "mqtt://hunter2@broker#x",
        "mqtt://u:hunter2%ff@broker",
        "mqtt://[::1",
        "mqtts://hunter2@broker?ca=",
        "mqtts://broker?ca=1&ca=hunter2",
        "mqtts://broker?hunter2=1",
        "mqtts://broker?key=/hunter2",
        "mqtt://broker?ca=/hunter2",
        "ws://broker/hunter2%0d%0aHost:x",
        "unix://hunter2/run/s",
        "unix:relative",
        "unix:///%00hunter2",
    ],
)
def test_refused_with_a_reason_and_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="malformed: ") as caught:
        BrokerAddress.parse(url)
    assert "hunter2" not in str(caught.value)


def test_arguments_win_over_the_query() -> None:
    address = BrokerAddress.parse("mqtts://b?ca=/theirs", ca_file="/ours", cert_file="/c", key_file="/k")
    assert (address.ca_file, address.cert_file, address.key_file) == ("/ours", "/c", "/k")


@pytest.mark.parametrize("url", ["mqtt://me:hunter2@broker:1", "unix://me:hunter2@/run/s"])
def test_the_password_is_not_shown(url: str) -> None:
    address = BrokerAddress.parse(url)
    assert "hunter2" not in repr(address) + str(address)


@pytest.mark.parametrize("url", ["mqtt://broker:1", "ws://[::1]:80/mqtt", "unix:///run/s"])
def test_its_text_parses_again(url: str) -> None:
    assert str(BrokerAddress.parse(url)) == url
