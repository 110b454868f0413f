"""Somebody who can publish and holds no key."""

from __future__ import annotations

from collections.abc import Callable

from tars_settings.core.delta import Assignment, DeltaBody
from tars_settings.core.topics import IndexTopic, KeyTopic, SegmentTopic, TrustTopic
from tars_settings.core.wire import encode
from tars_settings.testing.mesh import Mesh

Strike = tuple[str, bytes, bool]
"""Topic, payload, and whether it is retained."""


class Hostile:
    """Publishes garbage, copies and forgeries of what the brokers ever showed."""

    def __init__(self, mesh: Mesh, keys: tuple[str, ...]) -> None:
        self.mesh = mesh
        self.keys = keys
        self._key = mesh.key("writer", "mallory")
        self._tricks: dict[str, Callable[[], Strike | None]] = {
            "garbage": self.garbage,
            "empty": self.empty,
            "moved": self.moved,
            "replayed": self.replayed,
            "lowered": self.lowered,
            "unretained": self.unretained,
            "forged": self.forged,
            "stranger": self.stranger,
            "foreign fleet": self.foreign,
            "newer version": self.newer,
            "hoarded state": self.hoarded,
        }

    def strike(self, name: str | None = None) -> None:
        """Do the named thing, or any of them."""
        chosen = name or self.mesh.random.choice(tuple(self._tricks))
        struck = self._tricks[chosen]()
        if struck is not None:
            self.mesh.counters[f"hostile: {chosen}"] += 1
            number = self.mesh.random.randrange(len(self.mesh.brokers))
            self.mesh.publish_hostile(struck[0], struck[1], retain=struck[2], number=number)

    def _ever(self) -> dict[str, list[bytes]]:
        return self.mesh.random.choice(self.mesh.brokers).ever

    def _topic(self) -> str:
        """Return a topic that was used, of whatever kind."""
        prefix = self.mesh.topics.prefix
        used = sorted(topic for topic in self._ever() if topic.startswith(prefix))
        return self.mesh.random.choice(used or [self.mesh.key_topic(self.keys[0])])

    def _key_topic(self) -> str:
        return self.mesh.topics.format(
            KeyTopic(self.mesh.random.choice(self.mesh.scopes), self.mesh.random.choice(self.keys))
        )

    def garbage(self) -> Strike:
        """Bytes that mean nothing, on any topic of ours."""
        kid = self.mesh.keys[0].kid
        scope = self.mesh.scopes[-1]
        spare = [
            self.mesh.topics.format(one) for one in (TrustTopic(), IndexTopic(scope, kid), SegmentTopic(scope, kid, 1))
        ]
        topic = self.mesh.random.choice([*spare, self._topic(), self._key_topic()])
        return topic, self.mesh.random.randbytes(self.mesh.random.randrange(1, 200)), True

    def empty(self) -> Strike:
        """The empty payload that clears a topic."""
        return self._topic(), b"", True

    def moved(self) -> Strike | None:
        """A good delta on the topic of another key."""
        return self._copied(self._key_topic(), self._topic())

    def _copied(self, onto: str, source: str) -> Strike | None:
        payloads = self._ever().get(source)
        return (onto, self.mesh.random.choice(payloads), True) if payloads and onto != source else None

    def replayed(self) -> Strike | None:
        """What a topic retained once."""
        topic = self._topic()
        payloads = self._ever().get(topic)
        return (topic, self.mesh.random.choice(payloads), True) if payloads else None

    def lowered(self) -> Strike | None:
        """An older floor, index or trust document, where there were two."""
        marks = [topic for topic, payloads in self._ever().items() if "/_" in topic and len(payloads) > 1]
        if not marks:
            return None
        topic = self.mesh.random.choice(sorted(marks, key=lambda one: (not one.endswith("_floor"), one))[:4])
        return topic, self.mesh.random.choice(self._ever().get(topic, [b"gone"])[:-1] or [b"gone"]), True

    def unretained(self) -> Strike | None:
        """What a topic retained once, sent live: the broker goes on retaining something else."""
        struck = self.replayed()
        return None if struck is None else (struck[0], struck[1], False)

    def forged(self) -> Strike | None:
        """A good payload with one byte changed."""
        struck = self.replayed()
        if struck is None:
            return None
        changed = bytearray(struck[1])
        changed[self.mesh.random.randrange(len(changed))] ^= 1 << self.mesh.random.randrange(8)
        return struck[0], bytes(changed), self.mesh.random.random() < 0.7

    def _delta(self, fleet: str, epoch: int, *, trust: int = 1) -> bytes:
        key = self.mesh.random.choice(self.keys)
        body = DeltaBody(self.mesh.scopes[-1], 1, epoch, trust, (Assignment(key, set="hostile"),))
        signer = self._key if fleet == self.mesh.fleet else self.mesh.keys[0]
        return signer.sign("delta", fleet, encode(body))

    def stranger(self) -> Strike:
        """A delta signed by a key that nobody listed, which names a trust document that does not exist yet."""
        return self._key_topic(), self._delta(self.mesh.fleet, 99, trust=self.mesh.random.choice((1, 10**6))), True

    def foreign(self) -> Strike:
        """A delta that a listed key signed for another fleet."""
        return self._key_topic(), self._delta("0" * 32, 99), True

    def newer(self) -> Strike:
        """An envelope of a later version."""
        return self._key_topic(), b'{"v":2,"what":"is this"}', True

    def hoarded(self) -> Strike | None:
        """What every topic retained first, put back at once: a broker that was rolled back by hand."""
        first = [(topic, payloads[0], True) for topic, payloads in self._ever().items()]
        ours = [strike for strike in first if strike[0].startswith(self.mesh.topics.prefix)]
        for topic, payload, _ in ours[1:]:
            self.mesh.publish_hostile(topic, payload)
        return ours[0] if ours else None
