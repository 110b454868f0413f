"""An onlooker at the broker: it sees what is retained, and may publish what it likes. It holds no key of the fleet.

It speaks MQTT through the library's own transport, and none of the library's trust lies behind it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from typing import Any, Final

from tars_settings.adapters.address import BrokerAddress
from tars_settings.adapters.mqtt import MqttTransport
from tars_settings.core.session import Publish, Received, SessionDown, SessionEvent, SessionUp, Subscribe
from tars_settings.errors import BrokerError

_PAUSE_S: Final = 0.02


class Onlooker:
    """Keeps the last retained payload of each topic that a filter matches; connects again when the broker is gone.

    *protocol* is ``auto``, ``5`` or ``3.1.1``.
    """

    def __init__(self, url: str, protocol: Any, topic_filter: str) -> None:
        name = f"ts-onlooker-{os.getpid()}-{time.monotonic_ns()}"
        self._transport = MqttTransport(BrokerAddress.parse(url), name, protocol=protocol)
        self._filter = topic_filter
        self._retained: dict[str, bytes] = {}
        self._seen: dict[str, list[tuple[float, bytes]]] = {}
        self._wishes: list[Publish] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._up = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Onlooker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(10)

    @property
    def is_connected(self) -> bool:
        """Whether it sees the broker now."""
        return self._up

    def retained(self) -> dict[str, bytes]:
        """Return what the broker holds, as far as was seen."""
        with self._lock:
            return dict(self._retained)

    def history(self, topic: str) -> list[tuple[float, bytes]]:
        """Return what was seen on a topic, in order: when (seconds of the monotonic clock), and the payload."""
        with self._lock:
            return list(self._seen.get(topic, ()))

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish a retained message, soon."""
        with self._lock:
            self._wishes.append(Publish(len(self._wishes) + 100, topic, payload))

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(BrokerError):
                self._transport.connect()
                self._session()
            self._lose()
            self._stopping.wait(_PAUSE_S)
        self._transport.close()

    def _session(self) -> None:
        with selectors.DefaultSelector() as selector:
            descriptor = self._transport.fileno()
            selector.register(descriptor, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while self._transport.fileno() == descriptor and not self._stopping.is_set():
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._transport.wants_write() else 0)
                selector.modify(descriptor, wanted)
                selector.select(0 if self._transport.pending() else _PAUSE_S)
                self._take([*self._transport.read(), *self._transport.write(), *self._transport.tick(time.monotonic())])
                self._carry_out()

    def _take(self, events: list[SessionEvent]) -> None:
        for event in events:
            if isinstance(event, SessionUp):
                self._up = True
                self._transport.carry_out(Subscribe(1, (self._filter,), qos=1, replay=True))
            elif isinstance(event, SessionDown):
                self._lose()
            elif isinstance(event, Received):
                with self._lock:
                    self._note(event)

    def _lose(self) -> None:
        self._up = False
        with self._lock:
            self._retained.clear()

    def _note(self, received: Received) -> None:
        self._seen.setdefault(received.topic, []).append((time.monotonic(), received.payload))
        if received.payload:
            self._retained[received.topic] = received.payload
        else:
            self._retained.pop(received.topic, None)

    def _carry_out(self) -> None:
        if not self._up:
            return
        with self._lock:
            wishes, self._wishes = self._wishes, []
        for wish in wishes:
            self._transport.carry_out(wish)
