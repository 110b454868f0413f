"""The MQTT adapter against brokers that misbehave."""

from __future__ import annotations

import os
import random
import ssl
from pathlib import Path

import pytest

from tars_settings.adapters.mqtt import BrokerAddress, MqttTransport
from tars_settings.core.session import Acknowledged, Publish, Received, SessionDown, SessionUp, Subscribe, Subscribed
from tars_settings.errors import BrokerUnreachableError, BrokerUnsuitableError
from tests.certificates import Authority
from tests.driving import connected, of, pump, some
from tests.fakes import CONNACK_4, CONNACK_5, FakeBroker, Peer, publish_packet


def transport_to(broker: FakeBroker, **options: object) -> MqttTransport:
    return MqttTransport(BrokerAddress.parse(f"mqtt://127.0.0.1:{broker.port}"), "test", **options)  # type: ignore[arg-type]


def test_a_silent_broker_is_given_up_after_the_deadline() -> None:
    with FakeBroker(Peer.linger) as broker:
        transport = transport_to(broker, protocol="5", connack_timeout_s=5)
        transport.connect()
        assert (transport.tick(100.0), transport.tick(104.9)) == ((), ())
        (down,) = transport.tick(105.0)
        assert down == SessionDown("no answer to CONNECT within 5 s")
        assert transport.fileno() == -1


def silent_on_5(peer: Peer) -> None:
    peer.receive()
    if peer.version == 4:
        peer.send(CONNACK_4)
    peer.linger()


def test_a_broker_that_is_silent_on_5_is_spoken_to_in_311() -> None:
    with FakeBroker(silent_on_5) as broker:
        transport = transport_to(broker, connack_timeout_s=5)
        transport.connect()
        transport.tick(100.0)
        (down,) = transport.tick(105.0)
        assert isinstance(down, SessionDown)
        assert connected(transport).protocol == 4
        assert connected(transport).protocol == 4
        transport.close()
    assert sorted(broker.versions) == [4, 4, 4, 5, 5]


def test_a_broker_that_was_silent_once_keeps_5() -> None:
    """It was busy, or its host slept: 3.1.1 alone is no proof that it does not speak 5."""

    def script(peer: Peer) -> None:
        peer.receive()
        if peer.number > 1:
            peer.send(CONNACK_5 if peer.version == 5 else CONNACK_4)
        peer.linger()

    with FakeBroker(script) as broker:
        transport = transport_to(broker, connack_timeout_s=5)
        transport.connect()
        transport.tick(100.0)
        transport.tick(105.0)
        assert connected(transport).protocol == 5
        transport.close()


@pytest.mark.timeout(4)  # less than paho's own five seconds
def test_a_silent_tls_server_does_not_hold_connect_longer_than_its_deadline() -> None:
    with FakeBroker(Peer.linger) as broker:
        address = BrokerAddress.parse(f"wss://127.0.0.1:{broker.port}")
        transport = MqttTransport(address, "test", connect_timeout_s=0.3)
        with pytest.raises(BrokerUnreachableError, match="timed out"):
            transport.connect()
        assert broker.accepted == 1


def test_all_packets_of_one_tls_record_are_read(tmp_path: Path) -> None:
    """The selector sees one record; what paho leaves of it lies in TLS's own buffer."""
    authority = Authority(tmp_path)
    server = authority.issue("broker")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(CONNACK_5 + b"".join(publish_packet("a", b"%d" % number) for number in range(200)))
        peer.linger()

    with FakeBroker(script, context) as broker:
        address = BrokerAddress.parse(f"mqtts://127.0.0.1:{broker.port}", ca_file=str(authority.ca))
        transport = MqttTransport(address, "test")
        transport.connect()
        events = pump(transport, some(Received, 200))
        assert [int(event.payload) for event in of(Received, events)] == list(range(200))
        transport.close()


