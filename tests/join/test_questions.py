"""Facts of questions: who may ask, who answers, how often, and that an answer is put together as it was sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tars_settings.core.delta import Assignment
from tars_settings.core.question import AnswerBody, Fit, HistoryQuestion, QuestionBody, answers, parse_answer
from tars_settings.core.session import Received
from tars_settings.core.topics import AnswerTopic, QuestionTopic
from tars_settings.core.wire import MAX_ENVELOPE_BYTES, Raw, encode
from tars_settings.errors import ConfigurationError, MalformedError, NotGrantedError
from tars_settings.join import Live
from tars_settings.trust.validity import read_delta
from tars_settings.writer import Writer
from tars_settings.writer import asking as asking_module
from tars_settings.writer.asking import chosen
from tests.brokers import eventually
from tests.fleets import ALICE, delta_payload, set_
from tests.join.conftest import InMemory, Stt

Started = Callable[..., Live[Any]]
SCOPE = "stt-worker"


def question(n: int = 1) -> QuestionBody:
    return QuestionBody(scope=SCOPE, trust=1, nonce=f"{n:032x}", history=HistoryQuestion(10))


def heard(memory: InMemory, body: QuestionBody, *, retain: bool = False, live: Live[Any]) -> None:
    """Have a worker receive a signed question, and wait until it was looked at."""
    agent = live._agent
    signer = memory.writer._signer
    assert signer is not None
    payload = signer.sign("question", memory.writer.environment.fleet_id, encode(body))
    topic = agent.replicator.topics.format(QuestionTopic(SCOPE))
    agent.call(lambda: agent._take([Received(topic, payload, retain)]))


def test_a_worker_answers_with_signed_deltas_newest_first(memory: InMemory, started: Started) -> None:
    live = started()
    for value in (0.6, 0.7):
        memory.push(vad_threshold=value)
    eventually(lambda: live.current.vad_threshold == 0.7)
    (answer,) = memory.writer.ask(SCOPE, HistoryQuestion(10))
    found = [read_delta(raw, memory.writer.trust) for raw in answer.history]
    assert answer.worker == f"{SCOPE}@pi-3"
    assert [(delta.stamp.epoch, judgement.verdict.value) for delta, judgement in found] == [(2, "valid"), (1, "valid")]
    assert not answer.more


def test_a_history_is_cut_at_the_limit_by_key_and_epoch_and_says_so(memory: InMemory, started: Started) -> None:
    live = started()
    for value in (0.6, 0.7):
        memory.push(vad_threshold=value)
    memory.push(model="large")
    eventually(lambda: live.current.model == "large")

    def epochs(**asked: Any) -> tuple[list[int], bool]:
        (answer,) = memory.writer.ask(SCOPE, HistoryQuestion(**asked))
        return [read_delta(raw, memory.writer.trust)[0].stamp.epoch for raw in answer.history], answer.more

    assert epochs(limit=1) == ([3], True)
    assert epochs(limit=9, key="vad_threshold") == ([2, 1], False)
    assert epochs(limit=9, since=1) == ([3, 2], False)


def test_a_proposal_is_answered_by_the_callback_and_changes_nothing(memory: InMemory, started: Started) -> None:
    live = started()
    seen: list[QuestionBody] = []

    def propose(body: QuestionBody) -> Fit:
        seen.append(body)
        return Fit("refused", "vad_threshold: too high", ("vad_threshold",))

    live._follower.answering.propose = propose
    (answer,) = memory.writer.ask(SCOPE, (Assignment("vad_threshold", set=7),))
    assert answer.fit == Fit("refused", "vad_threshold: too high", ("vad_threshold",))
    assert [body.propose for body in seen] == [(Assignment("vad_threshold", set=7),)]
    assert live.current.vad_threshold == 0.5


def test_a_question_is_answered_once(memory: InMemory, started: Started) -> None:
    live = started()
    counters = live._agent.counters
    heard(memory, question(), live=live)
    heard(memory, question(), live=live)
    heard(memory, question(2), live=live)
    eventually(lambda: counters["answers"] == 2)
    assert list(live._follower.answering._nonces) == [f"{n:032x}" for n in (1, 2)]
    assert not live._follower.answering._waiting


def test_a_flood_of_questions_waits_in_a_short_row(memory: InMemory, started: Started) -> None:
    live = started()
    answering = live._follower.answering
    for n in range(1, 41):
        heard(memory, question(n), live=live)
    assert len(answering._nonces) == 40
    assert len(answering._waiting) <= 8
    assert live._agent.counters["answers"] <= 40 - 8


def test_a_question_left_on_the_broker_is_refused(memory: InMemory, started: Started) -> None:
    live = started()
    counters = live._agent.counters
    heard(memory, question(), retain=True, live=live)
    eventually(lambda: counters["rejected retained"] == 1)
    assert counters["answers"] == 0


def test_a_question_nobody_trusted_signed_is_refused(memory: InMemory, started: Started) -> None:
    live = started()
    counters, agent = live._agent.counters, live._agent
    topic = agent.replicator.topics.format(QuestionTopic(SCOPE))
    fleet = memory.writer.environment.fleet_id
    stranger = ALICE.sign("question", fleet, encode(question()))
    signer = memory.writer._signer
    assert signer is not None
    forged = signer.sign("question", fleet, encode(question())).replace(b'"limit":10', b'"limit":99')
    for payload in (stranger, forged, b"", b"{garbage"):
        agent.call(lambda payload=payload: agent._take([Received(topic, payload, False)]))  # type: ignore[misc]
    reasons = ("unknown-writer", "bad-signature", "malformed")
    eventually(lambda: [counters[f"rejected {reason}"] for reason in reasons] == [1, 1, 1])
    assert not live._follower.answering._nonces, "a nonce that a stranger saw is not used up"


def test_those_who_are_not_named_keep_silent(memory: InMemory, started: Started) -> None:
    first, second = started(), started(name="pi-4")
    found = list(memory.writer.ask(SCOPE, HistoryQuestion(1), to=(f"{SCOPE}@pi-4",)))
    assert [one.worker for one in found] == [f"{SCOPE}@pi-4"]
    assert [live._agent.counters["answers"] for live in (first, second)] == [0, 1]


def test_a_question_on_another_scopes_topic_is_refused(memory: InMemory, started: Started) -> None:
    live = started()
    body = QuestionBody(scope="_all", trust=1, nonce="0" * 32, history=HistoryQuestion(1))
    heard(memory, body, live=live)
    eventually(lambda: live._agent.counters["rejected wrong-topic"] == 1)


def test_who_only_looks_can_not_ask(memory: InMemory, started: Started) -> None:
    started()
    given = {name: value for name, value in memory.keys.writer_given().items() if name != "writer_key"}
    with (
        Writer(transport=memory.transport, read_only=True, **given) as looker,
        pytest.raises(ConfigurationError, match="WRITER_KEY"),
    ):
        looker.ask(SCOPE, HistoryQuestion(1))


def test_a_writer_whose_grant_touches_nothing_there_is_told_so(memory: InMemory, started: Started) -> None:
    started()
    memory.writer._signer = ALICE
    with pytest.raises(NotGrantedError, match="alice"):
        memory.writer.ask(SCOPE, HistoryQuestion(1))


def test_many_entries_become_several_messages_and_one_that_is_large_stands_alone() -> None:
    entries = [delta_payload(ALICE, n, set_("motd", "x" * size)) for n, size in ((1, 30_000), (2, 30_000), (3, 48_800))]
    messages = [parse_answer(raw) for raw in answers(SCOPE, "pi-3", entries, more=True)]
    assert [(one.part, one.parts, len(one.history), one.more) for one in messages] == [
        (1, 3, 1, True), (2, 3, 1, True), (3, 3, 1, True),
    ]  # fmt: skip
    assert [bytes(raw) for one in messages for raw in one.history] == entries
    small = answers(SCOPE, "pi-3", [delta_payload(ALICE, n) for n in range(1, 301)], more=False)
    assert all(len(one) <= MAX_ENVELOPE_BYTES for one in small)
    assert len(small) == 2


def test_an_answer_that_is_too_large_or_none_is_refused() -> None:
    for payload in (b"", b"{}", b'{"v":1,"service":"A","instance":"b"}', b"x" * 60_000):
        with pytest.raises(MalformedError):
            parse_answer(payload)


def test_answers_that_nobody_gave_do_not_fill_the_memory(memory: InMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_module, "MAX_HEARD_BYTES", 100_000)
    topics = memory.writer.agent.replicator.topics
    one = asking_module.Asking(memory.writer.agent, memory.writer._changed, question())
    large = answers(SCOPE, "pi-3", [delta_payload(ALICE, 1, set_("motd", "x" * 40_000))], more=False)[0]
    for n in range(50):
        payload = large.replace(b'"pi-3"', f'"pi-{n}"'.encode())
        one.take(Received(topics.format(AnswerTopic("0" * 31 + "1", SCOPE, f"pi-{n}")), payload))
    assert len(one._whole) == 2
    other = answers(SCOPE, "pi-3", [], more=False)[0]
    fresh = asking_module.Asking(memory.writer.agent, memory.writer._changed, question())
    own = "0" * 31 + "1"
    for nonce, instance, retain in (("0" * 32, "pi-3", False), (own, "pi-4", False), (own, "pi-3", True)):
        fresh.take(Received(topics.format(AnswerTopic(nonce, SCOPE, instance)), other, retain))
    assert fresh._whole == [], "another question's, in another's name, or left on the broker"
    fresh.take(Received(topics.format(AnswerTopic("0" * 31 + "1", SCOPE, "pi-3")), other))
    assert [found.worker for found in fresh._whole] == [f"{SCOPE}@pi-3"]


def test_a_part_counts_once_and_an_answer_that_is_whole_takes_no_more(memory: InMemory) -> None:
    topic = memory.writer.agent.replicator.topics.format(AnswerTopic("0" * 31 + "1", SCOPE, "pi-3"))

    def told(*parts: tuple[int, int, str]) -> list[list[bytes]]:
        one = asking_module.Asking(memory.writer.agent, memory.writer._changed, question())
        for part, of, what in parts:
            raw = encode(AnswerBody(1, SCOPE, "pi-3", part, of, history=(Raw(f'"{what}"'.encode()),)))
            one.take(Received(topic, raw))
        return [[bytes(entry) for entry in found.history] for found in one._whole]

    assert told((2, 2, "b"), (1, 2, "a")) == [[b'"a"', b'"b"']]
    assert told((1, 2, "a"), (1, 2, "x"), (2, 2, "b")) == [[b'"a"', b'"b"']], "the first of a part counts"
    assert told((1, 2, "a"), (2, 2, "b"), (2, 2, "x"), (1, 2, "x")) == [[b'"a"', b'"b"']]
    assert told((2, 3, "b"), (3, 3, "c"), (1, 2, "x"), (1, 3, "a")) == [[b'"a"', b'"b"', b'"c"']]
    most = asking_module.MAX_PARTS
    assert len(told(*((n, most, "a") for n in range(1, most + 1)))) == 1
    assert told(*((n, most + 1, "a") for n in range(1, most + 2))) == []


def test_of_many_readers_a_few_are_named_and_of_very_many_a_share_is_asked(memory: InMemory) -> None:
    class Reader:
        state = "ready"
        service = SCOPE

        def __init__(self, n: int) -> None:
            self.instance = f"pi-{n}"

    readers: Any = [Reader(n) for n in range(5000)]
    clock = memory.writer.agent.clock
    few = chosen(readers, 3, 1.0, (), clock)
    assert len(set(few["to"])) == 3
    assert chosen(readers, 100, 1.0, (), clock) == {"of": 50, "within_s": 1.0}
    assert chosen(readers[:3], 3, 1.0, (), clock) == {"to": ()}
    share = QuestionBody(SCOPE, 1, "7" * 32, 50, history=HistoryQuestion(1))
    assert 50 < sum(share.asks(one.service, one.instance) for one in readers) < 200


def test_a_push_while_a_question_is_open_is_heard(memory: InMemory, started: Started) -> None:
    live = started()
    asking = memory.writer.ask(SCOPE, HistoryQuestion(1))
    next(asking)
    memory.push(Stt, vad_threshold=0.9)
    eventually(lambda: live.current.vad_threshold == 0.9)
    assert list(asking) == []
