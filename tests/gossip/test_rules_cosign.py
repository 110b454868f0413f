"""The two-person rule in a peer: whatever way a delta comes, and whatever becomes of its cosigners."""

from __future__ import annotations

from typing import Any

import pytest

from tars_settings.core.records import DeltaRow
from tars_settings.core.topics import FloorTopic, IndexTopic, KeyTopic, SegmentTopic, TrustTopic
from tars_settings.core.wire import encode
from tars_settings.errors import IllegalNameError, RefusedError
from tars_settings.gossip.effects import Loaded, Persist, Rejected
from tars_settings.gossip.loading import Loading
from tars_settings.gossip.peer import Peer, Standing
from tars_settings.gossip.replicator import Replicator
from tars_settings.trust import succession
from tars_settings.trust.document import Writer
from tests.fleets import (
    ALICE,
    BOB,
    CAROL,
    FLEET,
    ROOT,
    SCOPE,
    TOPICS,
    cosigned_payload,
    delta,
    delta_payload,
    demand,
    document,
    index_payload,
    segment_payload,
    set_,
    trust_payload,
    unset,
)
from tests.fleets import writer as listed

VAD = KeyTopic(SCOPE, "vad")
ALONE = delta_payload(ALICE, 7, set_("vad", "alone"))
TOGETHER = cosigned_payload(ALICE, (BOB,), 5, set_("vad", "together"))


def writers(**bob: Any) -> tuple[Writer, ...]:
    return (listed(ALICE, cosign=(demand(SCOPE, 1, BOB),)), listed(BOB, **bob), listed(CAROL))


TRUST = trust_payload(writers=writers())


def new_peer() -> tuple[Peer, list[Any]]:
    effects: list[Any] = []
    peer = Peer(TOPICS, ROOT.public, effects.append)
    peer.receive(TrustTopic(), TRUST, "live")
    return peer, effects


def reasons(effects: list[Any]) -> list[str]:
    return [one.reason for one in effects if isinstance(one, Rejected)]


def value(peer: Peer, key: str = "vad") -> Any:
    winner = peer.registers.winner(SCOPE, key)
    return None if winner is None else winner.assignment.set


def arrive(peer: Peer, effects: list[Any], way: str, payload: bytes) -> None:
    segment = segment_payload(payload)
    match way:
        case "live" | "probe":
            peer.receive(VAD, payload, way)  # type: ignore[arg-type]
        case "segment":
            peer.receive(IndexTopic(SCOPE, ALICE.kid), index_payload(ALICE, 1, {1: segment}), "probe")
            peer.receive(SegmentTopic(SCOPE, ALICE.kid, 1), segment, "probe")
        case "file":
            Loading(peer, None, effects.append).offer(payload)
        case "replica":
            Loading(peer, None, effects.append).load((DeltaRow(SCOPE, bytes(32), payload),))


@pytest.mark.parametrize("way", ["live", "probe", "segment", "file", "replica"])
def test_no_way_in_leads_around_the_rule(way: str) -> None:
    """Of a segment too: its index vouches for the author, who is the one that is not believed alone."""
    peer, effects = new_peer()
    arrive(peer, effects, way, ALONE)
    assert value(peer) is None
    assert peer.unproven == 0
    peer, effects = new_peer()
    arrive(peer, effects, way, TOGETHER)
    assert value(peer) == "together"


def test_a_delta_without_consent_is_not_stored_and_is_repaired_over() -> None:
    peer, effects = new_peer()
    peer.receive(VAD, TOGETHER, "live")
    effects.clear()
    assert peer.receive(VAD, ALONE, "probe") is Standing.WORSE
    assert reasons(effects) == ["not-cosigned"]
    assert not [one for one in effects if isinstance(one, Persist)]
    assert peer.desired(VAD) == TOGETHER


def test_a_floor_of_a_writer_who_needs_consent_takes_nothing_away() -> None:
    peer, effects = new_peer()
    peer.receive(VAD, TOGETHER, "live")
    body = encode({"scope": SCOPE, "gen": 1, "epoch": 9, "trust": 1})
    peer.receive(FloorTopic(SCOPE), ALICE.sign("floor", FLEET, body), "live")
    assert reasons(effects) == ["not-cosigned"]
    assert value(peer) == "together"
    peer.receive(FloorTopic(SCOPE), CAROL.sign("floor", FLEET, body), "live")
    assert value(peer) is None, "who needs no consent may"