def test_a_refused_subscription_is_told_apart() -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        _, body = peer.receive()
        properties = b"\0" if peer.version == 5 else b""
        answer = body[:2] + properties + b"\x01\x80"
        peer.send(bytes([0x90, len(answer)]) + answer)
        peer.linger()

    for protocol in ("5", "3.1.1"):
        with FakeBroker(script) as broker:
            transport = transport_to(broker, protocol=protocol)
            connected(transport)
            transport.carry_out(Subscribe(5, ("a", "b")))
            assert of(Subscribed, pump(transport, some(Subscribed))) == [Subscribed(5, granted=False)]
            transport.close()


@pytest.mark.parametrize(("code", "ok"), [(0x00, True), (0x10, True), (0x80, False), (0x97, False)])
def test_reason_codes_of_acknowledgements(code: int, ok: bool) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        _, body = peer.receive()
        mid = body[3:5]  # behind the topic "a"
        peer.send(b"\x40\x03" + mid + bytes([code]))
        peer.linger()

    with FakeBroker(script) as broker:
        transport = transport_to(broker)
        connected(transport)
        transport.carry_out(Publish(9, "a", b"v"))
        (answer,) = of(Acknowledged, pump(transport, some(Acknowledged)))
        assert (answer.ref, answer.ok, bool(answer.reason)) == (9, ok, not ok)
        transport.close()


def refuses_5(peer: Peer) -> None:
    peer.receive()
    peer.send(b"\x20\x02\x00\x01" if peer.version == 5 else CONNACK_4)
    if peer.version == 4:
        peer.linger()


def refuses_5_as_5(peer: Peer) -> None:
    peer.receive()
    peer.send(b"\x20\x03\x00\x84\x00" if peer.version == 5 else CONNACK_4)
    if peer.version == 4:
        peer.linger()


def closes_on_5(peer: Peer) -> None:
    peer.receive()
    if peer.version == 4:
        peer.send(CONNACK_4)
        peer.linger()


def test_a_broker_that_refuses_5_is_spoken_to_in_311_and_remembered() -> None:
    for script in (refuses_5, refuses_5_as_5):
        with FakeBroker(script) as broker:
            transport = transport_to(broker)
            assert connected(transport).protocol == 4
            transport.close()
            assert connected(transport).protocol == 4
            transport.close()
        assert sorted(broker.versions) == [4, 4, 5], "5 was asked for once"


def test_a_broker_that_closes_on_5_is_asked_twice_before_5_is_given_up() -> None:
    with FakeBroker(closes_on_5) as broker:
        transport = transport_to(broker)
        assert connected(transport).protocol == 4
        transport.close()
        assert connected(transport).protocol == 4
        transport.close()
    assert sorted(broker.versions) == [4, 4, 4, 5, 5]


def test_a_broker_that_was_only_starting_keeps_5() -> None:
    """A proxy that accepts for a broker that is down closes, too."""

    def script(peer: Peer) -> None:
        peer.receive()
        if peer.number > 1:
            peer.send(CONNACK_5 if peer.version == 5 else CONNACK_4)
            peer.linger()

    with FakeBroker(script) as broker:
        transport = transport_to(broker)
        assert connected(transport).protocol == 5
        transport.close()


def test_a_server_that_always_closes_is_unreachable_and_5_is_tried_again() -> None:
    with FakeBroker(lambda peer: peer.receive() and None) as broker:
        transport = transport_to(broker)
        for _ in range(2):
            with pytest.raises(BrokerUnreachableError, match="before it answers"):
                transport.connect()
            assert transport.fileno() == -1
        assert not transport.pending()
    assert sorted(broker.versions) == [4, 4, 5, 5]


def test_version_5_alone_never_falls_back() -> None:
    with FakeBroker(refuses_5) as broker:
        transport = transport_to(broker, protocol="5")
        transport.connect()
        (down,) = of(SessionDown, pump(transport, some(SessionDown)))
        assert "protocol version" in down.reason
        with pytest.raises(BrokerUnsuitableError):
            transport.connect()
    assert broker.versions == [5]


