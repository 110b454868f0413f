"""A short visit to the broker, driven by whoever makes it: no thread, no trust, nothing but MQTT.

It speaks through the library's own transport, so what it finds out is what a worker would.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal

from tars_settings.adapters.clock import SystemClock
from tars_settings.agent.assemble import mqtt_transport
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
from tars_settings.core.topics import MarkerTopic, Topics
from tars_settings.errors import BrokerUnreachableError
from tars_settings.sources.environment import Environment

if TYPE_CHECKING:
    from typing_extensions import Self

ANSWER_WITHIN_S: Final = 5.0
BATCH: Final = 64
MARKER_ROUNDS: Final = 2
SILENCE_S: Final = 1.0
"""How long is waited where no marker may be subscribed to."""


class Visitor:
    """One session. Enter it to connect; every wait has a deadline, and a wait that is over says so by its result.

    *protocol* stands in for the environment's.
    """

    def __init__(self, environment: Environment, *, protocol: str = "", within_s: float = ANSWER_WITHIN_S) -> None:
        if protocol:
            environment = environment.model_copy(update={"protocol": protocol})
        clock = SystemClock()
        nonce = clock.token(16).hex()
        topics = Topics(environment.prefix, environment.health_prefix)
        self.marker = topics.format(MarkerTopic(nonce))
        self.session: SessionUp | None = None
        self.heard: list[Received] = []
        self.ended = ""
        self._transport = mqtt_transport(environment, f"ts-visitor-{nonce}")
        self._within_s = within_s
        self._acknowledged: dict[int, Acknowledged] = {}
        self._subscribed: dict[int, bool] = {}
        self._refs = 0
        self._marks = 0
        self._tick_s = 0.0
        self._hears_marker: bool | None = None

    def __enter__(self) -> Self:
        try:
            self._transport.connect()
            if not self.until(lambda: self.session is not None):
                reason = self.ended or "it does not answer"
                raise BrokerUnreachableError(f"no connection to the broker within {self._within_s:g} s: {reason}")
        except BaseException:
            self._transport.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.until(lambda: not self._transport.wants_write(), 1.0)
        self._transport.close()

    @property
    def connected(self) -> bool:
        """Whether the session is up."""
        return self.session is not None and not self.ended

    # --- driving -----------------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], bool], within_s: float | None = None) -> bool:
        """Drive the session until *condition* holds; return whether it does, in time."""
        due_s = time.monotonic() + (self._within_s if within_s is None else within_s)
        while not condition():
            left_s = due_s - time.monotonic()
            if left_s <= 0 or self.ended:
                return condition()
            self._turn(min(left_s, 0.2))
        return True

    def _turn(self, timeout_s: float) -> None:
        transport, now_s = self._transport, time.monotonic()
        descriptor = transport.fileno()
        if descriptor >= 0 and not transport.pending():
            with selectors.DefaultSelector() as selector:
                writing = selectors.EVENT_WRITE if transport.wants_write() else 0
                selector.register(descriptor, selectors.EVENT_READ | writing)
                selector.select(timeout_s)
        events: list[SessionEvent] = [*transport.read(), *transport.write()]
        if now_s >= self._tick_s:
            self._tick_s = now_s + 1.0
            events += transport.tick(now_s)
        for event in events:
            self._take(event)

    def _take(self, event: SessionEvent) -> None:
        match event:
            case SessionUp():
                self.session = event
            case SessionDown(reason):
                self.ended = reason or "the session ended"
            case Received():
                self.heard.append(event)
            case Acknowledged(ref):
                self._acknowledged[ref] = event
            case Subscribed(ref, granted):
                self._subscribed[ref] = granted

    def _next_ref(self) -> int:
        self._refs += 1
        return self._refs

    # --- what one may ask of a broker --------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, *, retain: bool = True) -> Acknowledged | None:
        """Publish at QoS 1 and return the acknowledgement; None where none came."""
        ref = self._next_ref()
        self._transport.carry_out(Publish(ref, topic, payload, retain))
        self.until(lambda: ref in self._acknowledged)
        return self._acknowledged.pop(ref, None)

    def publish_all(self, messages: Iterable[tuple[str, bytes]], *, at_once: int = 50) -> int:
        """Publish retained messages at QoS 1, a few at a time; return how many were acknowledged with a yes."""
        waiting: list[int] = []
        done = 0
        for topic, payload in messages:
            ref = self._next_ref()
            self._transport.carry_out(Publish(ref, topic, payload, retain=True))
            waiting.append(ref)
            if len(waiting) >= at_once:
                done += self._await_all(waiting)
        return done + self._await_all(waiting)

    def _await_all(self, refs: list[int]) -> int:
        self.until(lambda: all(ref in self._acknowledged for ref in refs))
        answers = [self._acknowledged.pop(ref, None) for ref in refs]
        refs.clear()
        return sum(answer is not None and answer.ok for answer in answers)

    def subscribe(
        self, filters: Sequence[str], *, replay: bool = True, qos: Literal[0, 1] = 0, within_s: float | None = None
    ) -> bool | None:
        """Subscribe and return whether all was granted; None where no answer came."""
        ref = self._next_ref()
        self._transport.carry_out(Subscribe(ref, tuple(filters), qos=qos, replay=replay))
        self.until(lambda: ref in self._subscribed, within_s)
        return self._subscribed.pop(ref, None)

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Unsubscribe; no answer is awaited."""
        self._transport.carry_out(Unsubscribe(tuple(filters)))

    def echo(self, within_s: float | None = None) -> bool:
        """Publish a marker and return whether it came back: what was sent before it has arrived, mostly."""
        if self._hears_marker is None:
            self._hears_marker = self.subscribe((self.marker,), replay=False, within_s=within_s) is True
        if not self._hears_marker:
            self.until(lambda: False, SILENCE_S)
            return False
        self._marks += 1
        payload = str(self._marks).encode()
        self._transport.carry_out(Publish(self._next_ref(), self.marker, payload, retain=False))
        return self.until(
            lambda: any(one.topic == self.marker and one.payload == payload for one in self.heard), within_s
        )

    def settle(self) -> bool:
        """Wait until two markers came back with nothing between; return whether they did."""
        quiet = 0
        while quiet < MARKER_ROUNDS:
            before = self._others()
            if not self.echo():
                return False
            quiet = quiet + 1 if self._others() == before else 0
        return True

    def _others(self) -> int:
        return sum(one.topic != self.marker for one in self.heard)

    def retained(self, topics: Sequence[str]) -> dict[str, bytes]:
        """Return what the broker retains on exact topics, in bounded batches; what is silent is not in it."""
        found: dict[str, bytes] = {}
        for start in range(0, len(topics), BATCH):
            batch = tuple(topics[start : start + BATCH])
            self.heard.clear()
            self.subscribe(batch)
            self.settle()
            found.update({one.topic: one.payload for one in self.heard if one.topic in batch and one.payload})
            self.unsubscribe(batch)
        return found
