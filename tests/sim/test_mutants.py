"""The checkers have teeth: break a rule on purpose, and the invariant that it guards must fall.

A mutant that survives means that nothing watches its rule any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tars_settings.core.register import Registers
from tars_settings.core.wire import decode_envelope
from tars_settings.errors import RejectedError
from tars_settings.gossip import holdings, loading, peer
from tars_settings.gossip.chain import Chain
from tars_settings.gossip.effects import Persist
from tars_settings.gossip.floors import Floors
from tars_settings.gossip.mending import Mender
from tars_settings.gossip.peer import Peer
from tars_settings.gossip.repair import Repairer, RepairPolicy
from tars_settings.gossip.replicator import Replicator
from tars_settings.gossip.sync import ScopeSync
from tars_settings.gossip.writing import Writing
from tars_settings.testing.invariants import BrokenInvariant
from tars_settings.testing.sim import run_seed
from tars_settings.testing.storm import Storm
from tars_settings.testing.trials import refill, siege
from tars_settings.trust import validity
from tars_settings.trust.document import Writer
from tars_settings.trust.validity import VALID, Judgement, Verdict

Patch = pytest.MonkeyPatch
SEEDS = 400


def ties_by_epoch_and_writer(patch: Patch) -> None:
    """(epoch, writer) decides, the digest does not: of two deltas of one key the first to arrive stays."""
    merge = Registers._merge

    def first_stays(self: Registers, held: Any, item: Any, delta: Any, *rest: Any) -> bool:
        before = held.winners.get(item.key)
        won = merge(self, held, item, delta, *rest)
        if before is not None and won and _tie(before.delta) == _tie(delta):
            held.winners[item.key] = before
        return won

    patch.setattr(Registers, "_merge", first_stays)


def _tie(delta: Any) -> tuple[int, int, str]:
    return (delta.stamp.gen, delta.stamp.epoch, delta.stamp.kid)


def tombstones_go_by_age(patch: Patch) -> None:
    """A tombstone is forgotten after half a minute, floor or no floor."""
    handle, seen = Replicator.handle, {}

    def forgetful(self: Replicator, event: Any, now_s: float) -> Any:
        effects = handle(self, event, now_s)
        for scope in self.peer.registers.scopes():
            for key, register in self.peer.registers.winners(scope).items():
                if register.assignment.unset and now_s - seen.setdefault((id(self), register.delta), now_s) > 30:
                    held = self.peer.registers._scopes[scope]
                    del held.winners[key]
                    held.candidates.pop(key, None)
                    held.digests.pop(register.delta.stamp.digest, None)
        return effects

    patch.setattr(Replicator, "handle", forgetful)


def unset_removes(patch: Patch) -> None:
    """Unset takes the register away instead of leaving a tombstone."""
    merge = Registers._merge

    def without_tombstone(self: Registers, held: Any, item: Any, delta: Any, *rest: Any) -> bool:
        won = merge(self, held, item, delta, *rest)
        if item.unset and won:
            del held.winners[item.key]
        return won

    patch.setattr(Registers, "_merge", without_tombstone)


def epochs_have_a_local_bound(patch: Patch) -> None:
    """What is far above the own maximum is refused: who knows little refuses what others hold."""
    receive = Peer._receive_delta

    def bounded(self: Peer, topic: Any, payload: bytes, scope: str, key: str, way: Any) -> Any:
        epoch = validity.parse_delta(payload, self.fleet)[1].stamp.epoch
        if epoch > self.registers.highest(scope)[1] + 3:
            return self._reject(topic, payload, "epoch-jump")
        return receive(self, topic, payload, scope, key, way)

    patch.setattr(Peer, "_receive_delta", bounded)


def void_displaces_valid(patch: Patch) -> None:
    """The greatest delta is stored, valid or not."""
    refused = Peer._refused

    def stores_void(self: Peer, topic: Any, payload: bytes, kid: str, judgement: Judgement, way: Any) -> Any:
        return None if judgement.verdict is Verdict.VOID else refused(self, topic, payload, kid, judgement, way)

    patch.setattr(Peer, "_refused", stores_void)


def only_the_topics_key_is_merged(patch: Patch) -> None:
    """Of a delta that touches three keys, the first is merged."""
    merge = Registers._merge

    def first_only(self: Registers, held: Any, item: Any, delta: Any, *rest: Any) -> bool:
        return item is delta.body.assign[0] and merge(self, held, item, delta, *rest)

    patch.setattr(Registers, "_merge", first_only)


def signatures_are_not_checked(patch: Patch) -> None:
    patch.setattr(validity, "check_signature", _unchecked)
    patch.setattr(validity, "verified", lambda envelope, purpose, fleet, _: _encoded(envelope, purpose, fleet))


def _unchecked(envelope: Any, purpose: Any, fleet: str, public: bytes) -> bytes:
    return validity.digest_of(_encoded(envelope, purpose, fleet))


def _encoded(envelope: Any, purpose: Any, fleet: str) -> bytes:
    return validity.pae(purpose, fleet, envelope.kid, bytes(envelope.body))


def rows_are_not_verified(patch: Patch) -> None:
    """What the replica holds is taken as it is."""

    def trusting(payload: bytes, document: Any, floors: Any = None) -> Any:
        return validity.parse_delta(payload, document.fleet)[1], VALID

    patch.setattr(loading, "read_delta", trusting)


def grants_are_not_asked(patch: Patch) -> None:
    patch.setattr(Writer, "may_write", lambda self, scope, key: True)


def older_trust_is_adopted(patch: Patch) -> None:
    """Whatever the root signed is put in force, later or earlier."""
    receive = Peer._receive_trust

    def any_version(self: Peer, topic: Any, payload: bytes, way: Any) -> Any:
        held = self.chain.newest
        standing = receive(self, topic, payload, way)
        version = decode_version(payload)
        if topic.version is None and 0 < version < held.version and self.chain.raw(version):
            self.chain.newest = self.chain._followed[version]
            self._emit(peer.TrustChanged(version, self.trust.gen, self._rejudge(None)))
        return standing

    patch.setattr(Peer, "_receive_trust", any_version)


def decode_version(payload: bytes) -> int:
    try:
        return int(json.loads(bytes(decode_envelope(payload).body)).get("version", 0))
    except (RejectedError, ValueError):
        return 0


def mark_and_outbox_are_not_committed(patch: Patch) -> None:
    """A push is published before anything of it is on the disk."""
    push = Writing.push

    def uncommitted(self: Writing, *args: Any, **more: Any) -> None:
        emit = self._emit
        self._emit = lambda effect: None if isinstance(effect, Persist) and effect.durable else emit(effect)
        try:
            push(self, *args, **more)
        finally:
            self._emit = emit

    patch.setattr(Writing, "push", uncommitted)


def deltas_are_not_stored(patch: Patch) -> None:
    """Who is killed remembers heads at most."""
    put = peer.Persist

    def forgetful(rows: tuple[Any, ...] = (), drop: tuple[Any, ...] = (), durable: bool = False) -> Persist:
        return put(tuple(row for row in rows if type(row).__name__ not in ("DeltaRow", "SegmentRow")), drop, durable)

    for module in (peer, holdings):
        patch.setattr(module, "Persist", forgetful)


def nothing_is_read_back(patch: Patch) -> None:
    """The broker's acknowledgement counts as proof."""

    def believes(self: Writing, flight: Any) -> None:
        self._end(flight, "retained", "")

    patch.setattr(Writing, "_on_accepted", believes)


