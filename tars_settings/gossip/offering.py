"""What would become of signed bytes from a file: what kind they are, and their fate at one peer. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from tars_settings.core.delta import Delta, parse_delta
from tars_settings.core.floor import floor_of, parse_floor_segment
from tars_settings.core.head import index_of, parse_segment, segment_digest
from tars_settings.core.topics import (
    FloorSegmentTopic,
    SegmentTopic,
    Topic,
    TrustTopic,
)
from tars_settings.core.wire import MAX_ENVELOPE_BYTES, decode_envelope, short_hash
from tars_settings.errors import ChainMissingError, MalformedError, NewerVersionError, RejectedError
from tars_settings.gossip.peer import Peer
from tars_settings.trust.document import version_of
from tars_settings.trust.validity import Judgement, Verdict, read_delta, read_floor, read_index

Kind = Literal["trust", "floor", "floor part", "delta", "head", "segment", "unknown"]
Fate = Literal["applied", "duplicate", "superseded", "held", "rejected"]

# Trust first, for all is judged by it; floors before what they void; heads before the segments that only they name.
ORDER: Final[tuple[Kind, ...]] = ("trust", "floor", "floor part", "delta", "head", "segment", "unknown")


class Offer(msgspec.Struct, frozen=True):
    """One envelope of a file: what it is, for which scope, and its fate; ``reason`` where it is held or rejected."""

    kind: Kind
    fate: Fate
    scope: str = ""
    reason: str = ""


def kind_of(payload: bytes, fleet: str) -> tuple[Kind, int]:
    """Return what *payload* is by its form, signatures aside, and the version of a trust document (else 0).

    >>> kind_of(b"no envelope", "0" * 32)
    ('unknown', 0)
    """
    try:
        envelope = decode_envelope(payload)
    except MalformedError:
        return _kind_of_unsigned(payload), 0
    if _parses(parse_delta, payload, fleet):
        return "delta", 0
    for kind, read in (("head", index_of), ("floor", floor_of)):
        if _parses(read, envelope, payload, b""):
            return kind, 0  # type: ignore[return-value]
    try:
        return "trust", version_of(payload, fleet)[0]
    except RejectedError:
        return "unknown", 0


def _parses(read: object, *arguments: object) -> bool:
    try:
        read(*arguments)  # type: ignore[operator]
    except RejectedError:
        return False
    return True


def _kind_of_unsigned(payload: bytes) -> Kind:
    if len(payload) > MAX_ENVELOPE_BYTES:
        return "unknown"
    if _parses(parse_segment, payload):
        return "segment"
    return "floor part" if _parses(parse_floor_segment, payload) else "unknown"


def in_order(payloads: Iterable[bytes], fleet: str) -> list[tuple[Kind, bytes]]:
    """Return payloads in an order in which each can be judged, whatever order the file has."""
    known = [(*kind_of(payload, fleet), payload) for payload in payloads]
    return [(kind, payload) for kind, _, payload in sorted(known, key=lambda one: (ORDER.index(one[0]), one[1]))]


def examine(peer: Peer, kind: Kind, payload: bytes) -> Offer:
    """Return what becomes of *payload* at a peer that it is offered to, as the peer is now."""
    try:
        match kind:
            case "trust":
                return _trust(peer, payload)
            case "delta":
                return _delta(peer, payload)
            case "head":
                return _head(peer, payload)
            case "floor":
                return _floor(peer, payload)
            case "segment" | "floor part":
                return _unsigned(peer, kind, payload)
    except RejectedError as error:
        return Offer(kind, "rejected", reason=error.reason)
    return Offer("unknown", "rejected", reason=_reason_of_unknown(payload))


def _reason_of_unknown(payload: bytes) -> str:
    try:
        decode_envelope(payload)
    except NewerVersionError as error:
        return error.reason
    except MalformedError:
        pass
    return MalformedError.reason


def _trust(peer: Peer, payload: bytes) -> Offer:
    chain = peer.chain
    try:
        document = chain.follow(TrustTopic(), payload)
    except ChainMissingError:
        return Offer("trust", "held", reason="chain-missing")
    if document is None or chain.holds(document):
        return Offer("trust", "duplicate")
    return Offer("trust", "applied" if document.order > peer.trust.order else "superseded")


def _delta(peer: Peer, payload: bytes) -> Offer:
    delta, judgement = read_delta(payload, peer.trust, peer.floors.mark)
    refused = _refused(peer, "delta", delta.scope, judgement)
    if refused is not None:
        return refused
    if peer.registers.delta(delta.scope, delta.stamp.digest) is not None:
        return Offer("delta", "duplicate", delta.scope)
    return Offer("delta", "applied" if _wins(peer, delta) else "superseded", delta.scope)


def _wins(peer: Peer, delta: Delta) -> bool:
    winners = (peer.registers.winner(delta.scope, item.key) for item in delta.assign)
    return any(held is None or held.delta.stamp < delta.stamp for held in winners)


def _refused(peer: Peer, kind: Kind, scope: str, judgement: Judgement) -> Offer | None:
    if peer.trust.is_pin:
        return Offer(kind, "held", scope, "no-trust")
    if judgement.verdict is Verdict.HELD:
        return Offer(kind, "held", scope, judgement.reason)
    if judgement.verdict is Verdict.VOID:
        # What a floor took away is old, and no fault of the file.
        fate: Fate = "superseded" if judgement.reason == "below-floor" else "rejected"
        return Offer(kind, fate, scope, judgement.reason)
    return None


def _head(peer: Peer, payload: bytes) -> Offer:
    index, judgement = read_index(payload, peer.trust)
    scope = index.body.scope
    refused = _refused(peer, "head", scope, judgement)
    if refused is not None:
        return refused
    held = peer.heads.get((scope, index.kid))
    if held is None or held.index is None or held.index.order < index.order:
        return Offer("head", "applied", scope)
    return Offer("head", "duplicate" if held.index.order == index.order else "superseded", scope)


def _floor(peer: Peer, payload: bytes) -> Offer:
    floor, judgement = read_floor(payload, peer.trust)
    refused = _refused(peer, "floor", floor.body.scope, judgement)
    if refused is not None:
        return refused
    held = peer.floors.greatest(floor.body.scope)
    if held is None or held.order < floor.order:
        return Offer("floor", "applied", floor.body.scope)
    return Offer("floor", "duplicate" if held.order == floor.order else "superseded", floor.body.scope)


def _unsigned(peer: Peer, kind: Kind, payload: bytes) -> Offer:
    """Judge what needs no signature of its own: something in force names it by digest, or it is of no use."""
    for topic in named(peer, payload):
        held = peer.desired(topic) == payload
        scope = topic.scope if isinstance(topic, SegmentTopic | FloorSegmentTopic) else ""
        return Offer(kind, "duplicate" if held else "applied", scope)
    return Offer(kind, "superseded", reason="not-named")


def named(peer: Peer, payload: bytes) -> Iterable[Topic]:
    """Yield where a segment or a part of a floor belongs, for whatever is in force names it; held already or not."""
    name, digest = short_hash(payload), segment_digest(payload)
    for scope in peer.floors.scopes():
        floor = peer.floors.greatest(scope)
        if floor is not None and name in floor.body.segments:
            yield FloorSegmentTopic(scope, name)
    for (scope, kid), head in peer.heads.items():
        for ref in () if head.index is None else head.index.body.segments:
            if ref.digest == digest:
                yield SegmentTopic(scope, kid, ref.n)


def topics_held(peer: Peer, scopes: Iterable[str]) -> tuple[str, ...]:
    """Return every topic on which a broker should retain something that *peer* holds: trust, its chain, and scopes."""
    wanted: list[Topic] = [TrustTopic(), *(TrustTopic(version) for version in peer.chain.versions())]
    texts = [peer.topics.format(topic) for topic in wanted] if not peer.trust.is_pin else []
    return (*texts, *(text for scope in scopes for text in peer.topics_of(scope)))


def scopes_held(peer: Peer) -> tuple[str, ...]:
    """Return the scopes of which anything is held: deltas, heads or floors."""
    heads = {scope for (scope, _), head in peer.heads.items() if head.index is not None}
    return tuple(sorted({*peer.registers.scopes(), *heads, *peer.floors.scopes()}))


def lacking(peer: Peer, scopes: Iterable[str]) -> tuple[str, ...]:
    """Return, in words for people, what is named by something in force in *scopes* and is not here."""
    found = []
    for scope in scopes:
        for kid, head in peer.heads.within(scope):
            found += [f"{scope}: segment {n} of {peer.trust.name_of(kid, 8)}" for n in head.missing()]
        found += [f"{scope}: part {name[:8]} of the floor" for name in peer.floors.missing(scope)]
    return tuple(found)
