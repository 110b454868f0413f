"""Mesh: a fleet of real replicators in virtual time, seeded, with faults that are counted.

The replicators are the ones of production; sockets, disks and clocks are models. The same seed gives the same run.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec

from tars_settings.core.delta import Assignment
from tars_settings.core.records import DeltaRow, IndexRow, MarkRow, OutboxRow, Row, SegmentRow, TrustRow
from tars_settings.core.register import FleetView
from tars_settings.core.session import (
    Acknowledged,
    Publish,
    Received,
    SessionDown,
    SessionUp,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from tars_settings.core.topics import KeyTopic, Topics, TrustTopic
from tars_settings.core.wire import encode
from tars_settings.gossip.effects import Effect, Event, Follow, Loaded, Offered, Persist, Push, Repaired, Stage, Wake
from tars_settings.gossip.repair import RepairPolicy
from tars_settings.gossip.replicator import Policy, Replicator
from tars_settings.testing.broker import BrokerModel
from tars_settings.trust.document import TrustBody, Writer
from tars_settings.trust.keys import SigningKey

SCOPE: Final = "worker"


class Faults(msgspec.Struct, frozen=True):
    """How much goes wrong: probabilities per message, and virtual seconds.

    ``loss`` of a message on its way to or from the broker, ``duplicate`` of a delivery, ``reorder`` of one behind
    later ones. ``unsynced_loss``: whether a crash loses rows that were not written durably.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    latency_s: tuple[float, float] = (0.001, 0.05)
    unsynced_loss: bool = True


