"""What goes into the replicator and what it wants done, besides the session's own events and commands."""

from __future__ import annotations

from typing import Literal

import msgspec

from tars_settings.core.delta import Ack, Assignment, Delta
from tars_settings.core.records import Row
from tars_settings.core.session import SessionCommand, SessionEvent

Way = Literal["live", "probe", "segment", "replica", "own", "file"]
"""How something arrived."""


# --- events --------------------------------------------------------------------------------------------------------


class Loaded(msgspec.Struct, frozen=True):
    """Rows from the replica; each is verified again (SQLite did not notice 46 of 60 flipped bytes)."""

    rows: tuple[Row, ...]


class Offered(msgspec.Struct, frozen=True):
    """Signed bytes from a file or from the owner of a key: merged like anything else, then repaired onto the broker."""

    payloads: tuple[bytes, ...]


class Follow(msgspec.Struct, frozen=True):
    """Follow a scope from now on; *keys* are those of the peer's own model, asked for by exact topic."""

    scope: str
    keys: tuple[str, ...] = ()


class Push(msgspec.Struct, frozen=True):
    """Sign and publish assignments to one scope; progress comes as Stage notices with the same ``ref``."""

    ref: int
    scope: str
    assign: tuple[Assignment, ...]
    at: str = ""
    by: str = ""
    reason: str = ""
    ack: Ack | msgspec.UnsetType = msgspec.UNSET
    expect_epoch: int | None = None
    force: bool = False


class Compact(msgspec.Struct, frozen=True):
    """Sign a floor for a scope, so that tombstones can go; progress comes as Stage notices with the same ``ref``."""

    ref: int
    scope: str
    at: str = ""


class Wake(msgspec.Struct, frozen=True):
    """Time has passed; nothing else."""


Event = SessionEvent | Loaded | Offered | Follow | Push | Compact | Wake


# --- notices: what happened, for snapshots, status, audit and people ------------------------------------------------


class Merged(msgspec.Struct, frozen=True, eq=False):
    """A valid delta met the registers. ``fate`` is applied, duplicate or superseded."""

    delta: Delta
    fate: Literal["applied", "duplicate", "superseded"]
    way: Way


class HeldBack(msgspec.Struct, frozen=True):
    """Something can't be judged yet (trust or gen is behind): not stored, not repaired over."""

    topic: str
    reason: str


class Rejected(msgspec.Struct, frozen=True):
    """Something did not pass. ``topic`` is one of ours, or the word for a file or row; ``reason`` a fixed word."""

    topic: str
    reason: str
    kid: str = ""


class TrustChanged(msgspec.Struct, frozen=True):
    """Another trust document is in force; what it voids is gone from the registers."""

    version: int
    gen: int
    voided: int


class TrustQuarrel(msgspec.Struct, frozen=True):
    """Two trust documents of one version carry enough signatures of the roots. The higher digest (hex) is in force."""

    version: int
    in_force: str
    other: str


class FloorRaised(msgspec.Struct, frozen=True):
    """Another floor is in force in a scope; what it voids is gone from the registers."""

    scope: str
    gen: int
    epoch: int
    voided: int


class Compacted(msgspec.Struct, frozen=True):
    """A floor that we signed is on the broker: ``live`` deltas stand, the tombstones of ``keys`` are gone."""

    scope: str
    gen: int
    epoch: int
    live: int
    keys: tuple[str, ...]


class Conflict(msgspec.Struct, frozen=True, eq=False):
    """Two deltas replace the same at one key; told once for each pair."""

    scope: str
    key: str
    winner: Delta
    loser: Delta


class Equivocation(msgspec.Struct, frozen=True, eq=False):
    """One writer signed two bodies for one scope, gen and epoch: his key is on two hosts, or he tells two stories."""

    scope: str
    first: Delta
    second: Delta


class ScopeSynced(msgspec.Struct, frozen=True):
    """How complete a scope is. ``lacking`` names what is mentioned and was not produced, and who mentioned it."""

    scope: str
    state: Literal["joining", "ready", "degraded"]
    lacking: tuple[str, ...] = ()


class Repaired(msgspec.Struct, frozen=True):
    """A winner was published again, because the broker held ``found`` instead; or what is ``compacted`` was cleared."""

    topic: str
    found: Literal["nothing", "other", "compacted"]
    round: int


class RepairFight(msgspec.Struct, frozen=True):
    """A topic was repaired six times without a quiet while; ``other`` is the hash of what keeps coming."""

    topic: str
    other: str


class ForeignHead(msgspec.Struct, frozen=True):
    """The head of our own key moved without us: two hosts share a key."""

    scope: str
    counter: int


class EpochGap(msgspec.Struct, frozen=True):
    """A live delta was more than one epoch above the highest seen: something was missed, the indexes are read again."""

    scope: str
    seen: int
    epoch: int


class Stage(msgspec.Struct, frozen=True):
    """Progress of a push, in order of strength; the last four end it.

    ``signed`` carries gen, epoch and digest, and is committed to the outbox. ``accepted``: acknowledged by the broker.
    ``retained``: read back. ``superseded``: a greater delta holds one of its keys. ``unconfirmed``: acknowledged, and
    not there when read back. ``refused``: never signed; ``reason`` says why, ``error`` is the name of the error class.
    """

    ref: int
    stage: Literal["signed", "accepted", "retained", "superseded", "unconfirmed", "refused"]
    reason: str = ""
    error: str = ""
    gen: int = 0
    epoch: int = 0
    digest: str = ""
    synced: bool = True


Notice = (
    Merged
    | HeldBack
    | Rejected
    | TrustChanged
    | TrustQuarrel
    | FloorRaised
    | Compacted
    | Conflict
    | Equivocation
    | ScopeSynced
    | Repaired
    | RepairFight
    | ForeignHead
    | EpochGap
    | Stage
)


# --- effects -------------------------------------------------------------------------------------------------------


class Persist(msgspec.Struct, frozen=True):
    """Put and drop rows. With ``durable`` it must be on the disk before any later effect is carried out."""

    put: tuple[Row, ...] = ()
    drop: tuple[Row, ...] = ()
    durable: bool = False


Effect = SessionCommand | Persist | Notice
