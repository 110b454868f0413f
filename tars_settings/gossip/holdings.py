"""What a peer holds, how a delta is merged into it, and when a delta's own signature is checked."""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from tars_settings.core.delta import Delta, parse_delta
from tars_settings.core.floor import Floor
from tars_settings.core.head import Index, LargeRef, Segment, deltas_at_once, parse_segment
from tars_settings.core.records import DeltaRow, FloorRow, HistoryRow, IndexRow
from tars_settings.core.register import Outcome, Registers
from tars_settings.core.topics import (
    FloorSegmentTopic,
    FloorTopic,
    IndexTopic,
    KeyTopic,
    SegmentTopic,
    Topic,
    Topics,
    TrustTopic,
)
from tars_settings.core.wire import Raw, claimed_digest
from tars_settings.errors import MalformedError, RejectedError
from tars_settings.gossip.chain import Chain
from tars_settings.gossip.conflicts import Conflicts, Equivocations
from tars_settings.gossip.effects import Effect, HeldBack, Merged, Persist, Rejected, Way
from tars_settings.gossip.floors import Floors
from tars_settings.gossip.heads import Head, Heads
from tars_settings.gossip.waiting import Held, HeldStore, KnownBad, Standing
from tars_settings.trust.document import TrustDocument
from tars_settings.trust.validity import Spread, Verdict, flaws_of, judge


