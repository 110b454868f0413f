"""What a peer holds, and how received bytes change it: merging, whatever way they came.

Every ``receive_*`` returns a :class:`Standing`: how the payload on a topic compares with what is held after merging it.
"""

from __future__ import annotations

import enum
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from tars_settings.core.delta import Delta
from tars_settings.core.head import Index, Segment, parse_segment, segment_digest
from tars_settings.core.records import DeltaRow, IndexRow, SegmentRow, TrustRow
from tars_settings.core.register import Outcome, Registers
from tars_settings.core.topics import IndexTopic, KeyTopic, SegmentTopic, Topic, Topics, TrustTopic
from tars_settings.errors import NewerVersionError, RejectedError
from tars_settings.gossip.effects import Effect, ForeignHead, HeldBack, Merged, Persist, Rejected, TrustChanged, Way
from tars_settings.trust.document import TrustDocument, follow, pin
from tars_settings.trust.validity import Judgement, Verdict, judge, judge_index, read_delta, read_index

MAX_HELD: Final = 256
MAX_KNOWN_BAD: Final = 1024
MAX_PENDING: Final = 4
"""Segments per head that wait for the index which names them."""


class Standing(enum.Enum):
    """How a payload on a topic compares with what is held."""

    CURRENT = "current"
    WORSE = "worse"
    """Lower, void or garbage, and something better is held: to be repaired."""
    ALONE = "alone"
    """Not judged yet, of a later version, or nothing better is held: left alone."""


class Head:
    """One writer's head in a scope as far as it is here."""

    __slots__ = ("index", "pending", "segments")

    def __init__(self) -> None:
        self.index: Index | None = None
        self.segments: dict[int, bytes] = {}
        self.pending: dict[int, bytes] = {}

    def missing(self) -> tuple[int, ...]:
        """Return the numbers of the segments that the index names and that are not here."""
        if self.index is None:
            return ()
        return tuple(ref.n for ref in self.index.body.segments if ref.n not in self.segments)


