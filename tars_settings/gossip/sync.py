"""Catching up: trust, indexes, segments, then the peer's own keys, all by exact topic.

Level-triggered: :meth:`ScopeSync.lacks` compares what is mentioned with what is held, whatever order answers come in.
A peer is complete when it holds, for each writer whose grant touches the scope, the greatest index that anyone it
believes mentions, and every segment of it. Completeness gates *ready*, never merge; what nobody can produce within the
sync bound makes the scope *degraded* and keeps no one *joining*.
"""

from __future__ import annotations

from collections.abc import Iterator

from tars_settings.core.topics import IndexTopic, KeyTopic, SegmentTopic
from tars_settings.gossip.peer import Peer


class ScopeSync:
    """How far one followed scope is. *keys* are those of the peer's own model."""

    def __init__(self, scope: str, keys: tuple[str, ...]) -> None:
        self.scope = scope
        self.keys = set(keys)
        self.state = "joining"
        self.lacking: tuple[str, ...] = ()
        self.bound_s = float("inf")
        self.answered: dict[str, bool] = {}
        self.surveyed = False
        self.caught_up = False
        self.retries = 0

    def restart(self, now_s: float, bound_s: float, *, survey: bool = True) -> None:
        """Begin again: a session began, trust changed, or something was missed. The state stays until more is known."""
        self.answered.clear()
        self.caught_up = False
        self.surveyed = self.surveyed and not survey
        self.retries = 0
        self.bound_s = now_s + bound_s

    def retry(self, now_s: float, pause_s: float) -> None:
        """Ask again for what was not produced."""
        self.answered.clear()
        self.retries += 1
        self.bound_s = now_s + pause_s * min(2**self.retries, 64)

    def questions(self, peer: Peer) -> Iterator[str]:
        """Yield the topics to ask for now: indexes first, and segments of those that are here."""
        for kid in peer.trust.writers_of(self.scope):
            index_topic = peer.topics.format(IndexTopic(self.scope, kid))
            if index_topic not in self.answered:
                yield index_topic
                continue
            for n in peer.head(self.scope, kid).missing():
                segment_topic = peer.topics.format(SegmentTopic(self.scope, kid, n))
                if segment_topic not in self.answered:
                    yield segment_topic
        yield from self._large(peer)

    def _large(self, peer: Peer) -> Iterator[str]:
        for (scope, kid), refs in peer.large.items():
            if scope != self.scope:
                continue
            for digest, key in sorted(refs):
                topic = peer.topics.format(KeyTopic(scope, key))
                if peer.registers.delta(scope, bytes.fromhex(digest)) is not None or topic in self.answered:
                    peer.large[scope, kid].discard((digest, key))
                else:
                    yield topic

    def lacks(self, peer: Peer) -> Iterator[str]:
        """Yield, in words for people, what is mentioned and not held."""
        if peer.trust.is_pin:
            yield "no trust document"
            return
        for kid in peer.trust.writers_of(self.scope):
            head = peer.head(self.scope, kid)
            topic = peer.topics.format(IndexTopic(self.scope, kid))
            if self.answered.get(topic) is None:
                yield f"index of {_name(peer, kid)}: not asked yet"
            elif self.answered[topic] is False:
                yield f"index of {_name(peer, kid)}: the broker does not answer"
            for n in head.missing():
                yield f"segment {n} of {_name(peer, kid)}, named by its index"
        yield from self._unseen(peer)

    def _unseen(self, peer: Peer) -> Iterator[str]:
        writers = set(peer.trust.writers_of(self.scope))
        for kid in writers:
            index = peer.head(self.scope, kid).index
            for other, counter in index.body.seen.items() if index is not None else ():
                held = peer.head(self.scope, other).index if other in writers else None
                if other in writers and (held is None or held.body.counter < counter):
                    yield f"index {counter} of {_name(peer, other)}, mentioned by {_name(peer, kid)}"

    def survey(self, peer: Peer) -> tuple[str, ...]:
        """Return what to compare with the broker once the scope is complete: own keys, and all that is held."""
        own = [peer.topics.format(KeyTopic(self.scope, key)) for key in sorted(self.keys)]
        return tuple(
            topic for topic in dict.fromkeys([*own, *peer.topics_of(self.scope)]) if topic not in self.answered
        )


def _name(peer: Peer, kid: str) -> str:
    writer = peer.trust.writer(kid)
    return writer.name if writer is not None else kid[:8]
