"""Building a writer's own head: which deltas lie in which segment, and when one is rewritten.

A segment that the index in force names is never overwritten: a rewritten one goes to the lowest free number, and the
number it leaves is free once the next index is out. So a reader, or a crash, between any two publishes meets a whole
head.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from tars_settings.core.delta import Delta
from tars_settings.core.head import (
    MAX_INLINE_BYTES,
    MAX_SEEN,
    MAX_SEGMENT_BYTES,
    FloorRef,
    IndexBody,
    LargeRef,
    Segment,
    SegmentRef,
    encode_segment,
    segment_digest,
)
from tars_settings.core.wire import Raw, encode
from tars_settings.gossip.heads import Head
from tars_settings.gossip.peer import Peer
from tars_settings.trust.keys import SigningKey

_OVERHEAD: Final = 64


class Built(msgspec.Struct, frozen=True):
    """A new head: the segments that changed, and the signed index over all of them."""

    segments: dict[int, bytes]
    index: bytes
    counter: int


def is_behind(peer: Peer, scope: str, kid: str) -> bool:
    """Return whether a writer has to sign a new head, once the scope was caught up.

    The one in force lacks a live delta of its own, names a segment that nobody could produce, or not the floor.
    """
    head = peer.head(scope, kid)
    if head.missing() or lacks_own(peer, scope, kid):
        return True
    return head.index is not None and head.index.body.floor != floor_ref(peer, scope)


def lacks_own(peer: Peer, scope: str, kid: str) -> bool:
    """Return whether the head in force lacks a live delta of its own writer."""
    listed = peer.head(scope, kid).listed.values()
    return bool(peer.registers.live_digests(scope, kid).difference(*listed))


def floor_ref(peer: Peer, scope: str) -> FloorRef | msgspec.UnsetType:
    """Return what an index says of the scope's greatest floor."""
    floor = peer.floors.greatest(scope)
    if floor is None:
        return msgspec.UNSET
    return FloorRef(floor.kid, floor.body.gen, floor.body.epoch, floor.digest.hex())


def build(peer: Peer, scope: str, signer: SigningKey) -> Built:
    """Return the head over all live deltas of *signer* in the scope.

    What a segment holds stays in it while most of it lives; the rest is appended to the last one, or begins a new one.
    """
    live = {delta.stamp.digest: delta for delta in peer.registers.live_of(scope, signer.kid)}
    head = peer.head(scope, signer.kid)
    kept = _kept_segments(head, live)
    placed = {digest for digests in kept.values() for digest in digests}
    loose = [delta for digest, delta in live.items() if digest not in placed]
    refs = {n: segment_digest(head.segments[n]) for n in kept}
    taken = set(head.segments) | (set() if head.index is None else {ref.n for ref in head.index.body.segments})
    fresh: dict[int, bytes] = {}
    for payload in _packed(loose):
        n = next(n for n in range(1, 10**8) if n not in taken)
        taken.add(n)
        fresh[n] = payload
        refs[n] = segment_digest(payload)
    counter = max(peer.signed_counter.get(scope, 0), head.index.body.counter if head.index else 0) + 1
    return Built(fresh, _sign_index(peer, scope, signer, counter, refs), counter)


def _kept_segments(head: Head, live: dict[bytes, Delta]) -> dict[int, tuple[bytes, ...]]:
    """Return the segments that stay as they are: full ones, most of which still lives."""
    kept: dict[int, tuple[bytes, ...]] = {}
    for n, payload in head.segments.items():
        digests = head.listed.get(n, ())
        living = sum(1 for digest in digests if digest in live)
        if len(payload) > MAX_SEGMENT_BYTES // 2 and living * 2 > len(digests):
            kept[n] = digests
    return kept


def _packed(deltas: Iterable[Delta]) -> list[bytes]:
    segments: list[bytes] = []
    inline: list[Delta] = []
    large: list[LargeRef] = []
    size = _OVERHEAD
    for delta in deltas:
        ref = LargeRef.of(delta) if len(delta.raw) > MAX_INLINE_BYTES else None
        cost = 1 + (len(delta.raw) if ref is None else len(encode(ref)))
        if size + cost > MAX_SEGMENT_BYTES:
            segments.append(_encoded(inline, large))
            inline, large, size = [], [], _OVERHEAD
        size += cost
        if ref is None:
            inline.append(delta)
        else:
            large.append(ref)
    if inline or large:
        segments.append(_encoded(inline, large))
    return segments


def _encoded(inline: list[Delta], large: list[LargeRef]) -> bytes:
    return encode_segment(Segment(1, tuple(Raw(delta.raw) for delta in inline), tuple(large)))


def _sign_index(peer: Peer, scope: str, signer: SigningKey, counter: int, refs: dict[int, str]) -> bytes:
    gen, epoch = peer.registers.highest(scope)
    seen = {
        kid: head.index.body.counter
        for kid, head in sorted(peer.heads.within(scope), key=lambda one: one[0])
        if kid != signer.kid and head.index is not None
    }
    body = IndexBody(
        scope=scope,
        counter=counter,
        gen=gen,
        epoch=epoch,
        trust=peer.trust.version,
        segments=tuple(SegmentRef(n, digest) for n, digest in sorted(refs.items())),
        seen=dict(list(seen.items())[:MAX_SEEN]),
        floor=floor_ref(peer, scope),
    )
    return signer.sign("head", peer.fleet, encode(body))
