"""The replicator: one peer's whole protocol behind ``handle(event, now_s) -> effects``.

It decides; the agent (or the simulator) carries out, in order. One instance serves one process: all scopes of all its
services, over one session at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Final

from tars_settings.core.names import is_kid
from tars_settings.core.session import (
    Acknowledged,
    Received,
    SessionDown,
    SessionUp,
    Subscribe,
    Subscribed,
)
from tars_settings.core.topics import (
    FloorSegmentTopic,
    FloorTopic,
    IndexTopic,
    KeyTopic,
    MarkerTopic,
    SegmentTopic,
    Topic,
    Topics,
    TrustTopic,
)
from tars_settings.gossip.compact import Compacting, plan
from tars_settings.gossip.effects import (
    Compact,
    Conflict,
    Effect,
    EpochGap,
    Event,
    Follow,
    HeldBack,
    Loaded,
    Merged,
    Offered,
    Push,
    Rejected,
    ScopeSynced,
    Stage,
    Wake,
)
from tars_settings.gossip.hearing import Hearing
from tars_settings.gossip.loading import Loading, exported
from tars_settings.gossip.mending import Mender
from tars_settings.gossip.offering import scopes_held
from tars_settings.gossip.peer import Peer
from tars_settings.gossip.policy import Policy
from tars_settings.gossip.probe import Answer, Prober
from tars_settings.gossip.pushes import WaitingPushes
from tars_settings.gossip.repair import Repairer
from tars_settings.gossip.sync import ScopeSync
from tars_settings.gossip.trusting import ASKS_FOR_TRUST, TrustQuestions
from tars_settings.gossip.waiting import Standing
from tars_settings.gossip.writing import Writing
from tars_settings.trust.document import TrustDocument
from tars_settings.trust.keys import SigningKey
from tars_settings.trust.validity import Spread

__all__ = ("PROOFS_PER_SLICE", "Policy", "Replicator")

REREAD_WITHIN_S: Final = 30.0
UNANSWERED_COUNTS: Final = 2
"""As how many unheard batches a live subscription counts that was never answered: every broker owes a SUBACK."""
_SCOPED: Final = (KeyTopic, IndexTopic, SegmentTopic, FloorTopic, FloorSegmentTopic)
PROOFS_PER_SLICE: Final = 200
"""Signatures checked in one go behind readiness: about 10 ms."""


class Replicator:
    """One peer. *nonce* (32 hex digits) makes its marker topic its own; *random* gives numbers in [0, 1).

    *spread* checks the signatures that were put off.
    """

    def __init__(
        self,
        topics: Topics,
        root_public: bytes,
        *,
        nonce: str,
        random: Callable[[], float],
        policy: Policy | None = None,
        signer: SigningKey | None = None,
        spread: Spread = map,
    ) -> None:
        if not is_kid(nonce):
            raise ValueError("a nonce is 32 lower-case hex digits")
        self.topics = topics
        self.policy = policy or Policy()
        self._random = random
        self._effects: list[Effect] = []
        self._now_s = 0.0
        self._refs = itertools.count(1)
        self.peer = Peer(topics, root_public, self._emit, signer.kid if signer else "", spread)
        self._marker = topics.format(MarkerTopic(nonce))
        live = (self._marker, topics.format(TrustTopic()))
        self._prober = Prober(self._marker, self._emit, self._next_ref, self.policy.sync_bound_s, live)
        self._repairer = Repairer(self.policy.repairing, random)
        self._writing: Writing | None = None
        self._compacting: Compacting | None = None
        if signer is not None:
            self._writing = Writing(self.peer, signer, self._emit, self._prober.ask, self._next_ref)
            self._compacting = Compacting(
                self.peer, signer, self._emit, self._prober.ask, self._next_ref, self._writing.publish_head
            )
        self._loading = Loading(self.peer, self._writing, self._emit)
        self.is_keeper = signer is not None or self.policy.chooses_keeper(random)
        self._mender = Mender(
            self.peer,
            self._prober,
            self._repairer,
            self._emit,
            self._next_ref,
            may_repair=self.policy.may_repair(is_keeper=self.is_keeper),
            has_key=signer is not None,
        )
        self._trust = TrustQuestions(self.peer, self._prober, random)
        self._syncs: dict[str, ScopeSync] = {}
        self._waiting = WaitingPushes()
        self._session: SessionUp | None = None
        self._live_refs: dict[int, tuple[str, ...]] = {}
        self._hearing = Hearing(random)
        self._live_due_s = math.inf
        self._live = False
        self._reread_s: dict[str, float] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._turns = itertools.count()
        self._audit_s = math.inf

    # --- the one entry -----------------------------------------------------------------------------------------------

    def handle(self, event: Event, now_s: float) -> tuple[Effect, ...]:  # noqa: C901 - a table of events
        """Return what is to be done because of *event*, in order. *now_s* never goes back."""
        self._now_s = now_s
        match event:
            case Received(topic, payload, retain):
                self._on_received(topic, payload, retain=retain)
            case Acknowledged(ref, ok, reason):
                self._on_acknowledged(ref, ok=ok, reason=reason)
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
            case Compact():
                self._on_compact(event)
            case Loaded(rows):
                self._loading.load(rows)
            case Offered(payloads):
                self._on_offered(payloads)
            case Wake():
                self._prove_slice()
        if self.peer.is_disturbed:
            self._on_disturbed()
        self._on_time(now_s)
        self._prober.pump(now_s)
        effects, self._effects = tuple(self._effects), []
        return effects

    def next_wake_s(self) -> float:
        """Return when a Wake is due, infinity where nothing waits for time."""
        if self._may_prove:
            return self._now_s
        if self._session is None:
            return self._waiting.next_wake_s()
        syncing_s = math.inf
        for sync in self._syncs.values() if self._live else ():
            if self._is_unfinished(sync):
                syncing_s = min(syncing_s, sync.bound_s)
        return min(
            self._prober.next_wake_s(),
            self._mender.next_wake_s(),
            self._audit_s,
            self._hearing.due_s,
            self._writing.next_wake_s() if self._writing is not None else math.inf,
            self._trust.due_s,
            self._live_due_s,
            min(self._reread_s.values()) if self._reread_s else math.inf,
            self._waiting.next_wake_s(),
            syncing_s,
        )

    @staticmethod
    def _is_unfinished(sync: ScopeSync) -> bool:
        return sync.state != "ready" or not sync.caught_up

    def epoch_of(self, scope: str) -> int:
        """Return the highest epoch of a scope in the gen in force that was seen: a push takes the next one."""
        if self._writing is not None:
            return self._writing.highest_seen(scope)
        gen, epoch = self.peer.registers.highest(scope)
        return epoch if gen == self.peer.trust.gen else 0

    @property
    def is_catching_up(self) -> bool:
        """Whether the first answer on a scope is outstanding, so that the next messages bring more of it."""
        return any(not sync.caught_up for sync in self._syncs.values())

    def state_of(self, scope: str) -> str:
        """Return joining, ready or degraded."""
        sync = self._syncs.get(scope)
        return "joining" if sync is None else sync.state

    @property
    def is_asking(self) -> bool:
        """Whether the broker is being asked what it holds: after catching up, whether topics hold what heads do not."""
        return not self._prober.idle

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that are followed."""
        return tuple(self._syncs)

    @property
    def marker_topic(self) -> str:
        """The topic of this peer's own markers; a payload that is none of its probes' is passed over."""
        return self._marker

    @property
    def unheard(self) -> int:
        """How many batches of probes were given up by time since a marker or an answer last came back."""
        return self._prober.unheard

    @property
    def knows_trust(self) -> bool:
        """Whether the broker was asked in this session for the trust document, and answered or was given up on."""
        return self._trust.answered

    @property
    def quiet(self) -> bool:
        """Whether no question is open and no repair waits: for tests and simulations."""
        return self._prober.idle and self._repairer.next_wake_s() == math.inf

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)
        if isinstance(effect, Merged):
            self._check_gap(effect)
        elif isinstance(effect, HeldBack) and effect.reason in ASKS_FOR_TRUST and self._live:
            self._trust.want(self._now_s)

    def _ask_trust(self) -> None:
        self._trust.ask(self._now_s)
        if self.is_keeper:
            self._trust.ask_chain()

    @property
    def _may_prove(self) -> bool:
        """Whether signatures that were put off are due: when nobody waits for readiness any more."""
        if not self.peer.unproven:
            return False
        return self._session is None or all(sync.caught_up for sync in self._syncs.values())

    def _prove_slice(self) -> None:
        if self._may_prove:
            self.peer.prove_some(PROOFS_PER_SLICE)

    def conflicts(self) -> tuple[Conflict, ...]:
        """Return the latest conflicts, the loser included: two deltas that replace the same."""
        return tuple(self.peer.conflicts)

    def export(self, scopes: tuple[str, ...] | None = None) -> tuple[bytes, ...]:
        """Return the signed bytes of *scopes* (all that are held where None): as good as a broker that holds them."""
        return exported(self.peer, scopes_held(self.peer) if scopes is None else scopes)

    def _next_ref(self) -> int:
        return next(self._refs)

    # --- session -----------------------------------------------------------------------------------------------------

    def _on_session_up(self, session: SessionUp) -> None:
        self._session = session
        self._reset_session()
        self._subscribe_live(tuple(self._syncs))
        self._audit_s = self._now_s + self._jittered(self.policy.audit_s)

    def _on_session_down(self) -> None:
        self._session = None
        self._reset_session()
        if self._writing is not None and self._compacting is not None:
            self._writing.on_session_down()
            self._compacting.on_session_down()

    def _reset_session(self) -> None:
        self._live = False
        self._live_refs.clear()
        self._live_due_s = math.inf
        self._prober.reset()
        self._trust.reset()
        self._mender.reset()

    def _jittered(self, seconds: float) -> float:
        return seconds * (0.5 + self._random())

    def _subscribe_live(self, scopes: tuple[str, ...]) -> None:
        filters = [self._marker, self._trust.topic]
        for scope in scopes:
            filters.append(self.topics.live_filter(scope))
            if self.is_keeper:
                filters.append(self.topics.head_filter(scope))
        ref = self._next_ref()
        self._live_refs[ref] = scopes
        self._live_due_s = self._now_s + self.policy.sync_bound_s
        self._emit(Subscribe(ref, tuple(filters), qos=1, replay=False))

    def _subscribe_again(self) -> None:
        """Subscribe once more where the broker never answered: without an answer nothing here would ever begin."""
        self._prober.unheard += UNANSWERED_COUNTS
        unanswered = [scope for scopes in self._live_refs.values() for scope in scopes]
        self._live_refs.clear()
        self._subscribe_live(tuple(dict.fromkeys(unanswered)))

    def _on_subscribed(self, ref: int, *, granted: bool) -> None:
        scopes = self._live_refs.pop(ref, None)
        if scopes is not None:
            self._live_due_s = self._live_due_s if self._live_refs else math.inf
            self._on_live(scopes, granted=granted)
        elif granted:
            self._prober.on_granted(ref)
        else:
            for answer in self._prober.on_refused(ref):
                self._on_answer(answer)

    def _on_live(self, scopes: tuple[str, ...], *, granted: bool) -> None:
        # Refused or not: probing goes on, and names what the broker does not answer.
        self._live = True
        if not granted:
            self._emit(Rejected(self._marker, "subscribe-refused"))
        if self._hearing.note(scopes, self._now_s, granted=granted):
            self._begin_sync(scopes)

    def _begin_sync(self, scopes: Iterable[str] | None = None) -> None:
        self._trust.answered = False
        self._ask_trust()
        for scope in tuple(self._syncs) if scopes is None else scopes:
            self._syncs[scope].restart(self._now_s, self.policy.sync_bound_s)
            self._advance(self._syncs[scope])

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
        is_late = self._now_s >= sync.bound_s
        # All that is lacking is named only where somebody is told of it: answers of a join come by the hundred.
        lacking = tuple(itertools.islice(sync.lacks(self.peer), None if is_late else 1))
        if not lacking and self._trust.answered:
            self._enter(sync, "ready", ())
            self._survey(sync)
        elif is_late:
            self._enter(sync, "joining" if self.peer.trust.is_pin else "degraded", lacking or ("the trust document",))
            sync.retry(self._now_s, self.policy.sync_bound_s)
            self._trust.ask(self._now_s)
            if not self.peer.trust.is_pin:
                self._prober.ask(sync.questions(self.peer))
                self._survey(sync)

    def _enter(self, sync: ScopeSync, state: str, lacking: tuple[str, ...]) -> None:
        if (sync.state, sync.lacking) == (state, lacking) and sync.caught_up:
            return
        sync.state, sync.lacking = state, lacking
        sync.caught_up = state != "joining"
        self._emit(ScopeSynced(sync.scope, state, lacking))  # type: ignore[arg-type]
        if sync.caught_up and self._writing is not None:
            self._writing.resume(sync.scope)
        self._release_pushes(sync)

    def _survey(self, sync: ScopeSync) -> None:
        if not sync.surveyed:
            sync.surveyed = True
            self._prober.ask_later(sync.survey(self.peer, everything=self.is_keeper or sync.audited))
            sync.audited = False

    def _check_gap(self, merged: Merged) -> None:
        stamp, scope = merged.delta.stamp, merged.delta.scope
        gen, seen = self._seen.get(scope, (0, 0))
        if (stamp.gen, stamp.epoch) <= (gen, seen):
            return
        self._seen[scope] = (stamp.gen, stamp.epoch)
        is_gap = merged.way == "live" and (stamp.gen, stamp.epoch) > (gen, seen + 1)
        is_gap = is_gap and (stamp.gen == gen or stamp.epoch > 1)
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
            self._mender.on_probed(topic_text, payload)
            self._on_answer(answer)
            return
        self._merge(topic, topic_text, payload, retain=retain)

    def _is_followed(self, topic: Topic) -> bool:
        if isinstance(topic, TrustTopic):
            return True
        return isinstance(topic, _SCOPED) and topic.scope in self._syncs

    def _merge(self, topic: Topic, text: str, payload: bytes, *, retain: bool) -> None:
        document = self.peer.chain.newest
        # Without Retain As Published only a replay carries the flag: on MQTT 3.1.1 every subscription brings one.
        is_replay = retain and self._session is not None and not self._session.retain_as_published
        standing = self.peer.receive(topic, payload, "probe" if is_replay else "live")
        self._after_merge(document)
        if standing is Standing.CURRENT:
            if retain:
                self._mender.on_shown(text, payload, is_replay=is_replay)
        elif standing is not Standing.ALONE:
            self._mender.suspect(text, payload, self._now_s)
        if self._live and isinstance(topic, (IndexTopic, SegmentTopic)):
            self._advance(self._syncs[topic.scope])

    def _after_merge(self, before: TrustDocument) -> None:
        if self.peer.chain.newest is before:
            return
        if self._writing is not None:
            self._writing.on_trust_changed()
            self._writing.on_voided()
        if self._live:
            self._begin_sync()

    def _on_answer(self, answer: Answer) -> None:
        topic = self.topics.parse(answer.topic)
        if topic is None:
            return
        document = self.peer.trust
        standing = self._standing_of(topic, answer)
        self._after_merge(document)
        if self._trust.concerns(answer.topic):
            for text in self._trust.on_answer(self._now_s):
                self._compare_again(text)
        scope = getattr(topic, "scope", None)
        sync = self._syncs.get(scope) if scope is not None else None
        if sync is not None:
            sync.note_answer(self.peer, topic, answer.topic, known=answer.known)
        self._read_back(topic, answer)
        self._mender.settle(topic, answer, standing, self._now_s)
        if sync is not None and isinstance(topic, SegmentTopic) and answer.known:
            sync.ask_index_again(self.peer, topic)
        for one in [sync] if sync is not None else list(self._syncs.values()):
            if one.rests_on(self.peer, topic):
                self._advance(one)

    def _read_back(self, topic: Topic, answer: Answer) -> None:
        if self._writing is None or self._compacting is None:
            return
        self._writing.on_read_back(answer.topic, answer.payload, self._now_s, known=answer.known)
        if isinstance(topic, FloorTopic):
            self._compacting.on_read_back(topic.scope, answer.payload)

    def _on_acknowledged(self, ref: int, *, ok: bool, reason: str) -> None:
        if self._writing is not None and self._compacting is not None:
            self._writing.on_acknowledged(ref, ok=ok, reason=reason)
            self._compacting.on_acknowledged(ref, ok=ok, reason=reason)

    def _on_disturbed(self) -> None:
        """Something became void by a floor or a false signature: fetch those scopes again."""
        for scope in sorted(self.peer.take_disturbed()):
            if self._writing is not None:
                self._writing.on_voided()
            sync = self._syncs.get(scope)
            if sync is not None and self._live:
                sync.restart(self._now_s, self.policy.sync_bound_s)
                self._advance(sync)

    def _standing_of(self, topic: Topic, answer: Answer) -> Standing:
        if not answer.known:
            return Standing.ALONE
        if answer.payload is None:
            return Standing.ALONE if self.peer.desired(topic) is None else Standing.WORSE
        return self.peer.receive(topic, answer.payload, "probe")

    def _compare_again(self, text: str) -> None:
        """What was held on a topic is void after all: it is to be repaired where something better is held."""
        topic = self.topics.parse(text)
        if topic is not None and self.peer.desired(topic) is not None:
            self._mender.suspect(text, b"", self._now_s)

    # --- pushing -----------------------------------------------------------------------------------------------------

    def _on_push(self, push: Push) -> None:
        if self._writing is None:
            self._emit(Stage(push.ref, "refused", "this peer holds no writer's key", "NotGrantedError"))
            return
        self._waiting.put(push, self._now_s + self.policy.sync_bound_s)
        if push.scope not in self._syncs:
            self._on_follow(push.scope, ())
        self._release_pushes(self._syncs[push.scope])

    def _release_pushes(self, sync: ScopeSync) -> None:
        if not self._live or not sync.caught_up:
            return
        for push in self._waiting.take(sync.scope):
            if self._writing is not None:
                self._writing.push(push, synced=sync.state == "ready")

    def _refuse_late_pushes(self, now_s: float) -> None:
        for push in self._waiting.take_late(now_s):
            sync = self._syncs[push.scope]
            lacking = "; ".join(sync.lacking) or ("no trust document" if self.peer.trust.is_pin else "no connection")
            self._emit(Stage(push.ref, "refused", f"{push.scope} could not be caught up: {lacking}", "NotSyncedError"))

    def _on_compact(self, compact: Compact) -> None:
        if self._compacting is None:
            self._emit(Stage(compact.ref, "refused", "this peer holds no writer's key", "NotGrantedError"))
            return
        self._compacting.compact(compact, synced=self._is_synced(compact.scope))

    def _is_synced(self, scope: str) -> bool:
        sync = self._syncs.get(scope)
        return self._live and sync is not None and sync.caught_up and sync.state == "ready"

    def _compact_if_due(self, scope: str) -> None:
        """Sign a floor by ourselves where tombstones abound, if that lets most of them go."""
        above = self.policy.compact_above
        if not above or self._compacting is None or not self._compacting.may(scope) or not self._is_synced(scope):
            return
        tombstones = sum(1 for one in self.peer.registers.winners(scope).values() if one.assignment.unset)
        found = plan(self.peer.registers, scope) if tombstones > above else None
        if found is not None and len(found.gone) * 2 >= tombstones:
            self._compacting.publish(scope, found, None)

    # --- files -------------------------------------------------------------------------------------------------------

    def _on_offered(self, payloads: tuple[bytes, ...]) -> None:
        for payload in payloads:
            document = self.peer.trust
            topic = self._loading.offer(payload)
            self._after_merge(document)
            if topic is not None and self._live:
                self._prober.ask([self.topics.format(topic)])

    # --- time --------------------------------------------------------------------------------------------------------

    def _on_time(self, now_s: float) -> None:  # noqa: C901 - a table of what is due
        if self._waiting:
            self._refuse_late_pushes(now_s)
        if self._session is None:
            return
        if self._live_due_s <= now_s:
            self._subscribe_again()
        if self._writing is not None:
            self._writing.read_back_again(now_s)
        if self._hearing.due_s <= now_s:
            self._subscribe_live(self._hearing.take())
        if self._trust.due_s <= now_s:
            self._trust.ask(now_s)
        for answer in self._prober.on_wake(now_s):
            self._on_answer(answer)
        for sync in self._syncs.values():
            if sync.bound_s <= now_s and self._is_unfinished(sync):
                self._advance(sync)
        self._mender.probe_suspicions(now_s)
        due = [scope for scope, due_s in self._reread_s.items() if due_s <= now_s] if self._reread_s else ()
        for scope in due:
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
        """Compare with the broker: trust, the indexes of every scope, and all topics of one scope, in turn.

        The only detector there is on MQTT 3.1.1.
        """
        self._audit_s = now_s + self._jittered(self.policy.audit_s)
        self._mender.forget_quiet(now_s)
        if not self._live:
            return
        self._ask_trust()
        turn = next(self._turns)
        for n, sync in enumerate(self._syncs.values()):
            self._compact_if_due(sync.scope)
            sync.audited = n == turn % len(self._syncs)
            sync.restart(now_s, self.policy.sync_bound_s, survey=sync.audited)
            self._advance(sync)
