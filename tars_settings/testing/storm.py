"""A storm: a world and a run of faults, both drawn from a seed, and the fair weather after it.

Two modes, as in TigerBeetle's simulator: while anything may go wrong only safety is asked for, at every step; then
faults stop, and liveness is asked for at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from tars_settings.gossip.effects import Follow, Offered
from tars_settings.gossip.repair import RepairPolicy
from tars_settings.gossip.replicator import Policy
from tars_settings.testing.disk import Rows
from tars_settings.testing.faults import NONE, Faults
from tars_settings.testing.hostile import Hostile
from tars_settings.testing.invariants import BrokenInvariant, Liveness, Safety
from tars_settings.testing.merging import Merging
from tars_settings.testing.mesh import AUDIT_S, SCOPE, Mesh, MeshPeer
from tars_settings.testing.root import Rogue, Root
from tars_settings.testing.sometimes import Sometimes

KEYS: Final = ("a", "b", "c", "d", "audio", "audio.gain", "audio.rate", "x.y.z")
SETTLE_S: Final = 2 * AUDIT_S
"""L1: within how many virtual seconds of fair weather all must agree."""
ABSENCE_S: Final = 3 * AUDIT_S
"""For how many virtual seconds more whoever is away misses everything."""
SIEGE_S: Final = 80
"""How many times, once a virtual second, one topic is overwritten."""


class Storm:
    """One seed's world, and what happens to it. ``log`` is what was done, for people who replay a seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(f"storm {seed}")  # noqa: S311 - repeatable
        self.log: list[str] = []
        self.keys = tuple(self.random.sample(KEYS, self.random.randrange(2, len(KEYS))))
        self.mesh = self._world()
        self.safety = Safety(self.mesh)
        self.sometimes = Sometimes(self.mesh, self.safety)
        self.hostile = Hostile(self.mesh, self.keys)
        rogue = self.mesh.key("writer", "rogue")
        self.rogue = Rogue(self.mesh, rogue, self.keys)
        self.safety.rogues.add(rogue.kid)
        self.root = Root(self.mesh, [*self.mesh.keys, rogue])
        self._backups: dict[str, Rows] = {}
        self._snapshots: dict[int, dict[str, bytes]] = {}
        self._value = 0

    def _world(self) -> Mesh:
        scopes = ("_all", SCOPE) if self.random.random() < 0.25 else (SCOPE,)
        grants = {"rogue": tuple(f"{scope}.{key}" for scope in scopes for key in self.keys)}
        mesh = Mesh(
            self.seed,
            workers=self.random.randrange(1, 5),
            writers=self.random.choice((1, 2, 2, 3)),
            policy=Policy(repairing=RepairPolicy(delay_s=1.0, peers=100), audit_s=AUDIT_S),
            protocol=4 if self.random.random() < 0.2 else 5,
            brokers=2 if self.random.random() < 0.2 else 1,
            shared_key=self.random.random() < 0.15,
            scopes=scopes,
            grants=grants,
        )
        mesh.counters["runs on MQTT 3.1.1"] += mesh.protocol == 4
        mesh.counters["runs with a shared key"] += len(mesh.keys) < len(self._writers(mesh))
        for peer in mesh.peers.values():
            peer.keys = tuple(key for key in self.keys if self.random.random() < 0.5)
            for scope in scopes:
                mesh.tell(peer, Follow(scope, peer.keys))
        return mesh

    @staticmethod
    def _writers(mesh: Mesh) -> list[MeshPeer]:
        return [peer for peer in mesh.peers.values() if peer.signer is not None]

    # --- the two modes -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let the storm pass, then the fair weather.

        Raises:
            BrokenInvariant: an invariant does not hold; its name is in front.
        """
        self.blow(self.random.randrange(20, 60))
        self.clear_up()

    def blow(self, steps: int) -> None:
        """Any faults, safety only."""
        self._note("rogue listed", self.root.issue)
        self.mesh.run(self.random.choice((0.0, 5.0, 10.0)))
        for _ in range(steps):
            name, action = self._draw()
            self._note(name, action)
            self.mesh.run(self.random.choice((0.0, 0.02, 0.2, 1.0, 3.0, 8.0)))
        self._outlast_absences()

    def _outlast_absences(self) -> None:
        """Go on for a while without those who are away: they return to a fleet that compacted what they remember."""
        away = [peer for peer in self.mesh.peers.values() if peer.away]
        if not away:
            return
        floors = self.mesh.counters["floors"]
        for _ in range(3):
            self._note("compact", self.do_compact)
            self._note("push", self.do_push)
            self.mesh.run(ABSENCE_S / 3)
        self.mesh.counters["long absences"] += len(away)
        self.mesh.counters["absences across a floor"] += self.mesh.counters["floors"] > floors

    def _note(self, name: str, action: Callable[[], object]) -> None:
        self.log.append(f"{self.mesh.now_s:8.2f} {name}")
        action()

    def clear_up(self) -> None:
        """Stop every fault, then ask for liveness."""
        mesh = self.mesh
        mesh.faults = Faults(replay_limit=mesh.faults.replay_limit)
        self._let_go()
        liveness = Liveness(mesh, self.safety.book)
        self._settle(liveness)
        self.sometimes.look()
        liveness.check_pushes()
        self._join_afresh(liveness)
        self._rest()
        merging = Merging(mesh, self.safety.book)
        merging.check_order()
        merging.check_models(self.keys)

    def _let_go(self) -> None:
        mesh = self.mesh
        # The bridge comes last. Values that change places while nobody is connected on one side are seen by nobody
        # there, until the next push or the next time that the bridge reconnects: no peer can know better.
        mesh.bridge.cut()
        for number, broker in enumerate(mesh.brokers):
            if not broker.up:
                mesh.start_broker(number=number)
        for peer in mesh.peers.values():
            peer.mute, peer.fuse, peer.disk.broken, peer.away = False, None, False, False
        mesh.heal()
        mesh.run(10.0)
        mesh.heal()
        self._end_mischief()
        mesh.run(10.0)
        mesh.bridge.heal()

    def _end_mischief(self) -> None:
        """Take away what nobody may repair: the key of a rogue that lied.

        And the operator offers the newest trust document once more, in case that no peer that lives has it.
        """
        if "lying indexes" in self.rogue.used:
            self.root.revoke(self.rogue.key)
        for payload in self.root.chain or [self.mesh.trust]:
            for peer in self.mesh.running():
                if peer.signer is not None:
                    self.mesh.tell(peer, Offered((payload,)))

    def _settle(self, liveness: Liveness) -> None:
        end_s = self.mesh.now_s + SETTLE_S
        missing: list[BrokenInvariant] = []
        while self.mesh.now_s < end_s:
            self.mesh.run(5.0)
            missing = list(liveness.missing())
            if not missing:
                return
        raise missing[0]

    def _join_afresh(self, liveness: Liveness) -> None:
        joiner = MeshPeer("joiner", None, keys=self.keys[::2])
        self.mesh.peers["joiner"] = joiner
        self.mesh.start(joiner)
        self.mesh.run(20.0)
        # The last index of a writer that retired below it is void, and the one that counts may be gone for ever.
        retired = any(status["status"] == "retired" for status in self.root.status.values())
        liveness.check_joiner(joiner, ("ready", "degraded") if retired else ("ready",))

    def _rest(self) -> None:
        """L4: after two audits nothing is left to repair."""
        self.mesh.run(2 * AUDIT_S)
        before = self.mesh.counters["repairs"]
        self.mesh.run(2 * AUDIT_S)
        if self.mesh.counters["repairs"] != before:
            raise BrokenInvariant("L4", f"{self.mesh.counters['repairs'] - before} repairs although all agree")

    # --- what may happen ---------------------------------------------------------------------------------------------

    def _draw(self) -> tuple[str, Callable[[], object]]:
        names = [name for name in WEIGHTS if self._is_possible(name)]
        (name,) = self.random.choices(names, [WEIGHTS[name] for name in names])
        return name, getattr(self, "do_" + name)

    def _is_possible(self, name: str) -> bool:
        if name.startswith("bridge"):
            return len(self.mesh.brokers) > 1
        return True

    def _peer(self) -> MeshPeer:
        return self.random.choice(list(self.mesh.peers.values()))

    def _number(self) -> int:
        return self.random.randrange(len(self.mesh.brokers))

    def do_push(self) -> None:
        """One to three keys, some of them unset."""
        writer = self.random.choice(self._writers(self.mesh))
        self._value += 1
        chosen: list[str] = []
        for key in self.random.sample(self.keys, self.random.randrange(1, min(4, len(self.keys) + 1))):
            if not any(key.startswith(f"{one}.") or one.startswith(f"{key}.") for one in chosen):
                chosen.append(key)
        unset = tuple(key for key in chosen if self.random.random() < 0.2)
        values = {key: f"{writer.name}-{self._value}" for key in chosen if key not in unset}
        scope = self.random.choice(self.mesh.scopes)
        # Merging knows nothing of trials, and neither does the book that judges the storm.
        trial_s = 0 if self._value % 4 else 60
        force = self.random.random() < 0.1
        self.mesh.push(writer.name, values, unset=unset, scope=scope, force=force, trial_s=trial_s)

    def do_burst(self) -> None:
        """Every writer pushes at the same moment."""
        for _ in self._writers(self.mesh):
            self.do_push()

    def do_compact(self) -> None:
        """A writer unsets a key and signs a floor; sometimes somebody puts an older one back."""
        writer, scope = self.random.choice(self._writers(self.mesh)).name, self.random.choice(self.mesh.scopes)
        self.mesh.push(writer, {}, unset=(self.random.choice(self.keys),), scope=scope)
        self.mesh.run(self.random.choice((0.0, 3.0)))
        self.mesh.compact(writer, scope)
        self.mesh.run(self.random.choice((0.0, 3.0)))
        if self.random.random() < 0.5:
            self.hostile.strike("lowered")

    def do_kill(self) -> None:
        """Kill a process and start it again."""
        peer = self._peer()
        self.mesh.kill(peer)
        self._start_later(peer)

    def do_power(self) -> None:
        """Cut the power and start again."""
        peer = self._peer()
        self.mesh.crash(peer)
        self._start_later(peer)

    def _start_later(self, peer: MeshPeer) -> None:
        life = peer.life
        self.mesh.after(self.random.choice((0.0, 1.0, 20.0)), lambda: self._start(peer, life))

    def _start(self, peer: MeshPeer, life: int) -> None:
        if peer.replicator is None and peer.life == life:
            self.mesh.start(peer)

    def do_fuse(self) -> None:
        """Kill a process between two of its next effects."""
        self._peer().fuse = self.random.randrange(12)

    def do_fused_push(self) -> None:
        """Kill a writer somewhere within a push."""
        for writer in self._writers(self.mesh):
            writer.fuse = self.random.randrange(10)
        self.do_push()

    def do_wipe(self) -> None:
        """Take a disk away."""
        peer = self._peer()
        self.mesh.wipe(peer)
        self._start_later(peer)

    def do_backup(self) -> None:
        """Copy a disk."""
        peer = self._peer()
        self._backups[peer.name] = peer.disk.copy()

    def do_restore(self) -> None:
        """Put a copied disk back."""
        if self._backups:
            name = self.random.choice(sorted(self._backups))
            self.mesh.restore(self.mesh.peers[name], self._backups[name])
            self._start_later(self.mesh.peers[name])

    def do_damage(self) -> None:
        """Flip a byte in a row of a disk and start anew."""
        peer = self._peer()
        rows = [(at, row) for at, row in peer.disk.rows.items() if getattr(row, "raw", b"")]
        if not rows:
            return
        at, row = self.random.choice(rows)
        changed = bytearray(row.raw)  # type: ignore[union-attr]
        changed[self.random.randrange(len(changed))] ^= 1 << self.random.randrange(8)
        self.mesh.kill(peer)
        fields = {name: getattr(row, name) for name in row.__struct_fields__} | {"raw": bytes(changed)}
        peer.disk.rows[at] = type(row)(**fields)
        peer.disk.sync()
        peer.forgot += 1
        peer.wiped += 1
        self.mesh.counters["rows damaged"] += 1
        self._start_later(peer)

    def do_disk_full(self) -> None:
        """From now on a worker's disk takes nothing."""
        peer = self._peer()
        if peer.signer is None:
            peer.disk.broken = True

    def do_partition(self) -> None:
        """Cut off some peers."""
        peers = list(self.mesh.peers.values())
        self.mesh.partition(*self.random.sample(peers, self.random.randrange(1, len(peers) + 1)))

    def do_absence(self) -> None:
        """A peer goes away until the weather is fair."""
        peers = [peer for peer in self.mesh.peers.values() if not peer.away]
        if len(peers) > 1:
            self.mesh.leave(self.random.choice(peers))

    def do_siege(self) -> None:
        """Somebody overwrites one topic again and again."""
        topic = self.mesh.key_topic(self.random.choice(self.keys), self.random.choice(self.mesh.scopes))
        self.mesh.counters["sieges"] += 1
        for _ in range(SIEGE_S):
            self.mesh.publish_hostile(topic, self.random.randbytes(20), number=self._number())
            self.mesh.run(1.0)

    def do_heal(self) -> None:
        """End every partition."""
        self.mesh.heal()

    def do_broker_restart(self) -> None:
        """Stop a broker, and start it with what it had."""
        number = self._number()
        self.mesh.stop_broker(number)
        self.mesh.after(self.random.choice((0.1, 5.0)), lambda: self.mesh.start_broker(number=number))

    def do_broker_amnesia(self) -> None:
        """Start a broker without its memory."""
        self._reborn({})

    def do_broker_snapshot(self) -> None:
        """Take the snapshot that a broker saves now and then."""
        number = self._number()
        self._snapshots[number] = dict(self.mesh.brokers[number].retained)

    def do_broker_rollback(self) -> None:
        """Start a broker with what it saved last."""
        if self._snapshots:
            self._reborn(self._snapshots[self.random.choice(sorted(self._snapshots))])

    def _reborn(self, retained: dict[str, bytes]) -> None:
        number = self._number()
        self.mesh.stop_broker(number)
        self.mesh.start_broker(retained, number)

    def do_bridge_cut(self) -> None:
        """Cut the bridge."""
        self.mesh.bridge.cut()

    def do_bridge_heal(self) -> None:
        """Heal the bridge: retained values change places."""
        self.mesh.bridge.heal()

    def do_hostile(self) -> None:
        """One hostile publish."""
        self.hostile.strike()

    def do_hostile_flood(self) -> None:
        """Many at once."""
        for _ in range(15):
            self.hostile.strike()

    def do_rogue(self) -> None:
        """A stolen writer's key is used."""
        self.rogue.strike()

    def do_recover(self) -> None:
        """The root marks the stolen key, raises gen, and endorses some of what a peer shows."""
        winners = {digest.hex() for peer in self.mesh.running() for digest in peer.view(self.mesh.scopes[-1]).values()}
        endorsed = self.random.sample(sorted(winners), min(2, len(winners)))
        self.mesh.counters["endorsements"] += len(endorsed)
        self.mesh.counters["revocations"] += 1
        self.root.revoke(self.rogue.key, endorse=endorsed)

    def do_partitioned_recover(self) -> None:
        """The same while some are cut off."""
        self.do_partition()
        self.do_recover()
        self.mesh.counters["revocations under partition"] += 1

    def do_retire(self) -> None:
        """A writer retires at what some peer knows of it, which may be behind."""
        key = self.random.choice(self.mesh.keys)
        if key.kid in self.root.status or len(self.mesh.keys) == 1 or not self.mesh.running():
            return
        witness = self.random.choice(self.mesh.running())
        self.mesh.counters["retirements"] += 1
        self.root.retire(key, {scope: self._last_of(witness, key.kid, scope) for scope in self.mesh.scopes})

    def _last_of(self, witness: MeshPeer, kid: str, scope: str) -> tuple[int, int, int]:
        """Return gen, epoch and index counter up to which a peer knows a writer."""
        assert witness.replicator is not None  # noqa: S101 - it runs
        held = witness.replicator.peer
        index = held.head(scope, kid).index
        stamps = [(one.stamp.gen, one.stamp.epoch) for one in held.registers.deltas(scope) if one.stamp.kid == kid]
        return (*max(stamps, default=(0, 0)), 0 if index is None else index.body.counter)

    def do_trust(self) -> None:
        """A new version of the same trust document."""
        self.mesh.counters["trust documents"] += 1
        self.root.issue()

    def do_quarrel(self) -> None:
        """Two trust documents of one version."""
        self.mesh.counters["trust quarrels"] += 1
        self.root.quarrel()

    def do_rotate(self) -> None:
        """The root's key changes: who was away needs every step of the chain."""
        self.mesh.counters["root rotations"] += 1
        self.root.rotate()

    def do_jump(self) -> None:
        """A clock jumps ahead."""
        self.mesh.jump(self._peer(), self.random.choice((1.0, 100.0, 1e6)))

    def do_mute(self) -> None:
        """The broker acknowledges and drops what a peer publishes, or no longer does."""
        peer = self._peer()
        peer.mute = not peer.mute

    def do_weather(self) -> None:
        """How many messages are lost, repeated and reordered from now on."""
        self.mesh.faults = Faults(
            loss=self.random.choice((0.0, 0.02, 0.1)),
            duplicate=self.random.choice((0.0, 0.1)),
            reorder=self.random.choice((0.0, 0.2)),
            latency_s=self.random.choice(((0.001, 0.05), (0.2, 1.5))),
            queue_limit=self.random.choice((0, 0, 20)),
            replay_limit=self.random.choice((None, 0, 5)),
        )

    def do_calm(self) -> None:
        """Nothing is lost from now on."""
        self.mesh.faults = NONE

    def do_wait(self) -> None:
        """A minute passes."""
        self.mesh.run(60.0)


WEIGHTS: Final = {
    "push": 30, "burst": 4, "compact": 6, "kill": 3, "power": 4, "fuse": 4, "fused_push": 4, "wipe": 3, "backup": 3,
    "restore": 2,    "damage": 2, "disk_full": 1, "partition": 6, "heal": 7, "broker_restart": 3, "broker_amnesia": 2,
    "broker_snapshot": 3, "broker_rollback": 3, "bridge_cut": 8, "bridge_heal": 8, "hostile": 14, "hostile_flood": 2,
    "rogue": 4, "recover": 1, "partitioned_recover": 1, "retire": 1, "trust": 1, "quarrel": 0.5, "jump": 2, "mute": 2,
    "weather": 5, "calm": 2, "wait": 3, "rotate": 1,
    "absence": 0.5, "siege": 0.3,
}  # fmt: skip
"""How often each thing is drawn."""