def pushes_are_not_taken_up_again(patch: Patch) -> None:
    patch.setattr(Writing, "resume", lambda self, scope: None)
    patch.setattr(Writing, "on_session_down", lambda self: None)


def nothing_is_repaired(patch: Patch) -> None:
    patch.setattr(Mender, "suspect", lambda self, text, found, now_s: None)


def indexes_do_without_their_segments(patch: Patch) -> None:
    """Who holds an index thinks that it holds the head."""
    patch.setattr(ScopeSync, "_segments", lambda self, peer, kid: iter(()))


def heads_are_not_read(patch: Patch) -> None:
    """Only live messages and own keys."""
    patch.setattr(ScopeSync, "questions", lambda self, peer: iter(()))
    patch.setattr(ScopeSync, "lacks", lambda self, peer: iter(()))


def floors_are_lowered(patch: Patch) -> None:
    """The floor that came last is in force."""
    offer = Floors.offer

    def any_floor(self: Floors, floor: Any) -> bool:
        self._held.pop(floor.body.scope, None)
        return offer(self, floor)

    patch.setattr(Floors, "offer", any_floor)


def roots_are_not_asked(patch: Patch) -> None:
    """Of two documents of one version the first that came stays in force."""
    chain_follow = Chain.follow

    def first_stays(self: Chain, topic: Any, payload: bytes) -> Any:
        received = chain_follow(self, topic, payload)
        return None if received is not None and received.version == self.newest.version else received

    patch.setattr(Chain, "follow", first_stays)


