"""Presence: a worker's retained report on itself. Unsigned, so a claim: nothing merges because of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any, Final, Literal

import msgspec

from tars_settings.core.wire import MAX_ENVELOPE_BYTES, decode_plain, encode
from tars_settings.errors import MalformedError

State = Literal["joining", "ready", "stale", "degraded", "offline"]
MAX_REFUSED: Final = 32
"""Refusals that a report lists. Thousands may be refused at once, and no packet would hold a report of them all."""
MAX_REFUSED_BYTES: Final = 16 * 1024
"""What they take together: one of 64 long keys has 11 KiB at most, so that there is always room for the first."""
MORE_REFUSED: Final = "more deltas that the model refuses"
NOT_LISTED: Final = "it refuses more deltas than its report has room for: the reason is in its own log and status"


class ScopeReport(msgspec.Struct, frozen=True):
    """How far a worker is in a scope: highest stamp prefix, and the digest over its winners."""

    gen: int
    epoch: int
    digest: str


class RefusalReport(msgspec.Struct, frozen=True):
    """A delta that the worker's model refused: which, which of its keys, and pydantic's message (without values)."""

    scope: str
    epoch: int
    digest: str
    keys: tuple[str, ...]
    message: str


class TrialReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """A delta on trial that wins a key here: for ``left_s`` seconds more; 0: the worker uses what was before it."""

    scope: str
    epoch: int
    digest: str
    keys: tuple[str, ...]
    left_s: int = 0
    canary: str = ""


class Presence(msgspec.Struct, frozen=True, omit_defaults=True):
    """A report. Unknown fields of later releases are passed over.

    ``acked`` maps delta digests (hex, 64 digits) to their fate here, the last 32. ``refused`` are the deltas that it
    refuses, as far as there is room; a note counts the others. ``shadowed`` maps keys that the fleet sets to the source
    above that wins instead. ``unknown`` are fleet keys that the model does not have, the first 64. ``trials`` are the
    deltas on trial, as they were at the time of the report.
    """

    v: int
    service: str
    instance: str
    state: State
    scopes: dict[str, ScopeReport] = {}
    acked: dict[str, Literal["applied", "refused"]] = {}
    refused: tuple[RefusalReport, ...] = ()
    shadowed: dict[str, str] = {}
    unknown: tuple[str, ...] = ()
    trials: tuple[TrialReport, ...] = ()
    lacking: tuple[str, ...] = ()
    schema: str = ""
    release: str = ""
    python: str = ""
    host: str = ""
    pid: int = 0
    at: str = ""
    counters: dict[str, int] = {}
    notes: Annotated[tuple[str, ...], msgspec.Meta(max_length=32)] = ()
    ext: dict[str, Any] = {}


_decoder: Final = msgspec.json.Decoder(Presence)


def parse_presence(payload: bytes) -> Presence:
    """Return the report in *payload*.

    Raises:
        MalformedError: it is none.
    """
    if len(payload) > MAX_ENVELOPE_BYTES:
        raise MalformedError("malformed presence: too large")
    return decode_plain(_decoder, payload, what="presence")


def encode_presence(presence: Presence) -> bytes:
    """Return the report's bytes."""
    return encode(presence)


def first_of(refused: Iterable[RefusalReport]) -> tuple[RefusalReport, ...]:
    """Return as many refusals as a report has room for, from the first on."""
    found: list[RefusalReport] = []
    left_bytes = MAX_REFUSED_BYTES
    for one in islice(refused, MAX_REFUSED):
        left_bytes -= len(encode(one))
        if left_bytes < 0:
            break
        found.append(one)
    return tuple(found)


def lists_all(presence: Presence) -> bool:
    """Return whether a worker lists all that it refuses."""
    return not any(note.endswith(MORE_REFUSED) for note in presence.notes)


def refusal_of(presence: Presence, digest: str) -> str | None:
    """Return why a worker refuses a delta (its hex digest), :data:`NOT_LISTED` where there was no room to say it.

    None: as far as it says, it does not refuse it.
    """
    if found := [one.message for one in presence.refused if one.digest == digest]:
        return "; ".join(found)
    # What was refused as it came may fit since; only where refusals are left out this may be one of them.
    return NOT_LISTED if presence.acked.get(digest) == "refused" and not lists_all(presence) else None


def is_asked(digest: bytes, service: str, instance: str, of: int) -> bool:
    """Return whether a worker is in the share 1/*of* that a delta with this digest asks to report at once."""
    hashed = hashlib.blake2b(digest + f"{service}@{instance}".encode(), digest_size=8).digest()
    return int.from_bytes(hashed, "big") % of == 0
