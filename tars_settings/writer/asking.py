"""Asking workers: a question of a writer goes out, and the answers are put together as their parts arrive."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from tars_settings.agent.loop import Agent
from tars_settings.core.delta import Assignment
from tars_settings.core.presence import Presence
from tars_settings.core.question import AnswerBody, Fit, HistoryQuestion, QuestionBody, parse_answer
from tars_settings.core.session import Received
from tars_settings.core.topics import AnswerTopic, QuestionTopic
from tars_settings.core.wire import encode
from tars_settings.errors import MalformedError
from tars_settings.ports import Clock
from tars_settings.trust.keys import SigningKey

GRACE_S: Final = 1.0
"""How long after the last moment at which a worker may answer its answer is waited for."""
SUBSCRIBED_WITHIN_S: Final = 2.0
MAX_PARTS: Final = 64
MAX_HEARD_BYTES: Final = 64 * 1024 * 1024
"""Of all answers to a question: whoever may publish there must not fill the memory of who asks."""
NAMED_UP_TO: Final = 16
"""So many workers are asked by name; of more a share, for every reader of the scope gets the question."""


class Answered(msgspec.Struct, frozen=True):
    """What one worker answered: envelopes verbatim, to be verified by whoever reads them, or how a proposal fits.

    It is the worker's own word, but for what is signed: anyone whom the broker lets publish there may speak for it.
    """

    service: str
    instance: str
    history: tuple[bytes, ...] = ()
    more: bool = False
    fit: Fit | None = None

    @property
    def worker(self) -> str:
        """Who answered, as ``service@instance``."""
        return f"{self.service}@{self.instance}"


class Asking:
    """One open question of a writer. *changed* guards it, and is notified by whoever calls :meth:`take`."""

    def __init__(self, agent: Agent, changed: threading.Condition, body: QuestionBody) -> None:
        self._agent = agent
        self._changed = changed
        self._body = body
        self._filter = agent.replicator.topics.answer_filter(body.nonce)
        self._parts: dict[tuple[str, str], dict[int, AnswerBody]] = {}
        self._whole: list[Answered] = []
        self._room_bytes = MAX_HEARD_BYTES

    # --- in the agent's thread ---------------------------------------------------------------------------------------

    def take(self, received: Received) -> None:
        """Take note of a message; under the lock."""
        topic = self._agent.replicator.topics.parse(received.topic)
        if not isinstance(topic, AnswerTopic) or topic.nonce != self._body.nonce or received.retain:
            return
        try:
            answer = parse_answer(received.payload)
        except MalformedError:
            return
        worker = (answer.service, answer.instance)
        self._room_bytes -= len(received.payload)
        if worker == (topic.service, topic.instance) and self._body.asks(*worker) and self._room_bytes >= 0:
            self._put(worker, answer)

    def _put(self, worker: tuple[str, str], answer: AnswerBody) -> None:
        parts = self._parts.setdefault(worker, {})
        if len(parts) == answer.parts or answer.part in parts or answer.parts > MAX_PARTS:
            return
        parts[answer.part] = answer
        if len(parts) == answer.parts:
            entries = [bytes(raw) for n in sorted(parts) for raw in parts[n].history]
            fit = answer.fit if isinstance(answer.fit, Fit) else None
            self._whole.append(Answered(*worker, tuple(entries), answer.more, fit))

    # --- for whoever asks --------------------------------------------------------------------------------------------

    def open(self, signer: SigningKey, fleet: str) -> None:
        """Subscribe to the answers, and publish the question."""
        topic = self._agent.replicator.topics.format(QuestionTopic(self._body.scope))
        payload = signer.sign("question", fleet, encode(self._body))
        subscribed = threading.Event()
        self._agent.submit(lambda: self._agent.subscribe((self._filter,), subscribed.set))
        subscribed.wait(SUBSCRIBED_WITHIN_S)
        self._agent.submit(lambda: self._agent.publish(topic, payload, retain=False))

    def close(self) -> None:
        """Unsubscribe."""
        self._agent.submit(lambda: self._agent.unsubscribe((self._filter,)))

    def heard(self, expected: Iterable[tuple[str, str]], due_s: float) -> Iterator[Answered]:
        """Yield answers as they come, until all *expected* workers answered, or *due_s* of the monotonic clock."""
        told, awaited = 0, set(expected)
        while True:
            with self._changed:
                while not self._whole[told:] and awaited and time.monotonic() < due_s:
                    self._changed.wait(max(0.0, due_s - time.monotonic()))
                fresh = self._whole[told:]
            if not fresh:
                return
            told += len(fresh)
            awaited -= {(one.service, one.instance) for one in fresh}
            yield from fresh


def body_of(
    scope: str, question: HistoryQuestion | tuple[Assignment, ...], trust: int, clock: Clock, *, by: str, **share: Any
) -> QuestionBody:
    """Return the body of a question with a nonce of its own."""
    what: dict[str, Any] = {"history" if isinstance(question, HistoryQuestion) else "propose": question}
    at = clock.wall().isoformat(timespec="seconds").replace("+00:00", "Z")
    return QuestionBody(scope=scope, trust=trust, nonce=clock.token(16).hex(), at=at, by=by, **what, **share)


def chosen(
    readers: Sequence[Presence], about: int, within_s: float, to: tuple[str, ...], clock: Clock
) -> dict[str, Any]:
    """Return who is to answer: *to*, all of *readers*, or about so many of them, by name where they are few."""
    if to or len(readers) <= about:
        return {"to": to}
    if about > NAMED_UP_TO:
        return {"of": len(readers) // about, "within_s": float(within_s)}
    names = sorted((clock.random(), f"{one.service}@{one.instance}") for one in readers)
    return {"to": tuple(name for _, name in names[:about])}


def asked(body: QuestionBody, readers: Sequence[Presence]) -> set[tuple[str, str]]:
    """Return those of the *readers* whom a question asks."""
    workers = {(one.service, one.instance) for one in readers}
    return {worker for worker in workers if body.asks(*worker)}
