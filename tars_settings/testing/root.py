"""The holder of a mesh's root key, and a writer whose key was stolen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tars_settings.core.delta import Assignment, DeltaBody
from tars_settings.core.head import IndexBody, SegmentRef
from tars_settings.core.topics import IndexTopic, KeyTopic, TrustTopic
from tars_settings.core.wire import decode_envelope, encode
from tars_settings.gossip.effects import Offered
from tars_settings.testing.mesh import Mesh
from tars_settings.trust.document import Retirement, TrustBody, Writer
from tars_settings.trust.keys import SigningKey


class Root:
    """Issues trust documents: each follows the one before."""

    def __init__(self, mesh: Mesh, keys: Iterable[SigningKey]) -> None:
        self.mesh = mesh
        self.version = 1
        self.gen = 1
        self.roots = [mesh.root]
        self.endorsed: set[str] = set()
        self.status: dict[str, dict[str, Any]] = {}
        self.keys = list(keys)
        self.chain: list[bytes] = []

    def issue(self, reason: str = "") -> bytes:
        """Sign the next version and hand it to one writer that runs, or put it on a broker."""
        self.version += 1
        return self._hand_out(self._body(reason))

    def _body(self, reason: str, roots: Iterable[SigningKey] = ()) -> TrustBody:
        writers = tuple(
            Writer(key.name, key.public, self.mesh.grants.get(key.name, ("*", "_all")), **self.status.get(key.kid, {}))
            for key in self.keys
        )
        publics = tuple(root.public for root in roots or self.roots)
        return TrustBody(self.version, self.gen, publics, 1, writers, tuple(sorted(self.endorsed)), reason=reason)

    def _hand_out(self, body: TrustBody) -> bytes:
        payload = self.roots[0].sign("trust", self.mesh.fleet, encode(body))
        for other in self.roots[1:]:
            payload = other.cosign("trust", self.mesh.fleet, decode_envelope(payload))
        return self._give(payload)

    def _give(self, payload: bytes) -> bytes:
        self.chain.append(payload)
        takers = [peer for peer in self.mesh.running() if peer.signer is not None]
        if takers and self.mesh.random.random() < 0.5:
            self.mesh.tell(self.mesh.random.choice(takers), Offered((payload,)))
        else:
            # A broker that is down, or a peer that is cut off, learns of it later: the operator offers it again.
            for number in range(len(self.mesh.brokers)):
                self.mesh.publish_at(number, self.mesh.topics.format(TrustTopic()), payload, retain=True)
        return payload

    def revoke(self, key: SigningKey, *, endorse: Iterable[str] = ()) -> bytes:
        """Mark a key as compromised and raise gen; *endorse* digests that are to stand."""
        self.status[key.kid] = {"status": "compromised"}
        self.gen += 1
        self.endorsed |= set(endorse)
        return self.issue("stolen")

    def retire(self, key: SigningKey, limits: dict[str, tuple[int, int, int]]) -> bytes:
        """Retire a key at (gen, epoch, index counter) per scope."""
        retired = {scope: Retirement(*limit) for scope, limit in limits.items()}
        self.status[key.kid] = {"status": "retired", "retired": retired}
        return self.issue("left")

    def rotate(self) -> None:
        """Replace the root key: the step between carries the signatures of both."""
        self.version += 1
        fresh = self.mesh.key("root", f"root-{self.version}")
        body = self._body("rotated", [fresh])
        payload = self.roots[0].sign("trust", self.mesh.fleet, encode(body))
        self._give(fresh.cosign("trust", self.mesh.fleet, decode_envelope(payload)))
        self.roots = [fresh]

    def quarrel(self) -> None:
        """Issue two documents with one version, each handed out at another place."""
        self.version += 1
        for reason in ("one", "other"):
            self._hand_out(self._body(reason))


class Rogue:
    """Holds a writer's key and signs whatever hurts. ``kid`` must be listed by the root."""

    def __init__(self, mesh: Mesh, key: SigningKey, keys: tuple[str, ...]) -> None:
        self.mesh = mesh
        self.key = key
        self.keys = keys
        self.used: list[str] = []
        self._counter = 10

    def _delta(self, epoch: int, gen: int, *assign: Assignment, scope: str | None = None) -> None:
        body = DeltaBody(scope or self.mesh.scopes[-1], gen, epoch, 1, assign)
        payload = self.key.sign("delta", self.mesh.fleet, encode(body))
        number = self.mesh.random.randrange(len(self.mesh.brokers))
        for item in assign:
            topic = self.mesh.topics.format(KeyTopic(body.scope, item.key))
            self.mesh.publish_at(number, topic, payload, retain=self.mesh.random.random() < 0.8)

    def _some(self, count: int = 1) -> tuple[Assignment, ...]:
        chosen = self.mesh.random.sample(self.keys, min(count, len(self.keys)))
        flat = [key for key in chosen if "." not in key] or chosen[:1]
        return tuple(Assignment(key, set=f"rogue-{self.mesh.random.random()}") for key in flat)

    def poison(self) -> None:
        """Use the last epoch there is."""
        self._count("epoch poison")
        self._delta(2**53 - 1 - self.mesh.random.randrange(3), 1, *self._some())

    def equivocate(self) -> None:
        """Sign two deltas with one epoch."""
        self._count("equivocations")
        epoch = self.mesh.random.randrange(1, 40)
        for _ in range(2):
            self._delta(epoch, 1, *self._some())

    def leave_half(self) -> None:
        """Put a delta of several keys on the topic of one of them only."""
        self._count("halves")
        body = DeltaBody(self.mesh.scopes[-1], 1, self.mesh.random.randrange(1, 60), 1, self._some(3))
        payload = self.key.sign("delta", self.mesh.fleet, encode(body))
        topic = self.mesh.topics.format(KeyTopic(body.scope, body.assign[0].key))
        self.mesh.publish_at(0, topic, payload, retain=True)

    def overstep(self) -> None:
        """Write where the grant does not reach."""
        self._count("oversteps")
        self._delta(self.mesh.random.randrange(1, 60), 1, Assignment("reserved", set="rogue"))

    def run_ahead(self) -> None:
        """Use a generation that the root has not begun."""
        self._count("gens ahead")
        self._delta(1, 7, *self._some())

    def lie(self) -> None:
        """Sign an index of segments that nobody has, which claims to have seen indexes that do not exist."""
        self._count("lying indexes")
        self._counter += 1
        scope = self.mesh.scopes[-1]
        seen = {key.kid: 10**6 for key in self.mesh.keys}
        body = IndexBody(scope, self._counter, 1, 1, 1, (SegmentRef(1, "ab" * 32),), seen)
        payload = self.key.sign("head", self.mesh.fleet, encode(body))
        self.mesh.publish_at(0, self.mesh.topics.format(IndexTopic(scope, self.key.kid)), payload, retain=True)

    def strike(self) -> None:
        """Do one of these."""
        tricks = (self.poison, self.equivocate, self.leave_half, self.overstep, self.run_ahead, self.lie)
        self.mesh.random.choice(tricks)()

    def _count(self, name: str) -> None:
        self.mesh.counters[name] += 1
        self.used.append(name)
