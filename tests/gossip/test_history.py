"""A delta that is needed no more is kept as history, in the same transaction; two bodies under one epoch are told."""

from __future__ import annotations

from collections.abc import Iterable

from tars_settings.core.records import DeltaRow, HistoryRow
from tars_settings.core.session import Received
from tars_settings.gossip.effects import Effect, Follow, Loaded, Offered, Persist
from tars_settings.gossip.replicator import Replicator
from tests.fleets import (
    ALICE,
    BOB,
    MALLORY,
    ROOT,
    SCOPE,
    TOPICS,
    delta,
    delta_payload,
    key_topic,
    trust_payload,
    writer,
)


def peer(*payloads: bytes) -> Replicator:
    one = Replicator(TOPICS, ROOT.public, nonce="0" * 31 + "1", random=lambda: 0.5)
    one.handle(Follow(SCOPE), 0.0)
    one.handle(Offered((trust_payload(), *payloads)), 0.0)
    return one


def offered(one: Replicator, payload: bytes, key: str = "vad") -> tuple[Effect, ...]:
    return one.handle(Received(key_topic(key), payload), 1.0)


def persisted(effects: Iterable[Effect]) -> list[Persist]:
    return [one for one in effects if isinstance(one, Persist)]


def past(effects: Iterable[Effect]) -> list[int]:
    return [row.epoch for one in persisted(effects) for row in one.put if isinstance(row, HistoryRow)]


def test_what_newer_deltas_push_out_is_history_in_one_transaction() -> None:
    one = peer(*(delta_payload(ALICE, n) for n in (1, 2, 3)))
    (change,) = persisted(offered(one, delta_payload(ALICE, 4)))
    assert [type(row) for row in change.put] == [DeltaRow, HistoryRow]
    assert [row.digest for row in change.drop] == [delta(ALICE, 1).stamp.digest]  # type: ignore[union-attr]
    assert past([change]) == [1]


def test_a_delta_that_comes_too_late_to_be_held_is_history() -> None:
    one = peer(*(delta_payload(ALICE, n) for n in (2, 3, 4)))
    effects = offered(one, delta_payload(ALICE, 1))
    assert past(effects) == [1]
    assert all(not change.drop for change in persisted(effects))


def test_what_a_trust_document_voids_is_history() -> None:
    one = peer(delta_payload(ALICE, 1), delta_payload(BOB, 2))
    lost = trust_payload(2, writers=(writer(ALICE, status="compromised"), writer(BOB)))
    assert past(one.handle(Offered((lost,)), 1.0)) == [1]


def test_what_a_floor_voids_is_history() -> None:
    one = peer(delta_payload(ALICE, 1), delta_payload(BOB, 2))
    body = f'{{"scope":"{SCOPE}","gen":1,"epoch":2,"trust":1,"live":["{delta(BOB, 2).stamp.digest.hex()}"]}}'
    assert past(one.handle(Offered((ALICE.sign("floor", ROOT.kid, body.encode()),)), 1.0)) == [1]


def test_a_row_that_is_void_at_the_start_becomes_history_and_a_forged_one_does_not() -> None:
    one = peer()
    lost = trust_payload(2, writers=(writer(ALICE, status="compromised"), writer(BOB)))
    one.handle(Offered((lost,)), 0.5)
    forged = delta_payload(BOB, 3).replace(b'"set":1', b'"set":7')
    rows = [DeltaRow(SCOPE, bytes([n]) * 32, raw) for n, raw in ((1, delta_payload(ALICE, 1)), (2, forged))]
    strangers = DeltaRow(SCOPE, bytes([3]) * 32, delta_payload(MALLORY, 4))
    effects = one.handle(Loaded((*rows, strangers)), 1.0)
    assert past(effects) == [1]
    assert sum(len(change.drop) for change in persisted(effects)) == 3


def test_history_is_not_loaded_into_the_registers() -> None:
    one = peer()
    lost = delta(ALICE, 1)
    one.handle(Loaded((HistoryRow(SCOPE, 1, 1, ALICE.kid, lost.stamp.digest, lost.raw),)), 1.0)
    assert one.peer.registers.winners(SCOPE) == {}
