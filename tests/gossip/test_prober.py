"""Probes: bounded, answered once, and silent topics are absent only after the marker came back twice."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tars_settings.core.session import Publish, SessionCommand, Subscribe, Unsubscribe
from tars_settings.gossip.probe import BATCH, MARKER_ROUNDS, MAX_UNANSWERED, Answer, Prober

MARKER = "system/health/_marker/x/m"


class Asked:
    """A prober and what it sent."""

    def __init__(self) -> None:
        self.sent: list[SessionCommand] = []
        refs = itertools.count(1)
        self.prober = Prober(MARKER, self.sent.append, lambda: next(refs), 5.0)

    def take(self, kind: type) -> list:  # type: ignore[type-arg]
        taken = [one for one in self.sent if isinstance(one, kind)]
        self.sent[:] = [one for one in self.sent if not isinstance(one, kind)]
        return taken

    def grant(self) -> None:
        """Have every open batch granted."""
        for one in self.take(Subscribe):
            self.prober.on_granted(one.ref)

    def open_topics(self) -> list[str]:
        return [topic for one in self.take(Subscribe) for topic in one.filters]


@pytest.fixture
def asked() -> Asked:
    return Asked()


def topics(count: int) -> list[str]:
    return [f"t/{n}" for n in range(count)]


def test_what_is_asked_later_is_named_as_it_comes_up_and_holds_up_nothing(asked: Asked) -> None:
    named: list[str] = []
    asked.prober.ask_later(named.append(one) or one for one in topics(1000))  # type: ignore[func-returns-value]
    assert not named
    assert not asked.prober.idle
    asked.prober.pump(0.0)
    assert len(asked.open_topics()) == MAX_UNANSWERED
    assert len(named) <= MAX_UNANSWERED + BATCH, "ten thousand topics need not be named at once"
    asked.prober.ask(["urgent"], first=True)
    answered = 0
    while "urgent" not in (opened := asked.open_topics()):
        assert not opened
        asked.prober.on_retained(f"t/{answered}", b"x")
        answered += 1
        asked.prober.pump(0.0)
    assert answered <= BATCH
    for n in range(answered, 1000):
        asked.prober.on_retained(f"t/{n}", b"x")
        asked.prober.pump(0.0)
    assert named == topics(1000)
    assert not asked.prober.idle
    asked.prober.on_retained("urgent", b"x")
    assert asked.prober.idle


def test_what_was_to_be_asked_later_goes_with_the_session(asked: Asked) -> None:
    asked.prober.ask_later(topics(1000))
    asked.prober.reset()
    asked.prober.pump(0.0)
    assert asked.prober.idle
    assert not asked.sent


def test_at_most_256_topics_are_unanswered_at_a_time(asked: Asked) -> None:
    asked.prober.ask(topics(1000))
    asked.prober.pump(0.0)
    sent = asked.take(Subscribe)
    assert sum(len(one.filters) for one in sent) == MAX_UNANSWERED == 256
    assert max(len(one.filters) for one in sent) <= BATCH
    asked.prober.pump(0.0)
    assert not asked.take(Subscribe)
    for n in range(BATCH):
        asked.prober.on_retained(f"t/{n}", b"x")
    asked.prober.pump(0.0)
    assert len(asked.open_topics()) == BATCH


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.randoms(use_true_random=False))
def test_each_question_is_answered_once_in_whatever_order(count: int, order) -> None:  # type: ignore[no-untyped-def]
    asked, answers, open_topics, peak = Asked(), [], [], 0
    asked.prober.ask(topics(count))
    while not asked.prober.idle:
        asked.prober.pump(0.0)
        open_topics += asked.open_topics()
        peak = max(peak, len(open_topics))
        order.shuffle(open_topics)
        some = [open_topics.pop() for _ in range(min(40, len(open_topics)))]
        answers += [asked.prober.on_retained(topic, b"x") for topic in some]
    assert sorted(one.topic for one in answers if one is not None) == sorted(topics(count))
    assert peak <= MAX_UNANSWERED


def test_answers_that_trickle_in_do_not_split_batches() -> None:
    """Else each topic has a marker of its own, which nothing bounds: a broker's queue for this client runs over."""
    asked = Asked()
    asked.prober.ask(topics(1000))
    batches = []
    while not asked.prober.idle:
        asked.prober.pump(0.0)
        batches += [one.filters for one in asked.take(Subscribe)]
        open_topics = [topic for batch in batches for topic in batch if asked.prober.asked(topic)]
        asked.prober.on_retained(open_topics[0], b"x")
    assert len(batches) == -(-1000 // BATCH)


def test_a_batch_is_one_replayed_subscription(asked: Asked) -> None:
    """Of QoS 0: NATS grants a session 63 of QoS 1."""
    asked.prober.ask(["t/1", "t/2"])
    asked.prober.pump(0.0)
    (subscribe,) = asked.sent
    assert isinstance(subscribe, Subscribe)
    assert (subscribe.filters, subscribe.replay, subscribe.qos) == (("t/1", "t/2"), True, 0)


def test_a_marker_follows_once_the_batch_was_granted(asked: Asked) -> None:
    """Behind SUBSCRIBE alone it comes back before the replay (amqtt)."""
    asked.prober.ask(["t/1"])
    asked.prober.pump(0.0)
    (subscribe,) = asked.take(Subscribe)
    asked.prober.on_granted(subscribe.ref + 1)
    assert not asked.sent
    asked.prober.on_granted(subscribe.ref)
    asked.prober.on_granted(subscribe.ref)
    (marker,) = asked.sent
    assert isinstance(marker, Publish)
    assert (marker.topic, marker.retain, marker.qos) == (MARKER, False, 1)


def test_a_topic_that_is_followed_live_keeps_its_qos() -> None:
    """A subscription takes the place of an earlier one to the same filter."""
    sent: list[SessionCommand] = []
    refs = itertools.count(1)
    prober = Prober(MARKER, sent.append, lambda: next(refs), 5.0, live=("t/live",))
    prober.ask(["t/1", "t/live", "t/2"])
    prober.pump(0.0)
    asked_for = [(one.filters, one.qos) for one in sent if isinstance(one, Subscribe)]
    assert asked_for == [(("t/1",), 0), (("t/live",), 1), (("t/2",), 0)]


def test_what_was_answered_is_unsubscribed(asked: Asked) -> None:
    asked.prober.ask(["t/1"])
    asked.prober.pump(0.0)
    assert asked.prober.on_retained("t/1", b"x") == Answer("t/1", b"x")
    assert asked.take(Unsubscribe) == [Unsubscribe(("t/1",))]
    assert asked.prober.on_retained("t/1", b"x") is None
    assert asked.prober.idle


def test_silence_is_absence_only_after_the_marker_came_back_twice(asked: Asked) -> None:
    asked.prober.ask(["t/1", "t/2"])
    asked.prober.pump(0.0)
    asked.prober.on_retained("t/2", b"x")
    asked.grant()
    for round_ in range(MARKER_ROUNDS):
        (marker,) = asked.take(Publish)
        answers = asked.prober.on_marker(marker.payload)
        assert bool(answers) == (round_ == MARKER_ROUNDS - 1)
    assert answers == (Answer("t/1", None),)
    assert MARKER_ROUNDS == 2


@pytest.mark.parametrize("comes", ["t/a1", "t/b1"])
def test_a_round_counts_only_when_no_replay_went_on_meanwhile(asked: Asked, comes: str) -> None:
    """Aedes lets markers overtake a replay for round after round. A batch that was asked before is served before."""
    first, second = [f"t/a{n}" for n in range(BATCH)], [f"t/b{n}" for n in range(BATCH)]
    asked.prober.ask([*first, *second])
    asked.prober.pump(0.0)
    asked.grant()
    (_, marker) = asked.take(Publish)
    asked.prober.on_marker(marker.payload)
    asked.prober.on_retained(comes, b"x")
    rounds = 0
    while asked.prober.asked("t/b0"):
        (marker,) = asked.take(Publish)
        asked.prober.on_marker(marker.payload)
        rounds += 1
    assert rounds == 1 + MARKER_ROUNDS


def test_a_later_batch_that_is_served_does_not_keep_an_earlier_one_waiting(asked: Asked) -> None:
    asked.prober.ask([*topics(BATCH), "t/later"])
    asked.prober.pump(0.0)
    asked.grant()
    (marker, _) = asked.take(Publish)
    asked.prober.on_marker(marker.payload)
    asked.prober.on_retained("t/later", b"x")
    (marker,) = asked.take(Publish)
    assert len(asked.prober.on_marker(marker.payload)) == BATCH


def test_a_marker_of_a_batch_that_is_not_granted_counts_for_nothing(asked: Asked) -> None:
    asked.prober.ask(["t/1"])
    asked.prober.pump(0.0)
    (subscribe,) = asked.take(Subscribe)
    for round_ in range(5):
        assert asked.prober.on_marker(b"%d.%d" % (subscribe.ref, round_)) == ()
    assert asked.prober.asked("t/1")


def test_a_marker_that_comes_back_twice_counts_once(asked: Asked) -> None:
    asked.prober.ask(["t/1"])
    asked.prober.pump(0.0)
    asked.grant()
    (marker,) = asked.take(Publish)
    assert asked.prober.on_marker(marker.payload) == ()
    assert asked.prober.on_marker(marker.payload) == (), "a duplicate of the first round is no second round"


@pytest.mark.parametrize("payload", [b"", b"x", b"1", b"1.", b"1.1", b"99.0", b"\xff\xfe", b"1.0.0", b"-1.0", b"1.-0"])
def test_a_strangers_marker_answers_nothing(asked: Asked, payload: bytes) -> None:
    asked.prober.ask(["t/1"])
    asked.prober.pump(0.0)
    assert asked.prober.on_marker(payload) == ()
    assert asked.prober.asked("t/1")


def test_an_answer_after_the_first_marker_still_counts(asked: Asked) -> None:
    asked.prober.ask(["t/1"])
    asked.prober.pump(0.0)
    asked.grant()
    (marker,) = asked.take(Publish)
    asked.prober.on_marker(marker.payload)
    assert asked.prober.on_retained("t/1", b"late") == Answer("t/1", b"late")


def test_a_broker_that_stays_silent_is_not_a_broker_without_the_topic(asked: Asked) -> None:
    asked.prober.ask(["t/1"])
    asked.prober.pump(10.0)
    assert asked.prober.next_wake_s() == 15.0
    assert asked.prober.on_wake(14.9) == ()
    assert asked.prober.on_wake(15.0) == (Answer("t/1", None, known=False),)
    assert asked.prober.idle


def test_a_refused_subscription_leaves_its_topics_unknown(asked: Asked) -> None:
    asked.prober.ask(["t/1"])
    asked.prober.pump(0.0)
    (subscribe,) = asked.take(Subscribe)
    assert asked.prober.on_refused(subscribe.ref + 99) == ()
    assert asked.prober.on_refused(subscribe.ref) == (Answer("t/1", None, known=False),)


def test_a_question_is_not_asked_twice_while_it_is_open(asked: Asked) -> None:
    asked.prober.ask(["t/1", "t/1"])
    asked.prober.ask(["t/1"])
    asked.prober.pump(0.0)
    assert asked.open_topics() == ["t/1"]


def test_an_empty_message_is_absence(asked: Asked) -> None:
    asked.prober.ask(["t/1"])
    asked.prober.pump(0.0)
    assert asked.prober.on_retained("t/1", b"") == Answer("t/1", None)


def test_reset_forgets_every_question(asked: Asked) -> None:
    asked.prober.ask(topics(300))
    asked.prober.pump(0.0)
    asked.prober.reset()
    assert asked.prober.idle
    assert asked.prober.next_wake_s() == float("inf")
    asked.prober.ask(["t/1"])
    asked.take(Subscribe)
    asked.prober.pump(0.0)
    assert asked.open_topics() == ["t/1"]
