"""The MQTT adapter against a real mosquitto, in both versions."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Literal, cast

import pytest

from tars_settings.adapters.mqtt import BrokerAddress, MqttTransport
from tars_settings.core.session import (
    Acknowledged,
    Publish,
    Received,
    SessionDown,
    SessionEvent,
    SessionUp,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from tars_settings.errors import BrokerUnreachableError, BrokerUnsuitableError
from tars_settings.ports import Transport
from tests.brokers import Mosquitto, binary, eventually, free_port
from tests.certificates import Authority
from tests.driving import connected, of, pump, some, turn

Protocol = Literal["auto", "5", "3.1.1"]


def transport_to(url: str, protocol: str = "auto", name: str = "peer", **options: float) -> MqttTransport:
    return MqttTransport(
        BrokerAddress.parse(url),
        f"test-{name}-{os.getpid()}",
        protocol=cast("Protocol", protocol),
        **options,  # type: ignore[arg-type]
    )


def test_it_fulfils_the_port() -> None:
    _: Transport = transport_to("mqtt://127.0.0.1")


def test_retained_messages_are_replayed_where_asked_for(mosquitto: Mosquitto, protocol: str) -> None:
    mosquitto.publish("a/x", b"\x00\xffheld")
    transport = transport_to(mosquitto.url, protocol)
    up = connected(transport)
    assert (up.protocol, up.retain_as_published) == ((5, True) if protocol == "5" else (4, False))
    transport.carry_out(Subscribe(7, ("a/+",), replay=True))
    events = pump(transport, some(Received))
    assert of(Received, events) == [Received("a/x", b"\x00\xffheld", retain=True)]
    assert of(Subscribed, events) == [Subscribed(7)]
    transport.close()


def test_a_live_subscription_replays_nothing_on_5(mosquitto: Mosquitto) -> None:
    mosquitto.publish("a/x", b"held")
    transport = transport_to(mosquitto.url, "5")
    connected(transport)
    transport.carry_out(Subscribe(1, ("a/+",)))
    events = pump(transport, some(Subscribed))
    mosquitto.publish("a/y", b"live")
    events += pump(transport, lambda seen: any(event.topic == "a/y" for event in of(Received, seen)))
    assert of(Received, events) == [Received("a/y", b"live", retain=True)]
    transport.close()


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("more", [[], ["-D", "publish", "user-property", "a", "b"]])
def test_a_message_arrives_whole_with_properties_or_without(
    mosquitto: Mosquitto, protocol: str, qos: int, more: list[str]
) -> None:
    transport = transport_to(mosquitto.url, protocol)
    connected(transport)
    transport.carry_out(Subscribe(1, ("a/+",)))
    pump(transport, some(Subscribed))
    payload = "x" * 300  # its length takes two bytes
    command = [binary("mosquitto_pub"), "-V", "5", "-p", str(mosquitto.port), "-t", "a/ü", "-q", str(qos)]
    subprocess.run([*command, *more, "-m", payload], check=True, timeout=10)
    assert of(Received, pump(transport, some(Received))) == [Received("a/ü", payload.encode())]
    # The next one comes: the first was acknowledged, and nothing of it was left over.
    mosquitto.publish("a/next", b"", retain=False)
    assert of(Received, pump(transport, some(Received))) == [Received("a/next", b"")]
    transport.close()


@pytest.mark.parametrize("retain", [True, False])
def test_live_messages_carry_the_publishers_flag_on_5_only(mosquitto: Mosquitto, protocol: str, retain: bool) -> None:
    transport = transport_to(mosquitto.url, protocol)
    connected(transport)
    transport.carry_out(Subscribe(1, ("a",)))
    pump(transport, some(Subscribed))
    mosquitto.publish("a", b"1", retain=retain)
    (received,) = of(Received, pump(transport, some(Received)))
    assert received.retain is (retain and protocol == "5")
    transport.close()


def test_published_messages_are_acknowledged_and_retained(mosquitto: Mosquitto, protocol: str) -> None:
    transport = transport_to(mosquitto.url, protocol)
    connected(transport)
    for number in range(100):  # more than paho's window of 20
        transport.carry_out(Publish(number, f"a/{number}", b"v", retain=number > 0))
    assert transport.wants_write()
    events = pump(transport, some(Acknowledged, 100))
    assert of(Acknowledged, events) == [Acknowledged(number) for number in range(100)]
    assert len(mosquitto.retained("a/#")) == 99
    transport.close()


def test_commands_without_a_session_are_dropped(mosquitto: Mosquitto) -> None:
    transport = transport_to(mosquitto.url)
    transport.carry_out(Publish(1, "a", b"early"))
    connected(transport)
    transport.close()
    transport.carry_out(Publish(2, "a", b"late"))
    assert transport.fileno() == -1
    assert not transport.wants_write()
    assert mosquitto.retained("#") == {}


def test_commands_before_the_session_is_up_are_dropped(mosquitto: Mosquitto, protocol: str) -> None:
    transport = transport_to(mosquitto.url, protocol)
    transport.connect()
    transport.carry_out(Publish(1, "early", b"v"))
    pump(transport, some(SessionUp))
    transport.carry_out(Publish(2, "later", b"v"))
    assert of(Acknowledged, pump(transport, some(Acknowledged))) == [Acknowledged(2)]
    assert list(mosquitto.retained("#")) == ["later"]
    transport.close()


def test_unsubscribed_topics_stay_silent(mosquitto: Mosquitto, protocol: str) -> None:
    transport = transport_to(mosquitto.url, protocol)
    connected(transport)
    transport.carry_out(Subscribe(1, ("a", "b")))
    pump(transport, some(Subscribed))
    transport.carry_out(Unsubscribe(("a",)))
    transport.carry_out(Publish(1, "a", b"1"))
    transport.carry_out(Publish(2, "b", b"2"))
    assert [event.topic for event in of(Received, pump(transport, some(Received)))] == ["b"]
    transport.close()


def test_many_filters_are_one_answer(mosquitto: Mosquitto, protocol: str) -> None:
    for number in range(20):
        mosquitto.publish(f"a/{number}", b"v", qos=0)
    transport = transport_to(mosquitto.url, protocol)
    connected(transport)
    transport.carry_out(Subscribe(3, tuple(f"a/{number}" for number in range(20)), replay=True))
    events = pump(transport, lambda seen: some(Received, 20)(seen) and some(Subscribed)(seen))
    assert of(Subscribed, events) == [Subscribed(3)]
    transport.close()


@pytest.mark.parametrize(
    "topic",
    ["", "a/+", "#", "a\0b", "a\nb", "a\x7f", "\ud800", "$SYS/x", "x" * 65536],
    ids=lambda topic: ascii(topic)[:9],
)
def test_punishable_topics_never_leave(mosquitto: Mosquitto, protocol: str, topic: str) -> None:
    transport = transport_to(mosquitto.url, protocol)
    connected(transport)
    transport.carry_out(Publish(1, topic, b"v"))
    transport.carry_out(Subscribe(2, ("a\0",)))
    transport.carry_out(Subscribe(3, ()))
    transport.carry_out(Publish(4, "good", b"v"))
    events = pump(transport, some(Acknowledged, 2))
    refused, good = of(Acknowledged, events)
    assert (refused.ref, refused.ok, bool(refused.reason), good) == (1, False, True, Acknowledged(4))
    assert of(Subscribed, events) == [Subscribed(2, granted=False), Subscribed(3, granted=False)]
    assert of(SessionDown, events) == []
    transport.close()


def test_what_is_over_our_own_limit_never_leaves(mosquitto: Mosquitto, protocol: str) -> None:
    transport = transport_to(mosquitto.url, protocol, max_packet_bytes=1000)
    connected(transport)
    transport.carry_out(Publish(1, "a", b"x" * 990))
    transport.carry_out(Publish(2, "b", b"x" * 989))
    assert [event.ok for event in of(Acknowledged, pump(transport, some(Acknowledged, 2)))] == [False, True]
    assert list(mosquitto.retained("#")) == ["b"]
    transport.close()


def test_the_brokers_packet_limit_is_told_and_kept(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, "max_packet_size 500") as broker:
        transport = transport_to(broker.url, "5")
        assert connected(transport).max_packet_bytes == 500
        transport.carry_out(Publish(1, "a", b"x" * 600))
        transport.carry_out(Publish(2, "b", b"x" * 400))
        events = pump(transport, some(Acknowledged, 2))
        assert [event.ok for event in of(Acknowledged, events)] == [False, True]
        assert of(SessionDown, events) == []
        transport.close()


def test_what_is_over_our_limit_is_never_sent_to_us_on_5(mosquitto: Mosquitto) -> None:
    transport = transport_to(mosquitto.url, "5", max_packet_bytes=2000)
    connected(transport)
    transport.carry_out(Subscribe(1, ("#",)))
    pump(transport, some(Subscribed))
    mosquitto.publish("big", b"x" * 1_000_000)
    mosquitto.publish("small", b"x")
    assert [event.topic for event in of(Received, pump(transport, some(Received)))] == ["small"]
    transport.close()


def test_a_broker_without_qos_1_is_spoken_to_in_qos_0(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, "max_qos 0") as broker:
        transport = transport_to(broker.url, "5")
        transport.set_will("gone", b"")
        transport.connect()
        pump(transport, some(SessionDown))  # it minds the will's QoS; the next will has 0
        connected(transport)
        transport.carry_out(Publish(1, "a", b"v"))
        assert of(Acknowledged, pump(transport, some(Acknowledged))) == [Acknowledged(1)]
        eventually(lambda: broker.retained("a") == {"a": b"v"})
        transport.close()


def test_a_broker_without_retained_messages_is_unsuitable(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, "retain_available false") as broker:
        transport = transport_to(broker.url, "5")
        transport.connect()
        (down,) = of(SessionDown, pump(transport, some(SessionDown)))
        assert "retained" in down.reason
        with pytest.raises(BrokerUnsuitableError, match="retained"):
            transport.connect()
        transport.connect()  # and after that it is asked again: it may have been put right
        transport.close()
        with pytest.raises(BrokerUnsuitableError, match="retained"):
            transport_to(broker.url).connect()


def password_file(directory: Path, user: str, password: str) -> Path:
    path = directory / "passwords"
    path.touch(mode=0o600)
    subprocess.run([binary("mosquitto_passwd"), "-b", str(path), user, password], check=True, capture_output=True)
    return path


def test_credentials_open_the_door(tmp_path: Path, protocol: str) -> None:
    passwords = password_file(tmp_path, "me", "p@ss/wörd")
    with Mosquitto(tmp_path, f"password_file {passwords}", anonymous=False) as broker:
        transport = transport_to(f"mqtt://me:p%40ss%2Fw%C3%B6rd@127.0.0.1:{broker.port}", protocol)
        connected(transport)
        transport.close()


@pytest.mark.parametrize("user", ["", "me:wrong@"])
def test_refused_credentials_are_said_and_not_hammered(tmp_path: Path, protocol: str, user: str) -> None:
    passwords = password_file(tmp_path, "me", "right")
    with Mosquitto(tmp_path, f"password_file {passwords}", anonymous=False) as broker:
        url = f"mqtt://{user}127.0.0.1:{broker.port}"
        transport = transport_to(url, protocol)
        transport.connect()
        (down,) = of(SessionDown, pump(transport, some(SessionDown)))
        assert down.reason.startswith("the broker refused the connection: ")
        assert "wrong" not in down.reason + repr(transport)
        assert transport.fileno() == -1
        with pytest.raises(BrokerUnsuitableError, match="refused the connection"):
            transport.connect()
        with pytest.raises(BrokerUnsuitableError, match="refused the connection"):
            transport_to(url).connect()


def test_a_forbidden_publish_is_said_on_5(tmp_path: Path) -> None:
    access = tmp_path / "acl"
    access.write_text("topic read #\n")
    access.chmod(0o600)
    with Mosquitto(tmp_path / "broker", f"acl_file {access}") as broker:
        transport = transport_to(broker.url, "5")
        connected(transport)
        transport.carry_out(Publish(1, "a", b"v"))
        (answer,) = of(Acknowledged, pump(transport, some(Acknowledged)))
        assert (answer.ok, answer.reason) == (False, "Not authorized")
        transport.close()


def test_a_killed_broker_is_noticed_and_found_again(mosquitto: Mosquitto, protocol: str) -> None:
    transport = transport_to(mosquitto.url, protocol)
    connected(transport)
    descriptor = transport.fileno()
    transport.carry_out(Subscribe(1, ("a",)))
    pump(transport, some(Subscribed))
    mosquitto.kill()
    events = pump(transport, some(SessionDown))
    assert len(of(SessionDown, events)) == 1
    assert (transport.fileno(), transport.pending(), turn(transport, 0)) == (-1, False, [])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    with pytest.raises(BrokerUnreachableError):
        transport.connect()
    mosquitto.start()
    assert connected(transport).protocol == (5 if protocol == "5" else 4)
    transport.close()


def test_unacknowledged_messages_are_not_sent_again_by_the_next_session(mosquitto: Mosquitto, protocol: str) -> None:
    transport = transport_to(mosquitto.url, protocol)
    connected(transport)
    os.kill(mosquitto.pid, signal.SIGSTOP)
    for number in range(50):
        transport.carry_out(Publish(number, f"a/{number}", b"v"))
    transport.write()
    mosquitto.kill()
    events = pump(transport, some(SessionDown))
    assert of(Acknowledged, events) == [], "the broker was not stopped in time"
    mosquitto.start()
    connected(transport)
    transport.carry_out(Publish(99, "b", b"v"))
    pump(transport, some(Acknowledged))
    assert list(mosquitto.retained("#")) == ["b"]
    transport.close()


def test_the_will_is_published_when_the_peer_dies_and_not_when_it_leaves(mosquitto: Mosquitto, protocol: str) -> None:
    polite, rude = transport_to(mosquitto.url, protocol, "polite"), transport_to(mosquitto.url, protocol, "rude")
    for transport, topic in ((polite, "will/polite"), (rude, "will/rude")):
        transport.set_will(topic, b"gone")
        connected(transport)
    polite.close()
    rude.abandon()
    eventually(lambda: mosquitto.retained("will/#"))
    assert mosquitto.retained("will/#") == {"will/rude": b"gone"}


def test_a_forked_child_abandons_the_session_and_the_parent_keeps_it(mosquitto: Mosquitto, protocol: str) -> None:
    transport = transport_to(mosquitto.url, protocol)
    transport.set_will("will", b"gone")
    connected(transport)
    child = os.fork()
    if child == 0:
        transport.abandon()
        os._exit(0 if transport.fileno() == -1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    transport.carry_out(Publish(1, "a", b"still here"))
    events: list[SessionEvent] = pump(transport, some(Acknowledged))
    assert of(SessionDown, events) == []
    assert mosquitto.retained("#") == {"a": b"still here"}
    transport.close()


def test_websockets(tmp_path: Path, protocol: str) -> None:
    port = free_port()
    with Mosquitto(tmp_path, f"listener {port} 127.0.0.1", "protocol websockets") as broker:
        broker.publish("a", b"x" * 30_000)
        transport = transport_to(f"ws://127.0.0.1:{port}/mqtt", protocol)
        connected(transport)
        transport.carry_out(Subscribe(1, ("a",), replay=True))
        assert of(Received, pump(transport, some(Received))) == [Received("a", b"x" * 30_000, retain=True)]
        transport.close()


def test_unix_sockets(tmp_path: Path, protocol: str) -> None:
    path = tmp_path / "mosquitto.sock"
    with Mosquitto(tmp_path / "broker", f"listener 0 {path}") as broker:
        broker.publish("a", b"1")
        transport = transport_to(f"unix://{path}", protocol)
        connected(transport)
        transport.carry_out(Subscribe(1, ("a",), replay=True))
        assert of(Received, pump(transport, some(Received))) == [Received("a", b"1", retain=True)]
        transport.close()


def tls_lines(authority: Authority, port: int, *, days: int = 2) -> list[str]:
    server = authority.issue("broker", days=days)
    return [f"listener {port} 127.0.0.1", f"certfile {server.certificate}", f"keyfile {server.key}"]


def test_tls_with_a_client_certificate(tmp_path: Path, protocol: str) -> None:
    authority, port = Authority(tmp_path / "ca"), free_port()
    client = authority.issue("client")
    lines = [*tls_lines(authority, port), f"cafile {authority.ca}", "require_certificate true"]
    with Mosquitto(tmp_path, *lines) as broker:
        broker.publish("a", b"1")
        query = f"?ca={authority.ca}&cert={client.certificate}&key={client.key}"
        transport = transport_to(f"mqtts://127.0.0.1:{port}{query}", protocol)
        connected(transport)
        transport.carry_out(Subscribe(1, ("a",), replay=True))
        assert of(Received, pump(transport, some(Received))) == [Received("a", b"1", retain=True)]
        transport.close()
        without = transport_to(f"mqtts://127.0.0.1:{port}?ca={authority.ca}", protocol)
        without.connect()
        assert len(of(SessionDown, pump(without, some(SessionDown)))) == 1


@pytest.mark.parametrize("fault", ["other authority", "expired", "no such file"])
def test_a_certificate_that_fails_makes_the_broker_unsuitable(tmp_path: Path, fault: str) -> None:
    authority, port = Authority(tmp_path / "ca"), free_port()
    ca = {"other authority": lambda: Authority(tmp_path / "other").ca, "no such file": lambda: tmp_path / "absent"}
    with Mosquitto(tmp_path, *tls_lines(authority, port, days=-1 if fault == "expired" else 2)):
        trusted = ca.get(fault, lambda: authority.ca)()
        transport = transport_to(f"mqtts://127.0.0.1:{port}?ca={trusted}")
        with pytest.raises(BrokerUnsuitableError, match=r"certificate|absent"):
            transport.connect()
        assert transport.fileno() == -1


def test_a_joins_worth_of_messages_takes_few_turns(mosquitto: Mosquitto) -> None:
    """Reading is drained: one turn of the loop brings many messages, where paho alone reads one a call."""
    writer = transport_to(mosquitto.url, name="writer")
    connected(writer)
    for number in range(51):
        writer.carry_out(Publish(number, f"a/{number}", b"x" * 400))
    pump(writer, some(Acknowledged, 51))
    writer.close()
    reader = transport_to(mosquitto.url)
    connected(reader)
    reader.carry_out(Subscribe(1, ("a/#",), replay=True))
    turns: list[int] = []

    def done(events: object) -> bool:
        turns.append(1)
        return some(Received, 51)(cast("list[SessionEvent]", events))

    pump(reader, done)
    assert len(turns) < 40
    reader.close()


def test_up_again_after_a_polite_restart_and_versions_are_remembered(mosquitto: Mosquitto) -> None:
    transport = transport_to(mosquitto.url)
    assert connected(transport) == SessionUp(protocol=5, retain_as_published=True, max_packet_bytes=0)
    mosquitto.restart()
    pump(transport, some(SessionDown))
    assert connected(transport).protocol == 5
    transport.close()
