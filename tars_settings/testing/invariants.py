"""The invariants by their names, as small checkers: safety after each step of a peer, liveness at a fair end.

===  ==================================================================================================================
I1   A key's winning stamp never decreases while trust document and floor are unchanged, over a restart too.
I2   No delta is visible in part.
I3   Nothing visible is void under the peer's own trust document and floor.
I4   Every stored byte is one that an author signed.
I5   Version of the trust document and floor never decrease, over kill -9 and power loss too.
I6   No deleted key returns below its tombstone.
I7   No value outside its writer's grants, or of another fleet, is visible.
I8   A writer never publishes two deltas with one (gen, epoch), over a crash too.
I9   A push is never told more than the truth: *retained* only when the broker did retain it.
I12  What is merged does not depend on order, repetition and grouping.
I13  What is merged does not depend on the model of the peer that merges.
L1   All views are equal, within two audits, and no valid delta that a live peer held is lost.
L2   Every broker retains each winner, the heads, the floors and the trust document.
L3   Who joins afresh gets the same view, and is told that it is ready.
L4   A lost topic costs few publishes, and nothing is repaired once all agree.
L5   Somebody who never stops draws no more repairs than the budget, and no view is wrong because of it.
L6   Every push that was begun has ended.
===  ==================================================================================================================

The rest are of layers above the replicator, and are checked where those are: I10 (only snapshots that validated as a
whole are seen), I11 (no plaintext of a secret anywhere) and L7 (reading never blocks), in
``tests/sim/test_other_layers.py``, which breaks each rule on purpose too, and in full in
``tests/settings/test_live.py``, ``tests/integration/test_canary.py`` and ``tests/join``. I12 and I13 are checked by
:mod:`.merging`; L5 and the number of publishes in L4 have trials of their own: :mod:`.trials`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tars_settings.core.session import Publish
from tars_settings.core.topics import FloorTopic, IndexTopic, KeyTopic, SegmentTopic, Topic, TrustTopic
from tars_settings.gossip.effects import Effect, Merged, Persist, Stage, TrustChanged
from tars_settings.testing.book import Book, Entry, Fate, Floor
from tars_settings.testing.mesh import Mesh, MeshPeer

ENDS = frozenset({"retained", "superseded", "unconfirmed", "refused"})
_PURPOSES = {"DeltaRow": "delta", "OutboxRow": "delta", "TrustRow": "trust", "IndexRow": "head", "FloorRow": "floor"}


class BrokenInvariant(AssertionError):  # noqa: N818 - what it says
    """An invariant does not hold; ``name`` is which."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


class _Memory:
    """What a checker remembers of one peer, over its restarts."""

    def __init__(self) -> None:
        self.law: Any = None
        self.forgot = 0
        self.wiped = 0
        self.version: tuple[int, bytes] = (0, b"")
        self.floors: dict[str, tuple[int, int]] = {}
        self.stamps: dict[tuple[str, str], Any] = {}
        self.tombstones: dict[tuple[str, str], Any] = {}


