"""One joined Settings class: its newest snapshot, what it refused, and the report on it."""

from __future__ import annotations

import logging
import os
import platform
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, Literal, TypeVar

import msgspec
from pydantic_settings import BaseSettings

from tars_settings._version import __version__
from tars_settings.agent import notices as told
from tars_settings.agent.answering import Answering
from tars_settings.agent.keep import LOOPING, LastGood
from tars_settings.agent.loop import Agent
from tars_settings.agent.recorded import tell_history
from tars_settings.agent.trials import Trials
from tars_settings.agent.trying import tell_fit
from tars_settings.core.delta import Ack, Delta
from tars_settings.core.names import scopes_of
from tars_settings.core.presence import (
    MORE_REFUSED,
    Presence,
    RefusalReport,
    ScopeReport,
    State,
    TrialReport,
    encode_presence,
    first_of,
    is_asked,
)
from tars_settings.core.register import FleetView
from tars_settings.core.session import Received, SessionDown, SessionUp
from tars_settings.core.topics import PresenceTopic, SchemaTopic
from tars_settings.gossip.effects import Follow, Merged, Notice, ScopeSynced, TrustChanged
from tars_settings.schema import keys_of
from tars_settings.settings.live import Built, SnapshotBuilder
from tars_settings.sources.settle import Refused

T = TypeVar("T", bound=BaseSettings)

_log: Final = logging.getLogger("tars_settings.agent")

MAX_ACKED: Final = 32
MAX_UNKNOWN: Final = 64
"""Keys that a report names of those that the model does not have: a scope of ten thousand would outgrow the packet."""
REGULAR_S: Final = 600.0
REFUSAL_S: Final = 1.0
LKG_WITHIN_S: Final = 0.05
SCHEMA_WAIT_S: Final = 1.0


class Status(msgspec.Struct, frozen=True):
    """What a worker says of itself.

    ``lacking`` names what keeps it from ready. ``refused`` are deltas that the model refused; ``shadowed`` maps keys
    that the fleet sets to the source that wins instead; ``unknown`` are fleet keys that the model does not have;
    ``trials`` are the deltas on trial, and for how long.
    ``unstored`` says why the replica is not written, empty where it is; ``reason`` why there is no connection.
    ``held_back`` is not empty where the crash-loop guard keeps this run on the values before the newest, and says so.
    """

    state: State
    connected: bool
    scopes: dict[str, ScopeReport]
    lacking: tuple[str, ...] = ()
    refused: tuple[RefusalReport, ...] = ()
    shadowed: dict[str, str] = {}
    unknown: tuple[str, ...] = ()
    trials: tuple[TrialReport, ...] = ()
    unstored: str = ""
    reason: str = ""
    held_back: str = ""
    counters: dict[str, int] = {}


