"""A segment that is read in one pass says what its deltas say when each is looked at by itself."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tars_settings.core.delta import Ack, Trial, parse_delta
from tars_settings.core.head import deltas_at_once, parse_segment
from tars_settings.core.records import IndexRow, SegmentRow
from tars_settings.core.topics import IndexTopic, SegmentTopic
from tars_settings.core.wire import body_of, claimed_digest, encode
from tars_settings.gossip import holdings
from tars_settings.gossip.effects import Effect, Merged, Rejected
from tars_settings.gossip.loading import Loading
from tars_settings.gossip.peer import Peer
from tars_settings.trust import sodium
from tars_settings.trust.keys import SigningKey
from tests.fleets import (
    ALICE,
    BOB,
    FLEET,
    ROOT,
    SCOPE,
    TOPICS,
    delta_body,
    delta_payload,
    document,
    index_payload,
    segment_payload,
    set_,
    unset,
)


def signed(old: bytes, new: bytes, signer: SigningKey = ALICE) -> Callable[[int], bytes]:
    """Return a maker of deltas whose writer signed a body in which *new* stands for *old*."""

    def make(n: int) -> bytes:
        body = delta_body(n, set_(f"k{n}", "value"))
        assert old in body
        return signer.sign("delta", FLEET, body.replace(old, new))

    return make


GOOD: dict[str, Callable[[int], bytes]] = {
    "a value": lambda n: delta_payload(ALICE, n, set_(f"k{n}", {"a": [n, None, 1.5, "x"]})),
    "several": lambda n: delta_payload(ALICE, n, set_(f"k{n}"), set_(f"other.k{n}"), at="2026-01-01T00:00:00Z"),
    "an unset": lambda n: delta_payload(ALICE, n, unset(f"k{n}")),
    "a question": lambda n: delta_payload(ALICE, n, set_(f"k{n}"), ack=Ack(1, 1.0)),
    "a trial": lambda n: delta_payload(ALICE, n, set_(f"k{n}"), trial=Trial(60, (unset(f"k{n}"),))),
    "one key again": lambda n: delta_payload(ALICE, n, set_("again", n)),
}
BAD: dict[str, Callable[[int], bytes]] = {
    "a blank": signed(b'"epoch":', b'"epoch": '),
    "a field twice": signed(b'"gen":1', b'"gen":1,"gen":1'),
    "an unknown field": signed(b'"gen":1', b'"gen":1,"more":1'),
    "a default that stands there": signed(b"]}", b'],"cosig":[]}'),
    "an extension that is empty": signed(b"]}", b'],"ext":{}}'),
    "an escape": signed(b"value", rb"v\u0061lue"),
    "an illegal key": signed(b'"k', b'"_k'),
    "an odd number": signed(b'"value"', b"1e2"),
    "too large a number": signed(b'"value"', b"1" * 25),
    "too deep a value": signed(b'"value"', b"[" * 33 + b"]" * 33),
    "neither set nor unset": signed(b',"set":"value"', b""),
    "both set and unset": signed(b'"set":"value"', b'"set":"value","unset":true'),
    "an illegal scope": signed(SCOPE.encode(), b"Stt"),
    "another scope": lambda n: delta_payload(ALICE, n, set_(f"k{n}"), scope="tts-worker"),
    "another writer": lambda n: delta_payload(BOB, n, set_(f"k{n}")),
    "keys below each other": lambda n: delta_payload(ALICE, n, set_(f"k{n}"), set_(f"k{n}.a")),
    "a later version": lambda n: GOOD["a value"](n).replace(b'{"v":1,', b'{"v":2,'),
    "an envelope with more in it": lambda n: GOOD["a value"](n).replace(b'"kid"', b'"kit":1,"kid"', 1),
    "no envelope": lambda n: b"%d" % n,
    "a gen to come": lambda n: delta_payload(ALICE, n, set_(f"k{n}"), gen=2),
    "a trust document to come": lambda n: delta_payload(ALICE, n, set_(f"k{n}"), gen=2, trust=9),
}
KINDS = GOOD | BAD


def read(
    payload: bytes, *, at_once: bool
) -> tuple[list[tuple[object, ...]], dict[str, object], tuple[bytes, ...], int]:
    """Return what a peer tells of a segment, what it holds then, what the segment lists, and how much waits."""
    effects: list[Effect] = []
    peer = Peer(TOPICS, ROOT.public, effects.append)
    peer.adopt_trust(document())
    with patch.object(holdings, "deltas_at_once", deltas_at_once if at_once else lambda *_: None):
        peer.receive(IndexTopic(SCOPE, ALICE.kid), index_payload(ALICE, 1, {1: payload}), "probe")
        peer.receive(SegmentTopic(SCOPE, ALICE.kid, 1), payload, "probe")
    told: list[tuple[object, ...]] = []
    for one in effects:
        match one:
            case Merged(delta, fate, way):
                told.append((delta.raw, fate, way))
            case Rejected(topic, reason, kid):
                told.append((topic, reason, kid))
    held = {
        key: (one.delta.raw, one.delta.stamp, one.assignment, one.delta.body)
        for key, one in peer.registers.winners(SCOPE).items()
    }
    return told, held, peer.head(SCOPE, ALICE.kid).listed.get(1, ()), peer.unproven


@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=6), st.booleans())
def test_one_pass_says_what_each_delta_says(kinds: list[str], twice: bool) -> None:
    payloads = [KINDS[kind](n) for n, kind in enumerate(kinds, 1)]
    segment = segment_payload(*payloads, *(payloads[:1] if twice else ()))
    assert read(segment, at_once=True) == read(segment, at_once=False)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_one_pass_is_as_strict_as_each_look(kind: str) -> None:
    payload = segment_payload(GOOD["a value"](1), KINDS[kind](2))
    segment = parse_segment(payload)
    digests = [claimed_digest("delta", FLEET, bytes(part)) for part in segment.deltas]
    found = deltas_at_once(payload, segment, SCOPE, ALICE.kid, digests)
    judged_elsewhere = {"a gen to come", "a trust document to come"}
    assert (found is not None) == (kind in GOOD or kind in judged_elsewhere)


def test_a_good_delta_beside_a_malformed_one_counts() -> None:
    told, held, listed, unproven = read(segment_payload(GOOD["a value"](1), BAD["a blank"](2)), at_once=True)
    assert [one[1] for one in told] == ["applied", "malformed"]
    assert set(held) == {"k1"}
    assert len(listed) == 2
    assert unproven == 1


def test_a_body_that_is_decoded_again_is_the_one_that_was_signed() -> None:
    """Only what a change asks for is held; the rest of a body comes from the bytes."""
    made = GOOD["several"](7)
    plain = parse_delta(made, FLEET)[1]
    assert plain.held_body is None
    assert plain.ack is None
    assert plain.trial is None
    assert plain.body.at == "2026-01-01T00:00:00Z"
    assert plain.body.assign == plain.assign
    assert encode(plain.body) == body_of(made)
    for kind in ("a question", "a trial"):
        asked = parse_delta(GOOD[kind](7), FLEET)[1]
        assert asked.held_body is not None
        assert (asked.ack is None) != (asked.trial is None)


def test_a_stored_index_is_checked_once() -> None:
    """Its signature vouches for all that its segments carry, and costs as much as ten deltas."""
    payload = segment_payload(GOOD["a value"](1))
    raw = index_payload(ALICE, 1, {1: payload})
    peer = Peer(TOPICS, ROOT.public, lambda _: None)
    peer.adopt_trust(document())
    with patch.object(sodium, "verify", wraps=sodium.verify) as verify:
        rows = (SegmentRow(SCOPE, ALICE.kid, 1, payload), IndexRow(SCOPE, ALICE.kid, 1, b"", raw))
        Loading(peer, None, lambda _: None).load(rows)
    assert verify.call_count == 1
    assert peer.registers.winner(SCOPE, "k1") is not None
    assert peer.unproven == 1
