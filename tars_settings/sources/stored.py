"""What this host stored of the fleet's values: the replica.

Everything is verified again when it is loaded: a disk is trusted with nothing. Nothing here raises because of what a
file holds: a reader goes on with what is valid, and one line in the log says what happened. A worker's start waits for
this module: what only some starts meet (floors, the last known good values) is imported by those.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from tars_settings.core.delta import Delta
from tars_settings.core.names import scopes_of
from tars_settings.core.records import DeltaRow, FloorRow, FloorSegmentRow, Row, TrustRow
from tars_settings.core.register import FleetView, Registers
from tars_settings.core.wire import short_hash
from tars_settings.errors import RejectedError, SurroundingsError
from tars_settings.sources.environment import Environment
from tars_settings.trust.document import TrustDocument, follow
from tars_settings.trust.validity import Judgement, Verdict, read_delta, read_floor

if TYPE_CHECKING:
    from tars_settings.gossip.floors import Floors

_log = logging.getLogger("tars_settings.sources")

_MAX_REMEMBERED: Final = 16_384


class StoredFleet(msgspec.Struct, frozen=True):
    """What was found. ``document`` is the pin where no trust document was; ``trouble`` says what was not usable."""

    view: FleetView
    document: TrustDocument
    trouble: tuple[str, ...] = ()
    trust: tuple[bytes, ...] = ()


class _Verified:
    """Verdicts of this process, by document and exact bytes, so that a second Settings() checks no signature twice.

    Bounded; the key is everything that the verdict depends on.
    """

    def __init__(self) -> None:
        self._deltas: dict[tuple[bytes, bytes], tuple[Delta, Judgement]] = {}
        self._documents: dict[tuple[str, bytes, bytes], TrustDocument] = {}

    def delta(self, payload: bytes, document: TrustDocument) -> tuple[Delta, Judgement]:
        """Return the delta and its verdict; raises as read_delta does."""
        key = (document.digest, payload)
        found = self._deltas.get(key)
        if found is None:
            if len(self._deltas) >= _MAX_REMEMBERED:
                self._deltas.clear()
            found = self._deltas[key] = read_delta(payload, document)
        return found

    def follow(self, held: TrustDocument, payload: bytes) -> TrustDocument:
        """Return the document that follows; raises as follow does."""
        key = (held.fleet, held.digest, payload)
        found = self._documents.get(key)
        if found is None:
            if len(self._documents) >= _MAX_REMEMBERED:
                self._documents.clear()
            found = self._documents[key] = follow(held, payload)
        return found


_verified: Final = _Verified()


def load_stored(environment: Environment, service: str, instance: str | None = None) -> StoredFleet:
    """Return what the replica says to one worker. Never writes, never raises because of what the disk holds.

    Raises:
        ConfigurationError: the environment names no fleet.
    """
    pinned = environment.pinned()
    scopes = scopes_of(service, instance or environment.instance)
    rows, trouble = _rows(environment.replica_path, scopes)
    found = _judge(rows, pinned, scopes, trouble)
    if found.trouble:
        _log.warning("%s: %s", service, "; ".join(found.trouble), extra={"tars_service": service})
    elif not rows:
        _log.info("%s: no replica yet, no fleet values", service, extra={"tars_service": service})
    return found


def _rows(path: Path, scopes: Iterable[str]) -> tuple[Sequence[Row], list[str]]:
    if not os.path.exists(path):  # Path.exists raises where the directory may not be entered
        return (), []
    from tars_settings.adapters.replica import SqliteReplica  # noqa: PLC0415 - sqlite3 only where there is a file

    try:
        replica = SqliteReplica(path, create=False)
        try:
            return replica.load(scopes), []
        finally:
            replica.close()
    except SurroundingsError as error:
        return (), [f"the replica can't be read: {error}"]


def _judge(rows: Sequence[Row], pinned: TrustDocument, scopes: Sequence[str], trouble: list[str]) -> StoredFleet:
    documents = sorted((row for row in rows if isinstance(row, TrustRow)), key=lambda row: row.version)
    raws = [row.raw for row in documents]
    document, trust = follow_all(pinned, raws)
    if len(trust) < len(raws):
        astray = len(raws) - len(trust)
        trouble.append(f"{astray} of {len(raws)} stored trust documents do not follow from the root key")
    registers, floors = Registers(), _floors(rows, document)
    refused: dict[str, int] = {}
    for row in rows:
        if isinstance(row, DeltaRow) and row.scope in scopes:
            reason = merge_valid(registers, row.raw, document, scopes, floors)
            if reason:
                refused[reason] = refused.get(reason, 0) + 1
    trouble += [f"{count} stored deltas do not count ({reason})" for reason, count in sorted(refused.items())]
    return StoredFleet(FleetView.of(registers, scopes), document, tuple(trouble), trust)


def _floors(rows: Sequence[Row], document: TrustDocument) -> Floors | None:
    """Return the stored floors that count, None where there are none.

    One that does not count, or whose list is not whole, is passed over.
    """
    if not any(isinstance(row, FloorRow) for row in rows):
        return None
    from tars_settings.core.floor import parse_floor_segment  # noqa: PLC0415 - only where there are floors
    from tars_settings.gossip.floors import Floors  # noqa: PLC0415

    floors = Floors()
    for row in rows:
        if isinstance(row, FloorRow):
            with contextlib.suppress(RejectedError):
                floor, judgement = read_floor(row.raw, document)
                if judgement.verdict is Verdict.VALID and floor.body.scope == row.scope:
                    floors.offer(floor)
    for row in rows:
        if not isinstance(row, FloorSegmentRow) or row.hash not in floors.missing(row.scope):
            continue
        if short_hash(row.raw) == row.hash:
            with contextlib.suppress(RejectedError):
                floors.take_part(row.scope, row.hash, parse_floor_segment(row.raw), row.raw)
    return floors


def follow_all(pinned: TrustDocument, raws: Iterable[bytes]) -> tuple[TrustDocument, tuple[bytes, ...]]:
    """Return the last trust document that follows from the pin, and the documents on the way to it."""
    document = pinned
    followed: list[bytes] = []
    for raw in raws:
        try:
            document = _verified.follow(document, raw)
        except RejectedError:
            continue
        followed.append(raw)
    return document, tuple(followed)


def merge_valid(
    registers: Registers, raw: bytes, document: TrustDocument, scopes: Sequence[str], floors: Floors | None = None
) -> str:
    """Merge a delta if it is valid; return the reason where it is not."""
    try:
        delta, judgement = _verified.delta(raw, document)
    except RejectedError as error:
        return error.reason
    if judgement.verdict is not Verdict.VALID:
        return judgement.reason
    if delta.scope not in scopes:
        return "another scope"
    stamp = delta.stamp
    if floors is not None and floors.mark(delta.scope).fate(stamp.gen, stamp.epoch, stamp.digest) == "void":
        return "below-floor"
    registers.offer(delta)
    return ""


def merged(first: FleetView, second: FleetView) -> FleetView:
    """Return what two views of the same scopes say together: each key's greater winner."""
    registers = Registers()
    for view in (first, second):
        for one in view.scopes:
            for register in one.winners:
                registers.offer(register.delta)
    return FleetView.of(registers, [one.scope for one in first.scopes])
