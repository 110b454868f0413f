"""What workers say: presence and schemas. Claims, both of them: shown, and used to be stricter, never to be laxer."""

from __future__ import annotations

import contextlib
import threading
import time

import msgspec

from tars_settings.agent.loop import Agent
from tars_settings.core.names import Scope
from tars_settings.core.presence import Presence, is_asked, parse_presence, refusal_of
from tars_settings.core.session import Received
from tars_settings.core.topics import PresenceTopic, SchemaTopic
from tars_settings.core.wire import short_hash
from tars_settings.errors import MalformedError
from tars_settings.schema.shape import is_schema
from tars_settings.writer.receipt import Fate, Receipt, Reply


class Heard:
    """Presences and schemas that arrived. *changed* guards them, and is notified by whoever calls :meth:`take`."""

    def __init__(self, agent: Agent, changed: threading.Condition) -> None:
        self._agent = agent
        self._changed = changed
        self._presences: dict[tuple[str, str], tuple[Presence, float]] = {}
        self._schemas: dict[str, dict[str, bytes]] = {}
        self._followed: set[str] = set()

    # --- in the agent's thread ---------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Follow again, in a new session, what was followed."""
        if self._followed:
            self._agent.subscribe(tuple(sorted(self._followed)))

    def take(self, received: Received) -> None:
        """Take note of a message; under the lock."""
        topic = self._agent.replicator.topics.parse(received.topic)
        if isinstance(topic, PresenceTopic):
            self._take_presence(topic, received.payload)
        elif isinstance(topic, SchemaTopic) and _is_whole(topic, received.payload):
            self._schemas.setdefault(topic.scope, {})[topic.hash] = received.payload

    def _take_presence(self, topic: PresenceTopic, payload: bytes) -> None:
        if not payload:
            self._presences.pop((topic.service, topic.instance), None)
            return
        with contextlib.suppress(MalformedError):
            presence = parse_presence(payload)
            if (presence.service, presence.instance) == (topic.service, topic.instance):
                self._presences[topic.service, topic.instance] = (presence, time.monotonic())

    # --- for whoever asks --------------------------------------------------------------------------------------------

    def _follow(self, topic_filter: str, timeout_s: float) -> None:
        """Subscribe to a filter for good, and wait for its replay the first time."""
        if topic_filter in self._followed:
            return
        self._followed.add(topic_filter)
        replayed = threading.Event()
        self._agent.submit(lambda: self._agent.subscribe((topic_filter,), replayed.set))
        replayed.wait(timeout_s)

    def presences(self, service: str | None, timeout_s: float) -> list[Presence]:
        """Return what workers say of themselves, by service and instance, once the broker's replay is over.

        A worker whose process died is ``offline`` even where only a sibling's last will says so: one connection has one
        will.
        """
        self._follow(self._agent.replicator.topics.presence_filter(service), timeout_s)
        with self._changed:
            held = [one for one, _ in self._presences.values() if service in (None, one.service)]
        gone = {one.ext.get("session") for one in held if one.state == "offline"} - {None}
        known = [
            msgspec.structs.replace(one, state="offline") if one.ext.get("session") in gone else one for one in held
        ]
        return sorted(known, key=lambda one: (one.service, one.instance))

    def schemas(self, service: str, timeout_s: float) -> list[bytes]:
        """Return the JSON Schemas that workers of a service published."""
        self._follow(self._agent.replicator.topics.schema_filter(service), timeout_s)
        with self._changed:
            return [schema for _, schema in sorted(self._schemas.get(service, {}).items())]

    def readers(self, scope: str) -> list[tuple[Presence, float]]:
        """Return the presences of the workers that read a scope, and when each arrived; under the lock."""
        wanted = Scope.parse(scope)
        return [
            (presence, at_s)
            for (service, instance), (presence, at_s) in sorted(self._presences.items())
            if wanted.service in (None, service) and wanted.instance in (None, instance)
        ]

    def replies(self, receipt: Receipt) -> list[Reply]:
        """Return what each worker that reads the scope says of a push; under the lock."""
        return [_reply(receipt, presence, at_s) for presence, at_s in self.readers(receipt.scope)]


def _is_whole(topic: SchemaTopic, payload: bytes) -> bool:
    """Return whether it is what its topic says, and a schema: anyone may publish bytes under their own hash."""
    return short_hash(payload) == topic.hash and is_schema(payload)


def _reply(receipt: Receipt, presence: Presence, at_s: float) -> Reply:
    fate = _fate(receipt, presence)
    message = refusal_of(presence, receipt.digest) or ""
    shadowed = {key: by for key, by in presence.shadowed.items() if key in receipt.keys}
    after_s = max(0.0, at_s - receipt.pushed_s) if fate in ("applied", "refused") else 0.0
    return Reply(presence.service, presence.instance, fate, message, shadowed, after_s)


def _fate(receipt: Receipt, presence: Presence) -> Fate:
    said = presence.acked.get(receipt.digest)
    if said is not None:
        return said
    if presence.state == "offline":
        return "offline"
    asked = receipt.digest and is_asked(
        bytes.fromhex(receipt.digest), presence.service, presence.instance, receipt.ack_of
    )
    return "silent" if asked else "unasked"
