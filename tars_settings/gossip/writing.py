"""Pushing: sign once the scope was caught up, commit, publish, read back.

The high-water mark and the outbox row are committed before anything is published; the same bytes are sent again after a
crash, unless superseded. Results in order of strength: accepted (acknowledged), retained (read back). MQTT 3.1.1 gives
no error when an access list drops a publish, so only reading back proves anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec

from tars_settings.core.delta import Assignment, Delta, DeltaBody, Trial, check_fanout, parse_delta, read_delta_body
from tars_settings.core.draft import drafted
from tars_settings.core.records import MarkRow, OutboxRow
from tars_settings.core.session import Publish
from tars_settings.core.stamp import MAX_EPOCH, MAX_EPOCH_JUMP
from tars_settings.core.topics import IndexTopic, KeyTopic, SegmentTopic
from tars_settings.core.trial import trial_of
from tars_settings.core.wire import encode
from tars_settings.errors import (
    ConflictError,
    EpochExhaustedError,
    IllegalNameError,
    MalformedError,
    NotCosignedError,
    NotGrantedError,
    NotSyncedError,
    RejectedError,
    TarsSettingsError,
)
from tars_settings.gossip.effects import Effect, Persist, Push, Stage
from tars_settings.gossip.log import build, is_behind
from tars_settings.gossip.peer import Peer
from tars_settings.trust.cosign import in_words, lacking
from tars_settings.trust.document import Writer
from tars_settings.trust.keys import SigningKey
from tars_settings.trust.validity import Verdict, read_delta

READ_BACK_AGAIN_S: Final = (0.1, 0.4, 1.6)
"""The pauses before what was not found is read back again: a cluster acknowledges before every member shows it."""


class _Flight(msgspec.Struct):
    """A delta on its way: which publishes are not acknowledged, which topics were not read back."""

    delta: Delta
    ref: int | None
    unacknowledged: set[int]
    unread: set[str]
    refused: str = ""
    accepted: bool = False
    cut: bool = False
    tries: int = 0
    not_found: set[str] = msgspec.field(default_factory=set)
    due_s: float = math.inf


class Writing:
    """The writing half of a peer that holds a key. *ask* probes topics; *next_ref* numbers publishes."""

    def __init__(
        self,
        peer: Peer,
        signer: SigningKey,
        emit: Callable[[Effect], None],
        ask: Callable[[tuple[str, ...]], None],
        next_ref: Callable[[], int],
    ) -> None:
        self._peer = peer
        self._signer = signer
        self._emit = emit
        self._ask = ask
        self._next_ref = next_ref
        self.marks: dict[str, tuple[int, int]] = {}
        self._flights: dict[bytes, _Flight] = {}
        self._outbox: dict[bytes, Delta] = {}
        self._unjudged: list[OutboxRow] = []

    # --- signing -----------------------------------------------------------------------------------------------------

    def push(self, push: Push, *, synced: bool) -> None:
        """Sign, commit and publish a push, or refuse it with a Stage notice; a refused one was not published."""
        try:
            if push.draft:
                self._emit(self._drafted(push, synced=synced))
                return
            delta = self._signed(push)
        except TarsSettingsError as error:
            self._emit(Stage(push.ref, "refused", str(error), type(error).__name__))
            return
        self._outbox[delta.stamp.digest] = delta
        mark = (delta.stamp.gen, delta.stamp.epoch)
        self.marks[delta.scope] = max(self.marks.get(delta.scope, (0, 0)), mark)
        put = (
            OutboxRow(delta.scope, delta.stamp.digest, delta.raw),
            MarkRow(delta.scope, self._signer.kid, *mark),
        )
        self._emit(Persist(put, durable=True))
        self._peer.merge(delta, "own")
        digest = delta.stamp.digest.hex()
        self._emit(Stage(push.ref, "signed", gen=mark[0], epoch=mark[1], digest=digest, synced=synced))
        self._publish(delta, push.ref)

    def _signed(self, push: Push) -> Delta:
        peer = self._peer
        body = read_delta_body(push.cosigned) if push.cosigned else None
        if body is not None:
            push = msgspec.structs.replace(push, scope=body.scope, assign=body.assign)
        writer = self._granted(push)
        if body is not None:
            self._check_current(push, body)
        raw_body = push.cosigned or encode(self._body(push))
        payload = self._signer.sign("delta", peer.fleet, raw_body)
        check_fanout(payload, len(push.assign))
        delta = self._own_check(payload)
        demands = lacking(self._signer.kid, raw_body, delta.body, writer, peer.trust)
        if demands:
            raise NotCosignedError(
                f"writer {self._signer.name!r} needs cosignatures: {in_words(demands, peer.trust)}. Make a draft with "
                "tars-settings push ... --cosign FILE, have it signed with tars-settings keys cosign FILE, then type: "
                "tars-settings push --cosigned FILE.cosigned"
            )
        return delta

    def _drafted(self, push: Push, *, synced: bool) -> Stage:
        self._granted(push)
        body = self._body(push)
        raw_body = encode(body)
        check_fanout(self._signer.sign("delta", self._peer.fleet, raw_body), len(push.assign))
        text = drafted(self._peer.fleet, self._signer.kid, raw_body)
        return Stage(push.ref, "drafted", gen=body.gen, epoch=body.epoch, synced=synced, draft=text)

    def _granted(self, push: Push) -> Writer:
        """Return the own entry in the trust document, where it lets this push pass."""
        trust = self._peer.trust
        if trust.is_pin:
            raise NotSyncedError("no trust document was found: on the host with the root key, run: tars-settings init")
        self._check_held(push)
        return self._check_grants(push, trust.writer(self._signer.kid))

    def _body(self, push: Push) -> DeltaBody:
        return DeltaBody(
            scope=push.scope,
            gen=self._peer.trust.gen,
            epoch=self._next_epoch(push),
            trust=self._peer.trust.version,
            assign=tuple(self._over(push.scope, item) for item in push.assign),
            at=push.at,
            by=push.by,
            reason=push.reason,
            ack=push.ack,
            trial=self._trial(push),
        )

    def _check_current(self, push: Push, body: DeltaBody) -> None:
        """Refuse a draft that something came before: it would replace what its cosigners never saw."""
        held = tuple(self._over(push.scope, item) for item in body.assign)
        wanted = (self._peer.trust.gen, self._next_epoch(push))
        if (body.gen, body.epoch) != wanted or held != body.assign:
            raise ConflictError(
                f"{body.scope} moved on to epoch {wanted[1] - 1} since the draft for epoch {body.epoch} was made: "
                "make it again, and have that cosigned"
            )

    def _own_check(self, payload: bytes) -> Delta:
        """Return the delta as every reader will read it: what they would refuse never leaves."""
        try:
            return parse_delta(payload, self._peer.fleet)[1]
        except MalformedError as error:
            raise IllegalNameError(str(error)) from None

    def _check_grants(self, push: Push, writer: Writer | None) -> Writer:
        name = self._signer.name
        if writer is None:
            raise NotGrantedError(
                f"writer {name!r} ({self._signer.kid}) is not in trust document {self._peer.trust.version}. "
                "Ask a holder of the root key to grant it"
            )
        if writer.status != "active":
            raise NotGrantedError(f"writer {name!r} is {writer.status}")
        barred = [item.key for item in push.assign if not writer.may_write(push.scope, item.key)]
        if barred:
            raise NotGrantedError(
                f"writer {name!r} may not write {', '.join(f'{push.scope} {key}' for key in barred)}; "
                f"its grants are {', '.join(writer.grants) or 'none'}. Ask a holder of the root key to extend them"
            )
        return writer

    def _check_held(self, push: Push) -> None:
        if not push.instead_of:
            return
        winners = {item.key: self._peer.registers.winner(push.scope, item.key) for item in push.assign}
        lost = [key for key, one in winners.items() if one is None or one.delta.stamp.digest.hex() != push.instead_of]
        if lost:
            raise ConflictError(f"{push.scope} {', '.join(lost)}: someone was faster, and has pushed something newer")

    def _trial(self, push: Push) -> Trial | msgspec.UnsetType:
        """Return the trial of a push: here, where no other delta comes in between, it is known what to go back to."""
        if not push.trial_s:
            return msgspec.UNSET
        return trial_of(push.assign, push.trial_s, self._peer.registers.winners(push.scope), push.canary)

    def _next_epoch(self, push: Push) -> int:
        seen = self.highest_seen(push.scope)
        if push.expect_epoch is not None and push.expect_epoch != seen:
            raise ConflictError(f"{push.scope} is at epoch {seen}, expected {push.expect_epoch}: someone was faster")
        if seen >= MAX_EPOCH:
            raise EpochExhaustedError(
                f"the epochs of {push.scope} are exhausted; a holder of the root key must raise gen"
            )
        is_leap = seen > MAX_EPOCH_JUMP and seen - self._trodden(push.scope, seen) > MAX_EPOCH_JUMP
        if is_leap and not push.force:
            raise EpochExhaustedError(
                f"{push.scope} jumped to epoch {seen}, which nobody reached in steps; "
                "check who wrote it before you follow (force=True), or have the root raise gen"
            )
        return seen + 1

    def highest_seen(self, scope: str) -> int:
        """Return the highest epoch of the gen in force: of valid deltas, own head, floor, and own mark.

        Never of another writer's head: whoever may write one key could raise the epochs of all by hearsay.
        """
        gen = self._peer.trust.gen
        marks = [self._peer.registers.highest(scope), self.marks.get(scope, (0, 0)), *self._vouched(scope)]
        return max((epoch for of_gen, epoch in marks if of_gen == gen), default=0)

    def _vouched(self, scope: str) -> list[tuple[int, int]]:
        """Return (gen, epoch) of the floor and of the own index."""
        floor = self._peer.floors.greatest(scope)
        index = self._peer.head(scope, self._signer.kid).index
        found = [] if floor is None else [(floor.body.gen, floor.body.epoch)]
        return found if index is None else [*found, (index.body.gen, index.body.epoch)]

    def _trodden(self, scope: str, seen: int) -> int:
        """Return the highest epoch below *seen* that is vouched for otherwise: an older delta, floor or own mark."""
        gen = self._peer.trust.gen
        marks = [(delta.stamp.gen, delta.stamp.epoch) for delta in self._peer.registers.deltas(scope)]
        floor = self._peer.floors.greatest(scope)
        if floor is not None:
            marks.append((floor.body.gen, floor.body.epoch))
        below = [epoch for of_gen, epoch in marks if of_gen == gen and epoch < seen]
        own_gen, own = self.marks.get(scope, (0, 0))
        return max([*below, own if own_gen == gen else 0], default=0)

    def _over(self, scope: str, item: Assignment) -> Assignment:
        """Return the assignment with what it replaces.

        Raises:
            ConflictError: it says itself what it is to replace, and something else is there by now.
        """
        held = self._peer.registers.winner(scope, item.key)
        over = msgspec.UNSET if held is None else held.delta.stamp.digest.hex()
        if item.over not in (msgspec.UNSET, over):
            raise ConflictError(f"{scope} {item.key} was set meanwhile: someone was faster")
        return Assignment(item.key, set=item.set, secret=item.secret, unset=item.unset, over=over)

    # --- publishing --------------------------------------------------------------------------------------------------

    def _publish(self, delta: Delta, ref: int | None) -> None:
        """Publish a delta on all of its topics, then the head: delta, segments, index."""
        topics = [self._peer.topics.format(KeyTopic(delta.scope, item.key)) for item in delta.assign]
        flight = _Flight(delta, ref, set(), set(topics))
        self._flights[delta.stamp.digest] = flight
        for topic in topics:
            flight.unacknowledged.add(self._send(topic, delta.raw))
        self.publish_head(delta.scope, flight.unacknowledged)

    def publish_head(self, scope: str, acknowledge: set[int] | None = None) -> None:
        """Sign and publish the own head of a scope, its changed segments first."""
        peer, kid = self._peer, self._signer.kid
        built = build(peer, scope, self._signer)
        peer.signed_counter[scope] = built.counter
        for n, payload in built.segments.items():
            peer.head(scope, kid).pending[n] = payload
        peer.receive(IndexTopic(scope, kid), built.index, "own")
        refs = [self._send(peer.topics.format(SegmentTopic(scope, kid, n)), one) for n, one in built.segments.items()]
        refs.append(self._send(peer.topics.format(IndexTopic(scope, kid)), built.index))
        if acknowledge is not None:
            acknowledge.update(refs)

    def _send(self, topic: str, payload: bytes) -> int:
        ref = self._next_ref()
        self._emit(Publish(ref, topic, payload))
        return ref

    # --- what comes back ---------------------------------------------------------------------------------------------

    def on_acknowledged(self, ref: int, *, ok: bool, reason: str) -> None:
        """Take note of an acknowledgement; when all of a push are there, read it back."""
        for flight in tuple(self._flights.values()):
            if ref in flight.unacknowledged:
                flight.unacknowledged.discard(ref)
                flight.refused = flight.refused or ("" if ok else reason or "the broker refused it")
                if not flight.unacknowledged:
                    self._on_accepted(flight)

    def _on_accepted(self, flight: _Flight) -> None:
        if flight.refused:
            self._end(flight, "unconfirmed", flight.refused)
            return
        flight.accepted = True
        self._tell(flight, "accepted")
        self._ask(tuple(sorted(flight.unread)))

    def on_read_back(self, topic: str, payload: bytes | None, now_s: float, *, known: bool) -> None:
        """Take note of what the broker retains on a topic that was probed."""
        for flight in tuple(self._flights.values()):
            if not flight.accepted or topic not in flight.unread:
                continue
            flight.unread.discard(topic)
            verdict = self._verdict(flight, topic, payload, known=known)
            if verdict is not None and verdict[0] == "unconfirmed" and flight.tries < len(READ_BACK_AGAIN_S):
                # The answer may be to a question from before the publish.
                flight.not_found.add(topic)
                flight.due_s = min(flight.due_s, now_s + READ_BACK_AGAIN_S[flight.tries])
            elif verdict is not None:
                self._end(flight, *verdict)
            elif not flight.unread and not flight.not_found:
                self._end(flight, "retained", "")

    def next_wake_s(self) -> float:
        """Return when something is to be read back again, infinity where nothing is."""
        return min((flight.due_s for flight in self._flights.values() if not flight.cut), default=math.inf)

    def read_back_again(self, now_s: float) -> None:
        """Ask once more for what was not found, where its pause is over."""
        for flight in self._flights.values():
            if flight.due_s <= now_s and not flight.cut:
                again, flight.not_found = flight.not_found, set()
                flight.due_s = math.inf
                flight.tries += 1
                flight.unread |= again
                self._ask(tuple(sorted(again)))

    def _verdict(self, flight: _Flight, topic: str, payload: bytes | None, *, known: bool) -> tuple[str, str] | None:
        """Return how the push ends because of one topic; None when the topic holds it."""
        if payload == flight.delta.raw:
            return None
        if not known:
            return "unconfirmed", "the broker did not answer when it was read back"
        parsed = self._peer.topics.parse(topic)
        held = self._peer.registers.winner(parsed.scope, parsed.key) if isinstance(parsed, KeyTopic) else None
        if held is not None and held.delta.stamp > flight.delta.stamp:
            return (
                "superseded",
                f"epoch {held.delta.stamp.epoch} by {self._peer.trust.name_of(held.delta.stamp.kid)} holds {held.key}",
            )
        found = "nothing" if payload is None else "something else"
        return "unconfirmed", f"acknowledged, but the broker retains {found}: may this user publish there?"

    def _tell(self, flight: _Flight, stage: str, reason: str = "") -> None:
        if flight.ref is not None:
            stamp = flight.delta.stamp
            self._emit(
                Stage(
                    flight.ref,
                    stage,  # type: ignore[arg-type]
                    reason,
                    gen=stamp.gen,
                    epoch=stamp.epoch,
                    digest=stamp.digest.hex(),
                )
            )

    def _end(self, flight: _Flight, stage: str, reason: str) -> None:
        del self._flights[flight.delta.stamp.digest]
        if stage in ("retained", "superseded"):
            self._clear(flight.delta)
        self._tell(flight, stage, reason)

    def _clear(self, delta: Delta) -> None:
        if self._outbox.pop(delta.stamp.digest, None) is not None:
            self._emit(Persist(drop=(OutboxRow(delta.scope, delta.stamp.digest, delta.raw),)))

    # --- after a crash or a lost session -----------------------------------------------------------------------------

    def restore(self, row: OutboxRow) -> None:
        """Take back, from the replica, a delta whose publication was not finished."""
        try:
            delta, judgement = read_delta(row.raw, self._peer.trust, self._peer.floors.mark)
        except RejectedError:
            self._emit(Persist(drop=(row,)))
            return
        if judgement.verdict is Verdict.HELD:
            # The trust document did not survive, or is behind: a signed push is not lost because of that.
            self._unjudged.append(row)
            return
        if judgement.verdict is Verdict.VOID:
            self._emit(Persist(drop=(row,)))
            return
        self._outbox[delta.stamp.digest] = delta
        self._peer.merge(delta, "own")

    def on_trust_changed(self) -> None:
        """Judge again what was restored under a trust document that could not judge it."""
        unjudged, self._unjudged = self._unjudged, []
        for row in unjudged:
            self.restore(row)

    def on_session_down(self) -> None:
        """What was on its way may or may not have arrived: it is sent again when the scope was caught up."""
        for flight in self._flights.values():
            flight.cut = True

    def on_voided(self) -> None:
        """End the pushes whose delta is void now: below a floor, or under another trust document."""
        for delta in tuple(self._outbox.values()):
            if self._peer.registers.delta(delta.scope, delta.stamp.digest) is None and not self._is_beaten(delta):
                flight = self._flights.get(delta.stamp.digest)
                if flight is not None:
                    self._end(flight, "superseded", "void under the trust document and floor in force: push it again")
                self._clear(delta)

    def resume(self, scope: str) -> None:
        """Send again what was not finished, once the scope was caught up; and the head when it lacks own winners."""
        for digest, delta in list(self._outbox.items()):
            held = self._flights.get(digest)
            if delta.scope == scope and (held is None or held.cut):
                self._send_again(delta, held)
        if self._is_active() and is_behind(self._peer, scope, self._signer.kid):
            self.publish_head(scope)

    def _send_again(self, delta: Delta, flight: _Flight | None) -> None:
        if self._wins(delta):
            self._publish(delta, None if flight is None else flight.ref)
            return
        if flight is not None:
            self._end(flight, "superseded", "a greater delta arrived while the connection was down")
        self._clear(delta)

    def _is_beaten(self, delta: Delta) -> bool:
        """Return whether greater deltas hold all of its keys: then it may have been forgotten, and is not void."""
        winners = (self._peer.registers.winner(delta.scope, item.key) for item in delta.assign)
        return all(held is not None and held.delta.stamp > delta.stamp for held in winners)

    def _is_active(self) -> bool:
        writer = self._peer.trust.writer(self._signer.kid)
        return writer is not None and writer.status == "active"

    def _wins(self, delta: Delta) -> bool:
        winners = (self._peer.registers.winner(delta.scope, item.key) for item in delta.assign)
        return any(held is not None and held.delta.stamp == delta.stamp for held in winners)