class Safety:
    """Watches every step of every peer of a mesh. ``rogues`` are key ids whose holders sign whatever they like."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.book = Book(mesh.fleet, mesh.signed)
        self.steps = 0
        self.rogues: set[str] = set()
        self._memories: dict[str, _Memory] = defaultdict(_Memory)
        self._dirty: set[str] = set()
        self._epochs: dict[tuple[str, str, int, int], bytes] = {}
        mesh.observers.append(self.on_effect)
        mesh.checks.append(self.on_step)

    # --- effects -----------------------------------------------------------------------------------------------------

    def on_effect(self, peer: MeshPeer, effect: Effect) -> None:
        """Check what a peer wants done."""
        match effect:
            case Persist(put):
                self._dirty.add(peer.name)
                for row in put:
                    self._check_row(peer, row)
            case Publish(_, topic, payload, True):
                self._check_published(peer, self.mesh.topics.parse(topic), payload)
            case Stage(_, "retained"):
                self._check_retained(peer, effect)
            case Merged() | TrustChanged():
                self._dirty.add(peer.name)

    def _check_row(self, peer: MeshPeer, row: Any) -> None:
        purpose = _PURPOSES.get(type(row).__name__)
        if purpose is not None and not self.book.was_signed(row.raw, purpose):  # type: ignore[arg-type]
            raise BrokenInvariant("I4", f"{peer.name} stores a {type(row).__name__} that nobody signed")
        if type(row).__name__ == "SegmentRow" and row.kid not in self.rogues:
            for raw in _deltas_of(row.raw):
                if not self.book.was_signed(raw, "delta"):
                    raise BrokenInvariant("I4", f"{peer.name} stores a segment with a delta that nobody signed")

    def _check_published(self, peer: MeshPeer, topic: Topic | None, payload: bytes) -> None:
        entry = self.book.entry(payload)
        is_own = peer.signer is not None and entry is not None and entry.stamp[2] == peer.signer.kid
        if not isinstance(topic, KeyTopic) or not is_own or entry is None or peer.wiped or self._shares_key(peer):
            return
        gen, epoch, kid, digest = entry.stamp
        if self._epochs.setdefault((kid, entry.scope, gen, epoch), digest) != digest:
            raise BrokenInvariant("I8", f"{peer.name} published two deltas of {entry.scope} with ({gen}, {epoch})")

    def _shares_key(self, peer: MeshPeer) -> bool:
        return sum(1 for one in self.mesh.peers.values() if one.signer is peer.signer) > 1

    def _check_retained(self, peer: MeshPeer, stage: Stage) -> None:
        broker = self.mesh.broker_of(peer)
        for entry in map(self.book.entry, list(self.mesh.signed)):
            if entry is None or entry.digest.hex() != stage.digest:
                continue
            topics = [self.mesh.topics.format(KeyTopic(entry.scope, key)) for key in entry.keys]
            if not all(entry.raw in broker.ever.get(topic, ()) for topic in topics):
                raise BrokenInvariant("I9", f"{peer.name} was told 'retained', and the broker never retained it")

    # --- steps -------------------------------------------------------------------------------------------------------

    def on_step(self, peer: MeshPeer) -> None:
        """Check what a peer holds after a step in which it changed."""
        if peer.name not in self._dirty or peer.replicator is None:
            return
        self._dirty.discard(peer.name)
        self.steps += 1
        memory = self._memories[peer.name]
        self._refresh(memory, peer)
        winners = self._winners(peer)
        self._check_parts(peer, winners)
        self._check_void(peer, winners)
        self._check_order(peer, memory, winners)

    def _refresh(self, memory: _Memory, peer: MeshPeer) -> None:
        """Take over what the peer knows now, and forget what a change of it makes moot."""
        assert peer.replicator is not None  # noqa: S101 - on_step() says so
        version = peer.replicator.peer.trust.order
        floors = {scope: (one.gen, one.epoch) for scope, one in self.floors_of(peer).items()}
        if memory.wiped == peer.wiped:
            if version < memory.version:
                raise BrokenInvariant("I5", f"{peer.name} went from trust {memory.version[0]} back to {version[0]}")
            fallen = [scope for scope, mark in memory.floors.items() if floors.get(scope, (0, 0)) < mark]
            if fallen and version == memory.version:
                raise BrokenInvariant("I5", f"{peer.name} lowered the floor of {fallen[0]}")
        law = (version, tuple(sorted(floors.items())))
        if (law, peer.forgot) != (memory.law, memory.forgot):
            memory.stamps.clear()
            if memory.law is None or law[0] != memory.law[0] or peer.forgot != memory.forgot:
                memory.tombstones.clear()
            self._forget_compacted(memory, peer)
        memory.law, memory.forgot, memory.wiped = law, peer.forgot, peer.wiped
        memory.version, memory.floors = version, floors

    def _forget_compacted(self, memory: _Memory, peer: MeshPeer) -> None:
        """Forget the tombstones that a floor made void: what was older is void too, or listed."""
        lives = fate_of(self.mesh, self.book, peer)
        for (scope, key), stamp in list(memory.tombstones.items()):
            if not lives(scope, stamp.gen, stamp.epoch, stamp.digest):
                del memory.tombstones[scope, key]

    def seen_last(self, peer: MeshPeer) -> dict[tuple[str, str], Any]:
        """Return the stamp that won each (scope, key) at a peer's last step; those of tombstones left out."""
        memory = self._memories[peer.name]
        return {place: stamp for place, stamp in memory.stamps.items() if memory.tombstones.get(place) != stamp}

    def floors_of(self, peer: MeshPeer) -> dict[str, Floor]:
        """Return the floor in force of each scope that has one, as its author signed it."""
        return floors_of(self.mesh, self.book, peer)

    def _winners(self, peer: MeshPeer) -> dict[tuple[str, str], Any]:
        assert peer.replicator is not None  # noqa: S101
        held = peer.replicator.peer.registers
        return {(scope, key): one for scope in self.mesh.scopes for key, one in held.winners(scope).items()}

    @staticmethod
    def _check_parts(peer: MeshPeer, winners: dict[tuple[str, str], Any]) -> None:
        for (scope, key), register in winners.items():
            delta = register.delta
            for item in delta.assign:
                other = winners.get((scope, item.key))
                if other is None or other.delta.stamp < delta.stamp:
                    raise BrokenInvariant("I2", f"{peer.name} shows {key} of a delta and not its {item.key}")

    def _check_void(self, peer: MeshPeer, winners: dict[tuple[str, str], Any]) -> None:
        assert peer.replicator is not None  # noqa: S101
        law, lives = self.book.law(peer.replicator.peer.trust.raw), fate_of(self.mesh, self.book, peer)
        for (scope, key), register in winners.items():
            entry = self.book.entry(register.delta.raw)
            if entry is None or entry.scope != scope or key not in entry.keys:
                raise BrokenInvariant("I7", f"{peer.name} shows {scope} {key}, of which nobody signed that")
            if not law.grants(entry):
                raise BrokenInvariant("I7", f"{peer.name} shows {scope} {key}, which its writer may not write")
            if not law.allows(entry, lives):
                raise BrokenInvariant("I3", f"{peer.name} shows {scope} {key}, which is void")

    @staticmethod
    def _check_order(peer: MeshPeer, memory: _Memory, winners: dict[tuple[str, str], Any]) -> None:
        for place, before in memory.stamps.items():
            if place not in winners or winners[place].delta.stamp < before:
                now = winners[place].delta.stamp if place in winners else None
                raise BrokenInvariant("I1", f"{peer.name}: {' '.join(place)} went back from {before} to {now}")
        for place, register in winners.items():
            stamp = register.delta.stamp
            if register.assignment.unset:
                memory.tombstones[place] = max(stamp, memory.tombstones.get(place, stamp))
            elif place in memory.tombstones and stamp < memory.tombstones[place]:
                raise BrokenInvariant("I6", f"{peer.name}: {' '.join(place)} returned below its tombstone")
            memory.stamps[place] = stamp


