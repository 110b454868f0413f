"""What is acknowledged to a broker, and in which order."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable

import pytest

from tars_settings.adapters.mqtt import BrokerAddress, MqttTransport
from tars_settings.core.session import Received
from tests.brokers import eventually
from tests.driving import connected, of, pump, some
from tests.fakes import FakeBroker, Peer

PUBACK, DISCONNECT = 0x40, 0xE0
NOTHING, CONTENT_TYPE = b"\0", b"\x04\x03\x00\x01x"


def qos_1(number: int, properties: bytes = NOTHING) -> bytes:
    """Return a PUBLISH of MQTT 5 with this packet id."""
    body = b"\x00\x01a" + number.to_bytes(2, "big") + properties + b"%d" % number
    return bytes([0x32, len(body)]) + body


def telling(content: bytes, told: list[tuple[int, int]], go: threading.Event | None = None) -> Callable[[Peer], None]:
    """Return a script that sends *content* in one piece, and notes kind and packet id of all that the client says then.

    It waits for *go* where there is one.
    """

    def script(peer: Peer) -> None:
        peer.welcome()
        assert go is None or go.wait(10)
        peer.send(content)
        while True:
            kind, body = peer.receive()
            told.append((kind, int.from_bytes(body[:2], "big")))

    return script


@pytest.mark.parametrize("odd", [1, 2, 3])
def test_messages_are_acknowledged_in_their_order_whoever_of_us_and_paho_takes_them(odd: int) -> None:
    """As MQTT asks (version 5, 4.6): one with properties is paho's."""
    told: list[tuple[int, int]] = []
    content = b"".join(qos_1(n, CONTENT_TYPE if n == odd else NOTHING) for n in (1, 2, 3))
    with FakeBroker(telling(content, told)) as broker:
        transport = MqttTransport(BrokerAddress.parse(f"mqtt://127.0.0.1:{broker.port}"), "test", protocol="5")
        transport.connect()
        events = pump(transport, some(Received, 3))
        assert [event.payload for event in of(Received, events)] == [b"1", b"2", b"3"]
        while transport.wants_write():
            transport.write()
        eventually(lambda: len(told) >= 3)
        assert told == [(PUBACK, 1), (PUBACK, 2), (PUBACK, 3)]
        transport.close()


def test_who_leaves_acknowledges_first_what_it_took() -> None:
    told: list[tuple[int, int]] = []
    go = threading.Event()
    with FakeBroker(telling(qos_1(7), told, go)) as broker:
        transport = MqttTransport(BrokerAddress.parse(f"mqtt://127.0.0.1:{broker.port}"), "test", protocol="5")
        connected(transport)
        go.set()
        taken: list[Received] = []
        while not taken:
            assert select.select([transport.fileno()], [], [], 10)[0], "no message came"
            taken += of(Received, transport.read())
        assert not told, "it was acknowledged before anybody could use it"
        transport.close()
        eventually(lambda: len(told) == 2)
        assert [kind for kind, _ in told] == [PUBACK, DISCONNECT]
        assert told[0] == (PUBACK, 7)
