"""Catching up: trust, indexes, segments, then the peer's own keys, all by exact topic.

Level-triggered: :meth:`ScopeSync.lacks` compares what is mentioned with what is held, whatever order answers come in.
A peer is complete when it holds, for each writer whose grant touches the scope, the greatest index that anyone it
believes mentions, and every segment of it. Completeness gates *ready*, never merge; what nobody can produce within the
sync bound makes the scope *degraded* and keeps no one *joining*.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import msgspec

from tars_settings.core.head import FloorRef, LargeRef
from tars_settings.core.stamp import Stamp
from tars_settings.core.topics import FloorSegmentTopic, FloorTopic, IndexTopic, KeyTopic, SegmentTopic, Topic
from tars_settings.gossip.peer import Peer
from tars_settings.trust.validity import Verdict, may_floor, retired_counter

MAX_REREADS: Final = 8
"""How often a segment that does not fit its index makes the index be read again, before the next try."""


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
        self.compared = False
        self.audited = False
        self.caught_up = False
        self.retries = 0
        self.rereads = 0

    def restart(self, now_s: float, bound_s: float, *, survey: bool = True) -> None:
        """Begin again: a session began, trust changed, or something was missed. The state stays until more is known."""
        self.answered.clear()
        self.caught_up = False
        self.compared = False
        self.surveyed = self.surveyed and not survey
        self.retries = 0
        self.rereads = 0
        self.bound_s = now_s + bound_s

    def retry(self, now_s: float, pause_s: float) -> None:
        """Ask again for what was not produced."""
        self.answered.clear()
        self.retries += 1
        self.bound_s = now_s + pause_s * min(2**self.retries, 64)

    def questions(self, peer: Peer) -> Iterator[str]:
        """Yield the topics to ask for now: indexes first, and what those that are here name."""
        for kid in peer.trust.writers_of(self.scope):
            index_topic = peer.topics.format(IndexTopic(self.scope, kid))
            if index_topic not in self.answered:
                yield index_topic
                continue
            yield from self._segments(peer, kid)
        yield from self._floor(peer)
        yield from self._large(peer)

    def _segments(self, peer: Peer, kid: str) -> Iterator[str]:
        for n in peer.head(self.scope, kid).missing():
            topic = peer.topics.format(SegmentTopic(self.scope, kid, n))
            if topic not in self.answered:
                yield topic

    def _floor(self, peer: Peer) -> Iterator[str]:
        wanted: list[Topic] = [FloorSegmentTopic(self.scope, name) for name in peer.floors.missing(self.scope)]
        if any(True for _ in self._unseen_floors(peer)):
            wanted.append(FloorTopic(self.scope))
        for topic in wanted:
            text = peer.topics.format(topic)
            if text not in self.answered:
                yield text

    def _large(self, peer: Peer) -> Iterator[str]:
        for _, ref in self._missing_large(peer):
            for key in ref.keys:
                topic = peer.topics.format(KeyTopic(self.scope, key))
                if topic not in self.answered:
                    yield topic

    def _missing_large(self, peer: Peer) -> Iterator[tuple[str, LargeRef]]:
        """Yield the large deltas that heads name, that are not held, and that would win a key if they were."""
        mark = peer.floors.mark(self.scope)
        for (scope, kid), refs in peer.large.items():
            if scope != self.scope:
                continue
            for ref in tuple(refs.values()):
                stamp = ref.stamp(kid)
                is_moot = (
                    peer.registers.delta(scope, stamp.digest) is not None
                    or mark.fate(stamp.gen, stamp.epoch, stamp.digest) == "void"
                    or all(_wins_over(peer, scope, key, stamp) for key in ref.keys)
                )
                if is_moot:
                    del refs[ref.digest]
                else:
                    yield kid, ref

    def rests_on(self, peer: Peer, topic: Topic) -> bool:
        """Return whether an answer on *topic* may change how complete the scope is; a key is only compared.

        A segment that was taken changes nothing while its index names others that are to come: they were asked for
        with it. Looking all the same took as long as the square of their number.
        """
        if isinstance(topic, KeyTopic):
            return not self.caught_up
        if isinstance(topic, SegmentTopic) and topic.scope == self.scope and not self._names_large(peer):
            missing = peer.head(self.scope, topic.kid).missing()
            return not missing or topic.n in missing
        return True

    def _names_large(self, peer: Peer) -> bool:
        return any(scope == self.scope for scope, _ in peer.large)

    def ask_index_again(self, peer: Peer, topic: SegmentTopic) -> None:
        """A segment did not come as its index names it: the index may have changed meanwhile. A few times."""
        if topic.n in peer.head(self.scope, topic.kid).missing() and self.rereads < MAX_REREADS:
            self.rereads += 1
            self.answered.pop(peer.topics.format(topic), None)
            self.answered.pop(peer.topics.format(IndexTopic(self.scope, topic.kid)), None)

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
        for kid, ref in self._missing_large(peer):
            yield f"delta {ref.digest[:8]} of {_name(peer, kid)}, named by its index"
        yield from self._unseen(peer)
        for kid in self._unseen_floors(peer):
            yield f"the floor, mentioned by {_name(peer, kid)}"
        for name in peer.floors.missing(self.scope):
            yield f"part {name[:8]} of the floor"

    def _unseen(self, peer: Peer) -> Iterator[str]:
        writers = set(peer.trust.writers_of(self.scope))
        for kid in sorted(writers):
            index = peer.head(self.scope, kid).index
            for other, counter in index.body.seen.items() if index is not None else ():
                held = peer.head(self.scope, other).index if other in writers else None
                if other in writers and (held is None or held.body.counter < self._capped(peer, other, counter)):
                    yield f"index {counter} of {_name(peer, other)}, mentioned by {_name(peer, kid)}"

    def _capped(self, peer: Peer, kid: str, counter: int) -> int:
        """Return a mentioned counter as far as it can count: a retired writer's later indexes are void."""
        writer = peer.trust.writer(kid)
        if writer is None or writer.status != "retired":
            return counter
        return min(counter, retired_counter(writer, self.scope))

    def _unseen_floors(self, peer: Peer) -> Iterator[str]:
        """Yield the writers whose index mentions a greater floor than is held, if it can count at all."""
        held = peer.floors.greatest(self.scope)
        order = (0, 0, b"") if held is None else held.order
        for kid in peer.trust.writers_of(self.scope):
            index = peer.head(self.scope, kid).index
            ref = msgspec.UNSET if index is None else index.body.floor
            if isinstance(ref, FloorRef) and self._is_greater(peer, ref, order):
                yield kid

    def _is_greater(self, peer: Peer, ref: FloorRef, order: tuple[int, int, bytes]) -> bool:
        if (ref.gen, ref.epoch, bytes.fromhex(ref.digest)) <= order:
            return False
        return may_floor(peer.trust, ref.kid, self.scope, ref.gen, ref.epoch).verdict is Verdict.VALID

    def note_answer(self, peer: Peer, topic: Topic, text: str, *, known: bool) -> None:
        """Note that there was an answer. One on a key is asked for again only on the way to what a head names."""
        if not isinstance(topic, KeyTopic) or not self.caught_up or self._names_large(peer):
            self.answered[text] = known

    def survey(self, peer: Peer, *, everything: bool) -> Iterator[str]:
        """Return what to compare with the broker once the scope is complete: own keys, or all that is held too.

        All that is held once: another class that follows the scope later adds its keys.
        """
        own = frozenset(self.keys)
        wanted: Iterator[Topic] = (KeyTopic(self.scope, key) for key in sorted(own))
        if everything and not self.compared:
            self.compared = True
            held = (one for one in peer.held_topics(self.scope) if not isinstance(one, KeyTopic) or one.key not in own)
            wanted = itertools.chain(wanted, (FloorTopic(self.scope),), held)
        return (text for text in map(peer.topics.format, wanted) if text not in self.answered)


def _wins_over(peer: Peer, scope: str, key: str, stamp: Stamp) -> bool:
    held = peer.registers.winner(scope, key)
    return held is not None and held.delta.stamp > stamp


def _name(peer: Peer, kid: str) -> str:
    return peer.trust.name_of(kid, 8)
