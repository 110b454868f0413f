"""What becomes of signed bytes from a file, whatever order they come in."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tars_settings.core.floor import FloorBody, cut
from tars_settings.core.wire import encode
from tars_settings.gossip.effects import Offered
from tars_settings.gossip.offering import ORDER, Offer, examine, in_order, kind_of, lacking, scopes_held
from tars_settings.gossip.peer import Peer
from tars_settings.gossip.replicator import Replicator
from tests.fleets import (
    ALICE,
    BOB,
    FLEET,
    MALLORY,
    ROOT,
    SCOPE,
    TOPICS,
    delta,
    delta_body,
    delta_payload,
    index_payload,
    later_payload,
    segment_payload,
    set_,
    trust_payload,
    unset,
    writer,
)

OLD, NEW = delta_payload(ALICE, 5, set_("vad")), delta_payload(BOB, 6, set_("vad"))
GONE = delta_payload(ALICE, 7, unset("gain"))
SEGMENT = segment_payload(OLD, GONE)
INDEX = index_payload(ALICE, 3, {1: SEGMENT})
LIVE = delta(BOB, 6, set_("vad"))
_, PARTS = cut([n.to_bytes(32, "big") for n in range(1, 1200)] + [LIVE.stamp.digest])
FLOOR = ALICE.sign("floor", FLEET, encode(FloorBody(SCOPE, 1, 6, 1, (), segments=tuple(PARTS))))
FILE = (trust_payload(), OLD, NEW, GONE, INDEX, SEGMENT)


def fresh() -> Replicator:
    return Replicator(TOPICS, ROOT.public, nonce="0" * 32, random=lambda: 0.5)


def offer(one: Replicator, *payloads: bytes) -> list[Offer]:
    offers = []
    for kind, payload in in_order(payloads, FLEET):
        offers.append(examine(one.peer, kind, payload))
        one.handle(Offered((payload,)), 0.0)
    return offers


def fates(offers: list[Offer]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in offers:
        found[one.fate] = found.get(one.fate, 0) + 1
    return found


def held(peer: Peer) -> tuple[Any, ...]:
    winners = {key: one.delta.raw for key, one in peer.registers.winners(SCOPE).items()}
    return peer.trust.raw, winners, peer.heads.of(SCOPE, ALICE.kid).segments, peer.floors.parts(SCOPE)


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (trust_payload(version=3), "trust"),
        (FLOOR, "floor"),
        (next(iter(PARTS.values())), "floor part"),
        (OLD, "delta"),
        (INDEX, "head"),
        (SEGMENT, "segment"),
        (b"{}", "unknown"),
        (b"x" * 100_000, "unknown"),
    ],
)
def test_a_kind_is_told_by_its_form(payload: bytes, kind: str) -> None:
    assert kind_of(payload, FLEET)[0] == kind
    assert kind in ORDER


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_a_file_does_not_matter(seed: int) -> None:
    straight, shuffled = fresh(), fresh()
    offer(straight, *FILE)
    mixed = list(FILE)
    random.Random(seed).shuffle(mixed)
    offers = offer(shuffled, *mixed)
    assert held(shuffled.peer) == held(straight.peer)
    assert "rejected" not in fates(offers)
    assert shuffled.peer.registers.winners(SCOPE)["vad"].delta.raw == NEW


def test_the_second_time_all_of_it_is_known() -> None:
    one = fresh()
    offer(one, *FILE)
    before = held(one.peer)
    assert fates(offer(one, *FILE)) == {"duplicate": len(FILE)}
    assert held(one.peer) == before


@pytest.mark.parametrize(
    ("payload", "fate", "reason"),
    [
        (delta_payload(ALICE, 1, set_("vad")), "superseded", ""),
        (delta_payload(MALLORY, 9), "rejected", "unknown-writer"),
        (NEW.replace(b'"epoch":6', b'"epoch":8'), "rejected", "bad-signature"),
        (delta_payload(ALICE, 9, fleet="0" * 32), "rejected", "bad-signature"),
        (delta_payload(ALICE, 9, trust=4, gen=9), "held", "trust-behind"),
        (index_payload(ALICE, 2, {}), "superseded", ""),
        (index_payload(MALLORY, 9, {}), "rejected", "unknown-writer"),
        (segment_payload(OLD), "superseded", "not-named"),
        (trust_payload(version=1, gen=0), "superseded", ""),
        (trust_payload(version=4, signed_by=(MALLORY,)), "rejected", "untrusted"),
        (later_payload(ALICE, delta_body(9)), "rejected", "newer-version"),
        (b"garbage", "rejected", "malformed"),
    ],
)
def test_what_does_not_count_is_named_and_changes_nothing(payload: bytes, fate: str, reason: str) -> None:
    one = fresh()
    offer(one, trust_payload(version=2), *FILE[1:])
    before = held(one.peer)
    (offered,) = offer(one, payload)
    assert (offered.fate, offered.reason) == (fate, reason)
    assert held(one.peer) == before


def test_a_floor_counts_with_all_of_its_parts_and_voids_what_it_does_not_list() -> None:
    one = fresh()
    offer(one, trust_payload(), FLOOR, *list(PARTS.values())[1:])
    assert lacking(one.peer, scopes_held(one.peer)) == (f"{SCOPE}: part {next(iter(PARTS))[:8]} of the floor",)
    offers = offer(one, *PARTS.values(), OLD, NEW)
    told = [(found.fate, found.reason) for found in offers if found.kind == "delta"]
    assert told == [("superseded", "below-floor"), ("applied", "")]
    assert lacking(one.peer, scopes_held(one.peer)) == ()
    assert one.peer.registers.winners(SCOPE)["vad"].delta.raw == NEW


def test_a_part_of_a_floor_counts_where_the_floor_in_force_names_it() -> None:
    one, part = fresh(), next(iter(PARTS.values()))
    (_, others) = cut([n.to_bytes(32, "big") for n in range(5000, 6200)])
    strange = next(iter(others.values()))
    offer(one, trust_payload())
    assert [(told.fate, told.reason) for told in offer(one, part)] == [("superseded", "not-named")]
    offer(one, FLOOR)
    told = [offer(one, payload)[0] for payload in (part, part, strange)]
    assert [(found.fate, found.scope, found.reason) for found in told] == [
        ("applied", SCOPE, ""),
        ("duplicate", SCOPE, ""),
        ("superseded", "", "not-named"),
    ]


def test_a_scope_with_nothing_but_a_floor_is_exported() -> None:
    one = fresh()
    offer(one, trust_payload(), FLOOR, *PARTS.values())
    assert scopes_held(one.peer) == (SCOPE,)
    assert set(one.export()) == {trust_payload(), FLOOR, *PARTS.values()}


def test_a_head_without_its_segment_is_lacking() -> None:
    one = fresh()
    offer(one, trust_payload(), INDEX)
    assert lacking(one.peer, scopes_held(one.peer)) == (f"{SCOPE}: segment 1 of alice",)
    offer(one, SEGMENT)
    assert lacking(one.peer, scopes_held(one.peer)) == ()


def test_who_was_compromised_since_restores_nothing() -> None:
    one = fresh()
    offer(one, trust_payload(version=2, writers=(writer(ALICE, status="compromised"), writer(BOB))))
    offers = offer(one, *FILE)
    assert {offered.reason for offered in offers if offered.fate == "rejected"} == {"compromised"}
    assert set(one.peer.registers.winners(SCOPE)) == {"vad"}
    assert one.peer.registers.winners(SCOPE)["vad"].delta.raw == NEW
