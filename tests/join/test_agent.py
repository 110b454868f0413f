"""Facts of the agent: what it writes, and that nothing which happens in its thread ends it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tars_settings.adapters.clock import SystemClock
from tars_settings.adapters.memory import MemoryBroker, MemoryReplica, MemoryTransport
from tars_settings.agent.loop import Agent
from tars_settings.core.records import DeltaRow, MarkRow, Row, SegmentRow
from tars_settings.core.session import Received, SessionEvent
from tars_settings.core.topics import IndexTopic, KeyTopic, SegmentTopic, Topics
from tars_settings.gossip.effects import Follow, Merged, Notice, Persist, Rejected, ScopeSynced
from tars_settings.gossip.replicator import Policy, Replicator
from tests.brokers import eventually
from tests.fleets import ALICE, ROOT, SCOPE, delta_payload, index_payload, segment_payload, set_, trust_payload


class Counting(MemoryReplica):
    """Counts transactions."""

    transactions = 0

    def apply(self, put: Sequence[Row], drop: Sequence[Row] = (), *, durable: bool = True) -> None:
        self.transactions += 1
        super().apply(put, drop, durable=durable)


def agent_on(replica: MemoryReplica) -> Agent:
    replicator = Replicator(Topics(), ROOT.public, nonce="0" * 32, random=lambda: 0.5)
    return Agent(replicator, None, replica, SystemClock())


def test_a_row_that_is_dropped_and_put_in_one_burst_is_there_afterwards() -> None:
    replica = Counting()
    agent = agent_on(replica)
    held = SegmentRow("stt-worker", "a" * 32, 1, b"old")
    taken = SegmentRow("stt-worker", "a" * 32, 1, b"new")
    replica.apply([held])
    agent.start()
    agent.call(lambda: agent._carry_out((Persist(drop=(held,)), Persist(put=(taken,)))))
    eventually(lambda: list(replica.load()) == [taken])
    agent.stop()


def test_a_burst_is_one_transaction() -> None:
    replica = Counting()
    agent = agent_on(replica)
    agent.start()
    rows = [SegmentRow("stt-worker", "a" * 32, n, b"{}") for n in range(1, 9)]
    agent.call(lambda: agent._carry_out([Persist(put=(row,)) for row in rows]))
    eventually(lambda: len(replica.load()) == 8)
    assert replica.transactions == 1
    agent.stop()


def test_changes_of_a_connected_worker_share_a_transaction_that_comes_before_any_report() -> None:
    replica = Counting()
    agent = agent_on(replica)
    agent.connected = True
    rows = [DeltaRow("stt-worker", bytes([n]) * 32, b"{}") for n in range(3)]
    for row in rows:
        agent._carry_out([Persist(put=(row,))])
        agent._finish_burst()
    assert replica.transactions == 0, "a burst waited for the disk"
    agent.store()  # as a report does
    assert (replica.transactions, list(replica.load())) == (1, rows)


def test_what_waits_for_the_disk_is_stored_by_itself() -> None:
    replica = Counting()
    agent = agent_on(replica)
    agent.connected = True
    agent.start()
    row = DeltaRow("stt-worker", b"d" * 32, b"{}")
    agent.call(lambda: agent._carry_out([Persist(put=(row,))]))
    eventually(lambda: list(replica.load()) == [row])
    agent.stop()


@pytest.mark.parametrize("row", [MarkRow("stt-worker", "a" * 32, 1, 1), SegmentRow("stt-worker", "a" * 32, 1, b"{}")])
def test_a_row_that_is_no_plain_change_waits_for_nothing_and_takes_the_others_along(row: Row) -> None:
    replica = Counting()
    agent = agent_on(replica)
    agent.connected = True
    change = DeltaRow("stt-worker", b"d" * 32, b"{}")
    agent._carry_out([Persist(put=(change, row))])
    agent._finish_burst()
    assert replica.transactions == 1
    assert set(replica.load()) == {change, row}


class Faulty:
    """A listener with a bug."""

    def __init__(self) -> None:
        self.called = 0

    def on_session(self, event: object) -> None: ...

    def on_message(self, received: object) -> None: ...

    def on_burst(self, notices: Sequence[Notice]) -> None:
        self.called += 1
        raise RuntimeError("a bug")


def test_a_bug_in_a_turn_is_counted_and_the_thread_goes_on() -> None:
    agent = agent_on(MemoryReplica())
    faulty = Faulty()
    agent.add_listener(faulty)
    agent.start()
    agent.submit(lambda: agent._notices.append(Rejected("a/b", "malformed")))
    eventually(lambda: agent.counters["agent failures"] == 1)
    assert faulty.called == 1
    assert agent.call(lambda: None), "the thread still runs jobs"
    agent.stop()


class Deaf(MemoryTransport):
    """Delivers nothing in its first sessions, although it is connected."""

    deaf_sessions = 1
    sessions = 0

    def connect(self) -> None:
        self.sessions += 1
        super().connect()

    def read(self) -> Sequence[SessionEvent]:
        events = super().read()
        return [one for one in events if self.sessions > self.deaf_sessions or not isinstance(one, Received)]


def deaf_agent(deaf_sessions: int) -> tuple[Agent, Deaf]:
    broker = MemoryBroker()
    broker.publish("system/config/_trust", trust_payload())
    transport = Deaf(broker)
    transport.deaf_sessions = deaf_sessions
    policy = Policy(sync_bound_s=0.2)
    replicator = Replicator(Topics(), ROOT.public, nonce="0" * 32, random=lambda: 0.01, policy=policy)
    agent = Agent(replicator, transport, MemoryReplica(), SystemClock())
    agent.feed(Follow("stt-worker"))
    return agent, transport


def test_a_session_that_delivers_nothing_is_begun_anew() -> None:
    agent, transport = deaf_agent(1)
    agent.start()
    eventually(lambda: agent.replicator.state_of("stt-worker") == "ready")
    assert transport.sessions == 2
    assert agent.counters["deaf sessions"] == 1
    agent.stop()


def test_each_session_that_delivers_nothing_is_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is only slow would have all of it to do once more."""
    agent, _ = deaf_agent(2)
    given_up: list[int] = []
    drop = agent._drop_session
    monkeypatch.setattr(agent, "_drop_session", lambda why: (given_up.append(agent.replicator.unheard), drop(why)))
    agent.start()
    eventually(lambda: agent.replicator.state_of("stt-worker") == "ready")
    agent.stop()
    assert len(given_up) == 2
    assert given_up[0] >= 2
    assert given_up[1] >= 4


