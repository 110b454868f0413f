"""Seeing that the broker holds what it should: what was seen on a topic, suspected, probed again, published again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from tars_settings.core.session import Publish
from tars_settings.core.topics import IndexTopic, SegmentTopic, Topic, TrustTopic
from tars_settings.core.wire import short_hash
from tars_settings.gossip.effects import Effect, Repaired, RepairFight
from tars_settings.gossip.peer import Peer
from tars_settings.gossip.probe import Answer, Prober
from tars_settings.gossip.repair import Repairer
from tars_settings.gossip.waiting import Standing

MAX_FLAGGED: Final = 16


class Mender:
    """The repairing half of a peer that may publish. *has_key*: whether it signs deltas."""

    def __init__(
        self,
        peer: Peer,
        prober: Prober,
        repairer: Repairer,
        emit: Callable[[Effect], None],
        next_ref: Callable[[], int],
        *,
        may_repair: bool,
        has_key: bool,
    ) -> None:
        self._peer = peer
        self._prober = prober
        self._repairer = repairer
        self._emit = emit
        self._next_ref = next_ref
        self._may_repair = may_repair
        self._has_key = has_key
        self._flag_proven = False
        self._flagged: dict[str, str] = {}
        self._after_index: dict[str, set[str]] = {}

    def reset(self) -> None:
        """Begin anew: another session, and perhaps another broker."""
        self._flag_proven = False
        self._flagged.clear()
        self._after_index.clear()
        self._repairer.reset()

    def next_wake_s(self) -> float:
        """Return when probe_suspicions() is due, infinity where nothing is suspected."""
        return self._repairer.next_wake_s() if self._may_repair else float("inf")

    def suspect(self, text: str, found: bytes | None, now_s: float) -> None:
        """The broker seems to hold *found* where something better is held here."""
        if self._may_repair:
            self._repairer.suspect(text, found or None, now_s)

    def on_shown(self, text: str, payload: bytes, *, is_replay: bool) -> None:
        """The broker says that it retains the winner: no need to repair. Live, that is believed once a probe agreed."""
        if is_replay or self._flag_proven:
            self._repairer.settle(text)
        elif self._repairer.is_open(text) and len(self._flagged) < MAX_FLAGGED:
            self._flagged[text] = short_hash(payload)
            self._prober.ask([text])

    def on_probed(self, text: str, payload: bytes) -> None:
        """A probe shows what a live message said before with its retain flag: then that is to be believed."""
        if self._flagged.pop(text, None) == short_hash(payload):
            self._flag_proven = True

    def settle(self, topic: Topic, answer: Answer, standing: Standing, now_s: float) -> None:
        """Decide on a topic that was probed: fine, to be repaired now, or to be suspected."""
        if standing not in (Standing.WORSE, Standing.COMPACTED):
            self._repairer.settle(answer.topic)
        elif self._repairer.is_probing(answer.topic) or self._is_urgent(topic, answer):
            self._repair(topic, answer, standing, now_s)
        else:
            self.suspect(answer.topic, answer.payload, now_s)
        for late in self._after_index.pop(answer.topic, ()):
            self._prober.ask([late])

    def _is_urgent(self, topic: Topic, answer: Answer) -> bool:
        """Whether to repair without delay: a writer's deltas mean nothing on a broker without a trust document."""
        return topic == TrustTopic() and answer.payload is None and self._has_key

    def _repair(self, topic: Topic, answer: Answer, standing: Standing, now_s: float) -> None:
        # An empty payload clears a topic: only ever that of a tombstone which a floor made void.
        payload = b"" if standing is Standing.COMPACTED else self._peer.desired(topic)
        if payload is None:
            self._repairer.settle(answer.topic)
            return
        round_ = self._repairer.allow(answer.topic, now_s)
        if not round_:
            return
        self._emit(Publish(self._next_ref(), answer.topic, payload))
        found: Literal["nothing", "other"] = "nothing" if answer.payload is None else "other"
        self._emit(Repaired(answer.topic, found if payload else "compacted", round_))
        if self._repairer.is_fight(answer.topic):
            self._emit(RepairFight(answer.topic, short_hash(answer.payload or b"")))

    def probe_suspicions(self, now_s: float) -> None:
        """Probe once more what is due; what it shows decides."""
        if self.next_wake_s() > now_s:
            return
        for text in self._repairer.due(now_s):
            topic = self._peer.topics.parse(text)
            if isinstance(topic, SegmentTopic):
                # An old index makes a newer segment look like damage: ask for the index first.
                index_topic = self._peer.topics.format(IndexTopic(topic.scope, topic.kid))
                self._after_index.setdefault(index_topic, set()).add(text)
                self._prober.ask([index_topic])
            else:
                self._prober.ask([text])

    def forget_quiet(self, now_s: float) -> None:
        """Drop topics that nothing happened to for a while."""
        self._repairer.forget_quiet(now_s)
