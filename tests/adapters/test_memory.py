"""The broker in memory behaves as mosquitto does: each fact is checked against both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tars_settings.adapters.memory import MemoryBroker, MemoryLkg, MemoryTransport, matches
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
from tars_settings.errors import BrokerUnreachableError
from tars_settings.ports import LkgStore, Transport
from tests.brokers import Mosquitto
from tests.driving import connected, of, pump, some

Dial = Callable[[str], Transport]


@pytest.fixture(params=["memory", "mosquitto"])
def dial(request: pytest.FixtureRequest, protocol: str, tmp_path: Path) -> Iterator[Dial]:
    """Make transports to one broker, in memory or real."""
    if request.param == "memory":
        broker = MemoryBroker(5 if protocol == "5" else 4)
        yield lambda _name: MemoryTransport(broker)
        return
    with Mosquitto(tmp_path / "m") as real:
        address = BrokerAddress.parse(real.url)
        yield lambda name: MqttTransport(address, name, protocol="5" if protocol == "5" else "3.1.1")


_markers = itertools.count()


def said(transport: Transport, *commands: Subscribe | Unsubscribe | Publish) -> list[SessionEvent]:
    """Carry commands out, and return what they brought before a marker that was published behind them came back."""
    # Each marker is another one: where subscriptions overlap, a broker may deliver the last one twice.
    marker = Received("marker", b"%d" % next(_markers))
    for command in (*commands, Subscribe(990, ("marker",)), Publish(991, "marker", marker.payload, retain=False)):
        transport.carry_out(command)
    events = pump(transport, lambda seen: marker in seen)
    return [event for event in events if getattr(event, "topic", "") != "marker" and getattr(event, "ref", 0) < 990]


def test_replay_and_live_flags(dial: Dial, protocol: str) -> None:
    writer, reader = dial("writer"), dial("reader")
    connected(writer)
    assert connected(reader).retain_as_published is (protocol == "5")
    said(writer, Publish(1, "a/x", b"1"), Publish(2, "a/y", b"2", retain=False), Publish(3, "b", b"3"))
    asked = said(reader, Subscribe(4, ("a/+", "a/x"), replay=True))
    assert of(Subscribed, asked) == [Subscribed(4)]
    assert set(of(Received, asked)) == {Received("a/x", b"1", retain=True)}
    said(writer, Publish(5, "a/x", b"4"), Publish(6, "a/z", b"5", retain=False))
    live = set(of(Received, said(reader)))
    assert live == {Received("a/x", b"4", retain=protocol == "5"), Received("a/z", b"5")}
    writer.close()
    reader.close()


def test_retain_handling_and_empty_payloads(dial: Dial, protocol: str) -> None:
    transport = dial("one")
    connected(transport)
    said(transport, Publish(1, "a", b"1"), Publish(2, "b", b"1"), Publish(3, "b", b""))
    quiet = said(transport, Subscribe(4, ("#",)))
    assert of(Received, quiet) == ([] if protocol == "5" else [Received("a", b"1", retain=True)])
    said(transport, Unsubscribe(("#",)))
    again = said(transport, Subscribe(5, ("#",), replay=True))
    assert of(Received, again) == [Received("a", b"1", retain=True)]
    transport.close()


def test_wills(dial: Dial) -> None:
    polite, rude, reader = dial("polite"), dial("rude"), dial("reader")
    polite.set_will("will/polite", b"gone")
    rude.set_will("will/rude", b"gone")
    for transport in (polite, rude, reader):
        connected(transport)
    said(reader, Subscribe(1, ("will/+",)))
    polite.close()
    if isinstance(rude, MemoryTransport):
        rude._broker.drop(rude)
        assert of(SessionDown, rude.read())
    else:
        rude.abandon()
    events = pump(reader, some(Received))
    assert [event.topic for event in of(Received, events)] == ["will/rude"]
    reader.close()


def test_acknowledgements(dial: Dial) -> None:
    transport = dial("one")
    connected(transport)
    assert of(Acknowledged, said(transport, Publish(1, "a", b"1"), Publish(2, "a", b"1", qos=0))) == [Acknowledged(1)]
    transport.close()


@pytest.mark.parametrize("topic_filter", ["#", "+", "a/#", "a/+", "+/+", "a/b", "a/b/#", "/+", "$SYS/#", "+/b/c"])
def test_wildcards_match_as_mosquitto_matches(mosquitto: Mosquitto, topic_filter: str) -> None:
    topics = ["a", "a/b", "a/b/c", "/b", "b", "a/"]
    for topic in topics:
        mosquitto.publish(topic, b"v", qos=0)
    seen = {topic for topic in mosquitto.retained(topic_filter) if not topic.startswith("$SYS")}
    assert {topic for topic in topics if matches(topic_filter, topic)} == seen
    assert matches(topic_filter, "$SYS/x") is (topic_filter == "$SYS/#")


def test_a_stopped_broker_ends_sessions_and_refuses_new_ones() -> None:
    broker = MemoryBroker()
    transport = MemoryTransport(broker)
    connected(transport)
    broker.publish("a", b"1")
    broker.stop()
    assert of(SessionDown, pump(transport, some(SessionDown)))
    assert transport.fileno() == -1
    with pytest.raises(BrokerUnreachableError):
        transport.connect()
    assert transport.fileno() == -1
    broker.start()
    assert connected(transport) == SessionUp()
    assert broker.retained == {"a": b"1"}
    broker.stop(forget=True)
    assert broker.retained == {}
    transport.close()


def test_the_slots_in_memory_move_up() -> None:
    lkg: LkgStore = MemoryLkg()
    lkg.write(b"1", keep_previous=True)
    lkg.write(b"2", keep_previous=True)
    lkg.write(b"3", keep_previous=False)
    assert (lkg.read(0), lkg.read(1)) == (b"3", b"1")