class Holdings:
    """Trust documents, floors, registers and heads of one peer."""

    def __init__(
        self,
        topics: Topics,
        root_public: bytes,
        emit: Callable[[Effect], None],
        own_kid: str = "",
        spread: Spread = map,
    ) -> None:
        self.topics = topics
        self.chain = Chain(root_public)
        self.registers = Registers()
        self.floors = Floors()
        self.heads = Heads()
        self.conflicts = Conflicts()
        self.equivocations = Equivocations()
        self.large: dict[tuple[str, str], dict[str, LargeRef]] = {}
        self.own_kid = own_kid
        self._spread = spread
        self.signed_counter: dict[str, int] = {}
        self._emit = emit
        self._held = HeldStore()
        self._bad = KnownBad()
        self._unfollowed: OrderedDict[bytes, Held] = OrderedDict()
        self._unproven: dict[bytes, Delta] = {}
        self._stored: set[bytes] = set()
        self._disturbed: set[str] = set()

    @property
    def trust(self) -> TrustDocument:
        """The trust document in force; the pin where there is none."""
        return self.chain.newest

    @property
    def fleet(self) -> str:
        """The fleet's id."""
        return self.trust.fleet

    # --- what is held ------------------------------------------------------------------------------------------------

    def desired(self, topic: Topic) -> bytes | None:
        """Return what the broker should retain on a topic as far as this peer knows; None where it knows nothing.

        A delta that was read on the word of an index is proven before it is returned.
        """
        if isinstance(topic, KeyTopic):
            while (register := self.registers.winner(topic.scope, topic.key)) is not None:
                if self.is_proven(register.delta) or self.prove(register.delta):
                    return register.delta.raw
            return None
        return self._known(topic)

    def _known(self, topic: Topic) -> bytes | None:
        match topic:
            case TrustTopic(version):
                return self.chain.raw(version)
            case KeyTopic(scope, key):
                register = self.registers.winner(scope, key)
                return None if register is None else register.delta.raw
            case IndexTopic(scope, kid):
                head = self.heads.get((scope, kid))
                return head.index.raw if head is not None and head.index is not None else None
            case SegmentTopic(scope, kid, n):
                head = self.heads.get((scope, kid))
                return None if head is None else head.segments.get(n)
            case FloorTopic(scope):
                floor = self.floors.greatest(scope)
                return None if floor is None else floor.raw
            case FloorSegmentTopic(scope, name):
                return self.floors.part(scope, name)
        return None

    def topics_of(self, scope: str) -> tuple[str, ...]:
        """Return every topic of a scope on which the broker should retain something that is held here."""
        return tuple(self.topics.format(topic) for topic in self.held_topics(scope))

    def held_topics(self, scope: str) -> Iterator[Topic]:
        """Yield the topics of which there is something to retain: of keys that are held now, of heads as they are then.

        One by one: there may be ten thousand.
        """
        for key in self.registers.keys(scope):
            yield KeyTopic(scope, key)
        for kid, head in self.heads.within(scope):
            if head.index is not None:
                yield IndexTopic(scope, kid)
                yield from [SegmentTopic(scope, kid, n) for n in head.segments]
        if self.floors.greatest(scope) is not None:
            yield FloorTopic(scope)
            yield from [FloorSegmentTopic(scope, name) for name in self.floors.parts(scope)]

    def head(self, scope: str, kid: str) -> Head:
        """Return a writer's head in a scope, empty where nothing is held."""
        return self.heads.of(scope, kid)

    @property
    def is_disturbed(self) -> bool:
        """Whether take_disturbed() would return a scope."""
        return bool(self._disturbed)

    def take_disturbed(self) -> frozenset[str]:
        """Return, once, the scopes in which something became void other than by trust: they are to be fetched again."""
        disturbed, self._disturbed = frozenset(self._disturbed), set()
        return disturbed

    def _fingerprint(self, topic: Topic, payload: bytes) -> bytes:
        # The topic is part of it: bytes that are bad on one topic may be good on another.
        text = self.topics.format(topic).encode()
        return hashlib.blake2b(len(text).to_bytes(2, "big") + text + payload, digest_size=16).digest()

    def _hold(self, topic: Topic, payload: bytes, way: Way, reason: str) -> Standing:
        if self._held.put(self._fingerprint(topic, payload), Held(topic, payload, way, reason)):
            self._emit(HeldBack(self.topics.format(topic), reason))
        return Standing.ALONE

    # --- deltas ------------------------------------------------------------------------------------------------------

    def merge(self, delta: Delta, way: Way) -> Outcome:
        """Merge a delta that was found valid, and have it stored when it is kept."""
        outcome = self.registers.offer(delta)
        if outcome is Outcome.DUPLICATE:
            outcome = self._replace_unproven(delta)
        if outcome is not Outcome.DUPLICATE and way != "replica":
            is_kept = self.registers.delta(delta.scope, delta.stamp.digest) is delta
            gone = [one for one in self.registers.take_forgotten() if one is not delta]
            put = (delta_row(delta) if is_kept else history_row(delta), *map(history_row, gone))
            self._emit(Persist(put, tuple(map(delta_row, gone))))
        self._emit_merged(delta, outcome, way)
        return outcome

    def _replace_unproven(self, delta: Delta) -> Outcome:
        """A proven copy arrived of a delta that is held: it proves the held one, or takes its place."""
        held = self._unproven.get(delta.stamp.digest)
        if held is not None and held.raw == delta.raw:
            self._accept_proof(held)
        elif held is not None and not self.prove(held):
            return self.registers.offer(delta)
        return Outcome.DUPLICATE

    def _emit_merged(self, delta: Delta, outcome: Outcome, way: Way) -> None:
        self._emit(Merged(delta, outcome._value_, way))  # .value is two calls in Python
        if outcome is Outcome.DUPLICATE:
            return
        for conflict in self.conflicts.note(delta, self.registers):
            if way != "replica":
                self._emit(conflict)
        equivocation = self.equivocations.note(delta, self.registers)
        if equivocation is not None and way != "replica":
            # On the word of an index nobody is accused.
            other = self.registers.delta(delta.scope, bytes.fromhex(equivocation.first))
            if all(one is None or self.prove(one) for one in (other, delta)):
                self._emit(equivocation)

    # --- deltas that were read on the word of their writer's index ---------------------------------------------------

    @property
    def unproven(self) -> int:
        """How many deltas wait for the check of their own signature."""
        return len(self._unproven)

    def is_proven(self, delta: Delta) -> bool:
        """Return whether the delta's own signature was checked."""
        return delta.stamp.digest not in self._unproven

    def prove_some(self, count: int) -> None:
        """Check the own signatures of up to *count* deltas, and have them stored."""
        # At once: to find the first of a dict takes as long as all that was taken out before it.
        deltas = tuple(itertools.islice(self._unproven.values(), count))
        for delta, flaw in zip(deltas, flaws_of(deltas, self.trust, self._spread), strict=True):
            self._take_proof(delta, flaw)
        if not self._unproven:
            self._unproven = {}  # an emptied one stays as large as it was

    def prove(self, delta: Delta) -> bool:
        """Check a delta's own signature: have it stored, or void it and name its writer."""
        if self.is_proven(delta):
            return True
        (flaw,) = flaws_of((delta,), self.trust)
        return self._take_proof(delta, flaw)

    def _take_proof(self, delta: Delta, flaw: RejectedError | None) -> bool:
        if flaw is None:
            self._accept_proof(delta)
            return True
        del self._unproven[delta.stamp.digest]
        self.registers.rejudge(lambda one: one is not delta, (delta.scope,))
        self._bad.put(self._fingerprint(_first_topic(delta), delta.raw), flaw.reason, delta.stamp.kid)
        self._emit(Rejected(f"segment of {delta.scope}", flaw.reason, delta.stamp.kid))
        self._disturbed.add(delta.scope)
        return False

    def _accept_proof(self, delta: Delta) -> None:
        digest = delta.stamp.digest
        del self._unproven[digest]
        if digest in self._stored:
            self._stored.discard(digest)
        elif self.registers.delta(delta.scope, digest) is not None:
            self._emit(Persist((delta_row(delta),)))

    def is_stored_unproven(self, scope: str, digest: bytes, raw: bytes) -> bool:
        """Take note that the replica has a row of an unproven delta; return False where it is not these bytes' one."""
        held = self._unproven.get(digest)
        if held is None or held.raw != raw or held.scope != scope:
            return False
        self._stored.add(digest)
        return True

    def _read_segment(self, scope: str, kid: str, n: int, payload: bytes, way: Way) -> None:
        """Merge what a segment carries; the index vouches for its bytes, so signatures are checked later."""
        segment = parse_segment(payload)
        digests = [claimed_digest("delta", self.fleet, bytes(part)) for part in segment.deltas]
        listed = self._read_at_once(payload, segment, digests, scope, kid, way) or [
            self._read_inline(part, digest, scope, kid, way)
            for part, digest in zip(segment.deltas, digests, strict=True)
        ]
        listed += [bytes.fromhex(ref.digest) for ref in segment.large]
        self.head(scope, kid).listed[n] = tuple(listed)
        if segment.large:
            self.large.setdefault((scope, kid), {}).update({ref.digest: ref for ref in segment.large})

    def _read_at_once(
        self, payload: bytes, segment: Segment, digests: list[bytes], scope: str, kid: str, way: Way
    ) -> list[bytes]:
        """Merge the deltas of a segment of which none is held yet; return nothing where each must be looked at."""
        if len(set(digests)) < len(digests) or any(self.registers.delta(scope, one) is not None for one in digests):
            return []
        deltas = deltas_at_once(payload, segment, scope, kid, digests)
        if deltas is None:
            return []
        self._merge_unproven(deltas, scope, way)
        return digests

    def _read_inline(self, part: Raw, digest: bytes, scope: str, kid: str, way: Way) -> bytes:
        payload = bytes(part)
        held = self.registers.delta(scope, digest)
        if held is None or held.raw != payload:
            self._read_unproven(payload, digest, scope, kid, way)
            held = self.registers.delta(scope, digest)
        if held is None:
            return digest
        if held.raw == payload:
            held.lies_in(part)
        return held.stamp.digest  # one object for both

    def _read_unproven(self, payload: bytes, claimed: bytes, scope: str, kid: str, way: Way) -> None:
        try:
            _, delta = parse_delta(payload, self.fleet, claimed=claimed)
        except MalformedError as error:
            self._emit(Rejected(f"segment of {scope}", error.reason, kid))
            return
        if delta.scope != scope or delta.stamp.kid != kid:
            self._emit(Rejected(f"segment of {scope}", "wrong-topic", kid))
            return
        self._merge_unproven((delta,), scope, way)

    def _merge_unproven(self, deltas: Iterable[Delta], scope: str, way: Way) -> None:
        document, mark = self.trust, self.floors.mark(scope)
        for delta in deltas:
            judgement = judge(delta, document, mark)
            if judgement.verdict is Verdict.HELD:
                self._hold(_first_topic(delta), delta.raw, way, judgement.reason)
            elif judgement.verdict is Verdict.VALID and not (self._bad and self._is_known_bad(delta)):
                outcome = self.registers.offer(delta)
                if outcome is not Outcome.DUPLICATE:
                    self._unproven[delta.stamp.digest] = delta
                self._emit_merged(delta, outcome, way)

    def _is_known_bad(self, delta: Delta) -> bool:
        return self._bad.get(self._fingerprint(_first_topic(delta), delta.raw)) is not None


def _first_topic(delta: Delta) -> KeyTopic:
    return KeyTopic(delta.scope, delta.assign[0].key)


def delta_row(delta: Delta) -> DeltaRow:
    """Return the row of a delta."""
    return DeltaRow(delta.scope, delta.stamp.digest, delta.raw)


def history_row(delta: Delta) -> HistoryRow:
    """Return the row of a delta that the registers need no more."""
    stamp = delta.stamp
    return HistoryRow(delta.scope, stamp.gen, stamp.epoch, stamp.kid, stamp.digest, delta.raw)


def index_row(index: Index) -> IndexRow:
    """Return the row of an index."""
    return IndexRow(index.body.scope, index.kid, index.body.counter, index.digest, index.raw)


def floor_row(floor: Floor) -> FloorRow:
    """Return the row of a floor."""
    return FloorRow(floor.body.scope, floor.kid, floor.body.gen, floor.body.epoch, floor.digest, floor.raw)