def test_who_needs_consent_does_not_compact_by_herself() -> None:
    one = Replicator(TOPICS, ROOT.public, signer=ALICE, nonce="0" * 31 + "1", random=lambda: 0.5)
    one.handle(Loaded(()), 0.0)
    assert one._compacting is not None
    one.peer.receive(TrustTopic(), trust_payload(), "live")
    assert one._compacting.may(SCOPE)
    one.peer.receive(TrustTopic(), trust_payload(2, writers=writers()[:2]), "live")
    assert not one._compacting.may(SCOPE)
    assert one._compacting.may("tts-worker")


def test_a_demand_that_comes_later_upholds_what_shows() -> None:
    held, mine, other = document(writers=(listed(ALICE), listed(BOB))), delta(ALICE, 3), delta(BOB, 4, set_("x"))
    body = succession.grant(held, "alice", None, ("*",), (demand(SCOPE, 1, BOB),))
    assert (mine.stamp.digest.hex(),) == succession.uphold(held, body, (mine, other)).endorsed
    peer = Peer(TOPICS, ROOT.public, lambda effect: None)
    peer.receive(TrustTopic(), held.raw or b"", "live")
    peer.receive(VAD, mine.raw, "live")
    peer.receive(TrustTopic(), ROOT.sign("trust", FLEET, encode(succession.uphold(held, body, (mine,)))), "live")
    assert value(peer) == 1
    peer.receive(VAD, ALONE, "live")
    assert value(peer) == 1


# --- a cosigner's key is lost ---------------------------------------------------------------------------------------


def test_what_rests_on_a_stolen_consent_falls_and_stands_by_endorsement() -> None:
    peer, _ = new_peer()
    free = cosigned_payload(ALICE, (BOB,), 6, set_("other"))
    for topic, payload in ((VAD, TOGETHER), (KeyTopic(SCOPE, "other"), free)):
        peer.receive(topic, payload, "live")
    good = peer.registers.winner(SCOPE, "vad")
    assert good is not None
    stands = good.delta.stamp.digest.hex()
    stolen = writers(status="compromised")
    peer.receive(TrustTopic(), trust_payload(2, 2, stolen, endorsed=(stands,)), "live")
    assert value(peer) == "together"
    assert value(peer, "other") is None


def test_needs_tells_what_falls_with_a_key() -> None:
    trust = document(writers=(listed(ALICE, cosign=(demand(SCOPE, 1, BOB, CAROL),)), listed(BOB), listed(CAROL)))
    rests, both = (_read(cosigned_payload(ALICE, by, 5)) for by in ((BOB,), (BOB, CAROL)))
    free = _read(cosigned_payload(CAROL, (BOB,), 5))
    assert [succession.needs(one, BOB.kid, trust) for one in (rests, both, free)] == [True, False, False]
    assert all(succession.needs(one, ALICE.kid, trust) for one in (rests, both))
    later = _read(cosigned_payload(ALICE, (BOB,), 8, unset("vad")))
    assert succession.good_digests((rests, both, later), BOB.kid, {SCOPE: 7}, trust) == {(SCOPE, "vad"): rests}


def _read(payload: bytes) -> Any:
    peer, _ = new_peer()
    peer.receive(TrustTopic(), trust_payload(2, writers=(listed(ALICE), listed(BOB), listed(CAROL))), "live")
    peer.receive(VAD, payload, "live")
    winner = peer.registers.winner(SCOPE, "vad")
    assert winner is not None
    return winner.delta


@pytest.mark.parametrize(
    "wrong",
    [
        demand(SCOPE, 1, ALICE),
        demand(SCOPE, 2, BOB),
        demand(SCOPE, 0, BOB),
        demand(SCOPE, 2, BOB, BOB),
        demand(SCOPE, 1, ROOT),
        demand("STT", 1, BOB),
        demand(SCOPE, 1, CAROL),  # she is retired
    ],
)
def test_a_demand_that_nobody_could_meet_is_not_made(wrong: Any) -> None:
    held = document(writers=(listed(ALICE), listed(BOB), listed(CAROL, status="retired")))
    succession.grant(held, "alice", None, ("*",), (demand(SCOPE, 1, BOB),))
    with pytest.raises((RefusedError, IllegalNameError)):
        succession.grant(held, "alice", None, ("*",), (wrong,))
