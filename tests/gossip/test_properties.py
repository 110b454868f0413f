"""Properties of the whole way in: whatever order things arrive in, and whichever bit of them was flipped."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tars_settings.core.floor import FloorBody
from tars_settings.core.topics import FloorTopic, IndexTopic, SegmentTopic, TrustTopic
from tars_settings.core.wire import encode
from tars_settings.gossip.effects import HeldBack, Merged, Persist, Rejected
from tars_settings.gossip.replicator import Replicator
from tests.fleets import (
    ALICE,
    BOB,
    FLEET,
    MALLORY,
    SCOPE,
    TOPICS,
    delta,
    delta_payload,
    index_payload,
    key_topic,
    segment_payload,
    set_,
    trust_payload,
    unset,
    writer,
)
from tests.gossip.test_replicator import of, receive, replicator, trusting

TRUST, FLOOR = TOPICS.format(TrustTopic()), TOPICS.format(FloorTopic(SCOPE))
FIRST = trust_payload(writers=(writer(ALICE), writer(BOB), writer(MALLORY)))
# Mallory's key was stolen: the root marks it, raises gen, and lets one of its deltas stand.
STANDS = delta(MALLORY, 3, set_("c", "stands"))
SECOND = trust_payload(
    2,
    gen=2,
    writers=(writer(ALICE), writer(BOB), writer(MALLORY, status="compromised")),
    endorsed=(STANDS.stamp.digest.hex(),),
)
LIVES = delta(ALICE, 2, set_("b", "lives"))
LISTED = (LIVES.stamp.digest.hex(), STANDS.stamp.digest.hex())
FLOOR_OF_ALICE = ALICE.sign("floor", FLEET, encode(FloorBody(SCOPE, 1, 4, 1, LISTED)))
# Void under the first document and not held for the second: it is read again when trust changes.
IN_SEGMENT = delta_payload(BOB, 6, set_("f", "from a segment"), gen=2, trust=1)
SEGMENT = segment_payload(IN_SEGMENT)
INDEX_OF_BOB = TOPICS.format(IndexTopic(SCOPE, BOB.kid))
SEGMENT_OF_BOB = TOPICS.format(SegmentTopic(SCOPE, BOB.kid, 1))
ARRIVALS = (
    (TRUST, FIRST),
    (TRUST, SECOND),
    (FLOOR, FLOOR_OF_ALICE),
    (key_topic("b"), LIVES.raw),
    (key_topic("c"), STANDS.raw),
    (key_topic("a"), delta_payload(ALICE, 1, set_("a", "below the floor"))),
    (key_topic("a"), delta_payload(BOB, 5, set_("a", "above it"), set_("d"))),
    (key_topic("d"), delta_payload(ALICE, 5, unset("d"), set_("e"))),
    (key_topic("e"), delta_payload(BOB, 1, set_("e", "of a later gen"), gen=2, trust=2)),
    (key_topic("a"), delta_payload(MALLORY, 2**53 - 1, set_("a", "poison"))),
    (key_topic("b"), delta_payload(MALLORY, 9, set_("b", "a gen ahead"), gen=7, trust=9)),
    (INDEX_OF_BOB, index_payload(BOB, 1, {1: SEGMENT})),
    (SEGMENT_OF_BOB, SEGMENT),
)


def state(one: Replicator) -> tuple[object, ...]:
    held = one.peer.registers
    shown = {key: register.assignment.set for key, register in held.winners(SCOPE).items()}
    return shown, held.digest(SCOPE), one.peer.trust.raw, one.peer.floors.mark(SCOPE)


def delivered(*arrivals: tuple[str, bytes]) -> tuple[object, ...]:
    one = replicator()
    for topic, payload in arrivals:
        receive(one, topic, payload)
    if one.peer.head(SCOPE, BOB.kid).missing():
        # It came before anything said that it counts: unsigned bytes are not kept, and asked for again.
        receive(one, SEGMENT_OF_BOB, SEGMENT)
    return state(one)


IN_ORDER = delivered(*ARRIVALS)


def test_everything_that_arrives_matters() -> None:
    """Each arrival but the poisoned, void and superseded ones changes what is held; all of their kinds are there."""
    shown = IN_ORDER[0]
    assert isinstance(shown, dict)
    assert {key: shown[key] for key in "abcf"} == {"a": "above it", "b": "lives", "c": "stands", "f": "from a segment"}
    assert shown["e"] == "of a later gen"


@settings(max_examples=150, deadline=None)
@given(st.permutations(ARRIVALS), st.lists(st.sampled_from(ARRIVALS), max_size=6), st.randoms(use_true_random=False))
def test_any_order_of_delivery_gives_one_state(order, again, random) -> None:  # type: ignore[no-untyped-def]
    arrivals = list(order)
    for one in again:
        arrivals.insert(random.randrange(len(arrivals) + 1), one)
    assert delivered(*arrivals) == IN_ORDER


GOOD = {
    key_topic("a"): delta_payload(ALICE, 9, set_("a", [1, 2.5, "x"]), unset("b"), at="2026-01-01T00:00:00Z"),
    TOPICS.format(IndexTopic(SCOPE, ALICE.kid)): index_payload(ALICE, 3, {1: SEGMENT}, seen={BOB.kid: 7}),
    FLOOR: FLOOR_OF_ALICE,
    TRUST: trust_payload(2, gen=2),
}


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.integers(0, 2**20))
def test_flipping_any_bit_of_an_envelope_is_rejected(topic: str, bit: int) -> None:
    """Of every kind of envelope, by everything that a payload goes through."""
    payload = bytearray(GOOD[topic])
    payload[bit // 8 % len(payload)] ^= 1 << bit % 8
    one = trusting()
    before = state(one)
    effects = receive(one, topic, bytes(payload))
    assert of(Rejected, effects), effects
    assert not [effect for effect in effects if isinstance(effect, Merged | Persist | HeldBack)]
    assert state(one) == before


def test_the_envelopes_whose_bits_are_flipped_are_good() -> None:
    for topic, payload in GOOD.items():
        assert of(Persist, receive(trusting(), topic, payload)), topic