class Watcher:
    """Notes what was put off when it heard that a scope is ready."""

    def __init__(self, agent: Agent) -> None:
        self.unproven: list[int] = []
        self._agent = agent

    def on_session(self, event: object) -> None: ...

    def on_message(self, received: object) -> None: ...

    def on_burst(self, notices: Sequence[Notice]) -> None:
        if any(isinstance(one, ScopeSynced) and one.state == "ready" for one in notices):
            self.unproven.append(self._agent.replicator.peer.unproven)


class Remembering(MemoryReplica):
    """Remembers the kinds of rows in each transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[set[str]] = []

    def apply(self, put: Sequence[Row], drop: Sequence[Row] = (), *, durable: bool = True) -> None:
        self.stored.append({type(row).__name__ for row in put})
        super().apply(put, drop, durable=durable)


def joined() -> tuple[Watcher, Remembering]:
    """Join a scope of three keys, and go on until nothing is put off any more."""
    segment = segment_payload(*(delta_payload(ALICE, n, set_(f"k{n}")) for n in range(1, 4)))
    broker, topics, replica = MemoryBroker(), Topics(), Remembering()
    broker.publish("system/config/_trust", trust_payload())
    broker.publish(topics.format(IndexTopic(SCOPE, ALICE.kid)), index_payload(ALICE, 1, {1: segment}))
    broker.publish(topics.format(SegmentTopic(SCOPE, ALICE.kid, 1)), segment)
    replicator = Replicator(topics, ROOT.public, nonce="0" * 32, random=lambda: 0.5)
    agent = Agent(replicator, MemoryTransport(broker), replica, SystemClock())
    watcher = Watcher(agent)
    agent.add_listener(watcher)
    agent.feed(Follow(SCOPE))
    agent.start()
    eventually(lambda: watcher.unproven and not replicator.peer.unproven)
    agent.stop()
    return watcher, replica


def test_readiness_is_told_before_the_signatures_that_were_put_off_are_checked() -> None:
    watcher, _ = joined()
    assert watcher.unproven == [3]


def test_what_is_said_of_a_trust_document_is_stored_with_it_and_once() -> None:
    """A first join waits for one transaction."""
    _, replica = joined()
    assert replica.stored[0] == {"TrustRow", "AuditRow"}
    assert not any(kinds & {"TrustRow", "AuditRow"} for kinds in replica.stored[1:])
    assert [(row.event, row.count) for row in replica.audit()] == [("trust", 1)]


class Teller:
    """Notes when it is told of something that was merged."""

    def __init__(self, order: list[str]) -> None:
        self._order = order

    def on_session(self, event: object) -> None: ...

    def on_message(self, received: object) -> None: ...

    def on_burst(self, notices: Sequence[Notice]) -> None:
        self._order += ["told" for one in notices if isinstance(one, Merged)]


def test_what_came_is_told_before_anything_else_is_done_in_a_turn() -> None:
    broker, topics = MemoryBroker(), Topics()
    broker.publish("system/config/_trust", trust_payload())
    replicator = Replicator(topics, ROOT.public, nonce="0" * 32, random=lambda: 0.5)
    agent = Agent(replicator, MemoryTransport(broker), MemoryReplica(), SystemClock())
    agent.feed(Follow(SCOPE))
    while replicator.state_of(SCOPE) != "ready" or not replicator.quiet:
        agent._turn()
    order: list[str] = []
    agent.add_listener(Teller(order))
    agent.submit(lambda: order.append("a job"))
    broker.publish(topics.format(KeyTopic(SCOPE, "a")), delta_payload(ALICE, 1, set_("a")))
    agent._turn()
    assert order == ["told", "a job"]
    agent._end()
