"""Probes: asking the broker what it retains on exact topics.

A probe is a subscription to an exact topic with a replay, unsubscribed when answered. At most 256 topics are unanswered
at a time (2,000 at once lost live deltas in 4 runs of 4; 500 lost none). It asks for QoS 0: a replay is not lost more
easily than with it, nothing is to be acknowledged, and NATS grants a session 63 subscriptions of QoS 1 at the most.

A topic that stays silent is absent after a marker, published once the subscription was granted, came back twice with
nothing between: replay and live messages are ordered per topic only. Markers that did not wait for either came back
before all 64 messages of a replay with amqtt, and before most of them, for some rounds, with aedes.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final

import msgspec

from tars_settings.core.session import Publish, SessionCommand, Subscribe, Unsubscribe

MAX_UNANSWERED: Final = 256
BATCH: Final = 64
MARKER_ROUNDS: Final = 2
"""Quiet ones, one after the other."""


class Answer(msgspec.Struct, frozen=True):
    """What the broker holds on a topic; None where nothing. ``known`` is False where it could not be learned."""

    topic: str
    payload: bytes | None
    known: bool = True


class _Batch(msgspec.Struct):
    topics: tuple[str, ...]
    unanswered: set[str]
    deadline_s: float
    granted: bool = False
    rounds: int = 0
    quiet_rounds: int = 0
    is_quiet: bool = True


class Prober:
    """Asks in bounded batches. It answers each question once, in whatever order the broker does.

    *next_ref* gives numbers for Subscribe and Publish; *timeout_s* bounds the wait for one batch,
    *live* are exact topics that stay subscribed to.
    """

    def __init__(
        self,
        marker_topic: str,
        emit: Callable[[SessionCommand], None],
        next_ref: Callable[[], int],
        timeout_s: float,
        live: Collection[str] = (),
    ) -> None:
        self._marker_topic = marker_topic
        self._emit = emit
        self._next_ref = next_ref
        self._timeout_s = timeout_s
        self._live = frozenset(live)
        self._queue: deque[str] = deque()
        self._asked: set[str] = set()
        self.unheard = 0  # batches given up by time since anything of ours came back
        self._batches: dict[int, _Batch] = {}

    @property
    def idle(self) -> bool:
        """Whether no question is open."""
        return not self._asked

    def asked(self, topic: str) -> bool:
        """Return whether a question about *topic* is open."""
        return topic in self._asked

    def reset(self) -> None:
        """Forget every question: the session that would have answered is gone."""
        self.unheard = 0
        self._queue.clear()
        self._asked.clear()
        self._batches.clear()

    def ask(self, topics: Iterable[str], *, first: bool = False) -> None:
        """Ask what the broker holds on *topics*; one that is asked already is not asked twice."""
        fresh = [topic for topic in dict.fromkeys(topics) if topic not in self._asked]
        self._asked.update(fresh)
        if first:
            self._queue.extendleft(reversed(fresh))
        else:
            self._queue.extend(fresh)

    def pump(self, now_s: float) -> None:
        """Send what the bound on unanswered questions allows, in whole batches.

        A question for each answer would be a batch, and a marker, for each topic: hundreds of markers that nothing
        bounds, and default mosquitto drops what is behind its 1,000th message to a client.
        """
        if not self._queue:
            return
        unanswered = sum(len(batch.unanswered) for batch in self._batches.values())
        while (size := self._next_size()) and unanswered + size <= MAX_UNANSWERED:
            topics = tuple(self._queue.popleft() for _ in range(size))
            ref = self._next_ref()
            self._batches[ref] = _Batch(topics, set(topics), now_s + self._timeout_s)
            unanswered += size
            self._emit(Subscribe(ref, topics, qos=1 if topics[0] in self._live else 0, replay=True))

    def _next_size(self) -> int:
        """Return how many topics the next batch has. One that is followed live is alone: it stays at its QoS."""
        if self._queue and self._queue[0] in self._live:
            return 1
        size = 0
        for topic in itertools.islice(self._queue, BATCH):
            if topic in self._live:
                break
            size += 1
        return size

    def on_granted(self, ref: int) -> None:
        """Send the first marker behind a batch whose subscription was granted."""
        batch = self._batches.get(ref)
        if batch is not None and not batch.granted:
            batch.granted = True
            self._mark(ref)

    def _mark(self, ref: int) -> None:
        batch = self._batches[ref]
        batch.is_quiet = True
        payload = f"{ref}.{batch.rounds}".encode()
        # QoS 1: a marker that a broker drops costs the whole wait.
        self._emit(Publish(self._next_ref(), self._marker_topic, payload, retain=False, qos=1))

    def on_retained(self, topic: str, payload: bytes) -> Answer | None:
        """Return the answer when the retained message on *topic* is one; a live copy of it serves as well."""
        if topic not in self._asked:
            return None
        self.unheard = 0
        for ref, batch in list(self._batches.items()):
            if topic in batch.unanswered:
                self._disturb(ref)
                batch.unanswered.discard(topic)
                self._asked.discard(topic)
                if not batch.unanswered:
                    self._finish(ref)
                return Answer(topic, payload or None)
        return None

    def _disturb(self, ref: int) -> None:
        """A replay goes on: what was asked at the same time or later may still be behind it."""
        for later, batch in self._batches.items():
            if later >= ref:
                batch.is_quiet = False

    def on_marker(self, payload: bytes) -> tuple[Answer, ...]:
        """Return the topics that are absent now that a marker came back, if it was a batch's last quiet round."""
        self.unheard = 0
        text, _, round_text = payload.decode("ascii", "replace").partition(".")
        ref = int(text) if text.isdecimal() else -1
        batch = self._batches.get(ref)
        if batch is None or not batch.granted or round_text != str(batch.rounds):
            return ()
        batch.rounds += 1
        batch.quiet_rounds = batch.quiet_rounds + 1 if batch.is_quiet else 0
        if batch.quiet_rounds < MARKER_ROUNDS:
            self._mark(ref)
            return ()
        return self._give_up(ref, known=True)

    def on_refused(self, ref: int) -> tuple[Answer, ...]:
        """Return unknown answers for a batch whose subscription the broker refused."""
        return self._give_up(ref, known=False) if ref in self._batches else ()

    def on_wake(self, now_s: float) -> tuple[Answer, ...]:
        """Return unknown answers for batches whose marker did not come back in time."""
        if not self._batches:
            return ()
        late = [ref for ref, batch in self._batches.items() if batch.deadline_s <= now_s]
        self.unheard += len(late)
        return tuple(answer for ref in late for answer in self._give_up(ref, known=False))

    def next_wake_s(self) -> float:
        """Return when on_wake() is due, infinity where nothing is open."""
        if not self._batches:
            return float("inf")
        return min(batch.deadline_s for batch in self._batches.values())

    def _give_up(self, ref: int, *, known: bool) -> tuple[Answer, ...]:
        silent = sorted(self._batches[ref].unanswered)
        self._asked.difference_update(silent)
        self._finish(ref)
        return tuple(Answer(topic, None, known) for topic in silent)

    def _finish(self, ref: int) -> None:
        # A live filter that is the very topic was only subscribed to once more: it stays.
        topics = tuple(topic for topic in self._batches.pop(ref).topics if topic not in self._live)
        if topics:
            self._emit(Unsubscribe(topics))
