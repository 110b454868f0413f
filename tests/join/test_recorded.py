"""Facts of the record of a running worker: its history outlives what the registers need, and what happened is noted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tars_settings.adapters.clock import SystemClock
from tars_settings.adapters.lkg import DiskLkg
from tars_settings.adapters.replica import SqliteReplica
from tars_settings.agent.audit import FLUSH_S, MAX_COUNTED, AuditTrail
from tars_settings.core.audit import CONFLICT, EQUIVOCATION, REJECTED, REPAIR_FIGHT, SEAL_BROKEN, TRUST
from tars_settings.core.question import HistoryQuestion
from tars_settings.core.records import AuditRow
from tars_settings.core.session import Received
from tars_settings.gossip.effects import Notice, Rejected, RepairFight, TrustChanged, TrustQuarrel
from tars_settings.gossip.peer import Peer
from tars_settings.join import Live
from tars_settings.sources.audit import note_audit
from tars_settings.sources.environment import Environment
from tars_settings.sources.lastgood import usable_lkgs
from tars_settings.trust.validity import read_delta
from tars_settings.writer.remembering import HERE, remember, verified
from tests.brokers import eventually
from tests.fleets import ALICE, ROOT, SCOPE, TOPICS, delta_payload, document, key_topic, set_
from tests.join.conftest import InMemory, Stt

Started = Callable[..., Live[Any]]
EVERYTHING = HistoryQuestion(1000)


def replica_of(live: Live[Any]) -> SqliteReplica:
    found = live._agent._replica
    assert isinstance(found, SqliteReplica)
    return found


def audit_of(live: Live[Any], event: str) -> list[AuditRow]:
    return [row for row in replica_of(live).audit() if row.event == event]


def epochs(payloads: Iterable[bytes], memory: InMemory) -> list[int]:
    return [read_delta(raw, memory.writer.trust)[0].stamp.epoch for raw in payloads]


def test_a_worker_remembers_more_than_its_registers_need(memory: InMemory, started: Started) -> None:
    live = started()
    for n in range(1, 8):
        memory.push(vad_threshold=n / 10)
    eventually(lambda: live.current.vad_threshold == 0.7)
    (answer,) = memory.writer.ask(SCOPE, EVERYTHING)
    assert epochs(answer.history, memory) == [7, 6, 5, 4, 3, 2, 1]
    assert len(tuple(live._agent.replicator.peer.registers.deltas(SCOPE))) == 3, "the registers keep three"


def test_a_worker_that_starts_again_remembers(memory: InMemory, started: Started) -> None:
    fleet = memory.fleet("pi-4")
    live = fleet.join(Stt)
    assert memory.writer.sync(SCOPE) == "ready"
    assert live.wait_until_ready(10)
    for n in range(1, 6):
        memory.push(vad_threshold=n / 10)
    eventually(lambda: live.current.vad_threshold == 0.5)
    fleet.close()
    again = memory.join(name="pi-4")
    assert again.current.vad_threshold == 0.5
    # Those are asked of whom it has heard that they are there.
    eventually(lambda: [one.state for one in memory.writer.presences(SCOPE)] == ["ready"])
    (answer,) = memory.writer.ask(SCOPE, EVERYTHING, to=(f"{SCOPE}@pi-4",))
    assert epochs(answer.history, memory) == [5, 4, 3, 2, 1]


def test_what_is_remembered_is_put_together_and_says_who_remembers_it(memory: InMemory, started: Started) -> None:
    started()
    for n in range(1, 3):
        memory.push(vad_threshold=n / 10)
    found = remember(memory.writer, SCOPE, EVERYTHING)
    assert [one.delta.stamp.epoch for one in found.past.entries] == [2, 1]
    assert found.answered == (f"{SCOPE}@pi-3",)
    eventually(
        lambda: (
            {one.seen for one in remember(memory.writer, SCOPE, EVERYTHING).past.entries} == {(HERE, f"{SCOPE}@pi-3")}
        )
    )


def test_what_a_worker_makes_up_is_counted_against_it() -> None:
    good, forged = delta_payload(ALICE, 1), delta_payload(ALICE, 2).replace(b'"set":1', b'"set":2')
    elsewhere = delta_payload(ALICE, 3, scope="tts-worker")
    told = {"stt-worker@pi-3": [good, forged, elsewhere, b"nonsense"], HERE: [good]}
    found = verified(SCOPE, told, document(), Peer(TOPICS, ROOT.public, lambda _: None).floors.mark(SCOPE))
    assert [one.delta.stamp.epoch for one in found.past.entries] == [1]
    assert found.rejected == {"stt-worker@pi-3": 3}


# --- the audit trail --------------------------------------------------------------------------------------------------


class Trail:
    """An audit trail of its own, with the rows that it would have written."""

    def __init__(self) -> None:
        self.rows: list[AuditRow] = []
        self.peer = Peer(TOPICS, ROOT.public, lambda _: None)
        self.trail = AuditTrail(self.peer, self.rows.append, SystemClock().wall, "run")

    def bursts(self, count: int, notice: Notice, *, now_s: float = 1.0) -> None:
        for _ in range(count):
            self.trail.on_burst([notice], now_s)


def test_a_flood_of_one_kind_costs_a_row_for_each_power_of_ten() -> None:
    one = Trail()
    one.bursts(25_000, Rejected(key_topic("vad"), "malformed", "k"))
    assert [row.count for row in one.rows] == [1, 10, 100, 1000, 10_000]
    assert {(row.event, row.reason, row.place, row.kid) for row in one.rows} == {
        (REJECTED, "malformed", key_topic("vad"), "k")
    }
    assert len({row.name for row in one.rows}) == 1
    one.trail.flush()
    one.trail.flush()
    assert [row.count for row in one.rows[5:]] == [25_000], "the count at the end, once"


def test_what_was_counted_is_written_every_ten_minutes() -> None:
    one = Trail()
    one.bursts(7, Rejected("t", "empty"), now_s=FLUSH_S)
    one.bursts(1, Rejected("t", "malformed"), now_s=2 * FLUSH_S + 1)
    assert [(row.reason, row.count) for row in one.rows] == [("empty", 1), ("malformed", 1), ("empty", 7)]


def test_a_flood_of_kinds_is_bounded() -> None:
    one = Trail()
    for n in range(5 * MAX_COUNTED):
        one.bursts(1, RepairFight(f"t{n}", "o"))
    assert len(one.rows) == MAX_COUNTED
    assert {row.event for row in one.rows} == {REPAIR_FIGHT}


def test_trust_that_is_loaded_was_noted_when_it_came() -> None:
    one = Trail()
    one.peer.adopt_trust(document())
    changed = TrustChanged(1, 1, 0)
    one.trail.on_burst([changed], 1.0, loading=True)
    assert one.rows == []
    one.trail.on_burst([changed], 1.0)
    assert [(row.event, row.place) for row in one.rows] == [(TRUST, "_trust/1")]


def test_a_topic_that_steers_terminals_is_noted_as_escapes() -> None:
    one = Trail()
    one.bursts(1, Rejected("a\x1b[31m\u202e", "malformed"))
    assert one.rows[0].place == "a\\x1b[31m\\u202e"


def test_a_quarrel_of_roots_is_noted_with_both_digests() -> None:
    one = Trail()
    one.bursts(1, TrustQuarrel(3, "f" * 64, "0" * 64))
    assert "version 3" in one.rows[0].detail
    assert "ffff" in one.rows[0].detail
    assert "0000" in one.rows[0].detail


def test_a_rejected_envelope_is_noted_without_what_it_says(memory: InMemory, started: Started) -> None:
    live = started()
    agent = live._agent
    forged = delta_payload(ALICE, 1, set_("vad_threshold", "hunter2"))
    agent.call(lambda: agent._take([Received(key_topic("vad_threshold"), forged)]))
    eventually(lambda: audit_of(live, REJECTED))
    (row,) = audit_of(live, REJECTED)
    assert (row.reason, row.place, row.kid) == ("unknown-writer", key_topic("vad_threshold"), ALICE.kid)
    assert b"hunter2" not in b"".join(repr(one).encode() for one in replica_of(live).audit())


def test_a_flood_of_garbage_costs_no_transaction(memory: InMemory, started: Started) -> None:
    live = started()
    agent = live._agent
    topic = key_topic("vad_threshold")
    agent.call(lambda: agent._take([Received(topic, b"{garbage")]))
    eventually(lambda: audit_of(live, REJECTED))
    agent.call(lambda: None)  # a row is there a moment before its transaction is counted
    before = agent.counters["transactions"]
    for n in range(8):
        agent.call(lambda n=n: agent._take([Received(topic, b"{garbage %d" % n)]))  # type: ignore[misc]
    eventually(lambda: agent.counters["rejected malformed"] == 9)
    assert agent.counters["transactions"] == before


def test_a_change_of_trust_is_noted_once_though_the_worker_starts_again(memory: InMemory, started: Started) -> None:
    fleet = memory.fleet("pi-5")
    live = fleet.join(Stt)
    assert memory.writer.sync(SCOPE) == "ready"
    assert live.wait_until_ready(10)
    eventually(lambda: audit_of(live, TRUST))  # a burst is told before it is stored
    (row,) = audit_of(live, TRUST)
    assert row.place == "_trust/1"
    fleet.close()
    again = memory.join(name="pi-5")
    assert [one.first for one in audit_of(again, TRUST)] == [row.first]


def test_conflict_and_equivocation_are_noted_with_both_envelopes(memory: InMemory, started: Started) -> None:
    live = started()
    writer = memory.writer
    signer, fleet = writer._signer, writer.environment.fleet_id
    assert signer is not None
    gen = writer.trust.gen
    one, two = (delta_payload(signer, 5, set_("vad_threshold", value), fleet=fleet, gen=gen) for value in (0.1, 0.2))
    agent = live._agent
    agent.call(lambda: agent._take([Received(key_topic("vad_threshold"), raw) for raw in (one, two)]))
    for event in (CONFLICT, EQUIVOCATION):
        eventually(lambda event=event: audit_of(live, event))  # type: ignore[misc]
        (row,) = audit_of(live, event)
        assert set(row.evidence.split(b"\n")) == {one, two}
        assert row.kid == signer.kid


def test_the_loser_of_a_conflict_is_remembered_by_its_evidence_when_history_forgot_it(
    memory: InMemory, started: Started
) -> None:
    live = started()
    writer = memory.writer
    assert writer._signer is not None
    loser = delta_payload(
        writer._signer, 3, set_("model", "lost"), fleet=writer.environment.fleet_id, gen=writer.trust.gen
    )
    row = AuditRow(CONFLICT, "n", "t", "t", 1, place=f"{SCOPE} model", evidence=loser + b"\n" + loser)
    replica_of(live).apply([row])
    (answer,) = writer.ask(SCOPE, EVERYTHING)
    assert answer.history == (loser,)


def test_a_broken_seal_is_noted_once_a_day(
    memory: InMemory, started: Started, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    live = started()
    environment = Environment.read(**memory.keys.given("pi-3"))
    memory.push(vad_threshold=0.9)
    live.mark_good()
    lkg = environment.lkg_dir(SCOPE)
    eventually(lambda: Path(lkg).exists())
    eventually(lambda: list(usable_lkgs(environment, SCOPE)))
    good = DiskLkg.read

    def tampered(self: DiskLkg, slot: int) -> bytes | None:
        found = good(self, slot)
        return None if found is None else found[:-1] + bytes([found[-1] ^ 1])

    monkeypatch.setattr(DiskLkg, "read", tampered)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert list(usable_lkgs(environment, SCOPE)) == []
    assert "seal broken" in caplog.text, "the seal was not broken"
    slots = [row.place for row in audit_of(live, SEAL_BROKEN)]
    assert slots
    assert len(slots) == len(set(slots)), "once a day"


def test_where_there_is_no_replica_nothing_is_made(tmp_path: Path, memory: InMemory) -> None:
    given = {**memory.keys.given("pi-9"), "state_dir": str(tmp_path / "empty")}
    environment = Environment.read(**given)
    assert note_audit(environment, "revealed", "a", place="s k", detail="") is False
    assert not (tmp_path / "empty").exists()
