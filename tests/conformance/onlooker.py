"""A voice from outside: paho alone, in MQTT 3.1.1, with none of the library's code. It looks and it meddles."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, topic_matches_sub
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from tests.brokers import DEADLINE_S, eventually

_numbers = itertools.count(1)
PATIENCE_S = 40.0


class HungUpError(Exception):
    """The broker ended the connection."""


class Onlooker:
    """One connection of its own to the broker on *port*; ``with`` it."""

    def __init__(self, port: int, *, protocol: str = "3.1.1") -> None:
        five = protocol == "5"
        self.heard: list[MQTTMessage] = []
        self._acknowledged: set[int] = set()
        self._granted: dict[int, bool] = {}
        self._port = port
        name = f"onlooker-{os.getpid()}-{next(_numbers)}"
        version = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
        self.client = Client(CallbackAPIVersion.VERSION2, name, protocol=version)
        self.client.on_message = lambda _client, _userdata, message: self.heard.append(message)
        self.client.on_publish = lambda _client, _userdata, mid, *_: self._acknowledged.add(mid)
        self.client.on_subscribe = self._on_subscribe

    def __enter__(self) -> Onlooker:
        self.client.connect("127.0.0.1", self._port)
        self.until(self.client.is_connected, "the onlooker is connected")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.disconnect()

    def _on_subscribe(self, _client: Client, _userdata: Any, mid: int, codes: list[ReasonCode], _: Any) -> None:
        self._granted[mid] = not any(code.is_failure for code in codes)

    def until(self, condition: Callable[[], object], what: str, *, deadline_s: float = DEADLINE_S) -> None:
        """Drive the connection until *condition* holds.

        Raises:
            AssertionError: the deadline passed.
            HungUpError: the broker ended the connection.
        """
        end_s = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end_s, f"not within {deadline_s} s: {what}"
            if self.client.loop(0.02) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise HungUpError(f"the broker hung up before {what}")

    def publish(self, topic: str, payload: bytes, *, retain: bool = True, qos: int = 1) -> None:
        """Publish and wait for the acknowledgement."""
        mid = self.client.publish(topic, payload, qos, retain).mid
        self.until(lambda: mid in self._acknowledged, f"{topic} is acknowledged")

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Subscribe and wait for the answer.

        Raises:
            HungUpError: it was refused: no better than hanging up.
        """
        mid = self.client.subscribe(topic_filter, qos)[1]
        self.until(lambda: mid in self._granted, f"{topic_filter} is granted")
        if not self._granted[mid]:
            raise HungUpError(f"the broker refused a subscription to {topic_filter}")

    def publish_all(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Leave many retained messages and wait for all acknowledgements."""
        mids = {self.client.publish(topic, payload, 1, retain=True).mid for topic, payload in messages}
        self.until(lambda: mids <= self._acknowledged, "all are acknowledged", deadline_s=60)

    def echo(self, qos: int = 1, *, pause_s: float = 0.0) -> None:
        """Return once a message to itself came back: what was on its way to this connection is mostly here.

        It is sent again and again: a broker that has no room for more drops it. The first one waits for *pause_s*.
        """
        marker = f"onlooker/{os.getpid()}/{next(_numbers)}"
        self.subscribe(marker, qos)
        next_s = time.monotonic() + pause_s

        def is_back() -> bool:
            nonlocal next_s
            if time.monotonic() >= next_s:
                next_s = time.monotonic() + 0.5
                self.client.publish(marker, b"end", 1)
            return any(one.topic == marker for one in self.heard)

        self.until(is_back, "the marker comes back", deadline_s=30)
        self.heard = [one for one in self.heard if not one.topic.startswith("onlooker/")]


def retained(port: int, topic_filter: str) -> dict[str, bytes]:
    """Return what the broker on *port* replays for a filter, by topic.

    It may lack some where a broker lets others overtake its replay: poll for what must be there.
    """
    found: dict[str, bytes] = {}

    def is_found() -> bool:
        # amqtt, seldom, drops a connection that it has just accepted; NATS drops and refuses while it elects a leader.
        with contextlib.suppress(HungUpError, OSError):
            found.update(_retained(port, topic_filter))
            return True
        return False

    eventually(is_found, deadline_s=PATIENCE_S, what="the broker talks to the onlooker")
    return found


def _retained(port: int, topic_filter: str) -> dict[str, bytes]:
    with Onlooker(port) as onlooker:
        onlooker.subscribe(topic_filter, qos=0)
        onlooker.echo(qos=0)
        onlooker.echo(qos=0)
        # amqtt replays what other subscribers asked for, too.
        found = [one for one in onlooker.heard if one.retain and topic_matches_sub(topic_filter, one.topic)]
        return {one.topic: one.payload for one in found if one.payload}


def leave(port: int, topic: str, payload: bytes) -> None:
    """Leave a retained message on the broker on *port*."""
    with Onlooker(port) as onlooker:
        onlooker.publish(topic, payload)
