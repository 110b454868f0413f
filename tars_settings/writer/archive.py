"""Signed bytes at rest: an export in a file, a replica in somebody's state directory. Both are as good as a broker.

What they hold is judged as if it had come from the broker, by a peer that has no network, and stored in this host's
replica where it wins; the next session puts it onto the broker. A file is trusted with nothing: whoever made it up
made nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tars_settings.adapters.replica import SqliteReplica
from tars_settings.adapters.statedir import private_dir
from tars_settings.core.records import (
    DeltaRow,
    FloorRow,
    FloorSegmentRow,
    IndexRow,
    OutboxRow,
    Row,
    SegmentRow,
    TrustRow,
    Unwritten,
)
from tars_settings.core.topics import Topics
from tars_settings.errors import ReplicaError
from tars_settings.gossip.effects import Effect, Loaded, Offered, Persist, Wake
from tars_settings.gossip.offering import Offer, examine, in_order, lacking, scopes_held
from tars_settings.gossip.peer import Peer
from tars_settings.gossip.replicator import Replicator
from tars_settings.sources.environment import Environment
from tars_settings.trust.validity import read_delta

MAX_LINE_BYTES: Final = 64 * 1024
_SIGNED: Final = (TrustRow, FloorRow, FloorSegmentRow, DeltaRow, OutboxRow, IndexRow, SegmentRow)


class Archive:
    """A peer without network: judges signed bytes, and says what each of them is worth. It writes nothing by itself."""

    def __init__(self, environment: Environment, rows: Sequence[Row] = ()) -> None:
        topics = Topics(environment.prefix, environment.health_prefix)
        self._replicator = Replicator(topics, environment.root, nonce="0" * 32, random=lambda: 0.5)
        self._unwritten = Unwritten()
        self._replicator.handle(Loaded(tuple(rows)), 0.0)
        self._prove()

    @classmethod
    def of(cls, environment: Environment) -> Archive:
        """Return what this host's replica holds; empty where there is none.

        Raises:
            ReplicaError: it is there, and can't be read.
        """
        return cls(environment, rows_of(environment.replica_path))

    @property
    def peer(self) -> Peer:
        """What is held, this host's replica and what was offered together."""
        return self._replicator.peer

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of which anything is held."""
        return scopes_held(self.peer)

    def lacking(self, scopes: Iterable[str] | None = None) -> tuple[str, ...]:
        """Return, in words, what is named by what is held, and is not here."""
        return lacking(self.peer, self.scopes if scopes is None else scopes)

    def offer(self, payloads: Iterable[bytes]) -> list[Offer]:
        """Judge payloads, in whatever order they come, and hold what counts; return the fate of each of them."""
        offers = []
        for kind, payload in in_order(payloads, self.peer.fleet):
            offer = examine(self.peer, kind, payload)
            offers.append(offer)
            if offer.fate in ("applied", "held") or kind == "delta":
                self._note(self._replicator.handle(Offered((payload,)), 0.0))
        self._prove()
        return offers

    def _prove(self) -> None:
        """Check the own signatures of what was read on the word of an index."""
        while self.peer.unproven:
            self._note(self._replicator.handle(Wake(), 0.0))

    def _note(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                self._unwritten.note(effect.put, effect.drop)

    def store(self, environment: Environment) -> None:
        """Put what was offered and counts into this host's replica, in one transaction.

        Raises:
            StateDirError, ReplicaError: nothing was changed.
        """
        if not self._unwritten:
            return
        private_dir(environment.state_dir)
        private_dir(environment.fleet_dir)
        replica = SqliteReplica(environment.replica_path)
        try:
            replica.apply(*self._unwritten.take())
        finally:
            replica.close()

    def export(self, scopes: Iterable[str] | None = None) -> tuple[bytes, ...]:
        """Return the signed bytes of *scopes*, all where None: as good as a broker that holds them."""
        return self._replicator.export(None if scopes is None else tuple(scopes))


def rows_of(path: Path) -> Sequence[Row]:
    """Return the rows of a replica, which is only read; none where there is no file.

    Raises:
        ReplicaError: it can't be read, or is not ours alone.
    """
    replica = SqliteReplica(path, create=False)
    try:
        return replica.load()
    finally:
        replica.close()


def is_export(path: Path) -> bool:
    """Return whether a file begins as an export does: with a line of JSON.

    Raises:
        ReplicaError: it can't be read.
    """
    return next((line.startswith(b"{") for line in _lines(path)), False)


def payloads_of(path: Path) -> list[bytes]:
    """Return the lines of an export, exactly as they are; a line that is too long for anything of ours is cut.

    Raises:
        ReplicaError: it can't be read.
    """
    return [line[:MAX_LINE_BYTES] for line in _lines(path)]


def _lines(path: Path) -> list[bytes]:
    try:
        content = path.expanduser().read_bytes()
    except OSError as error:
        raise ReplicaError(f"{path} can't be read: {error.strerror or error}") from error
    return [stripped for line in content.split(b"\n") if (stripped := line.strip(b" \t\r"))]


def payloads_in(directory: Path, fleet: str) -> list[bytes]:
    """Return the signed bytes of the replica in a state directory, or in one fleet's directory below it.

    The marks of the writer who used it are not taken: they are not signed.

    Raises:
        ReplicaError: there is none of this fleet, or it can't be read.
    """
    places = [directory / fleet / "replica.sqlite3", directory / "replica.sqlite3"]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise ReplicaError(f"{directory} holds no replica of this fleet: there is no {places[0]}")
    return signed_bytes(found)


def signed_bytes(path: Path) -> list[bytes]:
    """Return the signed bytes of a replica, and what they name by digest.

    Raises:
        ReplicaError: it can't be read, or is not ours alone.
    """
    return [row.raw for row in rows_of(path) if isinstance(row, _SIGNED)]


def since(payloads: Iterable[bytes], archive: Archive, mark: tuple[int, int]) -> tuple[bytes, ...]:
    """Return trust, floors and those deltas whose (gen, epoch) is above *mark*; heads and their segments are left out.

    Heads hold whatever a writer wrote, old and new: with them a small export would be a whole one.
    """
    kept = []
    for kind, payload in in_order(payloads, archive.peer.fleet):
        if kind in ("trust", "floor", "floor part"):
            kept.append(payload)
        elif kind == "delta":
            stamp = read_delta(payload, archive.peer.trust)[0].stamp
            if (stamp.gen, stamp.epoch) > mark:
                kept.append(payload)
    return tuple(kept)


def counted(offers: Iterable[Offer]) -> dict[str, int]:
    """Return how many there are of each fate, those that there are none of too."""
    found = Counter(offer.fate for offer in offers)
    return {fate: found[fate] for fate in ("applied", "duplicate", "superseded", "held", "rejected")}


def refused(offers: Iterable[Offer]) -> dict[str, int]:
    """Return how many were not taken, by reason: those that are rejected, and those that can't be judged yet."""
    return dict(Counter(offer.reason for offer in offers if offer.fate in ("held", "rejected")))
