"""A mesh's peers: a replicator, a disk, a clock, and a process that can be killed."""

from __future__ import annotations

import math
from typing import Any

from tars_settings.core.records import Row
from tars_settings.core.register import FleetView
from tars_settings.core.wire import Purpose
from tars_settings.gossip.effects import Stage
from tars_settings.gossip.replicator import Replicator
from tars_settings.testing.disk import Disk
from tars_settings.trust.keys import SigningKey

SCOPE = "worker"
Signed = dict[bytes, tuple[Purpose, str]]
"""What was signed: for which purpose, in which fleet."""


class RecordingKey(SigningKey):
    """A key that remembers what it signed: the one list of what authors of a mesh ever said."""

    def __init__(self, role: Any, name: str, seed: bytes, signed: Signed) -> None:
        super().__init__(role, name, seed)
        self._signed = signed

    def sign(self, purpose: Purpose, fleet: str, body: bytes) -> bytes:
        """Sign, and remember."""
        payload = super().sign(purpose, fleet, body)
        self._signed[payload] = (purpose, fleet)
        return payload

    def cosign(self, purpose: Purpose, fleet: str, envelope: Any) -> bytes:
        """Cosign, and remember."""
        payload = super().cosign(purpose, fleet, envelope)
        self._signed[payload] = (purpose, fleet)
        return payload


class MeshPeer:
    """One peer of the mesh.

    ``broker`` is the number of the one that it connects to; ``ahead_s`` how far its clock is ahead of the mesh's.
    ``fuse`` counts effects until its process is killed, between two of them. ``mute``: the broker acknowledges what it
    publishes and drops it, as an access list does on MQTT 3.1.1. ``forgot`` counts how often its disk lost something
    that was written, ``wiped`` how often something that was synced: what rests on it is not asked of the peer then.
    ``life`` counts its processes. ``away``: it reaches no broker until it returns, whatever is healed meanwhile.
    """

    def __init__(self, name: str, signer: SigningKey | None, broker: int = 0, keys: tuple[str, ...] = ()) -> None:
        self.name = name
        self.signer = signer
        self.broker = broker
        self.keys = keys
        self.disk = Disk()
        self.replicator: Replicator | None = None
        self.connected = False
        self.partitioned = False
        self.away = False
        self.mute = False
        self.ahead_s = 0.0
        self.fuse: int | None = None
        self.forgot = 0
        self.wiped = 0
        self.life = 0
        self.session = 0
        self.on_their_way = 0
        self.wake_s = math.inf
        self.stages: dict[int, list[Stage]] = {}
        self.pushed: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<MeshPeer {self.name}>"

    def rows(self) -> tuple[Row, ...]:
        """Return what a process that starts reads."""
        return tuple(self.disk.rows.values())

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
