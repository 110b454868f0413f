"""What this host kept of the fleet's values: the replica, and the last known good values beside it.

Everything is verified again when it is loaded: a disk is trusted with nothing. Nothing here raises because of what a
file holds: a reader goes on with what is valid, and one line in the log says what happened.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from tars_settings.core.audit import SEAL_BROKEN
from tars_settings.core.delta import Delta
from tars_settings.core.floor import parse_floor_segment
from tars_settings.core.lastgood import LastGood, encode_last_good, parse_last_good, set_of
from tars_settings.core.names import scopes_of
from tars_settings.core.records import DeltaRow, FloorRow, FloorSegmentRow, Row, TrustRow
from tars_settings.core.register import FleetView, Registers
from tars_settings.core.wire import short_hash
from tars_settings.errors import MalformedError, RejectedError, SealBrokenError, SurroundingsError
from tars_settings.gossip.floors import Floors
from tars_settings.ports import LkgStore
from tars_settings.sources.audit import note_audit
from tars_settings.sources.environment import Environment
from tars_settings.trust.document import TrustDocument, follow
from tars_settings.trust.seal import SealKey, seal, unseal
from tars_settings.trust.validity import Judgement, Verdict, read_delta, read_floor

_log = logging.getLogger("tars_settings.sources")

PURPOSE: Final = "lkg"
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
            reason = _offer(registers, row.raw, document, scopes, floors)
            if reason:
                refused[reason] = refused.get(reason, 0) + 1
    trouble += [f"{count} stored deltas do not count ({reason})" for reason, count in sorted(refused.items())]
    return StoredFleet(FleetView.of(registers, scopes), document, tuple(trouble), trust)


def _floors(rows: Sequence[Row], document: TrustDocument) -> Floors:
    """Return the stored floors that count; one that does not, or whose list is not whole, is passed over."""
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


def _offer(
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


class Kept(msgspec.Struct, frozen=True):
    """Last known good values, verified again. ``schema``, ``counter`` and the rest are as they were written."""

    view: FleetView
    document: TrustDocument
    schema: str = ""
    counter: int = 0
    slot: int = 0
    set_name: str = ""
    proven: bool = False


def write_lkg(  # noqa: PLR0913 - named, and all of it is in the header
    store: LkgStore,
    key: SealKey,
    *,
    fleet: str,
    service: str,
    trust: Sequence[bytes],
    deltas: Iterable[Delta],
    schema: str = "",
    counter: int = 0,
    proven: bool = False,
    keep_previous: bool | Callable[[bytes], bool] = True,
) -> None:
    """Seal and store the deltas behind a snapshot, as they were signed.

    *trust* are the documents that judge them, from the first root's on: where roots changed, the newest alone would not
    follow. *keep_previous* may be a question about what is there, see :class:`tars_settings.ports.LkgStore`.

    Raises:
        LkgError: it can't be written; what was there is still there.
    """
    ordered = sorted(deltas, key=lambda one: (one.scope, one.stamp))
    content = encode_last_good(
        fleet=fleet,
        service=service,
        schema=schema,
        counter=counter,
        trust=tuple(trust),
        deltas=tuple(delta.raw for delta in ordered),
        set_name=set_of(one.stamp.digest for one in ordered),
        proven=proven,
    )
    store.write(seal(content, key, purpose=PURPOSE, fleet=fleet, service=service), keep_previous=keep_previous)


def read_lkg(
    store: LkgStore,
    key: SealKey,
    *,
    pinned: TrustDocument,
    service: str,
    instance: str,
    known: TrustDocument | None = None,
    slot: int = 0,
) -> Kept | None:
    """Return the last known good values of a slot, None where it is empty.

    The seal is checked first, then every delta as if it came from the broker, under the later of the stored trust
    document and the *known* one.

    Raises:
        LkgError: the store can't be read, or holds something that we never write.
        SealBrokenError: another key, another fleet or service, or changed bytes.
        MalformedError: the seal is ours, and the content of another version.
    """
    sealed = store.read(slot)
    if sealed is None:
        return None
    held = opened_lkg(sealed, key, pinned.fleet, service)
    document, _ = follow_all(pinned, [bytes(raw) for raw in held.trust])
    if known is not None and known.order > document.order:
        document = known
    scopes = scopes_of(service, instance)
    registers = Registers()
    for raw in held.deltas:
        _offer(registers, bytes(raw), document, scopes)
    view = FleetView.of(registers, scopes)
    return Kept(view, document, held.schema, held.counter, slot, held.set_name, held.proven)


def opened_lkg(sealed: bytes, key: SealKey, fleet: str, service: str) -> LastGood:
    """Return what a slot holds; its seal is checked, its envelopes are not.

    Raises:
        SealBrokenError: another key, another fleet or service, or changed bytes.
        MalformedError: the seal is ours, and the content of another version.
    """
    held = parse_last_good(unseal(sealed, key, purpose=PURPOSE, fleet=fleet, service=service))
    if (held.fleet, held.service) != (fleet, service):
        raise MalformedError("malformed last known good values: of another fleet or service")
    return held


def load_lkg(
    environment: Environment, service: str, instance: str | None = None, known: TrustDocument | None = None
) -> Kept | None:
    """Return this host's newest last known good values of a service, None where there are none that can be used.

    Never writes, never raises because of what the disk holds or the seal key is. A broken seal is logged as its own
    event.

    Raises:
        ConfigurationError: the environment names no fleet.
    """
    return next(usable_lkgs(environment, service, instance, known), None)


def usable_lkgs(
    environment: Environment, service: str, instance: str | None = None, known: TrustDocument | None = None
) -> Iterator[Kept]:
    """Yield the values of both slots, newest first, as far as they can be used; as :func:`load_lkg` otherwise."""
    directory = environment.lkg_dir(service)
    if not os.path.exists(directory):
        return
    from tars_settings.adapters.lkg import DiskLkg  # noqa: PLC0415 - diskcache only where there is something to read

    try:
        key = environment.seal_key()
        if key is None:
            _log.warning("%s: last known good values are there, the key that sealed them is not", service)
            return
        store = DiskLkg(directory)
    except SurroundingsError as error:
        _log.warning("%s: last known good values can't be read: %s", service, error)
        return
    try:
        for slot in (0, 1):
            found = _usable(store, key, environment, service, instance, known, slot)
            if found is not None:
                yield found
    finally:
        store.close()


def _usable(
    store: LkgStore,
    key: SealKey,
    environment: Environment,
    service: str,
    instance: str | None,
    known: TrustDocument | None,
    slot: int,
) -> Kept | None:
    try:
        return read_lkg(
            store,
            key,
            pinned=environment.pinned(),
            service=service,
            instance=instance or environment.instance,
            known=known,
            slot=slot,
        )
    except SealBrokenError as error:
        event = {"tars_event": "seal-broken", "tars_service": service}
        _log.warning("%s: seal broken on the last known good values, slot %d: %s", service, slot, error, extra=event)
        what = f"{service} slot {slot}"
        note_audit(environment, SEAL_BROKEN, what, place=what, detail=str(error), daily=True)
    except (SurroundingsError, RejectedError) as error:
        _log.warning("%s: last known good values can't be used, slot %d: %s", service, slot, error)
    return None