class Follower(Generic[T]):
    """Follows the scopes of one worker and keeps its snapshot. Everything here runs in the agent's thread.

    *on_swap* is called with each new snapshot and its epoch; *on_state* when the status word changes.
    """

    def __init__(  # noqa: PLR0913 - the parts that a worker is made of, named
        self,
        agent: Agent,
        builder: SnapshotBuilder[T],
        *,
        service: str,
        instance: str,
        keys: tuple[str, ...],
        schema: tuple[str, bytes],
        lkg: LastGood | None,
        trials: Trials,
        session: str,
    ) -> None:
        self.service = service
        self.instance = instance
        self.scopes = scopes_of(service, instance)
        self.on_swap: Callable[[T, int], None] = lambda snapshot, epoch: None
        self.on_state: Callable[[State], None] = lambda state: None
        self._agent = agent
        self._builder = builder
        self._keys = keys
        self._schema = schema
        self._lkg = lkg
        self._trials = trials
        self._trial_s = float("inf")
        self._session = session
        self._acked: OrderedDict[str, Literal["applied", "refused"]] = OrderedDict()
        self._lacking: dict[str, tuple[str, ...]] = {}
        self._was_ready = False
        self._late = False
        self._report_s = float("inf")
        self._reported_s = float("-inf")
        self._lkg_waits = False
        self._on_probation: frozenset[bytes] | None = None
        self._schema_seen = False
        self._state: State = "joining"
        self._held_back = ""
        self.answering = Answering(
            agent,
            service,
            instance,
            self.scopes,
            history=lambda body, wanted: tell_history(agent, body, wanted),
            propose=lambda body: tell_fit(builder, self._view(), body, [one.delta for one in self.built.refused]),
        )
        self.built: Built[T] = self._build()
        # Before anything of the user's runs on them: a worker that they end at once must not try them for ever.
        self._trials.note()
        self._guard_against_crash_loop()

    def _guard_against_crash_loop(self) -> None:
        kept = None if self._lkg is None else self._lkg.begin(self.built.used, self._agent.replicator.peer.trust)
        if kept is None:
            return
        good = {delta.stamp.digest for delta in kept.view.deltas()}
        suspects = {delta.stamp.digest for delta in self.built.used} - good
        self._held_back = LOOPING
        self._builder.hold_back(suspects, LOOPING, kept.view)
        self.built = self._build()

    # --- status ------------------------------------------------------------------------------------------------------

    @property
    def cls(self) -> type[T]:
        """The class of its snapshots."""
        return self._builder.cls

    @property
    def current(self) -> T:
        """The newest snapshot."""
        return self.built.snapshot

    def state(self) -> State:
        """Return the status word.

        ``joining`` until the scopes were caught up once, ``ready`` while they are, ``degraded`` when something that is
        mentioned can't be had, ``stale`` when the connection is lost after that, ``offline`` when there never was one.
        """
        if not self._agent.connected:
            return "stale" if self._was_ready else ("offline" if self._late else "joining")
        states = {self._agent.replicator.state_of(scope) for scope in self.scopes}
        if states == {"ready"}:
            return "ready"
        if "joining" in states:
            return "stale" if self._was_ready else "joining"
        return "degraded"

    @property
    def told(self) -> State:
        """The status word as of the last whole burst: snapshot and what is lacking are at least as new as it.

        Another thread that asked the replicator itself would hear *ready* before the values are swapped in.
        """
        return self._state

    def status(self) -> Status:
        """Return what this worker says of itself now; may be called from any thread."""
        agent = self._agent
        return Status(
            state=self._state,
            connected=agent.connected,
            scopes=self._scope_reports(),
            lacking=tuple(dict.fromkeys(one for lacking in self._lacking.values() for one in lacking)),
            refused=self._refusals(),
            shadowed=dict(self.built.shadowed),
            unknown=self.built.unknown,
            trials=self._trial_reports(),
            unstored=agent.unstored,
            reason=agent.disconnect_reason,
            held_back=self._held_back,
            counters=dict(agent.counters),
        )

    def _scope_reports(self) -> dict[str, ScopeReport]:
        registers = self._agent.replicator.peer.registers
        return {scope: ScopeReport(*registers.highest(scope), registers.digest(scope)) for scope in self.scopes}

    def _refusals(self) -> tuple[RefusalReport, ...]:
        return tuple(map(_refusal, self.built.refused))

    def _listed(self, reports: Sequence[RefusalReport]) -> tuple[RefusalReport, ...]:
        """Return those that a report has room for: what it acknowledges, for whoever pushed it waits; the newest.

        *reports* are of all that is refused, in its order.
        """
        stamped = zip(reports, (one.delta.stamp for one in self.built.refused), strict=True)
        ranked = sorted(stamped, key=lambda pair: (pair[0].digest in self._acked, pair[1]), reverse=True)
        listed = set(first_of(report for report, _ in ranked))
        return tuple(one for one in reports if one in listed)

    def _trial_reports(self) -> tuple[TrialReport, ...]:
        registers = self._agent.replicator.peer.registers
        return self._trials.reports(one for scope in self.scopes for one in registers.winners(scope).values())

    # --- as a listener -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Follow the scopes; call it in the agent's thread, or before it starts."""
        self._agent.add_listener(self)
        self._set_will()
        for scope in self.scopes:
            self._agent.feed(Follow(scope, self._keys))
        self._agent.later(self._agent.replicator.policy.sync_bound_s, self._on_late)
        self._lkg_soon()
        self._watch_trials()

    def take_part(self) -> None:
        """Begin in a session that others began."""
        self.begin()
        if self._agent.connected:
            self.report()
        self._tell_state()

    def _on_late(self) -> None:
        self._late = True
        self._tell_state()

    def on_session(self, event: SessionUp | SessionDown) -> None:
        """Report when a session begins."""
        self._tell_state()
        if isinstance(event, SessionUp):
            self._schema_seen = False
            self.report()

    def on_message(self, received: Received) -> None:
        """Answer a question; note that the schema of this class is there already."""
        if self.answering.take(received):
            return
        topic = self._agent.replicator.topics.parse(received.topic)
        if topic == SchemaTopic(self.service, self._schema[0]) and received.payload == self._schema[1]:
            self._schema_seen = True

    def on_burst(self, notices: Sequence[Notice]) -> None:
        """Build a new snapshot where a burst changed what these scopes say."""
        merged = [one for one in notices if isinstance(one, Merged) and one.delta.scope in self.scopes]
        others = [one for one in notices if not isinstance(one, Merged)]  # seldom any
        for one in merged:
            # A worker in step that has not seen it sees it as it is pushed; on any other way it may be old.
            if one.way == "live" and self._state == "ready":
                self._trials.arrived(one.delta)
        if "applied" in [one.fate for one in merged] or any(isinstance(one, TrustChanged) for one in others):
            self.refresh()
        self._acknowledge([one.delta for one in merged if one.fate != "duplicate"])
        for notice in others:
            if isinstance(notice, ScopeSynced) and notice.scope in self.scopes:
                self._lacking[notice.scope] = notice.lacking
        self._tell_state()

    def refresh(self) -> None:
        """Validate what the fleet says now, and swap."""
        held = self.built
        built = self._build()
        self.built = built
        for refused in built.refused:
            if all(refused.delta is not one.delta for one in held.refused):
                _log.warning(
                    "%s refused epoch %d of %s: %s",
                    self.service,
                    refused.delta.stamp.epoch,
                    refused.delta.scope,
                    refused.message,
                )
                self._tell_refused(refused)
        if built.snapshot is not held.snapshot:
            highest = map(self._agent.replicator.peer.registers.highest, self.scopes)
            epoch = max([epoch for _, epoch in highest])
            self.on_swap(built.snapshot, epoch)
        self._lkg_soon()
        self._watch_trials()

    def _tell_refused(self, refused: Refused) -> None:
        delta = refused.delta
        self._agent.board.offer(
            told.Refused(
                self.service,
                self.instance,
                delta.scope,
                delta.stamp.epoch,
                delta.stamp.digest.hex(),
                refused.keys,
                refused.message,
            )
        )

    def _build(self) -> Built[T]:
        return self._builder.build(self._view())

    def _view(self) -> FleetView:
        return FleetView.of(self._agent.replicator.peer.registers, self.scopes, self._trials.is_undone)

    def _tell_state(self) -> None:
        state = self.state()
        if state == self._state:
            return
        self._state = state
        if state in ("ready", "degraded"):
            self._was_ready = True
            self._offer_schema()
        _log.info("%s@%s is %s", self.service, self.instance, state)
        self.on_state(state)
        self.report_within(0.0)

    # --- trials ------------------------------------------------------------------------------------------------------

    def _watch_trials(self) -> None:
        """Come back when something of a trial is due; several wishes make one look."""
        due_s = self._trials.next_s()
        if due_s == float("inf"):
            return
        now_s = self._agent.clock.now_s()
        due_s = max(due_s, now_s + LKG_WITHIN_S)
        if due_s < self._trial_s:
            self._trial_s = due_s
            self._agent.later(due_s - now_s, lambda: self._look_at_trials(due_s))

    def _look_at_trials(self, due_s: float) -> None:
        if self._trial_s != due_s:
            return
        self._trial_s = float("inf")
        ended = self._trials.tick()
        if ended:
            for delta in ended:
                _log.info("%s: the trial of %s epoch %d is over", self.service, delta.scope, delta.stamp.epoch)
            self.refresh()
            self._tell_ended(ended)
        self._trials.note()
        self._watch_trials()

    def _tell_ended(self, ended: Sequence[Delta]) -> None:
        for delta in ended:
            if delta.ack is not None:
                self._report_if_asked(delta, delta.ack)

    # --- acknowledging -----------------------------------------------------------------------------------------------

    def _acknowledge(self, deltas: Sequence[Delta]) -> None:
        refused = {one.delta.stamp.digest for one in self.built.refused}
        for delta in deltas[-MAX_ACKED:]:
            self._acked[delta.stamp.digest.hex()] = "refused" if delta.stamp.digest in refused else "applied"
        while len(self._acked) > MAX_ACKED:
            self._acked.popitem(last=False)
        for delta in deltas:
            if delta.stamp.digest in refused:
                self.report_within(max(0.0, self._reported_s + REFUSAL_S - self._agent.clock.now_s()))
            elif delta.ack is not None:
                self._report_if_asked(delta, delta.ack)

    def _report_if_asked(self, delta: Delta, ack: Ack) -> None:
        if is_asked(delta.stamp.digest, self.service, self.instance, ack.of):
            self.report_within(ack.within_s * self._agent.clock.random())

    # --- presence ----------------------------------------------------------------------------------------------------

    @property
    def _presence_topic(self) -> str:
        return self._agent.replicator.topics.format(PresenceTopic(self.service, self.instance))

    def presence(self, state: State | None = None) -> Presence:
        """Return the report on this worker."""
        status = self.status()
        listed = self._listed(status.refused)
        more = (
            _more(len(status.refused) - len(listed), MORE_REFUSED),
            _more(len(status.unknown) - MAX_UNKNOWN, "more keys that the model does not have"),
        )
        return Presence(
            v=1,
            service=self.service,
            instance=self.instance,
            state=state or status.state,
            scopes=status.scopes,
            acked=dict(self._acked),
            refused=listed,
            shadowed=dict(status.shadowed),
            unknown=status.unknown[:MAX_UNKNOWN],
            trials=status.trials,
            lacking=status.lacking,
            schema=self._schema[0],
            release=__version__,
            python=platform.python_version(),
            host=socket.gethostname(),
            pid=os.getpid(),
            at=self._agent.clock.wall().isoformat(timespec="milliseconds"),
            counters=status.counters,
            notes=tuple(note for note in (status.unstored, status.held_back, *more) if note),
            ext={"session": self._session},
        )

    def _set_will(self) -> None:
        # One connection has one will, the first service's: others of this process name the same session, and are as
        # dead as it says.
        self._agent.set_will(self._presence_topic, encode_presence(self.presence("offline")))

    def report_within(self, delay_s: float) -> None:
        """Publish a report after *delay_s* at the latest; several wishes make one report."""
        due_s = self._agent.clock.now_s() + delay_s
        if due_s >= self._report_s:
            return
        self._report_s = due_s
        self._agent.later(delay_s, lambda: self._report_if_due(due_s))

    def _report_if_due(self, due_s: float) -> None:
        if self._report_s == due_s:
            self.report()

    def report(self, state: State | None = None) -> None:
        """Publish a report now, and the next regular one in about ten minutes; what it tells of is stored before."""
        self._agent.store()
        self._report_s = float("inf")
        self._reported_s = self._agent.clock.now_s()
        self._agent.publish(self._presence_topic, encode_presence(self.presence(state)))
        self.report_within(REGULAR_S * (0.5 + self._agent.clock.random()))

    # --- schema and last known good ----------------------------------------------------------------------------------

    def _offer_schema(self) -> None:
        """Publish the schema of this class unless somebody with the same one did."""
        if self._schema_seen or not self._schema[1]:
            return
        topic = self._agent.replicator.topics.format(SchemaTopic(self.service, self._schema[0]))
        self._agent.subscribe((topic,))

        def publish() -> None:
            if not self._schema_seen:
                self._agent.publish(topic, self._schema[1])

        self._agent.later(SCHEMA_WAIT_S * (0.5 + self._agent.clock.random()), publish)

    def _lkg_soon(self) -> None:
        if self._lkg is None:
            return
        if not self._lkg_waits:
            self._lkg_waits = True
            self._agent.later(LKG_WITHIN_S, self._write_lkg)

    def _write_lkg(self, *, proven: bool = False) -> None:
        self._lkg_waits = False
        if self._lkg is None:
            return
        used = self.built.used
        self._begin_probation(used)
        self._lkg.write(used, proven=proven)

    def _begin_probation(self, deltas: Iterable[Delta]) -> None:
        # Once for a burst of changes: gathering what a snapshot rests on costs more than a change.
        used = frozenset(
            delta.stamp.digest + (b"on trial" if self._trials.is_running(delta) else b"") for delta in deltas
        )
        if self._lkg is not None and used != self._on_probation:
            self._on_probation = used
            self._agent.later(self._lkg.probation_s, lambda: self._end_probation(used))

    def _end_probation(self, used: frozenset[bytes]) -> None:
        if used == self._on_probation:
            self.mark_good()

    def mark_good(self) -> None:
        """Keep the values in use as proven: probation is over, or the worker says that they are good.

        What is on trial proves nothing before it is confirmed.
        """
        self._write_lkg(proven=not any(self._trials.is_running(delta) for delta in self.built.used))

    def end(self, *, crashed: bool = False) -> None:
        """Say goodbye: the report that this worker is offline. *crashed* leaves the mark of a bad end."""
        if self._lkg_waits:
            self._write_lkg()
        if self._lkg is not None:
            self._lkg.close(crashed=crashed)  # here, since its connection belongs to this thread
            self._lkg = None
        self._trials.note()
        self._trial_s = float("-inf")
        self.report("offline")
        self._report_s = float("-inf")


def _refusal(refused: Refused) -> RefusalReport:
    delta = refused.delta
    return RefusalReport(delta.scope, delta.stamp.epoch, delta.stamp.digest.hex(), refused.keys, refused.message[:500])


def _more(left: int, what: str) -> str:
    return f"{left} {what}" if left > 0 else ""


def keys_of_model(schema: bytes) -> tuple[str, ...]:
    """Return the dotted keys that a class can be told: its fields, and those of nested models."""
    return tuple(keys_of(schema))