class Peer:
    """Trust document, registers and heads of one peer, and the one way in for received bytes."""

    def __init__(self, topics: Topics, root_public: bytes, emit: Callable[[Effect], None], own_kid: str = "") -> None:
        self.topics = topics
        self.trust: TrustDocument = pin(root_public)
        self.registers = Registers()
        self.heads: dict[tuple[str, str], Head] = {}
        self.large: dict[tuple[str, str], set[tuple[str, str]]] = {}
        self.own_kid = own_kid
        self.signed_counter: dict[str, int] = {}
        self._emit = emit
        self._held: OrderedDict[bytes, tuple[Topic, bytes, Way]] = OrderedDict()
        self._bad: OrderedDict[bytes, tuple[str, str]] = OrderedDict()

    @property
    def fleet(self) -> str:
        """The fleet's id."""
        return self.trust.fleet

    # --- what is held ------------------------------------------------------------------------------------------------

    def desired(self, topic: Topic) -> bytes | None:
        """Return what the broker should retain on a topic as far as this peer knows; None where it knows nothing."""
        match topic:
            case TrustTopic(None):
                return self.trust.raw or None
            case KeyTopic(scope, key):
                register = self.registers.winner(scope, key)
                return None if register is None else register.delta.raw
            case IndexTopic(scope, kid):
                head = self.heads.get((scope, kid))
                return head.index.raw if head is not None and head.index is not None else None
            case SegmentTopic(scope, kid, n):
                head = self.heads.get((scope, kid))
                return None if head is None else head.segments.get(n)
        return None

    def topics_of(self, scope: str) -> tuple[str, ...]:
        """Return every topic of a scope on which the broker should retain something that is held here."""
        wanted: list[Topic] = [KeyTopic(scope, key) for key in self.registers.winners(scope)]
        for (of, kid), head in self.heads.items():
            if of == scope and head.index is not None:
                wanted.append(IndexTopic(scope, kid))
                wanted += [SegmentTopic(scope, kid, n) for n in head.segments]
        return tuple(self.topics.format(topic) for topic in wanted)

    def head(self, scope: str, kid: str) -> Head:
        """Return a writer's head in a scope, empty where nothing is held."""
        return self.heads.setdefault((scope, kid), Head())

    # --- receiving ---------------------------------------------------------------------------------------------------

    def receive(self, topic: Topic, payload: bytes, way: Way) -> Standing:
        """Merge the payload of a topic and return how it compares."""
        if payload and self.desired(topic) == payload:
            return Standing.CURRENT
        known_bad = self._bad.get(self._fingerprint(topic, payload))
        if known_bad is not None:
            self._emit(Rejected(self.topics.format(topic), *known_bad))
            return self._compare(topic, payload)
        try:
            return self._receive_fresh(topic, payload, way)
        except NewerVersionError as error:
            self._emit(Rejected(self.topics.format(topic), error.reason))
            return Standing.ALONE
        except RejectedError as error:
            return self._reject(topic, payload, error.reason)

    def _fingerprint(self, topic: Topic, payload: bytes) -> bytes:
        # The topic is part of it: bytes that are bad on one topic may be good on another.
        text = self.topics.format(topic).encode()
        return hashlib.blake2b(len(text).to_bytes(2, "big") + text + payload, digest_size=16).digest()

    def _reject(self, topic: Topic, payload: bytes, reason: str, kid: str = "") -> Standing:
        """Count it, remember it (a flood of it costs a hash each), and return how the topic stands."""
        self._bad[self._fingerprint(topic, payload)] = (reason, kid)
        if len(self._bad) > MAX_KNOWN_BAD:
            self._bad.popitem(last=False)
        self._emit(Rejected(self.topics.format(topic), reason, kid))
        return self._compare(topic, payload)

    def _receive_fresh(self, topic: Topic, payload: bytes, way: Way) -> Standing:
        if not payload:
            return self._reject(topic, payload, "empty")
        match topic:
            case TrustTopic():
                return self._receive_trust(topic, payload)
            case KeyTopic(scope, key):
                return self._receive_delta(topic, payload, scope, key, way)
            case IndexTopic(scope, kid):
                return self._receive_index(topic, payload, scope, kid, way)
            case SegmentTopic(scope, kid, n):
                return self._receive_segment(topic, payload, scope, kid, n)
        return Standing.ALONE

    def _compare(self, topic: Topic, payload: bytes) -> Standing:
        desired = self.desired(topic)
        if desired is None:
            return Standing.ALONE
        return Standing.CURRENT if desired == payload else Standing.WORSE

    def _hold(self, topic: Topic, payload: bytes, way: Way, reason: str) -> Standing:
        key = self._fingerprint(topic, payload)
        if key not in self._held:
            self._held[key] = (topic, payload, way)
            self._emit(HeldBack(self.topics.format(topic), reason))
        if len(self._held) > MAX_HELD:
            self._held.popitem(last=False)
        return Standing.ALONE

    # --- trust -------------------------------------------------------------------------------------------------------

    def _receive_trust(self, topic: TrustTopic, payload: bytes) -> Standing:
        received = follow(self.trust, payload)
        self.adopt_trust(received)
        return self._compare(topic, payload)

    def adopt_trust(self, document: TrustDocument, *, stored: bool = False) -> None:
        """Put a document in force: stored durably first, then everything is judged anew."""
        if not stored:
            self._emit(Persist((TrustRow(document.version, document.digest, document.raw),), durable=True))
        self.trust = document
        self._bad.clear()
        dropped = self.registers.rejudge(lambda delta: judge(delta, document).verdict is Verdict.VALID)
        if dropped:
            self._emit(Persist(drop=tuple(_row(delta) for delta in dropped)))
        for head in self.heads.values():
            if head.index is not None and judge_index(head.index, document).verdict is not Verdict.VALID:
                head.index, head.segments = None, {}
        self._emit(TrustChanged(document.version, document.gen, len(dropped)))
        held, self._held = self._held, OrderedDict()
        for topic, payload, way in held.values():
            self.receive(topic, payload, way)

    def release_held(self) -> tuple[str, ...]:
        """Judge what waited for a trust document that nobody has: void. Return the topics to compare again."""
        waited = [(topic, payload) for topic, payload, _ in self._held.values()]
        topics: list[str] = []
        for topic, payload in waited:
            if self._waits_for_trust(topic, payload):
                self._held.pop(self._fingerprint(topic, payload), None)
                self._reject(topic, payload, "unknown-writer")
                topics.append(self.topics.format(topic))
        return tuple(topics)

    def _waits_for_trust(self, topic: Topic, payload: bytes) -> bool:
        try:
            if isinstance(topic, KeyTopic):
                return read_delta(payload, self.trust)[1].reason == "trust-behind"
            return isinstance(topic, IndexTopic) and read_index(payload, self.trust)[1].reason == "trust-behind"
        except RejectedError:
            return True

    # --- deltas ------------------------------------------------------------------------------------------------------

    def _receive_delta(self, topic: KeyTopic, payload: bytes, scope: str, key: str, way: Way) -> Standing:
        delta, judgement = read_delta(payload, self.trust)
        if delta.scope != scope or delta.assignment(key) is None:
            return self._reject(topic, payload, "wrong-topic", delta.stamp.kid)
        if judgement.verdict is Verdict.HELD or self.trust.is_pin:
            return self._hold(topic, payload, way, judgement.reason or "no-trust")
        if judgement.verdict is Verdict.VOID:
            return self._reject(topic, payload, judgement.reason, delta.stamp.kid)
        self.merge(delta, way)
        return self._compare(topic, payload)

    def merge(self, delta: Delta, way: Way) -> Outcome:
        """Merge a delta that was found valid, and have it stored when it is kept."""
        outcome = self.registers.offer(delta)
        if outcome is not Outcome.DUPLICATE and way != "replica":
            put = (_row(delta),) if self.registers.delta(delta.scope, delta.stamp.digest) is delta else ()
            drop = tuple(_row(one) for one in self.registers.take_forgotten() if one is not delta)
            if put or drop:
                self._emit(Persist(put, drop))
        self._emit(Merged(delta, outcome.value, way))
        return outcome

    def merge_raw(self, payload: bytes, scope: str, kid: str, way: Way) -> Judgement | None:
        """Merge a delta that stands in a writer's segment; None where it is no delta of that writer and scope."""
        try:
            delta, judgement = read_delta(payload, self.trust)
        except RejectedError as error:
            self._emit(Rejected(f"segment of {scope}", error.reason, kid))
            return None
        if delta.scope != scope or (kid and delta.stamp.kid != kid):
            self._emit(Rejected(f"segment of {scope}", "wrong-topic", kid))
            return None
        if judgement.verdict is Verdict.VALID:
            self.merge(delta, way)
        elif judgement.verdict is Verdict.HELD:
            self._hold(KeyTopic(scope, delta.body.assign[0].key), payload, way, judgement.reason)
        return judgement

    # --- heads -------------------------------------------------------------------------------------------------------

    def _receive_index(self, topic: IndexTopic, payload: bytes, scope: str, kid: str, way: Way) -> Standing:
        index, judgement = read_index(payload, self.trust)
        if index.body.scope != scope or index.kid != kid:
            return self._reject(topic, payload, "wrong-topic", index.kid)
        if judgement.verdict is Verdict.HELD or self.trust.is_pin:
            return self._hold(topic, payload, way, judgement.reason or "no-trust")
        if judgement.verdict is Verdict.VOID:
            return self._reject(topic, payload, judgement.reason, kid)
        self._adopt_index(index, way)
        return self._compare(topic, payload)

    def _adopt_index(self, index: Index, way: Way) -> None:
        scope, kid = index.body.scope, index.kid
        head = self.head(scope, kid)
        if head.index is not None and head.index.order >= index.order:
            return
        head.index = index
        wanted = {ref.n: ref.digest for ref in index.body.segments}
        at_hand = {**head.pending, **head.segments}
        stale = tuple(n for n in head.segments if n not in wanted)
        head.segments, pending = {}, head.pending
        head.pending = {}
        if way != "replica":
            row = IndexRow(scope, kid, index.body.counter, index.digest, index.raw)
            self._emit(Persist((row,), tuple(SegmentRow(scope, kid, n, b"") for n in stale)))
        for n, digest in wanted.items():
            for candidate in (at_hand.get(n), pending.get(n)):
                if candidate is not None and segment_digest(candidate) == digest:
                    self.take_segment(scope, kid, n, candidate, way)
                    break
        if (
            kid == self.own_kid
            and index.body.counter > self.signed_counter.get(scope, 0)
            and way not in ("own", "replica")
        ):
            self._emit(ForeignHead(scope, index.body.counter))

    def _receive_segment(self, topic: SegmentTopic, payload: bytes, scope: str, kid: str, n: int) -> Standing:
        parse_segment(payload)
        writer = self.trust.writer(kid)
        if writer is None or not writer.touches(scope):
            return self._reject(topic, payload, "unknown-writer", kid)
        head = self.head(scope, kid)
        wanted = {} if head.index is None else {ref.n: ref.digest for ref in head.index.body.segments}
        if wanted.get(n) == segment_digest(payload):
            self.take_segment(scope, kid, n, payload, "segment")
            return self._compare(topic, payload)
        # A segment goes out before the index that names it: keep the latest until that comes. It is no damage either:
        # a writer's next index may already rest on it.
        head.pending[n] = payload
        while len(head.pending) > MAX_PENDING:
            del head.pending[next(iter(head.pending))]
        return Standing.ALONE if head.segments.get(n) is None else Standing.WORSE

    def take_segment(self, scope: str, kid: str, n: int, payload: bytes, way: Way) -> None:
        """Hold a segment that the index in force names by digest, and merge its deltas."""
        segment: Segment = parse_segment(payload)
        self.head(scope, kid).segments[n] = payload
        if way != "replica":
            self._emit(Persist((SegmentRow(scope, kid, n, payload),)))
        for raw in segment.deltas:
            self.merge_raw(
                bytes(raw), scope, kid, "own" if way == "own" else "replica" if way == "replica" else "segment"
            )
        refs = {(ref.digest, ref.key) for ref in segment.large}
        if refs:
            self.large.setdefault((scope, kid), set()).update(refs)


def _row(delta: Delta) -> DeltaRow:
    return DeltaRow(delta.scope, delta.stamp.digest, delta.raw)
