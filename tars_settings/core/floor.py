"""Floors: the way tombstones go.

A floor is a signed (gen, epoch) and the digests that live: whatever of its scope is at or below it and not listed is
void everywhere, so no old peer brings a deleted key back. A list that outgrows an envelope is cut into segments, named
by their hash; until all of them are here, what only they could judge is held.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Literal

import msgspec

from tars_settings.core.names import is_scope
from tars_settings.core.stamp import MAX_EPOCH, MAX_GEN
from tars_settings.core.wire import Envelope, HexDigest, Kid, decode_canonical, encode, one_empty_tuple, short_hash
from tars_settings.errors import MalformedError, TooLargeError

MAX_FLOOR_SEGMENT_BYTES: Final = 32 * 1024
MAX_INLINE_DIGESTS: Final = 400
MAX_SEGMENT_DIGESTS: Final = 480
MAX_FLOOR_SEGMENTS: Final = 256


class FloorBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is signed. ``live`` are digests; ``segments`` the hashes of further parts of the list."""

    scope: str
    gen: Annotated[int, msgspec.Meta(ge=0, le=MAX_GEN)]
    epoch: Annotated[int, msgspec.Meta(ge=1, le=MAX_EPOCH)]
    trust: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    live: Annotated[tuple[HexDigest, ...], msgspec.Meta(max_length=MAX_INLINE_DIGESTS)] = ()
    segments: Annotated[tuple[Kid, ...], msgspec.Meta(max_length=MAX_FLOOR_SEGMENTS)] = ()
    at: Annotated[str, msgspec.Meta(max_length=40)] = ""
    ext: dict[str, msgspec.Raw] = {}

    def __post_init__(self) -> None:
        one_empty_tuple(self)


class FloorSegment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a floor's list."""

    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    live: Annotated[tuple[HexDigest, ...], msgspec.Meta(min_length=1, max_length=MAX_SEGMENT_DIGESTS)]


class Floor(msgspec.Struct, frozen=True, eq=False):
    """A floor as received; of two the one with the greater ``order`` is in force."""

    kid: str
    body: FloorBody
    digest: bytes
    raw: bytes

    @property
    def order(self) -> tuple[int, int, bytes]:
        """(gen, epoch, digest)."""
        return (self.body.gen, self.body.epoch, self.digest)


Fate = Literal["lives", "void", "unknown"]


class FloorMark(msgspec.Struct, frozen=True):
    """What the floors of one scope say: the one in force, and a greater one whose list is not all here yet."""

    gen: int = 0
    epoch: int = 0
    live: frozenset[bytes] = frozenset()
    awaited: tuple[int, int] = (0, 0)
    awaited_live: frozenset[bytes] = frozenset()

    def fate(self, gen: int, epoch: int, digest: bytes) -> Fate:
        """Return what becomes of a delta with this stamp.

        >>> mark = FloorMark(1, 5, frozenset({b"a"}))
        >>> mark.fate(1, 5, b"a"), mark.fate(1, 5, b"b"), mark.fate(1, 6, b"b")
        ('lives', 'void', 'lives')
        """
        if (gen, epoch) <= self.awaited:
            return "lives" if digest in self.awaited_live else "unknown"
        if (gen, epoch) <= (self.gen, self.epoch) and digest not in self.live:
            return "void"
        return "lives"


# Made when the first floor is read: making them would cost every start 0.4 ms, and most starts meet no floor.
@functools.cache
def _body_decoder() -> msgspec.json.Decoder[FloorBody]:
    return msgspec.json.Decoder(FloorBody)


@functools.cache
def _segment_decoder() -> msgspec.json.Decoder[FloorSegment]:
    return msgspec.json.Decoder(FloorSegment)


def floor_of(envelope: Envelope, payload: bytes, digest: bytes) -> Floor:
    """Return the floor in an envelope, form checked, signature not.

    Raises:
        MalformedError: the body is no floor.
    """
    body = decode_canonical(_body_decoder(), bytes(envelope.body), what="floor")
    if not is_scope(body.scope):
        raise MalformedError("malformed floor: illegal scope")
    if len(set(body.segments)) != len(body.segments):
        raise MalformedError("malformed floor: a segment is named twice")
    return Floor(envelope.kid, body, digest, payload)


def parse_floor_segment(payload: bytes) -> frozenset[bytes]:
    """Return the digests in a part of a floor's list.

    Raises:
        MalformedError: too large or not canonical.
    """
    if len(payload) > MAX_FLOOR_SEGMENT_BYTES:
        raise MalformedError("malformed floor segment: over 32 KiB")
    segment = decode_canonical(_segment_decoder(), payload, what="floor segment")
    return frozenset(bytes.fromhex(digest) for digest in segment.live)


def cut(digests: Iterable[bytes]) -> tuple[tuple[HexDigest, ...], dict[str, bytes]]:
    """Return a floor's list as (inline digests, segments by hash), cut where it outgrows an envelope.

    Raises:
        TooLargeError: more than 122,880 digests.
    """
    listed = tuple(sorted(digest.hex() for digest in digests))
    if len(listed) <= MAX_INLINE_DIGESTS:
        return listed, {}
    parts = [encode(FloorSegment(1, part)) for part in _parts(listed)]
    if len(parts) > MAX_FLOOR_SEGMENTS:
        raise TooLargeError(f"{len(listed)} digests are more than a floor can list; split the scope")
    return (), {short_hash(part): part for part in parts}


def _parts(listed: tuple[HexDigest, ...]) -> Iterator[tuple[HexDigest, ...]]:
    for start in range(0, len(listed), MAX_SEGMENT_DIGESTS):
        yield listed[start : start + MAX_SEGMENT_DIGESTS]