def test_version_311_alone_never_falls_back_to_31() -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"\x20\x02\x00\x01")
        peer.linger()

    with FakeBroker(script) as broker:
        transport = transport_to(broker, protocol="3.1.1")
        transport.connect()
        assert len(of(SessionDown, pump(transport, some(SessionDown)))) == 1
    assert broker.versions == [4]


def test_a_will_whose_qos_is_refused_is_left_in_qos_0() -> None:
    wills: list[int] = []

    def script(peer: Peer) -> None:
        _, body = peer.receive()
        wills.append(body[7] >> 3 & 3)
        peer.send(b"\x20\x03\x00\x9b\x00" if wills[-1] else CONNACK_5)
        peer.linger()

    with FakeBroker(script) as broker:
        transport = transport_to(broker)
        transport.set_will("gone", b"x")
        with pytest.raises(BrokerUnreachableError, match="QoS not supported"):
            transport.connect()
        connected(transport)
        transport.close()
    assert wills == [1, 0]


def test_a_disconnect_with_a_reason_is_passed_on() -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.send(b"\xe0\x06\x8e\x04\x1f\x00\x01x")  # with a reason string, which is not repeated
        peer.linger()

    with FakeBroker(script) as broker:
        transport = transport_to(broker, protocol="5")
        transport.connect()
        events = pump(transport, some(SessionDown))
        assert of(SessionDown, events) == [SessionDown("the broker ended the session: Session taken over")]


def test_a_session_that_ends_while_the_version_is_asked_for_is_no_session() -> None:
    with FakeBroker(lambda peer: peer.receive() and peer.send(CONNACK_5 + b"\xe0\x06\x89\x04\x1f\x00\x01x")) as broker:
        transport = transport_to(broker)
        with pytest.raises(BrokerUnreachableError, match="Server busy"):
            transport.connect()
        assert (transport.fileno(), transport.pending()) == (-1, False)


def test_a_topic_that_is_no_text_is_left_out() -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.send(b"\x30\x06\x00\x02\xff\xfe\x00x" + publish_packet("a", b"1"))
        peer.linger()

    with FakeBroker(script) as broker:
        transport = transport_to(broker)
        transport.connect()
        assert of(Received, pump(transport, some(Received))) == [Received("a", b"1")]
        transport.close()


@pytest.mark.parametrize("seed", range(60))
def test_garbage_ends_the_session_and_nothing_else(seed: int) -> None:
    """Random packets of every kind, behind an honest CONNACK: read() never raises and the transport works again."""
    chance = random.Random(seed)

    def script(peer: Peer) -> None:
        peer.welcome()
        if peer.number == 1:
            for _ in range(40):
                body = chance.randbytes(chance.randrange(12))
                peer.send(bytes([chance.randrange(256), len(body)]) + body)
        else:
            peer.linger()

    with FakeBroker(script) as broker:
        transport = transport_to(broker, protocol=("5", "3.1.1")[seed % 2])
        transport.connect()
        pump(transport, some(SessionDown))
        assert transport.fileno() == -1
        connected(transport)
        transport.close()
    assert broker.accepted == 2


def test_a_fault_in_our_own_callback_ends_the_session_and_not_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.send(publish_packet("a", b"1"))
        peer.linger()

    def broken(*_: object) -> None:
        raise KeyError("ours")

    with FakeBroker(script) as broker:
        transport = transport_to(broker, protocol="5")
        monkeypatch.setattr("tars_settings.adapters.mqtt.Received", broken)
        transport.connect()
        events = pump(transport, some(SessionDown))
        assert of(SessionUp, events)
        assert "KeyError" in of(SessionDown, events)[0].reason


def test_descriptors_do_not_leak_over_a_hundred_sessions() -> None:
    with FakeBroker(lambda peer: peer.welcome()) as broker:
        transport = transport_to(broker, protocol="5")
        descriptors = []
        for _ in range(100):
            transport.connect()
            descriptors.append(transport.fileno())
            pump(transport, some(SessionDown))
        assert broker.accepted >= 100
    assert len(set(descriptors)) < 50
    assert len(os.listdir("/proc/self/fd")) < 200 if os.path.isdir("/proc/self/fd") else True