def floors_of(mesh: Mesh, book: Book, peer: MeshPeer) -> dict[str, Floor]:
    """Return the greatest floor that a peer holds of each scope, as its author signed it."""
    assert peer.replicator is not None  # noqa: S101 - asked of peers that run
    held = {scope: peer.replicator.peer.floors.greatest(scope) for scope in mesh.scopes}
    return {scope: book.floor(floor.raw) for scope, floor in held.items() if floor is not None}


def fate_of(mesh: Mesh, book: Book, peer: MeshPeer) -> Fate:
    """Return what a peer's floors let live."""
    floors = floors_of(mesh, book, peer)

    def lives(scope: str, gen: int, epoch: int, digest: bytes) -> bool:
        return scope not in floors or floors[scope].lives(gen, epoch, digest)

    return lives


def _deltas_of(segment: bytes) -> Iterator[bytes]:
    """Yield the exact bytes of the deltas in a segment (objects inside of one JSON array, one after the other)."""
    decoder, text = json.JSONDecoder(), segment.decode()
    at = text.find('"deltas":[') + len('"deltas":[')
    while at >= len('"deltas":[') and at < len(text) and text[at] == "{":
        _, end = decoder.raw_decode(text, at)
        yield text[at:end].encode()
        at = end + 1


# --- liveness --------------------------------------------------------------------------------------------------------


