"""Answering questions in the name of one worker: whom, how often, and after how long.

A question is heard by every reader of a scope, five thousand of them it may be. So it names those who answer, or their
share; each waits a random while, answers at most once a second, and no question twice.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Final

from tars_settings.agent.loop import Agent
from tars_settings.core.question import (
    Fit,
    HistoryQuestion,
    Question,
    QuestionBody,
    answers,
    fit_answer,
)
from tars_settings.core.session import Received
from tars_settings.core.topics import AnswerTopic, QuestionTopic
from tars_settings.errors import RejectedError
from tars_settings.gossip.effects import Rejected
from tars_settings.trust.validity import Verdict, read_question

GAP_S: Final = 1.0
MAX_WAITING: Final = 8
MAX_NONCES: Final = 256

HistoryAnswer = Callable[[QuestionBody, HistoryQuestion], tuple[Sequence[bytes], bool]]
"""From a question to envelopes, newest first, and whether there is more than it asked for."""
ProposalAnswer = Callable[[QuestionBody], Fit | None]
"""From proposed assignments to how they fit; None where this worker can't tell, and keeps silent."""


class Answering:
    """Hears the questions to one worker. Everything here runs in the agent's thread; the callbacks must not block."""

    def __init__(
        self,
        agent: Agent,
        service: str,
        instance: str,
        scopes: Sequence[str],
        *,
        history: HistoryAnswer | None = None,
        propose: ProposalAnswer | None = None,
    ) -> None:
        self.history = history
        self.propose = propose
        self._agent = agent
        self._service = service
        self._instance = instance
        self._scopes = frozenset(scopes)
        self._nonces: OrderedDict[str, None] = OrderedDict()
        self._waiting: deque[QuestionBody] = deque()
        self._free_s = 0.0

    def take(self, received: Received) -> bool:
        """Take note of a message; return whether it is on a question's topic."""
        topic = self._agent.replicator.topics.parse(received.topic)
        if not isinstance(topic, QuestionTopic):
            return False
        if topic.scope in self._scopes:
            self._take(topic, received)
        return True

    def _take(self, topic: QuestionTopic, received: Received) -> None:
        if received.retain:
            # Whoever leaves a question on the broker has it asked of everybody who connects, for ever.
            self._agent.note(Rejected(received.topic, "retained"))
            return
        trust = self._agent.replicator.peer.trust
        if trust.is_pin or not received.payload:
            return
        try:
            question, judgement = read_question(received.payload, trust)
        except RejectedError as error:
            self._agent.note(Rejected(received.topic, error.reason))
            return
        reason = judgement.reason or ("" if question.body.scope == topic.scope else "wrong-topic")
        if judgement.verdict is Verdict.VALID and not reason:
            self._consider(question)
        else:
            self._agent.note(Rejected(received.topic, reason, question.kid))

    def _consider(self, question: Question) -> None:
        body = question.body
        if body.nonce in self._nonces:
            return
        # After its signature was checked: else anybody could use up a nonce that he saw.
        self._nonces[body.nonce] = None
        while len(self._nonces) > MAX_NONCES:
            self._nonces.popitem(last=False)
        if body.asks(self._service, self._instance) and len(self._waiting) < MAX_WAITING:
            self._waiting.append(body)
            self._agent.later(body.within_s * self._agent.clock.random(), self._answer_next)

    def _answer_next(self) -> None:
        now_s = self._agent.clock.now_s()
        if now_s < self._free_s:
            self._agent.later(self._free_s - now_s, self._answer_next)
            return
        body = self._waiting.popleft()
        messages = self._messages(body)
        if messages:
            self._free_s = now_s + GAP_S
            self._agent.counters["answers"] += 1
        topic = self._agent.replicator.topics.format(AnswerTopic(body.nonce, self._service, self._instance))
        for message in messages:
            self._agent.publish(topic, message, retain=False)

    def _messages(self, body: QuestionBody) -> list[bytes]:
        if isinstance(body.history, HistoryQuestion):
            if self.history is None:
                return []
            entries, more = self.history(body, body.history)
            return answers(self._service, self._instance, entries, more=more)
        fit = None if self.propose is None else self.propose(body)
        return [] if fit is None else [fit_answer(self._service, self._instance, fit)]
