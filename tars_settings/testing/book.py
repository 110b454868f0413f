"""The book: what every author of a mesh ever said, and what is valid of it, worked out a second time.

It shares no code with the layers that it checks, grants apart (they have a truth table of their own): the signed bytes
are read with the standard library, and the rules are written down again in their shortest form.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tars_settings.core.wire import Purpose
from tars_settings.testing.peers import Signed
from tars_settings.trust.grants import covers

Fate = Callable[[str, int, int, bytes], bool]
"""Whether a floor lets (scope, gen, epoch, digest) live."""


@dataclass(frozen=True)
class Floor:
    """A floor as its author signed it."""

    gen: int
    epoch: int
    live: frozenset[bytes]

    def lives(self, gen: int, epoch: int, digest: bytes) -> bool:
        """Return whether it lets a delta live."""
        return (gen, epoch) > (self.gen, self.epoch) or digest in self.live


def no_floor(scope: str, gen: int, epoch: int, digest: bytes) -> bool:  # noqa: ARG001 - fits Fate
    """Let everything live."""
    return True


@dataclass(frozen=True)
class Entry:
    """A delta as its author signed it."""

    stamp: tuple[int, int, str, bytes]
    scope: str
    keys: tuple[str, ...]
    raw: bytes

    @property
    def digest(self) -> bytes:
        """Its digest."""
        return self.stamp[3]


@dataclass(frozen=True)
class Law:
    """What a trust document says, as the book reads it."""

    gen: int
    writers: dict[str, dict[str, Any]]
    endorsed: frozenset[bytes]

    def allows(self, entry: Entry, lives: Fate = no_floor) -> bool:
        """Return whether a delta is valid."""
        gen, epoch, kid, digest = entry.stamp
        writer = self.writers.get(kid)
        if writer is None or gen > self.gen or not lives(entry.scope, gen, epoch, digest):
            return False
        return self.grants(entry) and (self.is_in_office(entry) or digest in self.endorsed)

    def grants(self, entry: Entry) -> bool:
        """Return whether the writer's grants cover all of it."""
        grants = self.writers.get(entry.stamp[2], {}).get("grants", ())
        return all(any(covers(grant, entry.scope, key) for grant in grants) for key in entry.keys)

    def is_in_office(self, entry: Entry) -> bool:
        """Return whether the writer counts at this stamp without anybody's endorsement."""
        writer = self.writers[entry.stamp[2]]
        status = writer.get("status", "active")
        limit = writer.get("retired", {}).get(entry.scope)
        if status != "retired":
            return bool(status == "active")
        return limit is not None and entry.stamp[:2] <= (limit["gen"], limit["epoch"])


class Book:
    """Reads what the keys of a mesh signed; *signed* maps the bytes to purpose and fleet, and grows."""

    def __init__(self, fleet: str, signed: Signed) -> None:
        self._fleet = fleet
        self._signed = signed
        self._entries: dict[bytes, Entry | None] = {}
        self._laws: dict[bytes, Law] = {}
        self._floors: dict[bytes, Floor] = {}

    def was_signed(self, payload: bytes, purpose: Purpose) -> bool:
        """Return whether an author signed exactly these bytes for this purpose."""
        return self._signed.get(payload) == (purpose, self._fleet)

    def entry(self, payload: bytes) -> Entry | None:
        """Return the delta in signed bytes; None where nobody signed them as one for this fleet."""
        if payload not in self._entries:
            self._entries[payload] = self._read(payload) if self.was_signed(payload, "delta") else None
        return self._entries[payload]

    def _read(self, payload: bytes) -> Entry:
        envelope = json.loads(payload)
        body = payload[payload.index(b',"body":') + 8 : -1]
        kid, said = envelope["kid"], json.loads(body)
        head = f"TARSv1 5 delta {len(self._fleet)} {self._fleet} {len(kid)} {kid} {len(body)} "
        digest = hashlib.blake2b(head.encode() + body, digest_size=32).digest()
        keys = tuple(item["key"] for item in said["assign"])
        return Entry((said["gen"], said["epoch"], kid, digest), said["scope"], keys, payload)

    def law(self, payload: bytes) -> Law:
        """Return what a trust document says; of none, that nothing is valid."""
        if payload not in self._laws:
            self._laws[payload] = _law(payload)
        return self._laws[payload]

    def floor(self, payload: bytes) -> Floor:
        """Return what a floor with an inline list says."""
        if payload not in self._floors:
            said = json.loads(payload)["body"]
            live = frozenset(bytes.fromhex(one) for one in said.get("live", ()))
            self._floors[payload] = Floor(said["gen"], said["epoch"], live)
        return self._floors[payload]

    def greatest(self, payloads: Iterable[bytes], law: Law, lives: Fate = no_floor) -> dict[tuple[str, str], Entry]:
        """Return the winner of each (scope, key) among signed deltas: the greatest that is valid."""
        entries = {entry for payload in payloads if (entry := self.entry(payload)) is not None}
        best: dict[tuple[str, str], Entry] = {}
        for entry in sorted(entries, key=lambda one: one.stamp):
            if law.allows(entry, lives):
                best.update({(entry.scope, key): entry for key in entry.keys})
        return best


def _law(payload: bytes) -> Law:
    if not payload:
        return Law(0, {}, frozenset())
    said = json.loads(payload)["body"]
    writers = {_kid(writer["public"]): writer for writer in said["writers"]}
    return Law(said["gen"], writers, frozenset(bytes.fromhex(one) for one in said.get("endorsed", ())))


def _kid(public: str) -> str:
    return hashlib.blake2b(base64.b64decode(public), digest_size=16).hexdigest()
