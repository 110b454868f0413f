"""Heads: each writer's signed log of its own live deltas in a scope.

A head is an index (signed) that names segments by digest; segments carry the writer's deltas verbatim. There is no
second statement of a value anywhere: a register always rests on a delta's own bytes. Restating values in pages was
modelled and diverged in 140 runs of 500; carrying the deltas diverged in none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from tars_settings.core.delta import MAX_ASSIGNMENTS, Delta, DeltaBody, check_body
from tars_settings.core.names import is_key, is_scope
from tars_settings.core.stamp import MAX_EPOCH, MAX_GEN, Stamp
from tars_settings.core.wire import Envelope, HexDigest, Kid, Signature, decode_canonical, encode, one_empty_tuple
from tars_settings.errors import MalformedError

MAX_SEGMENT_BYTES: Final = 32 * 1024
MAX_INLINE_BYTES: Final = 8 * 1024
"""A delta above this is named in its segment by digest and fetched from its key's topic."""
MAX_SEGMENTS: Final = 400
MAX_SEEN: Final = 64


class SegmentRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A segment's number (its topic) and the BLAKE2b-256 of its bytes."""

    n: Annotated[int, msgspec.Meta(ge=1, le=10**8)]
    digest: HexDigest


class FloorRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The floor that a writer saw: who looks for it knows that there is one, and which. ``kid`` signed it."""

    kid: Kid
    gen: Annotated[int, msgspec.Meta(ge=0, le=MAX_GEN)]
    epoch: Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH)]
    digest: HexDigest


class IndexBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a writer signs of its log in a scope.

    ``counter`` grows by one with each index; ``gen`` and ``epoch`` are the highest that the writer used or saw;
    ``seen`` maps other writers' key ids to the index counters that this writer had seen, ``floor`` is the scope's floor
    that it saw.
    """

    scope: str
    counter: Annotated[int, msgspec.Meta(ge=1, le=MAX_EPOCH)]
    gen: Annotated[int, msgspec.Meta(ge=0, le=MAX_GEN)]
    epoch: Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH)]
    trust: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    segments: Annotated[tuple[SegmentRef, ...], msgspec.Meta(max_length=MAX_SEGMENTS)]
    seen: Annotated[dict[Kid, int], msgspec.Meta(max_length=MAX_SEEN)] = {}
    floor: FloorRef | msgspec.UnsetType = msgspec.UNSET
    ext: dict[str, msgspec.Raw] = {}


class Index(msgspec.Struct, frozen=True, eq=False):
    """An index as received; ``order`` decides between two of one writer."""

    kid: str
    body: IndexBody
    digest: bytes
    raw: bytes

    @property
    def order(self) -> tuple[int, bytes]:
        """(counter, digest): the greater index is in force."""
        return (self.body.counter, self.digest)


class LargeRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names a delta that is too large to lie in a segment: its place in the order, and the keys to fetch it from.

    All of its keys: on the topic of one of them another writer's greater delta may lie, and the large one still win
    another key.
    """

    digest: HexDigest
    gen: Annotated[int, msgspec.Meta(ge=0, le=MAX_GEN)]
    epoch: Annotated[int, msgspec.Meta(ge=1, le=MAX_EPOCH)]
    keys: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MAX_ASSIGNMENTS)]

    @classmethod
    def of(cls, delta: Delta) -> LargeRef:
        """Return the reference to *delta*."""
        stamp = delta.stamp
        return cls(stamp.digest.hex(), stamp.gen, stamp.epoch, tuple(item.key for item in delta.assign))

    def stamp(self, kid: str) -> Stamp:
        """Return the stamp of the delta that the writer *kid* names."""
        return Stamp(self.gen, self.epoch, kid, bytes.fromhex(self.digest))


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of a writer's log: deltas verbatim, as envelopes, and references to large ones."""

    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    deltas: tuple[msgspec.Raw, ...] = ()
    large: tuple[LargeRef, ...] = ()

    def __post_init__(self) -> None:
        one_empty_tuple(self)


class _WholeEnvelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An envelope of a delta, decoded down to its values. Whose it is is compared, so that no pattern has to match."""

    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    kid: str
    sig: Signature
    body: DeltaBody


class _WholeSegment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A segment, decoded down to its values."""

    v: int
    deltas: tuple[_WholeEnvelope, ...] = ()
    large: tuple[LargeRef, ...] = ()

    def __post_init__(self) -> None:
        one_empty_tuple(self)


_index_decoder: Final = msgspec.json.Decoder(IndexBody)
_segment_decoder: Final = msgspec.json.Decoder(Segment)
_whole_decoder: Final = msgspec.json.Decoder(_WholeSegment)


def index_of(envelope: Envelope, payload: bytes, digest: bytes) -> Index:
    """Return the index in an envelope, form checked, signature not.

    Raises:
        MalformedError: the body is no index.
    """
    body = decode_canonical(_index_decoder, bytes(envelope.body), what="index")
    if not is_scope(body.scope):
        raise MalformedError("malformed index: illegal scope")
    if len({ref.n for ref in body.segments}) != len(body.segments):
        raise MalformedError("malformed index: a segment is named twice")
    return Index(envelope.kid, body, digest, payload)


def parse_segment(payload: bytes) -> Segment:
    """Return the segment in *payload*; its deltas are not looked into.

    Raises:
        MalformedError: too large or not canonical.
    """
    if len(payload) > MAX_SEGMENT_BYTES:
        raise MalformedError("malformed segment: over 32 KiB")
    segment = decode_canonical(_segment_decoder, payload, what="segment")
    if not all(is_key(key) for ref in segment.large for key in ref.keys):
        raise MalformedError("malformed segment: illegal key")
    return segment


def deltas_at_once(
    payload: bytes, segment: Segment, scope: str, kid: str, digests: Sequence[bytes]
) -> tuple[Delta, ...] | None:
    """Return all deltas of the *segment* in *payload*, form checked, or None where one of them is not as it should be.

    In that case each is to be looked at by itself (:func:`~tars_settings.core.delta.parse_delta`), which says what is
    wrong with it. *digests* are those that the deltas claim, in order. A segment that is its own re-encoding down to
    the values consists of envelopes and bodies that are theirs: one pass over a hundred deltas instead of four over
    each, which was half of a join.
    """
    try:
        whole = decode_canonical(_whole_decoder, payload, what="segment").deltas
        for one in whole:
            check_body(one.body)
    except MalformedError:
        return None
    if any(one.kid != kid or one.body.scope != scope for one in whole):
        return None
    return tuple(
        Delta.of(Stamp(one.body.gen, one.body.epoch, kid, digest), one.body, part)
        for one, part, digest in zip(whole, segment.deltas, digests, strict=True)
    )


def segment_digest(payload: bytes) -> str:
    """Return the BLAKE2b-256 of a segment's bytes, in hex."""
    return hashlib.blake2b(payload, digest_size=32).hexdigest()


def encode_segment(segment: Segment) -> bytes:
    """Return the segment's bytes."""
    return encode(segment)
