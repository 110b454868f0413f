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
    IndexBody,
    LargeRef,
    Segment,
    SegmentRef,
    encode_segment,
    parse_segment,
    segment_digest,
)
from tars_settings.core.wire import Raw, decode_envelope, digest_of, encode, pae
from tars_settings.gossip.peer import Head, Peer
from tars_settings.trust.keys import SigningKey

_OVERHEAD: Final = 64


class Built(msgspec.Struct, frozen=True):
    """A new head: the segments that changed, and the signed index over all of them."""

    segments: dict[int, bytes]
    index: bytes
    counter: int


def lacks_own(peer: Peer, scope: str, kid: str) -> bool:
    """Return whether the head in force lacks a live delta of its own writer."""
    live = {delta.stamp.digest for delta in peer.registers.live_of(scope, kid)}
    return bool(live - _listed(peer, scope, kid).keys())


def _listed(peer: Peer, scope: str, kid: str) -> dict[bytes, int]:
    """Return the digests in the segments that are held, and the number of the segment of each."""
    head = peer.head(scope, kid)
    return {digest: n for n, payload in head.segments.items() for digest in _digests(payload, peer.fleet)}


def _digests(payload: bytes, fleet: str) -> list[bytes]:
    segment = parse_segment(payload)
    inline = [decode_envelope(bytes(raw)) for raw in segment.deltas]
    return [digest_of(pae("delta", fleet, one.kid, bytes(one.body))) for one in inline] + [
        bytes.fromhex(ref.digest) for ref in segment.large
    ]


def build(peer: Peer, scope: str, signer: SigningKey) -> Built:
    """Return the head over all live deltas of *signer* in the scope.

    What a segment holds stays in it while most of it lives; the rest is appended to the last one, or begins a new one.
    """
    live = {delta.stamp.digest: delta for delta in peer.registers.live_of(scope, signer.kid)}
    head = peer.head(scope, signer.kid)
    kept = _kept_segments(head, live, peer.fleet)
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


def _kept_segments(head: Head, live: dict[bytes, Delta], fleet: str) -> dict[int, list[bytes]]:
    """Return the segments that stay as they are: full ones, most of which still lives."""
    kept: dict[int, list[bytes]] = {}
    for n, payload in head.segments.items():
        digests = _digests(payload, fleet)
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
        is_large = len(delta.raw) > MAX_INLINE_BYTES
        cost = 200 if is_large else len(delta.raw) + 1
        if size + cost > MAX_SEGMENT_BYTES:
            segments.append(_encoded(inline, large))
            inline, large, size = [], [], _OVERHEAD
        size += cost
        if is_large:
            large.append(LargeRef(delta.stamp.digest.hex(), delta.body.assign[0].key))
        else:
            inline.append(delta)
    if inline or large:
        segments.append(_encoded(inline, large))
    return segments


def _encoded(inline: list[Delta], large: list[LargeRef]) -> bytes:
    return encode_segment(Segment(1, tuple(Raw(delta.raw) for delta in inline), tuple(large)))


def _sign_index(peer: Peer, scope: str, signer: SigningKey, counter: int, refs: dict[int, str]) -> bytes:
    gen, epoch = peer.registers.highest(scope)
    seen = {
        kid: head.index.body.counter
        for (of, kid), head in sorted(peer.heads.items())
        if of == scope and kid != signer.kid and head.index is not None
    }
    body = IndexBody(
        scope=scope,
        counter=counter,
        gen=gen,
        epoch=epoch,
        trust=peer.trust.version,
        segments=tuple(SegmentRef(n, digest) for n, digest in sorted(refs.items())),
        seen=dict(list(seen.items())[:MAX_SEEN]),
    )
    return signer.sign("head", peer.fleet, encode(body))
