"""The replicator: one peer's whole protocol behind ``handle(event, now_s) -> effects``.

It decides; the agent (or the simulator) carries out, in order. One instance serves one process: all scopes of all its
services, over one session at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec

from tars_settings.core.names import is_kid
from tars_settings.core.session import (
    Acknowledged,
    Publish,
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
from tars_settings.core.wire import short_hash
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
    Repaired,
    RepairFight,
    ScopeSynced,
    Stage,
    Wake,
)
from tars_settings.gossip.loading import Loading, exported
from tars_settings.gossip.peer import Peer
from tars_settings.gossip.probe import Answer, Prober
from tars_settings.gossip.repair import Repairer, RepairPolicy
from tars_settings.gossip.sync import ScopeSync
from tars_settings.gossip.waiting import Standing
from tars_settings.gossip.writing import Writing
from tars_settings.trust.keys import SigningKey

REREAD_WITHIN_S: Final = 30.0
TRUST_ASK_PAUSE_S: Final = 1.0
KEEPERS_PER_FLEET: Final = 8
PROOFS_PER_SLICE: Final = 200
"""Signatures checked in one go behind readiness: about 10 ms."""
MAX_FLAGGED: Final = 16
ASKS_FOR_TRUST: Final = frozenset({"trust-behind", "chain-missing"})


class Policy(msgspec.Struct, frozen=True):
    """What an operator may choose; seconds.

    ``repair``: ``all`` peers, only ``keepers``, or ``off``. A *keeper* follows heads live, and compares everything that
    it holds with the broker. With ``all``, each peer that may be one (``keeper``) is one with chance 8/``fleet_size``,
    and whoever holds a writer's key is one in any case. ``compact_above``: so many tombstones in a scope make a writer
    with a grant of all of it sign a floor; 0 for never.
    """

    repair: Literal["all", "keepers", "off"] = "all"
    keeper: bool = True
    fleet_size: int = 1
    compact_above: int = 256
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
        self._trust_topic = topics.format(TrustTopic())
        live = (self._marker, self._trust_topic)
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
        self.is_keeper = signer is not None or self._is_chosen()
        self._syncs: dict[str, ScopeSync] = {}
        self._waiting: list[tuple[Push, float]] = []
        self._session: SessionUp | None = None
        self._live_refs: dict[int, tuple[str, ...]] = {}
        self._live = False
        self._trust_asked = False
        self._steps_asked: set[str] = set()
        self._held_upto = 0
        self._steps_failed = False
        self._trust_ask_s = math.inf
        self._trust_asked_s = -math.inf
        self._flag_proven = False
        self._after_index: dict[str, set[str]] = {}
        self._reread_s: dict[str, float] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._flagged: dict[str, str] = {}
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
            return min((due_s for _, due_s in self._waiting), default=math.inf)
        syncing = (sync.bound_s for sync in self._syncs.values() if self._live and self._is_unfinished(sync))
        return min(
            self._prober.next_wake_s(),
            self._repairer.next_wake_s() if self._may_repair else math.inf,
            self._audit_s,
            self._trust_ask_s,
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
    def knows_trust(self) -> bool:
        """Whether the broker was asked in this session for the trust document, and answered or was given up on."""
        return self._trust_asked

    @property
    def quiet(self) -> bool:
        """Whether no question is open and no repair waits: for tests and simulations."""
        return self._prober.idle and self._repairer.next_wake_s() == math.inf

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)
        if isinstance(effect, Merged):
            self._check_gap(effect)
        elif isinstance(effect, HeldBack) and effect.reason in ASKS_FOR_TRUST:
            self._want_trust()

    def _want_trust(self) -> None:
        """Something names a trust document that is not here: ask for it, once a second at most."""
        if self._live:
            self._trust_ask_s = min(self._trust_ask_s, max(self._now_s, self._trust_asked_s + TRUST_ASK_PAUSE_S))

    def _ask_trust(self) -> None:
        self._trust_ask_s = math.inf
        self._trust_asked_s = self._now_s
        self._steps_asked.clear()
        # What is held later may name a document that is published after this question.
        self._held_upto = self.peer.held_so_far
        self._prober.ask([self._trust_topic], first=True)

    def _ask_chain(self) -> None:
        """Keepers see to it that every step of the chain is there, for those who can't follow without it."""
        if self.is_keeper:
            self._prober.ask([self.topics.format(TrustTopic(version)) for version in self.peer.chain.versions()])

    def _is_chosen(self) -> bool:
        if self.policy.repair != "all":
            return self.policy.keeper
        return self.policy.keeper and self._random() * self.policy.fleet_size < KEEPERS_PER_FLEET

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
        return exported(self.peer, self.peer.registers.scopes() if scopes is None else scopes)

    def _next_ref(self) -> int:
        return next(self._refs)

    @property
    def _may_repair(self) -> bool:
        return self.policy.repair == "all" or (self.policy.repair == "keepers" and self.is_keeper)

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
        self._trust_asked = False
        self._steps_failed = False
        self._flag_proven = False
        self._flagged.clear()
        self._trust_ask_s = math.inf
        self._live_refs.clear()
        self._after_index.clear()
        self._prober.reset()
        self._repairer.reset()

    def _jittered(self, seconds: float) -> float:
        return seconds * (0.5 + self._random())

    def _subscribe_live(self, scopes: tuple[str, ...]) -> None:
        filters = [self._marker, self._trust_topic]
        for scope in scopes:
            filters.append(self.topics.live_filter(scope))
            if self.is_keeper:
                filters.append(self.topics.head_filter(scope))
        ref = self._next_ref()
        self._live_refs[ref] = scopes
        self._emit(Subscribe(ref, tuple(filters), qos=1, replay=False))

    def _on_subscribed(self, ref: int, *, granted: bool) -> None:
        scopes = self._live_refs.pop(ref, None)
        if scopes is not None:
            # Refused or not: probing goes on, and names what the broker does not answer.
            self._live = True
            if not granted:
                self._emit(Rejected(self._marker, "subscribe-refused"))
            self._begin_sync(scopes)
        elif not granted:
            for answer in self._prober.on_refused(ref):
                self._on_answer(answer)

    def _begin_sync(self, scopes: Iterable[str] | None = None) -> None:
        self._trust_asked = False
        self._ask_trust()
        self._ask_chain()
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
        lacking = tuple(sync.lacks(self.peer))
        if not lacking and self._trust_asked:
            self._enter(sync, "ready", ())
            self._survey(sync)
        elif self._now_s >= sync.bound_s:
            self._enter(sync, "joining" if self.peer.trust.is_pin else "degraded", lacking or ("the trust document",))
            sync.retry(self._now_s, self.policy.sync_bound_s)
            self._ask_trust()
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
            self._prober.ask(sync.survey(self.peer, everything=self.is_keeper or sync.audited))
            sync.audited = False

    def _check_gap(self, merged: Merged) -> None:
        stamp, scope = merged.delta.stamp, merged.delta.scope
        gen, seen = self._seen.get(scope, (0, 0))
        self._seen[scope] = max((gen, seen), (stamp.gen, stamp.epoch))
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
            self._flag_proven = self._flag_proven or self._is_confirmation(topic_text, payload)
            self._on_answer(answer)
            return
        self._merge(topic, topic_text, payload, retain=retain)

    def _is_followed(self, topic: Topic) -> bool:
        if isinstance(topic, TrustTopic):
            return True
        if isinstance(topic, KeyTopic | IndexTopic | SegmentTopic | FloorTopic | FloorSegmentTopic):
            return topic.scope in self._syncs
        return False

    def _is_confirmation(self, text: str, payload: bytes) -> bool:
        """Whether a probe shows what a live message said before with its retain flag: then that is to be believed."""
        return self._flagged.pop(text, None) == short_hash(payload)

    def _merge(self, topic: Topic, text: str, payload: bytes, *, retain: bool) -> None:
        version = self.peer.trust.order
        # Without Retain As Published only a replay carries the flag: on MQTT 3.1.1 every subscription brings one.
        is_replay = retain and self._session is not None and not self._session.retain_as_published
        standing = self.peer.receive(topic, payload, "probe" if is_replay else "live")
        self._after_merge(version)
        if standing in (Standing.WORSE, Standing.COMPACTED):
            self._suspect(text, payload)
        elif standing is Standing.CURRENT and retain:
            self._on_shown(text, payload, is_replay=is_replay)
        if self._live and isinstance(topic, IndexTopic | SegmentTopic):
            self._advance(self._syncs[topic.scope])

    def _on_shown(self, text: str, payload: bytes, *, is_replay: bool) -> None:
        """The broker says that it retains the winner: no need to repair. Live, that is believed once a probe agreed."""
        if is_replay or self._flag_proven:
            self._repairer.settle(text)
        elif self._repairer.is_open(text) and len(self._flagged) < MAX_FLAGGED:
            self._flagged[text] = short_hash(payload)
            self._prober.ask([text])

    def _after_merge(self, version: tuple[int, bytes]) -> None:
        if self.peer.trust.order == version:
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
        version = self.peer.trust.order
        standing = self._standing_of(topic, answer)
        self._after_merge(version)
        if answer.topic == self._trust_topic or answer.topic in self._steps_asked:
            self._on_trust_answer()
        scope = getattr(topic, "scope", None)
        sync = self._syncs.get(scope) if scope is not None else None
        if sync is not None:
            sync.answered[answer.topic] = answer.known
        self._read_back(topic, answer)
        self._settle(topic, answer, standing)
        for late in self._after_index.pop(answer.topic, ()):
            self._prober.ask([late])
        if sync is not None and isinstance(topic, SegmentTopic) and answer.known:
            sync.ask_index_again(self.peer, topic)
        for one in [sync] if sync is not None else list(self._syncs.values()):
            if one.rests_on(topic):
                self._advance(one)

    def _read_back(self, topic: Topic, answer: Answer) -> None:
        if self._writing is None or self._compacting is None:
            return
        self._writing.on_read_back(answer.topic, answer.payload, known=answer.known)
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

    def _on_trust_answer(self) -> None:
        """Ask for the steps that lead to a document that can't be followed yet; without them it is void."""
        steps = {self.topics.format(TrustTopic(n)) for n in self.peer.wanted_versions()} - self._steps_asked
        if steps:
            self._steps_asked |= steps
            self._prober.ask(sorted(steps), first=True)
        if self._prober.asked(self._trust_topic) or any(self._prober.asked(step) for step in self._steps_asked):
            return
        self._trust_asked = True
        for text in self.peer.release_held(chain_too=self._gave_up_steps(), upto=self._held_upto):
            topic = self.topics.parse(text)
            if topic is not None and self.peer.desired(topic) is not None:
                self._suspect(text, b"")

    def _gave_up_steps(self) -> bool:
        """Return whether missing steps of the chain were asked for twice: who has them may be about to publish."""
        if not self.peer.lacks_steps or self._steps_failed:
            self._steps_failed = False
            return True
        self._steps_failed = True
        self._trust_ask_s = min(self._trust_ask_s, self._now_s + REREAD_WITHIN_S * (0.5 + self._random() / 2))
        return False

    # --- repair ------------------------------------------------------------------------------------------------------

    def _suspect(self, text: str, found: bytes | None) -> None:
        if self._may_repair and self._session is not None:
            self._repairer.suspect(text, found or None, self._now_s)

    def _settle(self, topic: Topic, answer: Answer, standing: Standing) -> None:
        """Decide on a topic that was probed: fine, to be repaired now, or to be suspected."""
        if standing not in (Standing.WORSE, Standing.COMPACTED):
            self._repairer.settle(answer.topic)
        elif self._repairer.is_probing(answer.topic) or self._is_urgent(topic, answer):
            self._repair(topic, answer, standing)
        else:
            self._suspect(answer.topic, answer.payload)

    def _is_urgent(self, topic: Topic, answer: Answer) -> bool:
        """Whether to repair without delay: a writer's deltas mean nothing on a broker without a trust document."""
        return isinstance(topic, TrustTopic) and answer.payload is None and self._writing is not None

    def _repair(self, topic: Topic, answer: Answer, standing: Standing) -> None:
        # An empty payload clears a topic: only ever that of a tombstone which a floor made void.
        payload = b"" if standing is Standing.COMPACTED else self.peer.desired(topic)
        if payload is None:
            self._repairer.settle(answer.topic)
            return
        round_ = self._repairer.allow(answer.topic, self._now_s)
        if not round_:
            return
        self._emit(Publish(self._next_ref(), answer.topic, payload))
        found: Literal["nothing", "other"] = "nothing" if answer.payload is None else "other"
        self._emit(Repaired(answer.topic, found if payload else "compacted", round_))
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
            version = self.peer.trust.order
            topic = self._loading.offer(payload)
            self._after_merge(version)
            if topic is not None and self._live:
                self._prober.ask([self.topics.format(topic)])

    # --- time --------------------------------------------------------------------------------------------------------

    def _on_time(self, now_s: float) -> None:
        if self._waiting:
            self._refuse_late_pushes(now_s)
        if self._session is None:
            return
        if self._trust_ask_s <= now_s:
            self._ask_trust()
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
        """Compare with the broker: trust, the indexes of every scope, and all topics of one scope, in turn.

        The only detector there is on MQTT 3.1.1.
        """
        self._audit_s = now_s + self._jittered(self.policy.audit_s)
        self._repairer.forget_quiet(now_s)
        if not self._live:
            return
        self._ask_trust()
        self._ask_chain()
        turn = next(self._turns)
        for n, sync in enumerate(self._syncs.values()):
            self._compact_if_due(sync.scope)
            sync.audited = n == turn % len(self._syncs)
            sync.restart(now_s, self.policy.sync_bound_s, survey=sync.audited)
            self._advance(sync)
