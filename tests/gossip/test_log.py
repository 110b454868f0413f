"""A writer's head: whole between any two publishes, small, and never overwritten where it is in force."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from tars_settings.core.delta import Delta
from tars_settings.core.head import parse_segment, segment_digest
from tars_settings.core.topics import IndexTopic, KeyTopic, SegmentTopic
from tars_settings.core.wire import Raw
from tars_settings.gossip.effects import Effect
from tars_settings.gossip.log import Built, build, lacks_own
from tars_settings.gossip.peer import Peer
from tests.fleets import ALICE, BOB, ROOT, SCOPE, TOPICS, delta, document, set_, unset


def new_peer() -> Peer:
    effects: list[Effect] = []
    peer = Peer(TOPICS, ROOT.public, effects.append, ALICE.kid)
    peer.adopt_trust(document())
    return peer


def put_in_force(peer: Peer, built: Built) -> None:
    for n, payload in built.segments.items():
        peer.head(SCOPE, ALICE.kid).pending[n] = payload
    peer.signed_counter[SCOPE] = built.counter
    peer.receive(IndexTopic(SCOPE, ALICE.kid), built.index, "own")


def pushes(count: int, order: random.Random, size: int) -> list:  # type: ignore[type-arg]
    made = []
    for epoch in range(1, count + 1):
        key = f"k{order.randrange(60)}"
        assign = unset(key) if order.random() < 0.1 else set_(key, "x" * order.randrange(size))
        made.append(delta(ALICE, epoch, assign))
    return made


@pytest.mark.parametrize("seed", range(6))
def test_a_segment_in_force_is_never_overwritten(seed: int) -> None:
    """A reader, or a crash, between any two publishes meets the whole old head or the whole new one."""
    order = random.Random(seed)
    peer, rewritten = new_peer(), 0
    for one in pushes(80, order, 3000):
        peer.merge(one, "own")
        before = dict(peer.head(SCOPE, ALICE.kid).segments)
        built = build(peer, SCOPE, ALICE)
        assert not built.segments.keys() & before.keys()
        put_in_force(peer, built)
        head = peer.head(SCOPE, ALICE.kid)
        assert not head.missing()
        assert not lacks_own(peer, SCOPE, ALICE.kid)
        rewritten += len(before.keys() - head.segments.keys())
    assert rewritten > 5, "no segment was ever rewritten: the rule was not tried"


def test_a_head_carries_each_live_delta_once_and_its_own_bytes() -> None:
    peer = new_peer()
    deltas = [delta(ALICE, epoch, set_(f"k{epoch}", "x" * 900)) for epoch in range(1, 90)]
    for one in deltas:
        peer.merge(one, "own")
    peer.merge(delta(BOB, 100, set_("bobs")), "live")
    put_in_force(peer, build(peer, SCOPE, ALICE))
    segments = peer.head(SCOPE, ALICE.kid).segments
    listed = [bytes(raw) for payload in segments.values() for raw in parse_segment(payload).deltas]
    assert len(segments) > 1
    assert sorted(listed) == sorted(one.raw for one in deltas)


def test_a_large_delta_is_named_by_stamp_and_keys() -> None:
    peer = new_peer()
    large = delta(ALICE, 1, set_("big", "x" * 9000))
    peer.merge(large, "own")
    put_in_force(peer, build(peer, SCOPE, ALICE))
    (payload,) = peer.head(SCOPE, ALICE.kid).segments.values()
    (ref,) = parse_segment(payload).large
    assert (ref.stamp(ALICE.kid), ref.keys) == (large.stamp, ("big",))
    assert not lacks_own(peer, SCOPE, ALICE.kid)


def test_a_push_costs_a_segment_and_an_index_however_long_the_log() -> None:
    peer = new_peer()
    for epoch in range(1, 120):
        peer.merge(delta(ALICE, epoch, set_(f"k{epoch}", "x" * 900)), "own")
        put_in_force(peer, build(peer, SCOPE, ALICE))
    peer.merge(delta(ALICE, 200, set_("one-more".replace("-", "_"))), "own")
    built = build(peer, SCOPE, ALICE)
    assert len(peer.head(SCOPE, ALICE.kid).segments) > 3
    assert len(built.segments) <= 2


def test_counters_grow_and_superseded_deltas_leave() -> None:
    peer, counters = new_peer(), []
    for epoch in range(1, 10):
        peer.merge(delta(ALICE, epoch, set_("a")), "own")
        built = build(peer, SCOPE, ALICE)
        counters.append(built.counter)
        put_in_force(peer, built)
    assert all(earlier < later for earlier, later in pairwise(counters))
    (payload,) = peer.head(SCOPE, ALICE.kid).segments.values()
    assert len(parse_segment(payload).deltas) == 1


def test_an_index_without_its_segments_is_known_to_lack_them() -> None:
    writer, reader = new_peer(), new_peer()
    writer.merge(delta(ALICE, 1, set_("a")), "own")
    built = build(writer, SCOPE, ALICE)
    reader.receive(IndexTopic(SCOPE, ALICE.kid), built.index, "probe")
    head = reader.head(SCOPE, ALICE.kid)
    assert head.missing() == tuple(built.segments)
    ((n, payload),) = built.segments.items()
    reader.receive(SegmentTopic(SCOPE, ALICE.kid, n), payload + b" ", "probe")
    reader.receive(SegmentTopic(SCOPE, ALICE.kid, n), b"{}", "probe")
    assert head.missing() == (n,)
    reader.receive(SegmentTopic(SCOPE, ALICE.kid, n), payload, "probe")
    assert head.missing() == ()
    assert segment_digest(head.segments[n]) == segment_digest(payload)
    assert "a" in reader.registers.winners(SCOPE)


def test_a_segment_that_comes_before_its_index_is_waited_for() -> None:
    writer, reader = new_peer(), new_peer()
    writer.merge(delta(ALICE, 1, set_("a")), "own")
    built = build(writer, SCOPE, ALICE)
    ((n, payload),) = built.segments.items()
    reader.receive(SegmentTopic(SCOPE, ALICE.kid, n), payload, "live")
    assert reader.registers.winners(SCOPE) == {}
    reader.receive(IndexTopic(SCOPE, ALICE.kid), built.index, "live")
    assert reader.head(SCOPE, ALICE.kid).missing() == ()
    assert "a" in reader.registers.winners(SCOPE)


def test_the_bytes_of_a_delta_that_a_segment_carries_are_held_once_whichever_came_first() -> None:
    writer, reader = new_peer(), new_peer()
    first, second = delta(ALICE, 1, set_("a")), delta(ALICE, 2, set_("b"))
    for one in (first, second):
        writer.merge(one, "own")
    built = build(writer, SCOPE, ALICE)
    reader.receive(KeyTopic(SCOPE, "a"), first.raw, "live")
    assert isinstance(held(reader, "a").source, bytes)
    reader.receive(IndexTopic(SCOPE, ALICE.kid), built.index, "probe")
    for n, payload in built.segments.items():
        reader.receive(SegmentTopic(SCOPE, ALICE.kid, n), payload, "probe")
    reader.prove_some(10)
    for key, sent in (("a", first), ("b", second)):
        assert isinstance(held(reader, key).source, Raw), "a copy of its own, beside the segment"
        assert held(reader, key).raw == sent.raw
        assert reader.desired(KeyTopic(SCOPE, key)) == sent.raw


def held(peer: Peer, key: str) -> Delta:
    register = peer.registers.winner(SCOPE, key)
    assert register is not None
    return register.delta
