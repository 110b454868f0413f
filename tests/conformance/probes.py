"""How each fact of the table is measured: from outside, and where the answer is the library's, with its own adapter."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from paho.mqtt.client import topic_matches_sub

from tars_settings.adapters.mqtt import BrokerAddress, MqttTransport
from tars_settings.core.session import Received, Subscribe, Subscribed
from tests.brokers import eventually
from tests.conformance.brokers import Broker
from tests.conformance.onlooker import HungUpError, Onlooker, leave, retained
from tests.conformance.table import protocol_of
from tests.driving import connected, of, pump, some

MANY = 3000
SILENT_AFTER_S = 2.0
# Clean start, keepalive 60 s, session expiry 0: what every client of MQTT 5 may send.
_CONNECT_5 = b"\x10\x16\x00\x04MQTT\x05\x02\x00\x3c\x05\x11\x00\x00\x00\x00\x00\x04five"


def version_5(broker: Broker, column: str) -> str:
    """Send CONNECT in version 5, by hand, and say what came."""
    if column == "mosquitto, MQTT 3.1.1":
        return "not asked for"
    with socket.create_connection(("127.0.0.1", broker.port), timeout=SILENT_AFTER_S) as client:
        client.sendall(_CONNECT_5)
        try:
            answer = client.recv(4)
        except TimeoutError:
            return "silence"
        except ConnectionError:
            answer = b""
    if not answer:
        return "hangs up"
    return "accepted" if answer[:1] == b"\x20" and answer[3] == 0 else "refused"


def _heard(broker: Broker, column: str, topic: str, *left: bytes) -> list[Received]:
    """Return what the library's adapter hears on a topic, live, until the last of what is left there has come."""
    protocol: Any = protocol_of(column)
    transport = MqttTransport(BrokerAddress.parse(broker.url), f"probe-{topic.replace('/', '-')}", protocol=protocol)
    with ExitStack() as stack:
        stack.callback(transport.close)
        connected(transport)
        transport.carry_out(Subscribe(1, (topic,)))
        pump(transport, some(Subscribed))
        for payload in left:
            leave(broker.port, topic, payload)
        return of(Received, pump(transport, lambda seen: left[-1] in [one.payload for one in of(Received, seen)]))


def retain_as_published(broker: Broker, column: str) -> str:
    (received,) = {one.retain for one in _heard(broker, column, "probe/flag", b"1")}
    return "yes" if received else "no"


def size_guard(broker: Broker, column: str) -> str:
    heard = _heard(broker, column, "probe/size", b"x" * 100_000, b"end")
    return "no" if any(len(one.payload) == 100_000 for one in heard) else "yes"


def largest_envelope(broker: Broker, column: str) -> str:
    payload = b"x" * 48 * 1024
    leave(broker.port, "probe/large", payload)
    return "yes" if retained(broker.port, "probe/large") == {"probe/large": payload} else "no"


def empty_clears(broker: Broker, column: str) -> str:
    leave(broker.port, "probe/cleared", b"1")
    eventually(lambda: retained(broker.port, "probe/cleared"), what="it is there before it is cleared")
    leave(broker.port, "probe/cleared", b"")
    return "no" if retained(broker.port, "probe/cleared") else "yes"


def wildcard_replay(broker: Broker, column: str) -> str:
    with Onlooker(broker.port) as onlooker:
        onlooker.publish_all((f"probe/many/{number}", b"x") for number in range(MANY))
        found = replay_size(broker, "probe/many/+", MANY)
    return "all" if found == MANY else f"{found:,}"


def replay_size(broker: Broker, topic_filter: str, wanted: int) -> int:
    """Return how many topics a wildcard brings to a fresh reader at QoS 1: *wanted*, or what came before a marker."""
    with Onlooker(broker.port) as reader:
        reader.subscribe(topic_filter)
        reader.echo()
        # A marker that went through a queue that is not full any more; a replay that goes on beside it has its time.
        while True:
            before = len(reader.heard)
            reader.echo(pause_s=1.0)
            found = {one.topic for one in reader.heard if topic_matches_sub(topic_filter, one.topic)}
            if len(found) >= wanted or len(reader.heard) == before:
                return len(found)


def only_what_was_asked_for(broker: Broker, column: str) -> str:
    leave(broker.port, "probe/mine", b"1")
    leave(broker.port, "probe/yours", b"1")
    eventually(lambda: len(retained(broker.port, "probe/+")) == 2, what="both are there")
    with Onlooker(broker.port) as other, Onlooker(broker.port) as reader:
        other.subscribe("probe/yours")
        reader.subscribe("probe/mine")
        reader.echo()
        reader.echo()
        return "no" if any(one.topic == "probe/yours" for one in reader.heard) else "yes"


def overlapping(broker: Broker, column: str) -> str:
    with Onlooker(broker.port) as reader:
        reader.subscribe("probe/twice/+")
        reader.subscribe("probe/twice/a")
        leave(broker.port, "probe/twice/a", b"1")
        reader.until(lambda: reader.heard, "it comes")
        reader.echo()
        reader.echo()
        return {1: "once", 2: "twice"}[len(reader.heard)]


def dot(broker: Broker, column: str) -> str:
    try:
        leave(broker.port, "probe/a.b", b"1")
    except HungUpError:
        return "hangs up"
    return "taken" if retained(broker.port, "probe/a.b") == {"probe/a.b": b"1"} else "lost"


def last_will(broker: Broker, column: str) -> str:
    dying = Onlooker(broker.port)
    dying.client.will_set("probe/will", b"gone", qos=1, retain=True)
    with dying:
        sock = dying.client.socket()
        assert sock is not None
        sock.shutdown(socket.SHUT_RDWR)
        eventually(
            lambda: retained(broker.port, "probe/will") == {"probe/will": b"gone"}, what="the last will is there"
        )
    return "yes"


def kill(broker: Broker, column: str) -> str:
    leave(broker.port, "probe/kept", b"1")
    eventually(lambda: retained(broker.port, "probe/kept"), what="it is there before the broker is killed")
    broker.kill()
    broker.start()
    return "holds all" if retained(broker.port, "probe/kept") else "is empty"


PROBES: dict[str, Callable[[Broker, str], str]] = {
    "version 5": version_5,
    "retain as published": retain_as_published,
    "size guard": size_guard,
    "48 KiB retained": largest_envelope,
    "empty clears": empty_clears,
    "wildcard replay": wildcard_replay,
    "replays only what was asked for": only_what_was_asked_for,
    "overlapping filters": overlapping,
    "dot in a topic": dot,
    "last will": last_will,
    "kill -9": kill,
}