MUTANTS: dict[Callable[[Patch], None], set[str]] = {
    ties_by_epoch_and_writer: {"L1", "L2", "I12"},
    tombstones_go_by_age: {"I1", "I6", "L1"},
    unset_removes: {"I1", "I2", "I6", "L1"},
    epochs_have_a_local_bound: {"L1", "L2", "L3"},
    void_displaces_valid: {"I3", "I7"},
    only_the_topics_key_is_merged: {"I2"},
    signatures_are_not_checked: {"I4", "I7"},
    rows_are_not_verified: {"I3", "I4", "I7"},
    grants_are_not_asked: {"I7"},
    older_trust_is_adopted: {"I5"},
    mark_and_outbox_are_not_committed: {"I8"},
    deltas_are_not_stored: {"I1"},
    nothing_is_read_back: {"I9"},
    pushes_are_not_taken_up_again: {"L6"},
    nothing_is_repaired: {"L1", "L2", "L3"},
    indexes_do_without_their_segments: {"L1", "L3"},
    heads_are_not_read: {"L1", "L3"},
    floors_are_lowered: {"I5", "I1", "L1"},
    roots_are_not_asked: {"L1"},
}
"""What each mutant may break first; several where a broken rule shows in more than one way."""


def _seeds(mutant: Callable[[Patch], None]) -> Iterator[int]:
    """Yield seeds, for some mutants only those whose world can show them."""
    needs_shared_key = mutant is ties_by_epoch_and_writer
    for seed in range(SEEDS):
        if not needs_shared_key or Storm(seed).mesh.counters["runs with a shared key"]:
            yield seed


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_mutant_is_caught(mutant: Callable[[Patch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    found = []
    for seed in _seeds(mutant):
        name = run_seed(seed).broken.partition(":")[0]
        if name in MUTANTS[mutant]:
            return
        found += [(seed, name)] if name else []
    pytest.fail(f"{mutant.__name__} survived {SEEDS} storms; other things were broken in {found}")


def test_repair_without_suppression_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refill(1) <= 2
    monkeypatch.setattr(RepairPolicy, "delay", lambda self, random: 0.0)
    with pytest.raises(BrokenInvariant, match="L4"):
        refill(1)


def test_repair_without_a_budget_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """L5: somebody overwrites topics without end."""
    assert siege(1) > 0

    def always(self: Repairer, topic: str, now_s: float) -> int:
        self.settle(topic)
        return 1

    monkeypatch.setattr(Repairer, "allow", always)
    monkeypatch.setattr(Repairer, "is_fight", lambda self, topic: False)
    with pytest.raises(BrokenInvariant, match="L5"):
        siege(1)


def test_the_model_without_mutants_stays_whole() -> None:
    """What the mutants are measured against."""
    assert [run_seed(seed).broken for seed in range(20)] == [""] * 20
