"""What a replica keeps: rows by their identity. The bytes of a row are what was signed, never a re-encoding.

Deltas form a set keyed by digest. Adding to it commutes, so several processes may share the file without a
read-then-write race (REVIEW 4.3: 208 backward reads with one); a delta leaves only when newer ones of its own writer
cover each of its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec


class DeltaRow(msgspec.Struct, frozen=True):
    """A verified delta."""

    scope: str
    digest: bytes
    raw: bytes


class TrustRow(msgspec.Struct, frozen=True):
    """A verified trust document."""

    version: int
    digest: bytes
    raw: bytes


class IndexRow(msgspec.Struct, frozen=True):
    """The greatest index of one writer in a scope; a row with a lower (counter, digest) never replaces it."""

    scope: str
    kid: str
    counter: int
    digest: bytes
    raw: bytes


class SegmentRow(msgspec.Struct, frozen=True):
    """A segment of one writer's head in a scope."""

    scope: str
    kid: str
    n: int
    raw: bytes


class FloorRow(msgspec.Struct, frozen=True):
    """The greatest floor of one writer in a scope; a row with a lower (gen, epoch, digest) never replaces it."""

    scope: str
    kid: str
    gen: int
    epoch: int
    digest: bytes
    raw: bytes


class FloorSegmentRow(msgspec.Struct, frozen=True):
    """A part of a floor's list, under the hash of its bytes."""

    scope: str
    hash: str
    raw: bytes


class MarkRow(msgspec.Struct, frozen=True):
    """A writer's high-water mark in a scope; it never goes back."""

    scope: str
    kid: str
    gen: int
    epoch: int


class OutboxRow(msgspec.Struct, frozen=True):
    """A signed delta whose publication is not finished; the same bytes are sent again after a crash."""

    scope: str
    digest: bytes
    raw: bytes


class HistoryRow(msgspec.Struct, frozen=True):
    """A delta that was valid here once, and that the registers need no more: pushed out by newer ones, or voided.

    What the registers still hold is history too, and stays a DeltaRow. Only so many of a scope are kept.
    """

    scope: str
    gen: int
    epoch: int
    kid: str
    digest: bytes
    raw: bytes


class AuditRow(msgspec.Struct, frozen=True):
    """Something that an operator may ask about one day, once or ``count`` times between ``first`` and ``last`` (UTC).

    ``event`` is a word (:mod:`tars_settings.core.audit`), ``name`` tells entries of one event apart; a row with a lower
    count never replaces one. ``place`` is a topic, a scope or a file, ``detail`` is for people; no value is in them.
    ``evidence`` are signed envelopes, one a line.
    """

    event: str
    name: str
    first: str
    last: str
    count: int
    place: str = ""
    kid: str = ""
    reason: str = ""
    detail: str = ""
    evidence: bytes = b""


Row = (
    DeltaRow
    | TrustRow
    | IndexRow
    | SegmentRow
    | FloorRow
    | FloorSegmentRow
    | MarkRow
    | OutboxRow
    | HistoryRow
    | AuditRow
)


def identity(row: Row) -> tuple[Any, ...]:
    """Return what makes a row that row: of two with one identity the later one counts.

    An index or a floor is named with its digest: one that is dropped says nothing of a greater one.

    >>> identity(SegmentRow("stt-worker", "a" * 32, 2, b"{}"))[2:]
    ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 2)
    """
    return (type(row), *_IDENTITIES[type(row)](row))


_IDENTITIES: Final[dict[type, Callable[[Any], tuple[Any, ...]]]] = {
    DeltaRow: attrgetter("scope", "digest"),
    TrustRow: attrgetter("version", "digest"),
    IndexRow: attrgetter("scope", "kid", "digest"),
    SegmentRow: attrgetter("scope", "kid", "n"),
    FloorRow: attrgetter("scope", "kid", "digest"),
    FloorSegmentRow: attrgetter("scope", "hash"),
    MarkRow: attrgetter("scope", "kid"),
    OutboxRow: attrgetter("scope", "digest"),
    HistoryRow: attrgetter("scope", "digest"),
    AuditRow: attrgetter("event", "name"),
}


class Unwritten:
    """Rows that wait to be written. Noting them costs next to nothing; whoever takes them gets the last word on each.

    >>> waiting = Unwritten()
    >>> waiting.note([MarkRow("a", "k", 1, 1)])
    >>> waiting.note([MarkRow("a", "k", 1, 2)], [DeltaRow("a", b"d", b"")])
    >>> bool(waiting), waiting.take(), bool(waiting)
    (True, ([MarkRow(scope='a', kid='k', gen=1, epoch=2)], [DeltaRow(scope='a', digest=b'd', raw=b'')]), False)
    """

    def __init__(self) -> None:
        self._noted: list[tuple[Sequence[Row], Sequence[Row]]] = []

    def __bool__(self) -> bool:
        return bool(self._noted)

    def note(self, put: Sequence[Row], drop: Sequence[Row] = ()) -> None:
        """Have rows put and dropped."""
        if put or drop:
            self._noted.append((drop, put))

    def kinds(self) -> set[type]:
        """Return what kinds of rows wait."""
        return {type(row) for pair in self._noted for rows in pair for row in rows}

    def take(self) -> tuple[list[Row], list[Row]]:
        """Return, and keep no longer, what is to be put and what is to be dropped."""
        noted, self._noted = self._noted, []
        last: dict[tuple[Any, ...], tuple[Row, bool]] = {}
        for drop, put in noted:
            # Within one effect drops come first: a number that is free now may be taken again at once.
            last.update({identity(row): (row, False) for row in drop})
            last.update({identity(row): (row, True) for row in put})
        return [row for row, is_put in last.values() if is_put], [row for row, is_put in last.values() if not is_put]
