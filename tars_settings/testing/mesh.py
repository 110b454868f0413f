"""Mesh: a fleet of real replicators in virtual time, seeded, with faults that are counted.

The replicators are the ones of production; sockets, disks, clocks and brokers are models. The same seed gives the same
run. What is random comes from one generator; nothing here asks the machine for time, randomness or an order of sets.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Final

from tars_settings.core.delta import Assignment
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
from tars_settings.gossip.effects import (
    Compact,
    Effect,
    Event,
    FloorRaised,
    Follow,
    Loaded,
    Offered,
    Persist,
    Push,
    Repaired,
    Stage,
    Wake,
)
from tars_settings.gossip.repair import RepairPolicy
from tars_settings.gossip.replicator import Policy, Replicator
from tars_settings.testing.bridge import Bridge
from tars_settings.testing.broker import BrokerModel, is_wild
from tars_settings.testing.disk import Disk, Rows
from tars_settings.testing.faults import Faults
from tars_settings.testing.peers import SCOPE, MeshPeer, RecordingKey, Signed
from tars_settings.trust.document import TrustBody, Writer
from tars_settings.trust.keys import SigningKey

__all__ = ["SCOPE", "Faults", "Mesh", "MeshPeer", "RunawayError"]

AUDIT_S: Final = 60.0
MAX_EVENTS: Final = 400_000


class RunawayError(AssertionError):
    """A mesh did not come to rest: its peers keep each other busy, or one of them wakes without doing anything."""


class Mesh:
    """A fleet in virtual time. Peers ``worker-0…`` and ``writer-0…`` follow its scopes and start connected.

    ``counters`` counts the faults that really happened. *brokers* above one are bridged, peers spread over them.
    *shared_key*: all writers hold one key. *grants* maps writers' names to what they may write, all of it by default.
    """

    def __init__(  # noqa: PLR0913 - each is one knob of the world
        self,
        seed: int,
        *,
        workers: int = 6,
        writers: int = 2,
        faults: Faults | None = None,
        policy: Policy | None = None,
        protocol: int = 5,
        brokers: int = 1,
        shared_key: bool = False,
        scopes: tuple[str, ...] = (SCOPE,),
        grants: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.seed = seed
        self.random = Random(seed)  # noqa: S311 - a simulation wants to be repeatable
        self.faults = faults or Faults()
        self.policy = policy or Policy(repairing=RepairPolicy(delay_s=1.0, peers=100), audit_s=AUDIT_S)
        self.protocol = protocol
        self.scopes = scopes
        self.grants = grants or {}
        self.topics = Topics()
        self.counters: Counter[str] = Counter()
        self.now_s = 0.0
        self.brokers = [BrokerModel() for _ in range(brokers)]
        self.bridge = Bridge(self)
        self.observers: list[Callable[[MeshPeer, Effect], None]] = []
        self.checks: list[Callable[[MeshPeer], None]] = []
        self.signed: Signed = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self._refs = itertools.count(1)
        self.root = self.key("root", "root")
        self.keys = [self.key("writer", f"writer-{n}") for n in range(1 if shared_key else writers)]
        self.peers: dict[str, MeshPeer] = {}
        for n in range(writers):
            self._add(f"writer-{n}", self.keys[0 if shared_key else n])
        for n in range(workers):
            self._add(f"worker-{n}", None)
        self.trust = self.trust_document(1, 1, self.keys)
        for peer in self.peers.values():
            self.start(peer)
        self.offer_trust(self.trust)

    @property
    def broker(self) -> BrokerModel:
        """The first broker."""
        return self.brokers[0]

    @property
    def fleet(self) -> str:
        """The fleet's id."""
        return self.root.kid

    def _add(self, name: str, signer: SigningKey | None) -> None:
        self.peers[name] = MeshPeer(name, signer, broker=len(self.peers) % len(self.brokers))

    # --- trust -------------------------------------------------------------------------------------------------------

    def key(self, role: str, name: str) -> RecordingKey:
        """Return a new key whose signatures the mesh remembers."""
        return RecordingKey(role, name, self.random.randbytes(32), self.signed)

    def trust_document(self, version: int, gen: int, keys: Iterable[SigningKey], **more: Any) -> bytes:
        """Return a signed trust document that lists *keys* as active writers."""
        writers = tuple(Writer(key.name, key.public, self.grants.get(key.name, ("*", "_all"))) for key in keys)
        return self.sign_trust(TrustBody(version, gen, (self.root.public,), 1, writers, **more))

    def sign_trust(self, body: TrustBody) -> bytes:
        """Return a trust document signed by the root."""
        return self.root.sign("trust", self.fleet, encode(body))

    def offer_trust(self, payload: bytes) -> None:
        """Give a trust document to every writer, as an operator's file."""
        for peer in self.peers.values():
            if peer.signer is not None:
                self.tell(peer, Offered((payload,)))

    # --- processes ---------------------------------------------------------------------------------------------------

    def start(self, peer: MeshPeer) -> None:
        """Start a peer's process from its disk, and connect it."""
        peer.life += 1
        peer.replicator = Replicator(
            self.topics,
            self.root.public,
            nonce=self.random.randbytes(16).hex(),
            random=self.random.random,
            policy=self.policy,
            signer=peer.signer,
        )
        self.tell(peer, Loaded(peer.rows()))
        for scope in self.scopes:
            self.tell(peer, Follow(scope, peer.keys))
        self.connect(peer)

    def kill(self, peer: MeshPeer) -> None:
        """Kill a peer's process; its disk keeps what was written."""
        if peer.replicator is None:
            return
        peer.replicator = None  # first: the dead take no note of their connection's end
        self.disconnect(peer)
        self.counters["kills"] += 1
        if peer.disk.broken:
            peer.forgot += 1
            peer.wiped += 1
        peer.fuse = None
        peer.wake_s = math.inf

    def crash(self, peer: MeshPeer) -> None:
        """Cut a peer's power: what it had not written durably may be lost."""
        self.kill(peer)
        lost = peer.disk.lose_power(self.random)
        self.counters["power losses"] += 1
        self.counters["transactions lost"] += lost
        peer.forgot += bool(lost)

    def wipe(self, peer: MeshPeer) -> None:
        """Kill a peer and take its disk away."""
        self.kill(peer)
        peer.disk = Disk()
        peer.forgot += 1
        peer.wiped += 1
        self.counters["wipes"] += 1

    def restore(self, peer: MeshPeer, rows: Rows) -> None:
        """Kill a peer and put an older copy of its disk back."""
        self.kill(peer)
        peer.disk.restore(rows)
        peer.forgot += 1
        peer.wiped += 1
        self.counters["disk rollbacks"] += 1

    def jump(self, peer: MeshPeer, seconds: float) -> None:
        """Move a peer's clock ahead; it never goes back."""
        peer.ahead_s += seconds
        peer.wake_s = math.inf
        self.counters["clock jumps"] += 1
        self.tell(peer, Wake())

    # --- connections -------------------------------------------------------------------------------------------------

    def broker_of(self, peer: MeshPeer) -> BrokerModel:
        """Return the broker that a peer connects to."""
        return self.brokers[peer.broker]

    def connect(self, peer: MeshPeer) -> None:
        """Connect a peer where broker, network and process allow."""
        if peer.connected or peer.replicator is None or peer.partitioned or peer.away or not self.broker_of(peer).up:
            return
        peer.connected = True
        peer.session += 1
        peer.on_their_way = 0
        self.broker_of(peer).open(peer.name)
        is_5 = self.protocol == 5
        self._to_peer(peer, SessionUp(5 if is_5 else 4, is_5))

    def disconnect(self, peer: MeshPeer) -> None:
        """Cut a peer's connection; messages on their way are lost."""
        if peer.connected:
            peer.connected = False
            peer.session += 1
            self.broker_of(peer).shut(peer.name)
            self.counters["disconnects"] += 1
            self.tell(peer, SessionDown("cut"))

    def partition(self, *peers: MeshPeer) -> None:
        """Keep peers from the broker until healed."""
        for peer in peers:
            peer.partitioned = True
            self.disconnect(peer)
        self.counters["partitions"] += 1

    def leave(self, peer: MeshPeer) -> None:
        """Take a peer away, its process running: nothing but its return connects it again."""
        peer.away = True
        self.disconnect(peer)

    def heal(self) -> None:
        """End every partition, start every stopped process, and connect all but those who are away."""
        for peer in self.peers.values():
            peer.partitioned = False
            if peer.replicator is None:
                self.start(peer)
            self.connect(peer)

    # --- brokers -----------------------------------------------------------------------------------------------------

    def stop_broker(self, number: int = 0) -> None:
        """Take a broker down; it keeps its retained messages."""
        self.brokers[number].up = False
        self.counters["broker stops"] += 1
        for peer in self.peers.values():
            if peer.broker == number:
                self.disconnect(peer)

    def start_broker(self, retained: dict[str, bytes] | None = None, number: int = 0) -> None:
        """Start a broker with *retained* (what it had, where None) and let the peers come back over a second."""
        broker = self.brokers[number]
        if retained is not None:
            broker.retained = dict(retained)
            self.counters["broker rollbacks" if retained else "broker amnesias"] += 1
        broker.up = True
        self.bridge.swap()
        for peer in self.peers.values():
            if peer.broker == number:
                self.after(self.random.random(), lambda peer=peer: self.connect(peer))  # type: ignore[misc]

    def publish_hostile(self, topic: str, payload: bytes, *, retain: bool = True, number: int = 0) -> None:
        """Publish as somebody without a key."""
        self.counters["hostile"] += 1
        self.publish_at(number, topic, payload, retain=retain)

    def publish_at(self, number: int, topic: str, payload: bytes, *, retain: bool, bridged: bool = False) -> None:
        """Publish at one broker; what did not come over the bridge goes over it."""
        if not self.brokers[number].up:
            return
        for name in self.brokers[number].publish(topic, payload, retain=retain):
            self._deliver(self.peers[name], Received(topic, payload, retain and self.protocol == 5))
        if not bridged:
            self.bridge.forward(number, topic, payload, retain=retain)

    # --- pushing -----------------------------------------------------------------------------------------------------

    def push(
        self,
        writer: str,
        values: dict[str, Any],
        *,
        unset: tuple[str, ...] = (),
        scope: str = SCOPE,
        force: bool = False,
        trial_s: int = 0,
    ) -> int:
        """Have a writer push, and return the push's ref; its time is the mesh's, in seconds."""
        ref, peer = next(self._refs), self.peers[writer]
        assign = tuple(Assignment(key, set=value) for key, value in values.items())
        assign += tuple(Assignment(key, unset=True) for key in unset)
        if peer.replicator is not None:
            peer.pushed[ref] = peer.life
            self.counters["pushes"] += 1
            self.counters["pushes on trial"] += bool(trial_s)
        self.tell(peer, Push(ref, scope, assign, at=f"{self.now_s:.0f}", force=force, trial_s=trial_s))
        return ref

    def compact(self, writer: str, scope: str = SCOPE) -> int:
        """Have a writer sign a floor, and return the ref."""
        ref, peer = next(self._refs), self.peers[writer]
        if peer.replicator is not None:
            peer.pushed[ref] = peer.life
        self.tell(peer, Compact(ref, scope))
        return ref

    # --- time --------------------------------------------------------------------------------------------------------

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Run *action* after a virtual delay."""
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._sequence), action))

    def run(self, seconds: float, *, until: Callable[[], bool] | None = None) -> bool:
        """Let virtual time pass; stop early when *until* holds. Return whether it held.

        Raises:
            RunawayError: more happened than a fleet of this size has to do.
        """
        end_s = self.now_s + seconds
        while self._heap and self._heap[0][0] <= end_s:
            if until is not None and until():
                return True
            self.now_s, _, action = heapq.heappop(self._heap)
            self.counters["events"] += 1
            if self.counters["events"] > MAX_EVENTS:
                raise RunawayError(f"{MAX_EVENTS} events by {self.now_s:.0f} s")
            action()
        self.now_s = end_s
        return until is not None and until()

    def tell(self, peer: MeshPeer, event: Event) -> None:
        """Give an event to a peer and carry out what it wants, unless its fuse kills it in between."""
        if peer.replicator is None:
            return
        life = peer.life
        for effect in peer.replicator.handle(event, self.now_s + peer.ahead_s):
            if peer.fuse == 0:
                self.counters["crashes between effects"] += 1
                self.after(2 * self.random.random(), lambda: self._restart(peer, life))
                (self.crash if self.random.random() < 0.5 else self.kill)(peer)
                return
            peer.fuse = None if peer.fuse is None else peer.fuse - 1
            self._carry_out(peer, effect)
        for check in self.checks:
            check(peer)
        self._set_wake(peer)

    def _restart(self, peer: MeshPeer, life: int) -> None:
        if peer.life == life and peer.replicator is None:
            self.start(peer)

    def _set_wake(self, peer: MeshPeer) -> None:
        if peer.replicator is None:
            return
        wake_s = peer.replicator.next_wake_s() - peer.ahead_s
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
                self.counters["writes refused"] += peer.disk.broken
            case Publish():
                self._from_peer(peer, effect)
            case Subscribe(ref, filters, _, replay):
                self._later(peer, lambda: self._subscribe(peer, ref, filters, replay=replay))
            case Unsubscribe(filters):
                self._later(peer, lambda: self.broker_of(peer).unsubscribe(peer.name, filters))
            case Stage(ref):
                peer.stages.setdefault(ref, []).append(effect)
            case Repaired():
                self.counters["repairs"] += 1
            case FloorRaised():
                self.counters["floors"] += 1
        for observer in self.observers:
            observer(peer, effect)

    def _later(self, peer: MeshPeer, action: Callable[[], None]) -> None:
        """Carry something to the broker, in the order it was sent, if the session lasts."""
        session = peer.session

        def arrive() -> None:
            if peer.connected and peer.session == session:
                action()

        self.after(self.faults.latency_s[0], arrive)

    def _from_peer(self, peer: MeshPeer, publish: Publish) -> None:
        if self.random.random() < self.faults.loss:
            # The session would notice: a message of QoS 1 is lost with its connection.
            self.counters["lost publishes"] += 1
            self.after(0.01, lambda: self._reconnect(peer))
            return

        def arrive() -> None:
            if publish.retain and peer.mute:
                self.counters["muted publishes"] += 1
            else:
                self.publish_at(peer.broker, publish.topic, publish.payload, retain=publish.retain)
            if publish.qos:
                self._to_peer(peer, Acknowledged(publish.ref))

        self._later(peer, arrive)

    def _reconnect(self, peer: MeshPeer) -> None:
        self.disconnect(peer)
        self.after(0.1 + self.random.random(), lambda: self.connect(peer))

    def _subscribe(self, peer: MeshPeer, ref: int, filters: tuple[str, ...], *, replay: bool) -> None:
        broker = self.broker_of(peer)
        broker.subscribe(peer.name, filters)
        self._to_peer(peer, Subscribed(ref))
        if replay or self.protocol == 4:
            for one in filters:
                for topic, payload in self._replayed(broker, one):
                    self._deliver(peer, Received(topic, payload, True))

    def _replayed(self, broker: BrokerModel, one: str) -> list[tuple[str, bytes]]:
        replayed = broker.replay(one)
        limit = self.faults.replay_limit
        if limit is not None and is_wild(one) and len(replayed) > limit:
            self.counters["replays cut"] += 1
            return replayed[:limit]
        return replayed

    def _deliver(self, peer: MeshPeer, received: Received) -> None:
        if self.random.random() < self.faults.loss:
            self.counters["lost deliveries"] += 1
            return
        if self.faults.queue_limit and peer.on_their_way >= self.faults.queue_limit:
            self.counters["queue drops"] += 1
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
            delay_s += self.random.uniform(*self.faults.latency_s) * 4
        peer.on_their_way += 1

        def arrive() -> None:
            if peer.session == session:
                peer.on_their_way -= 1
                self.tell(peer, event)

        self.after(delay_s, arrive)

    # --- what holds --------------------------------------------------------------------------------------------------

    def running(self) -> list[MeshPeer]:
        """Return the peers whose process runs."""
        return [peer for peer in self.peers.values() if peer.replicator is not None]

    def replicas_agree(self) -> bool:
        """Return whether all running peers hold the same winners."""
        views = [[peer.view(scope) for scope in self.scopes] for peer in self.running()]
        return all(view == views[0] for view in views)

    def broker_agrees(self) -> bool:
        """Return whether every broker retains each winner's bytes, the heads, and the trust document."""
        peer = self.running()[0]
        assert peer.replicator is not None  # noqa: S101 - running() says so
        held = peer.replicator.peer
        texts = [text for scope in self.scopes for text in held.topics_of(scope)]
        wanted = {text: held.desired(parsed) for text in texts if (parsed := self.topics.parse(text))}
        wanted[self.topics.format(TrustTopic())] = held.trust.raw
        return all(broker.retained.get(text) == one for broker in self.brokers for text, one in wanted.items())

    def key_topic(self, key: str, scope: str = SCOPE) -> str:
        """Return a key's topic."""
        return self.topics.format(KeyTopic(scope, key))
