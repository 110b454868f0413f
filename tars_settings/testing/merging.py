"""Merging as a function of what was signed: the same deltas give one state, whoever merges them in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tars_settings.core.session import Received
from tars_settings.core.topics import TrustTopic
from tars_settings.gossip.effects import Follow
from tars_settings.gossip.replicator import Replicator
from tars_settings.testing.book import Book
from tars_settings.testing.invariants import BrokenInvariant
from tars_settings.testing.mesh import Mesh, MeshPeer

Views = dict[str, dict[str, bytes]]
"""The digest that wins each key, by scope and key."""
MANY: Final = 100


class Merging:
    """Delivers all that the authors of a mesh ever signed to fresh replicators."""

    def __init__(self, mesh: Mesh, book: Book) -> None:
        self.mesh = mesh
        self.book = book

    def check_order(self, rounds: int = 2) -> None:
        """I12: in any order and repeated, one state comes of it.

        Raises:
            BrokenInvariant: it does not.
        """
        payloads = self._ever_signed()
        states = []
        for _ in range(rounds):
            self.mesh.random.shuffle(payloads)
            states.append(self.deliver(payloads + payloads[: len(payloads) // 3]))
        if any(state != states[0] for state in states):
            raise BrokenInvariant("I12", "two orders of arrival gave two states")

    def check_models(self, keys: Sequence[str]) -> None:
        """I13: peers whose models have all of the keys, some of them and none merge the same.

        Raises:
            BrokenInvariant: they do not.
        """
        payloads = self._ever_signed()[-MANY:]
        states = [self.deliver(payloads, model) for model in (tuple(keys), tuple(keys[::2]), ("of_a", "later.release"))]
        if any(state != states[0] for state in states):
            raise BrokenInvariant("I13", "peers with different models merged differently")

    def _ever_signed(self) -> list[bytes]:
        return [entry.raw for entry in map(self.book.entry, list(self.mesh.signed)) if entry is not None]

    def deliver(self, payloads: list[bytes], keys: tuple[str, ...] = ()) -> Views:
        """Deliver deltas to a fresh replicator whose model has *keys*, and return what it shows.

        The trust document in force comes somewhere among them.
        """
        mesh = self.mesh
        trust = next(peer.replicator.peer.trust.raw for peer in mesh.running() if peer.replicator is not None)
        fresh = MeshPeer("fresh", None)
        fresh.replicator = Replicator(mesh.topics, mesh.root.public, nonce="0" * 32, random=mesh.random.random)
        for scope in mesh.scopes:
            fresh.replicator.handle(Follow(scope, keys), 0.0)
        at = mesh.random.randrange(min(MANY, len(payloads) + 1))
        for n, payload in enumerate([*payloads[:at], trust, *payloads[at:]]):
            fresh.replicator.handle(Received(self._topic_of(payload), payload), float(n))
        return {scope: fresh.view(scope) for scope in mesh.scopes}

    def _topic_of(self, payload: bytes) -> str:
        entry = self.book.entry(payload)
        if entry is None:
            return self.mesh.topics.format(TrustTopic())
        return self.mesh.key_topic(entry.keys[0], entry.scope)
