"""What a peer holds, and how received bytes change it: merging, whatever way they came.

:meth:`Peer.receive` returns a :class:`Standing`: how the payload on a topic compares with what is held after merging.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from tars_settings.core.floor import parse_floor_segment
from tars_settings.core.head import Index, parse_segment
from tars_settings.core.records import FloorSegmentRow, Row, SegmentRow
from tars_settings.core.topics import (
    FloorSegmentTopic,
    FloorTopic,
    IndexTopic,
    KeyTopic,
    SegmentTopic,
    Topic,
    TrustTopic,
)
from tars_settings.core.wire import Purpose, claimed_digest, decode_frame, short_hash
from tars_settings.errors import ChainMissingError, MalformedError, NewerVersionError, RejectedError
from tars_settings.gossip.effects import (
    FloorRaised,
    ForeignHead,
    Merged,
    Persist,
    Rejected,
    TrustChanged,
    TrustQuarrel,
    Way,
)
from tars_settings.gossip.heads import Head
from tars_settings.gossip.holdings import Holdings, delta_row, floor_row, history_row, index_row
from tars_settings.gossip.waiting import Held, Standing
from tars_settings.trust.document import TrustDocument
from tars_settings.trust.envelope import is_vouched
from tars_settings.trust.validity import (
    VALID,
    Judgement,
    Verdict,
    judge,
    judge_floor,
    judge_index,
    read_delta,
    read_floor,
    read_index,
)

__all__ = ("Head", "Peer", "Standing")

MAX_UNFOLLOWED: Final = 4
WAITS_FOR_TRUST: Final = frozenset({"trust-behind", "chain-missing", "no-trust"})
_PURPOSES: Final[dict[type, Purpose]] = {
    TrustTopic: "trust",
    KeyTopic: "delta",
    IndexTopic: "head",
    FloorTopic: "floor",
}


class Peer(Holdings):
    """Trust documents, floors, registers and heads of one peer, and the one way in for received bytes."""

    # --- receiving ---------------------------------------------------------------------------------------------------

    def receive(self, topic: Topic, payload: bytes, way: Way) -> Standing:
        """Merge the payload of a topic and return how it compares."""
        if payload and self._known(topic) == payload:
            return Standing.CURRENT
        known_bad = self._bad.get(self._fingerprint(topic, payload)) if len(self._bad) else None
        if known_bad is not None:
            self._emit(Rejected(self.topics.format(topic), *known_bad))
            return self._compare(topic, payload, known_bad[0])
        try:
            return self._receive_fresh(topic, payload, way)
        except NewerVersionError as error:
            if not self._is_vouched(topic, payload):
                return self._reject(topic, payload, MalformedError.reason)
            self._emit(Rejected(self.topics.format(topic), error.reason))
            return Standing.ALONE
        except RejectedError as error:
            return self._reject(topic, payload, error.reason)

    def _is_vouched(self, topic: Topic, payload: bytes) -> bool:
        """Whether somebody whom we trust signed an envelope of a later version.

        Only that is left alone: what anyone can write must not keep a topic from being repaired.
        """
        frame = decode_frame(payload)
        purpose = _PURPOSES.get(type(topic))
        if frame is None or purpose is None:
            return False
        writer = self.trust.writer(frame.kid)
        publics = self.trust.body.roots if purpose == "trust" else (writer.public,) if writer is not None else ()
        return any(is_vouched(frame, purpose, self.trust.fleet, public) for public in publics)

    def _reject(self, topic: Topic, payload: bytes, reason: str, kid: str = "") -> Standing:
        """Count it, remember it (a flood of it costs a hash each), and return how the topic stands."""
        self._bad.put(self._fingerprint(topic, payload), reason, kid)
        self._emit(Rejected(self.topics.format(topic), reason, kid))
        return self._compare(topic, payload, reason)

    def _receive_fresh(self, topic: Topic, payload: bytes, way: Way) -> Standing:
        if not payload:
            return self._reject(topic, payload, "empty")
        match topic:
            case TrustTopic():
                return self._receive_trust(topic, payload, way)
            case KeyTopic(scope, key):
                return self._receive_delta(topic, payload, scope, key, way)
            case IndexTopic(scope, kid):
                return self._receive_index(topic, payload, scope, kid, way)
            case SegmentTopic(scope, kid, n):
                return self._receive_segment(topic, payload, scope, kid, n)
            case FloorTopic(scope):
                return self._receive_floor(topic, payload, scope, way)
            case FloorSegmentTopic(scope, name):
                return self._receive_floor_part(topic, payload, scope, name, way)
        return Standing.ALONE

    def _compare(self, topic: Topic, payload: bytes, reason: str = "") -> Standing:
        known = self._known(topic)
        if known is None:
            return Standing.COMPACTED if reason == "below-floor" else Standing.ALONE
        return Standing.CURRENT if known == payload else Standing.WORSE

    def _refused(self, topic: Topic, payload: bytes, kid: str, judgement: Judgement, way: Way) -> Standing | None:
        """Hold or reject what its judgement does not let in; None where it is valid."""
        if judgement.verdict is Verdict.HELD or self.trust.is_pin:
            return self._hold(topic, payload, way, "no-trust" if self.trust.is_pin else judgement.reason)
        if judgement.verdict is Verdict.VOID:
            return self._reject(topic, payload, judgement.reason, kid)
        return None

    def _receive_held(self, held: tuple[Held, ...]) -> None:
        for one in held:
            self.receive(one.topic, one.payload, one.way)

    # --- trust -------------------------------------------------------------------------------------------------------

    def _receive_trust(self, topic: TrustTopic, payload: bytes, way: Way) -> Standing:
        before = self.trust
        try:
            received = self.chain.follow(topic, payload)
        except ChainMissingError:
            return self._hold(topic, payload, way, "chain-missing")
        if received is None:
            return Standing.ALONE
        is_superseded = topic.version is None and received.version < before.version
        if self.chain.holds(received) and not is_superseded:
            # The same document with other cosignatures: enough of them, so no damage.
            return Standing.CURRENT
        if received.version == before.version:
            first, second = sorted((received.digest.hex(), before.digest.hex()), reverse=True)
            self._emit(TrustQuarrel(received.version, first, second))
        if received.order < before.order:
            return self._receive_step(topic, payload, received)
        self.adopt_trust(received)
        return self._compare(topic, payload)

    def _receive_step(self, topic: TrustTopic, payload: bytes, document: TrustDocument) -> Standing:
        if topic.version is None or not self.chain.replaces_step(document):
            return self._reject(topic, payload, "untrusted")
        self._emit(Persist((self.chain.row(document),), self.chain.displaced(document)))
        self.chain.replace_step(document)
        return Standing.CURRENT

    def adopt_trust(self, document: TrustDocument, *, stored: bool = False) -> None:
        """Put a document in force: stored durably first, then everything is judged anew."""
        if not stored:
            self._emit(Persist((self.chain.row(document),), self.chain.displaced(document), durable=True))
        self.chain.adopt(document)
        self._bad.clear()
        floors = self.floors.rejudge(lambda floor: judge_floor(floor, document).verdict is Verdict.VALID)
        self._drop([floor_row(floor) for floor in floors])
        for (scope, kid), head in self.heads.items():
            if head.index is not None and judge_index(head.index, document).verdict is not Verdict.VALID:
                self._clear_head(scope, kid, head)
        voided = self._rejudge(None)
        self._emit(TrustChanged(document.version, document.gen, voided))
        unfollowed, self._unfollowed = tuple(self._unfollowed.values()), OrderedDict()
        self._receive_held((*self._held.take(), *unfollowed))
        self._read_again(None)

    def _clear_head(self, scope: str, kid: str, head: Head) -> None:
        # The index in force now may have a lower counter: its row would lose against the void one's.
        index = head.index
        rows: list[Row] = [SegmentRow(scope, kid, n, b"") for n in head.clear()]
        if index is not None:
            rows.append(index_row(index))
        self.large.pop((scope, kid), None)
        self._drop(rows)

    def _drop(self, rows: list[Row]) -> None:
        if rows:
            self._emit(Persist(drop=tuple(rows)))

    def _rejudge(self, scopes: tuple[str, ...] | None) -> int:
        """Judge anew what is held, of *scopes* or all; return how many deltas became void."""
        document, mark = self.trust, self.floors.mark
        dropped = self.registers.rejudge(lambda one: not _is_void(judge(one, document, mark(one.scope))), scopes)
        for delta in dropped:
            self._unproven.pop(delta.stamp.digest, None)
            self._stored.discard(delta.stamp.digest)
        if dropped:
            self._emit(Persist(tuple(map(history_row, dropped)), tuple(map(delta_row, dropped))))
        return len(dropped)

    def _read_again(self, scope: str | None) -> None:
        """Read the segments that are held once more: what was void in them may be valid now."""
        for (of, kid), head in tuple(self.heads.items()):
            if scope in (None, of):
                for n, payload in tuple(head.segments.items()):
                    self._read_segment(of, kid, n, payload, "segment")

    def wanted_versions(self) -> tuple[int, ...]:
        """Return the next steps of the trust chain, where one is held that can't be followed without them."""
        held = (*self._held.waiting_for("chain-missing"), *self._unfollowed.values())
        return self.chain.steps_to([one.payload for one in held])

    @property
    def lacks_steps(self) -> bool:
        """Whether a trust document is held that can't be followed without steps that are not here."""
        return bool(self._held.waiting_for("chain-missing"))

    @property
    def held_so_far(self) -> int:
        """The number of what was held last."""
        return self._held.last

    def release_held(self, *, chain_too: bool = True, upto: int | None = None) -> tuple[str, ...]:
        """Judge what waited for a trust document that nobody has: void. Return the topics to compare again.

        Without *chain_too* documents whose steps are missing go on waiting; so does what was held after number *upto*.
        """
        if self.trust.is_pin:
            return ()
        released = []
        reasons = WAITS_FOR_TRUST if chain_too else WAITS_FOR_TRUST - {"chain-missing"}
        for one in self._held.take(reasons, upto=upto):
            reason = self._reason_as_is(one.topic, one.payload)
            if reason == "floor-incomplete":
                self._held.put(self._fingerprint(one.topic, one.payload), Held(one.topic, one.payload, one.way, reason))
            elif reason:
                self._release(one, reason)
                released.append(self.topics.format(one.topic))
        return tuple(released)

    def _release(self, held: Held, reason: str) -> None:
        if held.reason == "chain-missing":
            # Void for now, and repaired over; the steps may come later, and then it is looked at again.
            self._unfollowed[self._fingerprint(held.topic, held.payload)] = held
            while len(self._unfollowed) > MAX_UNFOLLOWED:
                self._unfollowed.popitem(last=False)
        self._reject(held.topic, held.payload, reason)

    def _reason_as_is(self, topic: Topic, payload: bytes) -> str:
        """Return why something is void or held under the trust document that is here, whatever later one it names."""
        try:
            match topic:
                case KeyTopic(scope):
                    delta = read_delta(payload, self.trust)[0]
                    return judge(delta, self.trust, self.floors.mark(scope), chain_asked=True).reason
                case IndexTopic():
                    return judge_index(read_index(payload, self.trust)[0], self.trust, chain_asked=True).reason
                case FloorTopic():
                    return judge_floor(read_floor(payload, self.trust)[0], self.trust, chain_asked=True).reason
            return "untrusted"
        except RejectedError as error:
            return error.reason

    # --- deltas ------------------------------------------------------------------------------------------------------

    def _receive_delta(self, topic: KeyTopic, payload: bytes, scope: str, key: str, way: Way) -> Standing:
        document = self.chain.newest
        claimed = claimed_digest("delta", document.fleet, payload)
        held = self.registers.delta(scope, claimed)
        if held is not None and held.raw == payload and held.assignment(key) is not None:
            self._emit(Merged(held, "duplicate", way))
            return self._compare(topic, payload)
        delta, judgement = read_delta(payload, document, self.floors.mark, claimed=claimed)
        if delta.scope != scope or delta.assignment(key) is None:
            return self._reject(topic, payload, "wrong-topic", delta.stamp.kid)
        if judgement is not VALID:  # nothing is under a pin
            refused = self._refused(topic, payload, delta.stamp.kid, judgement, way)
            if refused is not None:
                return refused
        self.merge(delta, way)
        winner = self.registers.winner(scope, key)
        if winner is not None and winner.delta.stamp == delta.stamp:
            # Its writer signed the same bytes twice: other signatures over one digest are no damage.
            return Standing.CURRENT
        return self._compare(topic, payload)

    # --- heads -------------------------------------------------------------------------------------------------------

    def _receive_index(self, topic: IndexTopic, payload: bytes, scope: str, kid: str, way: Way) -> Standing:
        index, judgement = read_index(payload, self.trust)
        if index.body.scope != scope or index.kid != kid:
            return self._reject(topic, payload, "wrong-topic", index.kid)
        refused = self._refused(topic, payload, kid, judgement, way)
        if refused is not None:
            return refused
        self.adopt_index(index, way)
        return self._compare(topic, payload)

    def adopt_index(self, index: Index, way: Way) -> None:
        """Put an index that was found valid in force where it is greater, and read the segments that are at hand."""
        scope, kid = index.body.scope, index.kid
        head = self.head(scope, kid)
        if head.index is not None and head.index.order >= index.order:
            return
        segments = dict(head.segments)
        adoption = head.adopt(index)
        for n in sorted(segments.keys() - head.segments.keys()):
            self._prove_segment(segments[n])
        if way != "replica":
            dropped = tuple(SegmentRow(scope, kid, n, b"") for n in adoption.dropped)
            self._emit(Persist((index_row(index),), dropped))
        for n, payload in adoption.fresh:
            try:
                self.take_segment(scope, kid, n, payload, way)
            except MalformedError as error:
                self._emit(Rejected(f"segment of {scope}", error.reason, kid))
        if kid == self.own_kid and way not in ("own", "replica"):
            self._check_own_head(scope, index.body.counter)

    def _prove_segment(self, payload: bytes) -> None:
        """Prove, and so store, the deltas that are on the disk in this segment only, before it goes."""
        if not self._unproven:
            return
        for raw in parse_segment(payload).deltas:
            delta = self._unproven.get(claimed_digest("delta", self.fleet, bytes(raw)))
            if delta is not None:
                self.prove(delta)

    def _check_own_head(self, scope: str, counter: int) -> None:
        # The first one that a process meets is what it goes on from: after a crash it may be newer than our replica.
        if counter > self.signed_counter.setdefault(scope, counter):
            self.signed_counter[scope] = counter
            self._emit(ForeignHead(scope, counter))

    def _receive_segment(self, topic: SegmentTopic, payload: bytes, scope: str, kid: str, n: int) -> Standing:
        writer = self.trust.writer(kid)
        if writer is None or not writer.touches(scope):
            return self._reject(topic, payload, "unknown-writer", kid)
        parse_segment(payload)
        head = self.head(scope, kid)
        if head.names(n, payload):
            self.take_segment(scope, kid, n, payload, "segment")
            return self._compare(topic, payload)
        # It is no damage yet: a writer's next index may rest on it.
        head.wait(n, payload)
        return Standing.ALONE if head.segments.get(n) is None else Standing.WORSE

    def take_segment(self, scope: str, kid: str, n: int, payload: bytes, way: Way) -> None:
        """Hold a segment that the index in force names by digest, and merge its deltas.

        Raises:
            MalformedError: its writer vouches for something that is no segment.
        """
        parse_segment(payload)
        self.head(scope, kid).segments[n] = payload
        if way != "replica":
            self._emit(Persist((SegmentRow(scope, kid, n, payload),)))
        self._read_segment(scope, kid, n, payload, way if way in ("own", "replica") else "segment")

    # --- floors ------------------------------------------------------------------------------------------------------

    def _receive_floor(self, topic: FloorTopic, payload: bytes, scope: str, way: Way) -> Standing:
        floor, judgement = read_floor(payload, self.trust)
        if floor.body.scope != scope:
            return self._reject(topic, payload, "wrong-topic", floor.kid)
        refused = self._refused(topic, payload, floor.kid, judgement, way)
        if refused is not None:
            return refused
        before = self.floors.mark(scope)
        if self.floors.offer(floor):
            if way != "replica":
                self._emit(Persist((floor_row(floor),), durable=True))
            if self.floors.mark(scope) != before:
                self._on_floor(scope)
        return self._compare(topic, payload)

    def _receive_floor_part(
        self, topic: FloorSegmentTopic, payload: bytes, scope: str, name: str, way: Way
    ) -> Standing:
        if name not in self.floors.missing(scope):
            return self._compare(topic, payload)
        if short_hash(payload) != name:
            return self._reject(topic, payload, "wrong-topic")
        self.floors.take_part(scope, name, parse_floor_segment(payload), payload)
        if way != "replica":
            self._emit(Persist((FloorSegmentRow(scope, name, payload),), durable=True))
        self._on_floor(scope)
        return Standing.CURRENT

    def _on_floor(self, scope: str) -> None:
        """Judge a scope anew, for its floors say something else."""
        self._bad.clear()
        voided = self._rejudge((scope,))
        mark = self.floors.mark(scope)
        self._emit(FloorRaised(scope, mark.gen, mark.epoch, voided))
        self._receive_held(self._held.take(("floor-incomplete",)))
        self._read_again(scope)
        self._disturbed.add(scope)


def _is_void(judgement: Judgement) -> bool:
    # What was valid and is only held now (the list of a greater floor is not all here) is neither stored anew nor
    # dropped.
    return judgement.verdict is not Verdict.VALID and judgement.reason != "floor-incomplete"
