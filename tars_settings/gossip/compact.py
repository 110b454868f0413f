"""Compaction: signing a floor, so that tombstones can go.

A tombstone goes only when nothing older that stays says anything at, above or below its key: an assignment that it
masks would return (a model that looked at keys alone got masked values back in 302 histories of 1,000). What stays is
listed by digest, whole; so every assignment of a listed delta counts, not only those that win.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from tars_settings.core.delta import Delta
from tars_settings.core.floor import FloorBody, cut
from tars_settings.core.register import Registers
from tars_settings.core.session import Publish
from tars_settings.core.stamp import Stamp
from tars_settings.core.topics import FloorSegmentTopic, FloorTopic, KeyTopic, Topic
from tars_settings.core.wire import encode
from tars_settings.errors import NotGrantedError, NotSyncedError, RefusedError, TarsSettingsError
from tars_settings.gossip.effects import Compact, Compacted, Effect, Stage
from tars_settings.gossip.peer import Peer
from tars_settings.trust.keys import SigningKey

READ_BACK_TRIES: Final = 3


class Plan(msgspec.Struct, frozen=True):
    """What a floor would say: its (gen, epoch), the digests at or below it that live, and the keys that go."""

    gen: int
    epoch: int
    live: frozenset[bytes]
    gone: tuple[str, ...]


def plan(registers: Registers, scope: str) -> Plan | None:
    """Return the lowest floor that lets every tombstone go that may; None where none may."""
    winners = registers.winners(scope)
    # What unsets on trial carries what to go back to: it is no tombstone.
    tombs = {key: one.delta for key, one in winners.items() if one.assignment.unset and one.delta.trial is None}
    staying = {one.delta.stamp.digest: one.delta for key, one in winners.items() if key not in tombs}
    oldest = _Oldest(staying.values())
    waiting = {delta.stamp.digest: delta for delta in tombs.values() if delta.stamp.digest not in staying}
    # A delta that has to stay brings assignments of its own, for which others may have to stay.
    while True:
        needed = [delta for delta in waiting.values() if any(oldest.masks(key, delta.stamp) for key in _keys(delta))]
        if not needed:
            break
        for delta in needed:
            del waiting[delta.stamp.digest]
            staying[delta.stamp.digest] = delta
            oldest.add(delta)
    gone = tuple(sorted(key for key, delta in tombs.items() if delta.stamp.digest in waiting))
    if not gone:
        return None
    gen, epoch = max((delta.stamp.gen, delta.stamp.epoch) for delta in waiting.values())
    live = frozenset(digest for digest, one in staying.items() if (one.stamp.gen, one.stamp.epoch) <= (gen, epoch))
    return Plan(gen, epoch, live, gone)


def _keys(delta: Delta) -> tuple[str, ...]:
    return tuple(item.key for item in delta.assign)


class _Oldest:
    """For each key, the oldest assignment that stays at it, and below it."""

    def __init__(self, deltas: Iterable[Delta]) -> None:
        self._at: dict[str, Stamp] = {}
        self._below: dict[str, Stamp] = {}
        for delta in deltas:
            self.add(delta)

    def add(self, delta: Delta) -> None:
        for item in delta.assign:
            _lower(self._at, item.key, delta.stamp)
            for above in _above(item.key):
                _lower(self._below, above, delta.stamp)

    def masks(self, key: str, stamp: Stamp) -> bool:
        """Return whether a tombstone with this stamp at *key* covers something older that stays."""
        at_or_above = [self._at.get(one) for one in (key, *_above(key))]
        return any(one is not None and one < stamp for one in (*at_or_above, self._below.get(key)))


def _above(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _lower(stamps: dict[str, Stamp], key: str, stamp: Stamp) -> None:
    held = stamps.get(key)
    if held is None or stamp < held:
        stamps[key] = stamp


class _Flight(msgspec.Struct):
    ref: int | None
    plan: Plan
    raw: bytes
    unacknowledged: set[int]
    refused: str = ""
    accepted: bool = False
    tries: int = 0


class Compacting:
    """The compacting half of a peer that holds a key. *head* signs and publishes the own head of a scope."""

    def __init__(
        self,
        peer: Peer,
        signer: SigningKey,
        emit: Callable[[Effect], None],
        ask: Callable[[tuple[str, ...]], None],
        next_ref: Callable[[], int],
        head: Callable[[str], None],
    ) -> None:
        self._peer = peer
        self._signer = signer
        self._emit = emit
        self._ask = ask
        self._next_ref = next_ref
        self._head = head
        self._flights: dict[str, _Flight] = {}

    def may(self, scope: str) -> bool:
        """Return whether this writer's floors count in a scope."""
        writer = self._peer.trust.writer(self._signer.kid)
        return (
            writer is not None
            and writer.status == "active"
            and writer.may_compact(scope)
            and not writer.is_bound(scope)
        )

    def compact(self, compact: Compact, *, synced: bool) -> None:
        """Sign and publish a floor, or refuse with a Stage notice; then nothing was published."""
        try:
            found = self._planned(compact.scope, synced=synced)
        except TarsSettingsError as error:
            self._tell(compact.ref, "refused", str(error), error=type(error).__name__)
            return
        self.publish(compact.scope, found, compact.ref, compact.at)

    def _planned(self, scope: str, *, synced: bool) -> Plan:
        if not self.may(scope):
            raise NotGrantedError(
                f"writer {self._signer.name!r} may not compact {scope}: it takes a grant of the whole scope. "
                "Ask a holder of the root key to extend it"
            )
        if not synced:
            raise NotSyncedError(f"{scope} could not be caught up, and a floor would void what was not seen")
        found = plan(self._peer.registers, scope)
        if found is None:
            raise RefusedError(f"{scope} has no tombstone that may go")
        return found

    def publish(self, scope: str, found: Plan, ref: int | None, at: str = "") -> None:
        """Sign a floor and publish it: its parts, the floor, then the own head that mentions it."""
        inline, parts = cut(found.live)
        body = FloorBody(
            scope=scope,
            gen=found.gen,
            epoch=found.epoch,
            trust=self._peer.trust.version,
            live=inline,
            segments=tuple(parts),
            at=at,
        )
        raw = self._signer.sign("floor", self._peer.fleet, encode(body))
        self._flights[scope] = flight = _Flight(ref, found, raw, set())
        self._tell(ref, "signed", plan_=found)
        wanted: list[tuple[Topic, bytes]] = [(FloorSegmentTopic(scope, name), part) for name, part in parts.items()]
        self._peer.receive(FloorTopic(scope), raw, "own")
        for topic, payload in wanted:
            self._peer.receive(topic, payload, "own")
        for one, payload in [*wanted, (FloorTopic(scope), raw)]:
            number = self._next_ref()
            flight.unacknowledged.add(number)
            self._emit(Publish(number, self._peer.topics.format(one), payload))
        self._head(scope)

    def on_acknowledged(self, ref: int, *, ok: bool, reason: str) -> None:
        """Take note of an acknowledgement; when all are there, read the floor back."""
        for scope, flight in tuple(self._flights.items()):
            if ref not in flight.unacknowledged:
                continue
            flight.unacknowledged.discard(ref)
            flight.refused = flight.refused or ("" if ok else reason or "the broker refused it")
            if flight.refused:
                self._end(scope, "unconfirmed", flight.refused)
            elif not flight.unacknowledged:
                flight.accepted = True
                self._tell(flight.ref, "accepted", plan_=flight.plan)
                self._ask((self._peer.topics.format(FloorTopic(scope)),))

    def on_read_back(self, scope: str, payload: bytes | None) -> None:
        """Take note of what the broker retains as a floor; once it is ours, the tombstones' topics are cleared."""
        flight = self._flights.get(scope)
        if flight is None or not flight.accepted:
            return
        if payload == flight.raw:
            self._clear(scope, flight.plan)
            self._end(scope, "retained")
        elif self._is_beaten(scope, flight):
            self._end(scope, "superseded", "a greater floor is in force")
        elif flight.tries >= READ_BACK_TRIES:
            self._end(scope, "unconfirmed", "acknowledged, but the broker retains something else")
        else:
            flight.tries += 1
            self._ask((self._peer.topics.format(FloorTopic(scope)),))

    def _is_beaten(self, scope: str, flight: _Flight) -> bool:
        floor = self._peer.floors.greatest(scope)
        return floor is not None and floor.raw != flight.raw

    def _clear(self, scope: str, done: Plan) -> None:
        """Clear the topics of tombstones that went, unless something was written there meanwhile."""
        for key in done.gone:
            if self._peer.registers.winner(scope, key) is None:
                topic = self._peer.topics.format(KeyTopic(scope, key))
                self._emit(Publish(self._next_ref(), topic, b""))
        self._emit(Compacted(scope, done.gen, done.epoch, len(done.live), done.gone))

    def on_session_down(self) -> None:
        """Forget floors on their way: they are held and stored, and repaired like everything else."""
        for scope in tuple(self._flights):
            self._end(scope, "unconfirmed", "the connection was lost")

    def _end(self, scope: str, stage: str, reason: str = "") -> None:
        flight = self._flights.pop(scope)
        self._tell(flight.ref, stage, reason, plan_=flight.plan)

    def _tell(
        self, ref: int | None, stage: str, reason: str = "", *, error: str = "", plan_: Plan | None = None
    ) -> None:
        if ref is not None:
            gen, epoch = (0, 0) if plan_ is None else (plan_.gen, plan_.epoch)
            self._emit(Stage(ref, stage, reason, error, gen, epoch))  # type: ignore[arg-type]