class Liveness:
    """What must hold once faults have stopped for a while. Made when they stop: it remembers what was held then."""

    def __init__(self, mesh: Mesh, book: Book) -> None:
        self.mesh = mesh
        self.book = book
        self._held = self._all_held()

    def _all_held(self) -> set[bytes]:
        return {
            delta.raw
            for peer in self.mesh.running()
            if peer.replicator is not None
            for scope in self.mesh.scopes
            for delta in peer.replicator.peer.registers.deltas(scope)
        }

    def missing(self) -> Iterator[BrokenInvariant]:
        """Yield what does not hold now, of L1 and L2."""
        for check in (self._views, self.wrong_views, self._brokers):
            yield from check()

    def _views(self) -> Iterator[BrokenInvariant]:
        versions = {peer.replicator.peer.trust.raw for peer in self.mesh.running() if peer.replicator is not None}
        if len(versions) != 1:
            yield BrokenInvariant("L1", f"{len(versions)} trust documents are in force")
        floors = {str(floors_of(self.mesh, self.book, peer)) for peer in self.mesh.running()}
        if len(floors) != 1:
            yield BrokenInvariant("L1", f"{len(floors)} floors are in force")

    def _expected(self) -> dict[tuple[str, str], Entry]:
        peer = self.mesh.running()[0]
        assert peer.replicator is not None  # noqa: S101 - running() says so
        law = self.book.law(peer.replicator.peer.trust.raw)
        return self.book.greatest(self._held | self._all_held(), law, fate_of(self.mesh, self.book, peer))

    def wrong_views(self) -> list[BrokenInvariant]:
        """Return the peers whose view is not the greatest of what is valid and held by anyone."""
        expected = self._expected()
        orphans = {place for place, entry in expected.items() if self._is_orphan(entry)}
        self.mesh.counters["orphans"] += len(orphans)
        wrong = []
        for peer in self.mesh.running():
            view = {(scope, key): digest for scope in self.mesh.scopes for key, digest in peer.view(scope).items()}
            wanted = {place: entry.digest for place, entry in expected.items()}
            odd = [place for place in sorted({*view, *wanted}) if view.get(place) != wanted.get(place)]
            odd = [place for place in odd if place not in orphans or place[1] in peer.keys]
            if odd:
                where = " ".join(odd[0])
                wrong.append(BrokenInvariant("L1", f"{peer.name} does not show the greatest valid delta of {where}"))
        return wrong

    def _is_orphan(self, entry: Entry) -> bool:
        """Whether nothing that can be fetched names a delta: its writer's head is void, or was never published.

        Who was away when it came learns of it by asking for its key, and by nothing else.
        """
        return not any(entry.raw in _deltas_of(payload) for payload in self._segments())

    def _segments(self) -> list[bytes]:
        return [head.segments[n] for head in self._best_heads().values() for n in head.segments]

    def _brokers(self) -> Iterator[BrokenInvariant]:
        # What no head names may change sides unseen: the peers there do not know that there is such a key.
        bridged = len(self.mesh.brokers) > 1
        known = {place: entry for place, entry in self._expected().items() if not (bridged and self._is_orphan(entry))}
        wanted = {self.mesh.topics.format(KeyTopic(*place)): entry.raw for place, entry in known.items()}
        for number, broker in enumerate(self.mesh.brokers):
            others = {**self._trust_topics(number), **self._heads(), **self._floors()}
            yield from self._broker(broker.retained, {**wanted, **others})

    def _broker(self, retained: dict[str, bytes], wanted: dict[str, bytes]) -> Iterator[BrokenInvariant]:
        for topic, payload in wanted.items():
            if retained.get(topic) != payload and not self._is_of_a_gen_to_come(retained.get(topic, b"")):
                found = "nothing" if topic not in retained else "something else"
                yield BrokenInvariant("L2", f"a broker retains {found} on {topic}")

    def _is_of_a_gen_to_come(self, payload: bytes) -> bool:
        """Whether something is held: it is not repaired over, for a trust document on its way may make it valid."""
        peer = self.mesh.running()[0]
        assert peer.replicator is not None  # noqa: S101
        entry, law = self.book.entry(payload), self.book.law(peer.replicator.peer.trust.raw)
        active = entry is not None and law.writers.get(entry.stamp[2], {}).get("status", "active") == "active"
        return entry is not None and active and entry.stamp[0] > law.gen

    def _trust_topics(self, broker: int) -> dict[str, bytes]:
        """Return the trust document in force, and every step of the chain that a peer of this broker holds."""
        held: dict[TrustTopic, list[Any]] = defaultdict(list)
        for peer in self.mesh.running():
            if peer.replicator is not None and peer.broker == broker:
                for document in peer.replicator.peer.chain.documents():
                    held[TrustTopic(document.version)].append(document)
        best = {topic: max(documents, key=lambda one: one.digest) for topic, documents in held.items()}
        newest = max(best.values(), key=lambda one: one.order)
        return {self.mesh.topics.format(topic): one.raw for topic, one in {**best, TrustTopic(): newest}.items()}

    def _best_heads(self) -> dict[tuple[str, str], Any]:
        """Return the greatest head of each writer that anyone holds whole."""
        best: dict[tuple[str, str], Any] = {}
        for peer in self.mesh.running():
            for place, head in peer.replicator.peer.heads.items() if peer.replicator is not None else ():
                if head.index is None or head.missing():
                    continue
                if place not in best or head.index.order > best[place].index.order:
                    best[place] = head
        return best

    def _heads(self) -> dict[str, bytes]:
        wanted: dict[Topic, bytes] = {}
        for (scope, kid), head in self._best_heads().items():
            wanted[IndexTopic(scope, kid)] = head.index.raw
            wanted |= {SegmentTopic(scope, kid, n): payload for n, payload in head.segments.items()}
        return {self.mesh.topics.format(topic): payload for topic, payload in wanted.items()}

    def _floors(self) -> dict[str, bytes]:
        held = self.mesh.running()[0].replicator
        assert held is not None  # noqa: S101 - running() says so
        greatest = {scope: held.peer.floors.greatest(scope) for scope in self.mesh.scopes}
        return {self.mesh.topics.format(FloorTopic(scope)): floor.raw for scope, floor in greatest.items() if floor}

    def check_joiner(self, joiner: MeshPeer, states: tuple[str, ...]) -> None:
        """L3: it shows what the others show, and says that it is ready."""
        wrong = [str(one) for one in self.wrong_views() if joiner.name in str(one)]
        if wrong:
            raise BrokenInvariant("L3", wrong[0])
        assert joiner.replicator is not None  # noqa: S101 - it was started
        odd = {joiner.replicator.state_of(scope) for scope in self.mesh.scopes} - set(states)
        if odd:
            raise BrokenInvariant("L3", f"who joins afresh is {', '.join(sorted(odd))}")

    def check_pushes(self) -> None:
        """L6: every push whose process still runs has ended."""
        for peer in self.mesh.running():
            for ref, life in peer.pushed.items():
                stages = [one.stage for one in peer.stages.get(ref, ())]
                if life == peer.life and not ENDS & set(stages):
                    raise BrokenInvariant("L6", f"a push of {peer.name} stands at {stages or 'nothing'}")
