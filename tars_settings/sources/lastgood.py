"""What this host last knew to be good: the signed deltas behind a snapshot that validated and was in use, sealed.

The seal is checked first, and then every delta as if it came from the broker: a disk is trusted with nothing. Reading
never raises because of what a file holds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from tars_settings.core.audit import SEAL_BROKEN
from tars_settings.core.delta import Delta
from tars_settings.core.lastgood import LastGood, encode_last_good, parse_last_good, set_of
from tars_settings.core.names import scopes_of
from tars_settings.core.register import FleetView, Registers
from tars_settings.errors import MalformedError, RejectedError, SealBrokenError, SurroundingsError
from tars_settings.ports import LkgStore
from tars_settings.sources.audit import note_audit
from tars_settings.sources.environment import Environment
from tars_settings.sources.stored import follow_all, merge_valid
from tars_settings.trust.document import TrustDocument
from tars_settings.trust.seal import SealKey, seal, unseal

_log = logging.getLogger("tars_settings.sources")

PURPOSE: Final = "lkg"


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
        merge_valid(registers, bytes(raw), document, scopes)
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
