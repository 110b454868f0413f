"""Taking in what a replica or a file holds: verified like anything that arrives, and then merged like it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Final

from tars_settings.core.head import segment_digest
from tars_settings.core.records import (
    DeltaRow,
    FloorRow,
    FloorSegmentRow,
    IndexRow,
    MarkRow,
    OutboxRow,
    Row,
    SegmentRow,
    TrustRow,
)
from tars_settings.core.topics import (
    FloorSegmentTopic,
    FloorTopic,
    IndexTopic,
    KeyTopic,
    SegmentTopic,
    Topic,
    TrustTopic,
)
from tars_settings.core.wire import decode_envelope, short_hash
from tars_settings.errors import RejectedError, TarsSettingsError
from tars_settings.gossip.effects import Effect, Persist, Rejected
from tars_settings.gossip.holdings import history_row
from tars_settings.gossip.peer import Peer
from tars_settings.gossip.writing import Writing
from tars_settings.trust.document import follow
from tars_settings.trust.validity import Verdict, read_delta, read_floor, read_index

# Trust first, for all is judged by it; floors before what they void; heads before deltas, for one signature of an index
# vouches for the bytes of hundreds.
_ORDER: Final = (TrustRow, FloorRow, FloorSegmentRow, SegmentRow, IndexRow, DeltaRow, MarkRow, OutboxRow)


class Loading:
    """Rows of a replica, and payloads of a file, into a peer."""

    def __init__(self, peer: Peer, writing: Writing | None, emit: Callable[[Effect], None]) -> None:
        self._peer = peer
        self._writing = writing
        self._emit = emit

    # --- replica -----------------------------------------------------------------------------------------------------

    def load(self, rows: tuple[Row, ...]) -> None:
        """Merge rows; what does not pass is dropped from the replica."""
        by_kind: dict[type[Row], list[Row]] = {kind: [] for kind in _ORDER}
        for row in rows:
            if type(row) in by_kind:
                by_kind[type(row)].append(row)
        by_kind[TrustRow].sort(key=lambda one: getattr(one, "version", 0))
        pending: dict[tuple[str, str, int], SegmentRow] = {}
        for row in itertools.chain.from_iterable(by_kind.values()):
            if isinstance(row, DeltaRow):
                if not self._peer.is_stored_unproven(row.scope, row.digest, row.raw):
                    self._load_delta(row)
            elif isinstance(row, SegmentRow):
                pending[row.scope, row.kid, row.n] = row
            elif isinstance(row, IndexRow):
                self._load_index(row, pending)
            else:
                self._load(row)

    def _load(self, row: Row) -> None:
        match row:
            case TrustRow():
                self._load_trust(row)
            case FloorRow():
                self._load_floor(row)
            case FloorSegmentRow(scope, name, raw):
                self._peer.receive(FloorSegmentTopic(scope, name), raw, "replica")
            case MarkRow(scope, kid, gen, epoch):
                if self._writing is not None and kid == self._peer.own_kid:
                    self._writing.marks[scope] = (gen, epoch)
            case OutboxRow():
                if self._writing is not None:
                    self._writing.restore(row)

    def _load_trust(self, row: TrustRow) -> None:
        try:
            document = follow(self._peer.trust, row.raw)
        except RejectedError as error:
            self._drop(row, "replica trust", error.reason)
            return
        self._peer.adopt_trust(document, stored=True)

    def _load_delta(self, row: DeltaRow) -> None:
        try:
            delta, judgement = read_delta(row.raw, self._peer.trust, self._peer.floors.mark)
        except RejectedError as error:
            self._drop(row, "replica delta", error.reason)
            return
        if judgement.verdict is Verdict.VALID:
            self._peer.merge(delta, "replica")
        elif judgement.verdict is Verdict.VOID:
            self._drop(row, "replica delta", judgement.reason)
            if judgement.reason != "unknown-writer":  # whose signature nobody could check
                self._emit(Persist((history_row(delta),)))
        else:
            self._peer.receive(KeyTopic(delta.scope, delta.assign[0].key), row.raw, "replica")

    def _load_index(self, row: IndexRow, segments: dict[tuple[str, str, int], SegmentRow]) -> None:
        peer = self._peer
        try:
            index, judgement = read_index(row.raw, peer.trust)
        except RejectedError as error:
            self._drop(row, "replica index", error.reason)
            return
        scope, kid = index.body.scope, index.kid
        if judgement.verdict is not Verdict.VALID or (scope, kid) != (row.scope, row.kid):
            return
        if kid == peer.own_kid:
            peer.signed_counter[scope] = index.body.counter
        here = {ref.n: segments[scope, kid, ref.n] for ref in index.body.segments if (scope, kid, ref.n) in segments}
        peer.head(scope, kid).pending = {n: segment.raw for n, segment in here.items()}
        peer.adopt_index(index, "replica")  # its signature was checked here: once is enough

    def _load_floor(self, row: FloorRow) -> None:
        try:
            floor, judgement = read_floor(row.raw, self._peer.trust)
        except RejectedError as error:
            self._drop(row, "replica floor", error.reason)
            return
        if judgement.verdict is Verdict.VOID:
            self._drop(row, "replica floor", judgement.reason)
        elif floor.body.scope == row.scope:
            self._peer.receive(FloorTopic(row.scope), row.raw, "replica")

    def _drop(self, row: Row, what: str, reason: str) -> None:
        self._emit(Rejected(what, reason))
        self._emit(Persist(drop=(row,)))

    # --- files -------------------------------------------------------------------------------------------------------

    def offer(self, payload: bytes) -> Topic | None:
        """Merge signed bytes from a file; return the topic where they belong, None where they are nothing of ours."""
        topic = self._topic_of(payload)
        if topic is None:
            self._emit(Rejected("file", "malformed"))
        else:
            self._peer.receive(topic, payload, "file")
        return topic

    def _topic_of(self, payload: bytes) -> Topic | None:
        try:
            decode_envelope(payload)
        except TarsSettingsError:
            return next(self._unsigned(payload), None)
        return self._topic_of_delta(payload) or self._topic_of_signed(payload)

    def _topic_of_delta(self, payload: bytes) -> Topic | None:
        try:
            delta, _ = read_delta(payload, self._peer.trust)
        except RejectedError:
            return None
        return KeyTopic(delta.scope, delta.assign[0].key)

    def _topic_of_signed(self, payload: bytes) -> Topic:
        try:
            index, _ = read_index(payload, self._peer.trust)
            return IndexTopic(index.body.scope, index.kid)
        except RejectedError:
            pass
        try:
            floor, _ = read_floor(payload, self._peer.trust)
            return FloorTopic(floor.body.scope)
        except RejectedError:
            return TrustTopic(None)

    def _unsigned(self, payload: bytes) -> Iterator[Topic]:
        """Yield where a segment or a part of a floor belongs: whatever is held names it by digest."""
        name, digest = short_hash(payload), segment_digest(payload)
        for scope in self._peer.floors.scopes():
            if name in self._peer.floors.missing(scope):
                yield FloorSegmentTopic(scope, name)
        for (scope, kid), head in self._peer.heads.items():
            for ref in () if head.index is None else head.index.body.segments:
                if ref.digest == digest:
                    yield SegmentTopic(scope, kid, ref.n)


def exported(peer: Peer, scopes: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return the signed bytes that make another broker, or a peer without network, hold what is held here.

    The trust chain in order, then for each scope its floor with parts, its deltas, and heads with their segments. A
    delta that does not prove is left out.
    """
    found = [document.raw for document in peer.chain.documents()]
    for scope in scopes:
        found += _exported_scope(peer, scope)
    return tuple(found)


def _exported_scope(peer: Peer, scope: str) -> Iterator[bytes]:
    floor = peer.floors.greatest(scope)
    if floor is not None:
        yield floor.raw
        yield from (part for name in peer.floors.parts(scope) if (part := peer.floors.part(scope, name)) is not None)
    yield from (delta.raw for delta in peer.registers.deltas(scope) if peer.prove(delta))
    for _, head in peer.heads.within(scope):
        if head.index is not None:
            yield head.index.raw
            yield from head.segments.values()
