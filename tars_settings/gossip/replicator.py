"""The replicator: one peer's whole protocol behind ``handle(event, now_s) -> effects``.

It decides; the agent (or the simulator) carries out, in order. One instance serves one process: all scopes of all its
services, over one session at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from tars_settings.core.names import is_kid
from tars_settings.core.records import DeltaRow, IndexRow, MarkRow, OutboxRow, Row, SegmentRow, TrustRow
from tars_settings.core.session import (
    Acknowledged,
    Publish,
    Received,
    SessionDown,
    SessionUp,
    Subscribe,
    Subscribed,
)
from tars_settings.core.topics import IndexTopic, KeyTopic, MarkerTopic, SegmentTopic, Topic, Topics, TrustTopic
from tars_settings.core.wire import decode_envelope, short_hash
from tars_settings.errors import RejectedError, TarsSettingsError
from tars_settings.gossip.effects import (
    Effect,
    EpochGap,
    Event,
    Follow,
    Loaded,
    Merged,
    Offered,
    Persist,
    Push,
    Rejected,
    Repaired,
    RepairFight,
    ScopeSynced,
    Stage,
    Wake,
)
from tars_settings.gossip.peer import Peer, Standing
from tars_settings.gossip.probe import Answer, Prober
from tars_settings.gossip.repair import Repairer, RepairPolicy
from tars_settings.gossip.sync import ScopeSync
from tars_settings.gossip.writing import Writing
from tars_settings.trust.document import follow
from tars_settings.trust.keys import SigningKey
from tars_settings.trust.validity import Verdict, read_delta, read_index

REREAD_WITHIN_S: Final = 30.0


class Policy(msgspec.Struct, frozen=True):
    """What an operator may choose; seconds.

    ``repair``: ``all`` peers, only ``keepers``, or ``off``. A *keeper* follows heads live.
    """

    repair: Literal["all", "keepers", "off"] = "all"
    keeper: bool = True
    sync_bound_s: float = 5.0
    audit_s: float = 600.0
    repairing: RepairPolicy = RepairPolicy()


class Replicator:
    """One peer. *nonce* (32 hex digits) makes its marker topic its own; *random* gives numbers in [0, 1)."""

    def __init__(
        self,
        topics: Topics,
        root_public: bytes,
        *,
        nonce: str,
        random: Callable[[], float],
        policy: Policy | None = None,
        signer: SigningKey | None = None,
    ) -> None:
        if not is_kid(nonce):
            raise ValueError("a nonce is 32 lower-case hex digits")
        self.topics = topics
        self.policy = policy or Policy()
        self._random = random
        self._effects: list[Effect] = []
        self._now_s = 0.0
        self._refs = itertools.count(1)
        self.peer = Peer(topics, root_public, self._emit, signer.kid if signer else "")
        self._marker = topics.format(MarkerTopic(nonce))
        live = (self._marker, topics.format(TrustTopic()))
        self._prober = Prober(self._marker, self._emit, self._next_ref, self.policy.sync_bound_s, live)
        self._repairer = Repairer(self.policy.repairing, random)
        self._writing = None
        if signer is not None:
            self._writing = Writing(self.peer, signer, self._emit, self._prober.ask, self._next_ref)
        self._syncs: dict[str, ScopeSync] = {}
        self._waiting: list[tuple[Push, float]] = []
        self._session: SessionUp | None = None
        self._live_ref = 0
        self._live = False
        self._trust_asked = False
        self._after_index: dict[str, set[str]] = {}
        self._reread_s: dict[str, float] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._audit_s = math.inf

    # --- the one entry -----------------------------------------------------------------------------------------------

    def handle(self, event: Event, now_s: float) -> tuple[Effect, ...]:  # noqa: C901 - a table of events
        """Return what is to be done because of *event*, in order. *now_s* never goes back."""
        self._now_s = now_s
        match event:
            case Received(topic, payload, retain):
                self._on_received(topic, payload, retain=retain)
            case Acknowledged(ref, ok, reason):
                if self._writing is not None:
                    self._writing.on_acknowledged(ref, ok=ok, reason=reason)
            case Subscribed(ref, granted):
                self._on_subscribed(ref, granted=granted)
            case SessionUp():
                self._on_session_up(event)
            case SessionDown():
                self._on_session_down()
            case Follow(scope, keys):
                self._on_follow(scope, keys)
            case Push():
                self._on_push(event)
            case Loaded(rows):
                self._on_loaded(rows)
            case Offered(payloads):
                self._on_offered(payloads)
            case Wake():
                pass
        self._on_time(now_s)
        self._prober.pump(now_s)
        effects, self._effects = tuple(self._effects), []
        return effects

    def next_wake_s(self) -> float:
        """Return when a Wake is due, infinity where nothing waits for time."""
        if self._session is None:
            return min((due_s for _, due_s in self._waiting), default=math.inf)
        syncing = (sync.bound_s for sync in self._syncs.values() if self._live and self._is_unfinished(sync))
        return min(
            self._prober.next_wake_s(),
            self._repairer.next_wake_s() if self._may_repair else math.inf,
            self._audit_s,
            min(self._reread_s.values(), default=math.inf),
            min((due_s for _, due_s in self._waiting), default=math.inf),
            min(syncing, default=math.inf),
        )

    @staticmethod
    def _is_unfinished(sync: ScopeSync) -> bool:
        return sync.state != "ready" or not sync.caught_up

    def state_of(self, scope: str) -> str:
        """Return joining, ready or degraded."""
        sync = self._syncs.get(scope)
        return "joining" if sync is None else sync.state

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that are followed."""
        return tuple(self._syncs)

    @property
    def quiet(self) -> bool:
        """Whether no question is open and no repair waits: for tests and simulations."""
        return self._prober.idle and self._repairer.next_wake_s() == math.inf

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)
        if isinstance(effect, Merged):
            self._check_gap(effect)

    def _next_ref(self) -> int:
        return next(self._refs)

    @property
    def _may_repair(self) -> bool:
        return self.policy.repair == "all" or (self.policy.repair == "keepers" and self.policy.keeper)

    # --- session -----------------------------------------------------------------------------------------------------

    def _on_session_up(self, session: SessionUp) -> None:
        self._session = session
        self._reset_session()
        self._subscribe_live(tuple(self._syncs))
        self._audit_s = self._now_s + self._jittered(self.policy.audit_s)

    def _on_session_down(self) -> None:
        self._session = None
        self._reset_session()

    def _reset_session(self) -> None:
        self._live = False
        self._trust_asked = False
        self._after_index.clear()
        self._prober.reset()
        self._repairer.reset()

    def _jittered(self, seconds: float) -> float:
        return seconds * (0.5 + self._random())

    def _subscribe_live(self, scopes: tuple[str, ...]) -> None:
        filters = [self._marker, self.topics.format(TrustTopic())]
        for scope in scopes:
            filters.append(self.topics.live_filter(scope))
            if self.policy.keeper:
                filters.append(self.topics.head_filter(scope))
        self._live_ref = self._next_ref()
        self._emit(Subscribe(self._live_ref, tuple(filters), qos=1, replay=False))

    def _on_subscribed(self, ref: int, *, granted: bool) -> None:
        if ref == self._live_ref:
            # Refused or not: probing goes on, and names what the broker does not answer.
            self._live = True
            if not granted:
                self._emit(Rejected(self._marker, "subscribe-refused"))
            self._begin_sync()
        elif not granted:
            for answer in self._prober.on_refused(ref):
                self._on_answer(answer)

    def _begin_sync(self) -> None:
        self._trust_asked = False
        self._prober.ask([self.topics.format(TrustTopic())], first=True)
        for sync in self._syncs.values():
            sync.restart(self._now_s, self.policy.sync_bound_s)
            self._advance(sync)

    # --- following and catching up -----------------------------------------------------------------------------------

    def _on_follow(self, scope: str, keys: tuple[str, ...]) -> None:
        sync = self._syncs.get(scope)
        if sync is not None:
            sync.keys.update(keys)
            sync.surveyed = False
        else:
            sync = self._syncs[scope] = ScopeSync(scope, keys)
            sync.restart(self._now_s, self.policy.sync_bound_s)
            if self._session is not None:
                self._subscribe_live((scope,))
                return
        self._advance(sync)

    def _advance(self, sync: ScopeSync) -> None:
        """Ask for what is missing, and tell when the scope is complete, or late."""
        if not self._live:
            return
        if not self.peer.trust.is_pin:
            self._prober.ask(sync.questions(self.peer))
        lacking = tuple(sync.lacks(self.peer))
        if not lacking and self._trust_asked:
            self._enter(sync, "ready", ())
            self._survey(sync)
        elif self._now_s >= sync.bound_s:
            self._enter(sync, "joining" if self.peer.trust.is_pin else "degraded", lacking or ("the trust document",))
            sync.retry(self._now_s, self.policy.sync_bound_s)
            self._prober.ask([self.topics.format(TrustTopic())])
            if not self.peer.trust.is_pin:
                self._prober.ask(sync.questions(self.peer))
                self._survey(sync)

    def _enter(self, sync: ScopeSync, state: str, lacking: tuple[str, ...]) -> None:
        if (sync.state, sync.lacking) == (state, lacking) and sync.caught_up:
            return
        sync.state, sync.lacking = state, lacking
        sync.caught_up = state != "joining"
        self._emit(ScopeSynced(sync.scope, state, lacking))  # type: ignore[arg-type]
        if state == "ready" and self._writing is not None:
            self._writing.resume(sync.scope)
        self._release_pushes(sync)

    def _survey(self, sync: ScopeSync) -> None:
        if not sync.surveyed:
            sync.surveyed = True
            self._prober.ask(sync.survey(self.peer))

    def _check_gap(self, merged: Merged) -> None:
        stamp, scope = merged.delta.stamp, merged.delta.scope
        gen, seen = self._seen.get(scope, (0, 0))
        self._seen[scope] = max((gen, seen), (stamp.gen, stamp.epoch))
        is_gap = merged.way == "live" and gen == stamp.gen and stamp.epoch > seen + 1
        if is_gap and scope in self._syncs and scope not in self._reread_s:
            self._reread_s[scope] = self._now_s + REREAD_WITHIN_S * self._random()
            self._effects.append(EpochGap(scope, seen, stamp.epoch))

    # --- what arrives ------------------------------------------------------------------------------------------------

    def _on_received(self, topic_text: str, payload: bytes, *, retain: bool) -> None:
        topic = self.topics.parse(topic_text)
        if topic is None:
            return
        if isinstance(topic, MarkerTopic):
            if topic_text == self._marker:
                for silent in self._prober.on_marker(payload):
                    self._on_answer(silent)
            return
        if not self._is_followed(topic):
            return
        answer = self._prober.on_retained(topic_text, payload) if retain else None
        if answer is not None:
            self._on_answer(answer)
            return
        self._merge(topic, topic_text, payload, retain=retain)

    def _is_followed(self, topic: Topic) -> bool:
        if isinstance(topic, TrustTopic):
            return True
        return isinstance(topic, KeyTopic | IndexTopic | SegmentTopic) and topic.scope in self._syncs

    def _merge(self, topic: Topic, text: str, payload: bytes, *, retain: bool) -> None:
        version = self.peer.trust.order
        standing = self.peer.receive(topic, payload, "live")
        self._after_merge(version)
        if standing is Standing.WORSE:
            self._suspect(text, payload)
        elif standing is Standing.CURRENT and retain:
            # Retained by somebody else (Retain As Published): no need to do it again.
            self._repairer.settle(text)
        if self._live and isinstance(topic, IndexTopic | SegmentTopic):
            self._advance(self._syncs[topic.scope])

    def _after_merge(self, version: tuple[int, bytes]) -> None:
        if self.peer.trust.order == version:
            return
        if self._writing is not None:
            self._writing.on_trust_changed()
        if self._live:
            self._begin_sync()

    def _on_answer(self, answer: Answer) -> None:
        topic = self.topics.parse(answer.topic)
        if topic is None:
            return
        version = self.peer.trust.order
        standing = self._standing_of(topic, answer)
        self._after_merge(version)
        if isinstance(topic, TrustTopic):
            self._on_trust_answer()
        scope = getattr(topic, "scope", None)
        sync = self._syncs.get(scope) if scope is not None else None
        if sync is not None:
            sync.answered[answer.topic] = answer.known
        if self._writing is not None:
            self._writing.on_read_back(answer.topic, answer.payload, known=answer.known)
        self._settle(topic, answer, standing)
        for late in self._after_index.pop(answer.topic, ()):
            self._prober.ask([late])
        for one in [sync] if sync is not None else list(self._syncs.values()):
            self._advance(one)

    def _standing_of(self, topic: Topic, answer: Answer) -> Standing:
        if not answer.known:
            return Standing.ALONE
        if answer.payload is None:
            return Standing.ALONE if self.peer.desired(topic) is None else Standing.WORSE
        return self.peer.receive(topic, answer.payload, "probe")

    def _on_trust_answer(self) -> None:
        self._trust_asked = True
        for text in self.peer.release_held():
            topic = self.topics.parse(text)
            if topic is not None and self.peer.desired(topic) is not None:
                self._suspect(text, b"")

    # --- repair ------------------------------------------------------------------------------------------------------

    def _suspect(self, text: str, found: bytes | None) -> None:
        if self._may_repair and self._session is not None:
            self._repairer.suspect(text, found or None, self._now_s)

    def _settle(self, topic: Topic, answer: Answer, standing: Standing) -> None:
        """Decide on a topic that was probed: fine, to be repaired now, or to be suspected."""
        if standing is not Standing.WORSE:
            self._repairer.settle(answer.topic)
        elif self._repairer.is_probing(answer.topic) or self._is_urgent(topic, answer):
            self._repair(topic, answer)
        else:
            self._suspect(answer.topic, answer.payload)

    def _is_urgent(self, topic: Topic, answer: Answer) -> bool:
        """Whether to repair without delay: a writer's deltas mean nothing on a broker without a trust document."""
        return isinstance(topic, TrustTopic) and answer.payload is None and self._writing is not None

    def _repair(self, topic: Topic, answer: Answer) -> None:
        payload = self.peer.desired(topic)
        if payload is None:
            self._repairer.settle(answer.topic)
            return
        round_ = self._repairer.allow(answer.topic, self._now_s)
        if not round_:
            return
        self._emit(Publish(self._next_ref(), answer.topic, payload))
        self._emit(Repaired(answer.topic, "nothing" if answer.payload is None else "other", round_))
        if self._repairer.is_fight(answer.topic):
            self._emit(RepairFight(answer.topic, short_hash(answer.payload or b"")))

    def _probe_suspicions(self, now_s: float) -> None:
        for text in self._repairer.due(now_s):
            topic = self.topics.parse(text)
            if isinstance(topic, SegmentTopic):
                # An old index makes a newer segment look like damage: ask for the index first.
                index_topic = self.topics.format(IndexTopic(topic.scope, topic.kid))
                self._after_index.setdefault(index_topic, set()).add(text)
                self._prober.ask([index_topic])
            else:
                self._prober.ask([text])

    # --- pushing -----------------------------------------------------------------------------------------------------

    def _on_push(self, push: Push) -> None:
        if self._writing is None:
            self._emit(Stage(push.ref, "refused", "this peer holds no writer's key", "NotGrantedError"))
            return
        self._waiting.append((push, self._now_s + self.policy.sync_bound_s))
        if push.scope not in self._syncs:
            self._on_follow(push.scope, ())
        self._release_pushes(self._syncs[push.scope])

    def _release_pushes(self, sync: ScopeSync) -> None:
        if not self._live or not sync.caught_up:
            return
        ready = [push for push, _ in self._waiting if push.scope == sync.scope]
        self._waiting = [(push, due_s) for push, due_s in self._waiting if push.scope != sync.scope]
        for push in ready:
            if self._writing is not None:
                self._writing.push(push, synced=sync.state == "ready")

    def _refuse_late_pushes(self, now_s: float) -> None:
        late = [push for push, due_s in self._waiting if due_s <= now_s]
        self._waiting = [(push, due_s) for push, due_s in self._waiting if due_s > now_s]
        for push in late:
            sync = self._syncs[push.scope]
            lacking = "; ".join(sync.lacking) or ("no trust document" if self.peer.trust.is_pin else "no connection")
            self._emit(Stage(push.ref, "refused", f"{push.scope} could not be caught up: {lacking}", "NotSyncedError"))

    # --- replica and files -------------------------------------------------------------------------------------------

    def _on_loaded(self, rows: tuple[Row, ...]) -> None:
        order = (TrustRow, DeltaRow, SegmentRow, IndexRow, MarkRow, OutboxRow)
        for row in sorted(rows, key=lambda one: (order.index(type(one)), getattr(one, "version", 0))):
            self._load(row)

    def _load(self, row: Row) -> None:
        match row:
            case TrustRow(_, _, raw):
                self._load_trust(row, raw)
            case DeltaRow(_, _, raw):
                self._load_delta(row, raw)
            case SegmentRow(scope, kid, n, raw):
                self.peer.head(scope, kid).pending[n] = raw
            case IndexRow(_, _, _, _, raw):
                self._load_index(row, raw)
            case MarkRow(scope, kid, gen, epoch):
                if self._writing is not None and kid == self.peer.own_kid:
                    self._writing.marks[scope] = (gen, epoch)
            case OutboxRow():
                if self._writing is not None:
                    self._writing.restore(row)

    def _load_trust(self, row: Row, raw: bytes) -> None:
        try:
            document = follow(self.peer.trust, raw)
        except RejectedError as error:
            self._drop(row, "replica trust", error.reason)
            return
        self.peer.adopt_trust(document, stored=True)

    def _load_delta(self, row: Row, raw: bytes) -> None:
        try:
            delta, judgement = read_delta(raw, self.peer.trust)
        except RejectedError as error:
            self._drop(row, "replica delta", error.reason)
            return
        if judgement.verdict is Verdict.VALID:
            self.peer.merge(delta, "replica")
        elif judgement.verdict is Verdict.VOID:
            self._drop(row, "replica delta", judgement.reason)
        else:
            self.peer.receive(KeyTopic(delta.scope, delta.body.assign[0].key), raw, "replica")

    def _load_index(self, row: IndexRow, raw: bytes) -> None:
        try:
            index, judgement = read_index(raw, self.peer.trust)
        except RejectedError as error:
            self._drop(row, "replica index", error.reason)
            return
        if judgement.verdict is Verdict.VALID and (index.body.scope, index.kid) == (row.scope, row.kid):
            if index.kid == self.peer.own_kid:
                self.peer.signed_counter[index.body.scope] = index.body.counter
            self.peer.receive(IndexTopic(index.body.scope, index.kid), raw, "replica")

    def _drop(self, row: Row, what: str, reason: str) -> None:
        self._emit(Rejected(what, reason))
        self._emit(Persist(drop=(row,)))

    def _on_offered(self, payloads: tuple[bytes, ...]) -> None:
        for payload in payloads:
            version = self.peer.trust.order
            topic = self._topic_of(payload)
            if topic is None:
                self._emit(Rejected("file", "malformed"))
                continue
            self.peer.receive(topic, payload, "file")
            self._after_merge(version)
            text = self.topics.format(topic)
            if self._live:
                self._prober.ask([text])

    def _topic_of(self, payload: bytes) -> Topic | None:
        """Return where signed bytes belong, from what they say."""
        try:
            decode_envelope(payload)
        except TarsSettingsError:
            return None
        try:
            delta, _ = read_delta(payload, self.peer.trust)
            return KeyTopic(delta.scope, delta.body.assign[0].key)
        except RejectedError:
            pass
        try:
            index, _ = read_index(payload, self.peer.trust)
            return IndexTopic(index.body.scope, index.kid)
        except RejectedError:
            return TrustTopic()

    # --- time --------------------------------------------------------------------------------------------------------

    def _on_time(self, now_s: float) -> None:
        if self._waiting:
            self._refuse_late_pushes(now_s)
        if self._session is None:
            return
        for answer in self._prober.on_wake(now_s):
            self._on_answer(answer)
        for sync in self._syncs.values():
            if sync.bound_s <= now_s and self._is_unfinished(sync):
                self._advance(sync)
        if self._repairer.next_wake_s() <= now_s and self._may_repair:
            self._probe_suspicions(now_s)
        for scope in [scope for scope, due_s in self._reread_s.items() if due_s <= now_s]:
            del self._reread_s[scope]
            self._reread(scope)
        if now_s >= self._audit_s:
            self._audit(now_s)

    def _reread(self, scope: str) -> None:
        sync = self._syncs.get(scope)
        if sync is not None and self._live:
            sync.restart(self._now_s, self.policy.sync_bound_s, survey=False)
            self._advance(sync)

    def _audit(self, now_s: float) -> None:
        """Compare trust and every followed scope with the broker: the only detector there is on MQTT 3.1.1."""
        self._audit_s = now_s + self._jittered(self.policy.audit_s)
        self._repairer.forget_quiet(now_s)
        if not self._live:
            return
        self._prober.ask([self.topics.format(TrustTopic())])
        for sync in self._syncs.values():
            sync.restart(now_s, self.policy.sync_bound_s)
            self._advance(sync)
