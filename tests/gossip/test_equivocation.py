"""Two deltas under one epoch of one key: every peer ends with the same one, and both are kept as evidence."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tars_settings.core.records import DeltaRow
from tars_settings.core.topics import KeyTopic, TrustTopic
from tars_settings.gossip.conflicts import MAX_CONFLICTS
from tars_settings.gossip.effects import Equivocation
from tars_settings.gossip.loading import Loading
from tars_settings.gossip.peer import Peer
from tars_settings.trust.validity import Verdict, read_delta
from tests.fleets import ALICE, BOB, ROOT, SCOPE, TOPICS, delta_payload, document, set_, trust_payload


def new_peer() -> tuple[Peer, list[Any]]:
    effects: list[Any] = []
    peer = Peer(TOPICS, ROOT.public, effects.append)
    peer.receive(TrustTopic(), trust_payload(), "live")
    return peer, effects


def told(effects: list[Any]) -> list[Equivocation]:
    return [one for one in effects if isinstance(one, Equivocation)]


ONE, OTHER = delta_payload(ALICE, 5, set_("vad", 1)), delta_payload(ALICE, 5, set_("vad", 2))
ELSEWHERE = delta_payload(ALICE, 5, set_("model", "x"))


@pytest.mark.parametrize("pair", list(itertools.permutations((ONE, OTHER, ELSEWHERE), 2)))
def test_both_bodies_are_told_once_and_anyone_can_verify_them(pair: tuple[bytes, bytes]) -> None:
    peer, effects = new_peer()
    for payload in (*pair, *pair):
        key = read_delta(payload, document())[0].body.assign[0].key
        peer.receive(KeyTopic(SCOPE, key), payload, "live")
    (found,) = told(effects)
    assert found.raws == pair
    assert (found.scope, found.kid, found.gen, found.epoch) == (SCOPE, ALICE.kid, 1, 5)
    read = [read_delta(raw, document()) for raw in found.raws]
    assert [one.stamp.digest.hex() for one, _ in read] == [found.first, found.second]
    assert all(judgement.verdict is Verdict.VALID for _, judgement in read)
    assert list(peer.equivocations) == [found]


def test_all_peers_end_with_the_same_one() -> None:
    winners = set()
    for order in itertools.permutations((ONE, OTHER)):
        peer, _ = new_peer()
        for payload in order:
            peer.receive(KeyTopic(SCOPE, "vad"), payload, "live")
        winner = peer.registers.winner(SCOPE, "vad")
        assert winner is not None
        winners.add(winner.delta.stamp)
    assert len(winners) == 1


def test_what_an_honest_writer_signs_is_none() -> None:
    peer, effects = new_peer()
    for payload in (ONE, ONE, delta_payload(ALICE, 6), delta_payload(BOB, 5), delta_payload(ALICE, 5, gen=0)):
        peer.receive(KeyTopic(SCOPE, "vad"), payload, "live")
    assert told(effects) == []


def test_a_replica_does_not_tell_it_again_and_still_keeps_it() -> None:
    peer, effects = new_peer()
    Loading(peer, None, effects.append).load(tuple(DeltaRow(SCOPE, bytes(32), raw) for raw in (ONE, OTHER)))
    assert told(effects) == []
    assert len(list(peer.equivocations)) == 1


def test_the_record_is_bounded() -> None:
    peer, _ = new_peer()
    for epoch in range(1, MAX_CONFLICTS + 10):
        for number in range(2):
            peer.receive(KeyTopic(SCOPE, "vad"), delta_payload(ALICE, epoch, set_("vad", number)), "live")
    assert len(list(peer.equivocations)) == MAX_CONFLICTS