class Disk:
    """A peer's rows: what was written durably survives a crash, the rest may not."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Any, ...], Row] = {}
        self._unsynced: list[tuple[tuple[Row, ...], tuple[Row, ...]]] = []
        self._synced: dict[tuple[Any, ...], Row] = {}

    def apply(self, put: tuple[Row, ...], drop: tuple[Row, ...], *, durable: bool) -> None:
        """Put and drop rows; a durable write takes everything before it to the platter too."""
        for row in drop:
            self.rows.pop(_identity(row), None)
        for row in put:
            self._put(row)
        if durable:
            self._synced = dict(self.rows)

    def _put(self, row: Row) -> None:
        held = self.rows.get(_identity(row))
        if isinstance(row, IndexRow) and isinstance(held, IndexRow) and held.counter > row.counter:
            return
        if isinstance(row, MarkRow) and isinstance(held, MarkRow) and (held.gen, held.epoch) > (row.gen, row.epoch):
            return
        self.rows[_identity(row)] = row

    def crash(self, *, lose_unsynced: bool) -> int:
        """Keep what a crash leaves; return how many rows it lost."""
        lost = len(self.rows.keys() - self._synced.keys()) if lose_unsynced else 0
        if lose_unsynced:
            self.rows = dict(self._synced)
        return lost


def _identity(row: Row) -> tuple[Any, ...]:
    match row:
        case DeltaRow(_, digest, _) | OutboxRow(_, digest, _):
            return (type(row).__name__, digest)
        case TrustRow(version, digest, _):
            return ("trust", version, digest)
        case IndexRow(scope, kid, _, _, _):
            return ("index", scope, kid)
        case SegmentRow(scope, kid, n, _):
            return ("segment", scope, kid, n)
        case MarkRow(scope, kid, _, _):
            return ("mark", scope, kid)


class MeshPeer:
    """One peer of the mesh: a replicator, a disk, and whether its process runs and is connected."""

    def __init__(self, name: str, signer: SigningKey | None) -> None:
        self.name = name
        self.signer = signer
        self.disk = Disk()
        self.replicator: Replicator | None = None
        self.connected = False
        self.partitioned = False
        self.stages: dict[int, list[Stage]] = {}
        self.wake_s = math.inf
        self.session = 0

    def view(self, scope: str = SCOPE) -> dict[str, bytes]:
        """Return the digest that wins each key, tombstones included."""
        if self.replicator is None:
            return {}
        winners = self.replicator.peer.registers.winners(scope)
        return {key: register.delta.stamp.digest for key, register in winners.items()}

    def values(self, scope: str = SCOPE) -> dict[str, Any]:
        """Return the effective plain values of the scope by key."""
        if self.replicator is None:
            return {}
        view = FleetView.of(self.replicator.peer.registers, [scope])
        return {one.key: one.assignment.set for scoped in view.scopes for one in scoped.registers}


class Mesh:
    """A fleet in virtual time. Peers ``worker-0…`` and ``writer-0…`` follow one scope and start connected."""

    def __init__(
        self,
        seed: int,
        *,
        workers: int = 6,
        writers: int = 2,
        faults: Faults | None = None,
        policy: Policy | None = None,
        protocol: int = 5,
        shared_key: bool = False,
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311 - a simulation wants to be repeatable
        self.faults = faults or Faults()
        self.policy = policy or Policy(repairing=RepairPolicy(delay_s=1.0, peers=100), audit_s=60.0)
        self.protocol = protocol
        self.topics = Topics()
        self.counters: Counter[str] = Counter()
        self.now_s = 0.0
        self.broker = BrokerModel()
        self.broker_up = True
        self.observers: list[Callable[[MeshPeer, Effect], None]] = []
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self._refs = itertools.count(1)
        self.root = self._key("root", "root")
        keys = [self._key("writer", f"writer-{0 if shared_key else n}") for n in range(writers)]
        if shared_key:
            keys = [keys[0]] * writers
        self.trust = self.trust_document(1, 1, list({key.kid: key for key in keys}.values()))
        self.peers: dict[str, MeshPeer] = {}
        for n, key in enumerate(keys):
            self.peers[f"writer-{n}"] = MeshPeer(f"writer-{n}", key)
        for n in range(workers):
            self.peers[f"worker-{n}"] = MeshPeer(f"worker-{n}", None)
        for peer in self.peers.values():
            self.start(peer)
        self._offer_trust()

    def _key(self, role: str, name: str) -> SigningKey:
        return SigningKey(role, name, self.random.randbytes(32))  # type: ignore[arg-type]

    def _offer_trust(self) -> None:
        for peer in self.peers.values():
            if peer.signer is not None:
                self.tell(peer, Offered((self.trust,)))

    def trust_document(self, version: int, gen: int, keys: list[SigningKey], **more: Any) -> bytes:
        """Return a signed trust document that lists *keys* as writers with every grant."""
        writers = tuple(Writer(key.name, key.public, ("*", "_all")) for key in keys)
        body = TrustBody(version, gen, (self.root.public,), 1, writers, **more)
        return self.root.sign("trust", self.fleet, encode(body))

    @property
    def fleet(self) -> str:
        """The fleet's id."""
        return self.root.kid

    # --- peers -------------------------------------------------------------------------------------------------------

    def start(self, peer: MeshPeer, keys: tuple[str, ...] = ()) -> None:
        """Start a peer's process from its disk, and connect it."""
        peer.replicator = Replicator(
            self.topics,
            self.root.public,
            nonce=self.random.randbytes(16).hex(),
            random=self.random.random,
            policy=self.policy,
            signer=peer.signer,
        )
        self.tell(peer, Loaded(tuple(peer.disk.rows.values())))
        self.tell(peer, Follow(SCOPE, keys))
        self.connect(peer)

    def crash(self, peer: MeshPeer) -> None:
        """Kill a peer's process: what it had not written durably may be lost."""
        self.disconnect(peer)
        self.counters["rows lost"] += peer.disk.crash(lose_unsynced=self.faults.unsynced_loss)
        self.counters["crashes"] += 1
        peer.replicator = None
        peer.wake_s = math.inf

    def wipe(self, peer: MeshPeer) -> None:
        """Kill a peer and take its disk away."""
        self.crash(peer)
        peer.disk = Disk()
        self.counters["wipes"] += 1

    def connect(self, peer: MeshPeer) -> None:
        """Connect a peer where broker, network and process allow."""
        if peer.connected or peer.replicator is None or peer.partitioned or not self.broker_up:
            return
        peer.connected = True
        peer.session += 1
        self.broker.open(peer.name)
        rap = self.protocol == 5
        self._to_peer(peer, SessionUp(5 if rap else 4, rap))

    def disconnect(self, peer: MeshPeer) -> None:
        """Cut a peer's connection; messages on their way are lost."""
        if peer.connected:
            peer.connected = False
            peer.session += 1
            self.broker.shut(peer.name)
            self.counters["disconnects"] += 1
            self.tell(peer, SessionDown("cut"))

    def partition(self, *peers: MeshPeer) -> None:
        """Keep peers from the broker until healed."""
        for peer in peers:
            peer.partitioned = True
            self.disconnect(peer)
        self.counters["partitions"] += 1

    def heal(self) -> None:
        """End every partition, start every stopped process, and connect."""
        for peer in self.peers.values():
            peer.partitioned = False
            if peer.replicator is None:
                self.start(peer)
            self.connect(peer)

    # --- broker ------------------------------------------------------------------------------------------------------

    def stop_broker(self) -> None:
        """Take the broker down; it keeps its retained messages."""
        self.broker_up = False
        for peer in self.peers.values():
            self.disconnect(peer)

    def start_broker(self, retained: dict[str, bytes] | None = None) -> None:
        """Start the broker with *retained* (what it had, where None) and let the peers come back over a second."""
        if retained is not None:
            self.broker.retained = dict(retained)
            self.counters["rollbacks" if retained else "amnesias"] += 1
        self.broker_up = True
        for peer in self.peers.values():
            self.after(self.random.random(), lambda peer=peer: self.connect(peer))  # type: ignore[misc]

    def publish_hostile(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        """Publish as somebody without a key."""
        self.counters["hostile"] += 1
        self._publish(topic, payload, retain=retain)

    # --- pushing -----------------------------------------------------------------------------------------------------

    def push(self, writer: str, values: dict[str, Any], *, unset: tuple[str, ...] = (), scope: str = SCOPE) -> int:
        """Have a writer push, and return the push's ref."""
        ref = next(self._refs)
        assign = tuple(Assignment(key, set=value) for key, value in values.items())
        assign += tuple(Assignment(key, unset=True) for key in unset)
        self.tell(self.peers[writer], Push(ref, scope, assign))
        return ref

    # --- time --------------------------------------------------------------------------------------------------------

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Run *action* after a virtual delay."""
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._sequence), action))

    def run(self, seconds: float, *, until: Callable[[], bool] | None = None) -> bool:
        """Let virtual time pass; stop early when *until* holds. Return whether it held."""
        end_s = self.now_s + seconds
        while self._heap and self._heap[0][0] <= end_s:
            if until is not None and until():
                return True
            self.now_s, _, action = heapq.heappop(self._heap)
            self.counters["events"] += 1
            action()
        self.now_s = end_s
        return until is not None and until()

    def tell(self, peer: MeshPeer, event: Event) -> None:
        """Give an event to a peer and carry out what it wants."""
        if peer.replicator is None:
            return
        for effect in peer.replicator.handle(event, self.now_s):
            self._carry_out(peer, effect)
        self._set_wake(peer)

    def _set_wake(self, peer: MeshPeer) -> None:
        if peer.replicator is None:
            return
        wake_s = peer.replicator.next_wake_s()
        if wake_s < math.inf and not self.now_s <= peer.wake_s <= wake_s:
            peer.wake_s = wake_s
            self.after(max(0.001, wake_s - self.now_s), lambda: self._wake(peer, wake_s))

    def _wake(self, peer: MeshPeer, wake_s: float) -> None:
        if peer.wake_s == wake_s:
            peer.wake_s = math.inf
            self.tell(peer, Wake())

    # --- effects -----------------------------------------------------------------------------------------------------

    def _carry_out(self, peer: MeshPeer, effect: Effect) -> None:
        match effect:
            case Persist(put, drop, durable):
                peer.disk.apply(put, drop, durable=durable)
            case Publish():
                self._from_peer(peer, effect)
            case Subscribe(ref, filters, _, replay):
                self._later(peer, lambda: self._subscribe(peer, ref, filters, replay=replay))
            case Unsubscribe(filters):
                self._later(peer, lambda: self.broker.unsubscribe(peer.name, filters))
            case Stage(ref):
                peer.stages.setdefault(ref, []).append(effect)
            case Repaired():
                self.counters["repairs"] += 1
        for observer in self.observers:
            observer(peer, effect)

    def _latency(self) -> float:
        return self.random.uniform(*self.faults.latency_s)

    def _later(self, peer: MeshPeer, action: Callable[[], None]) -> None:
        """Carry something to the broker, in the order it was sent, if the session lasts."""
        session = peer.session

        def arrive() -> None:
            if peer.connected and peer.session == session and self.broker_up:
                action()

        self.after(self.faults.latency_s[0], arrive)

    def _from_peer(self, peer: MeshPeer, publish: Publish) -> None:
        if self.random.random() < self.faults.loss:
            # The session would notice: a message of QoS 1 is lost with its connection.
            self.counters["lost publishes"] += 1
            self.after(0.01, lambda: self._reconnect(peer))
            return

        def arrive() -> None:
            self._publish(publish.topic, publish.payload, retain=publish.retain)
            if publish.qos:
                self._to_peer(peer, Acknowledged(publish.ref))

        self._later(peer, arrive)

    def _reconnect(self, peer: MeshPeer) -> None:
        self.disconnect(peer)
        self.after(0.1 + self.random.random(), lambda: self.connect(peer))

    def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if not self.broker_up:
            return
        for name in self.broker.publish(topic, payload, retain=retain):
            flag = retain and self.protocol == 5
            self._deliver(self.peers[name], Received(topic, payload, flag))

    def _subscribe(self, peer: MeshPeer, ref: int, filters: tuple[str, ...], *, replay: bool) -> None:
        self.broker.subscribe(peer.name, filters)
        self._to_peer(peer, Subscribed(ref))
        if replay or self.protocol == 4:
            for one in filters:
                for topic, payload in self.broker.replay(one):
                    self._deliver(peer, Received(topic, payload, True))

    def _deliver(self, peer: MeshPeer, received: Received) -> None:
        if self.random.random() < self.faults.loss:
            self.counters["lost deliveries"] += 1
            return
        copies = 1
        if self.random.random() < self.faults.duplicate:
            self.counters["duplicates"] += 1
            copies = 2
        for _ in range(copies):
            self._to_peer(peer, received)

    def _to_peer(self, peer: MeshPeer, event: Event) -> None:
        session = peer.session
        delay_s = self.faults.latency_s[1]
        if isinstance(event, Received) and self.random.random() < self.faults.reorder:
            self.counters["reorders"] += 1
            delay_s += self._latency() * 4

        def arrive() -> None:
            if peer.session == session:
                self.tell(peer, event)

        self.after(delay_s, arrive)

    # --- what holds --------------------------------------------------------------------------------------------------

    def running(self) -> list[MeshPeer]:
        """Return the peers whose process runs."""
        return [peer for peer in self.peers.values() if peer.replicator is not None]

    def replicas_agree(self) -> bool:
        """Return whether all running peers hold the same winners."""
        views = [peer.view() for peer in self.running()]
        return all(view == views[0] for view in views)

    def broker_agrees(self) -> bool:
        """Return whether the broker retains each winner's bytes, the heads, and the trust document."""
        peer = self.running()[0]
        assert peer.replicator is not None  # noqa: S101 - running() says so
        held = peer.replicator.peer
        wanted = {topic: held.desired(parsed) for topic in held.topics_of(SCOPE) if (parsed := self.topics.parse(topic))}
        wanted[self.topics.format(TrustTopic())] = held.trust.raw
        return all(self.broker.retained.get(topic) == payload for topic, payload in wanted.items())

    def key_topic(self, key: str, scope: str = SCOPE) -> str:
        """Return a key's topic."""
        return self.topics.format(KeyTopic(scope, key))
