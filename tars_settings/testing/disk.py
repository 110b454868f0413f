"""A disk as a model: what was written durably survives the loss of power, of the rest only a beginning does."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

from tars_settings.core.records import IndexRow, MarkRow, Row

Rows = dict[tuple[Any, ...], Row]


class Disk:
    """A peer's rows. ``broken`` refuses every write, as a full or read-only disk does."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows: Rows = {_identity(row): row for row in rows}
        self.broken = False
        self._synced: Rows = dict(self.rows)
        self._unsynced: list[tuple[tuple[Row, ...], tuple[Row, ...]]] = []

    def apply(self, put: tuple[Row, ...], drop: tuple[Row, ...], *, durable: bool) -> None:
        """Put and drop rows in one transaction; a durable one takes everything before it to the platter too."""
        if self.broken:
            return
        _write(self.rows, put, drop)
        self._unsynced.append((put, drop))
        if durable:
            self.sync()

    def sync(self) -> None:
        """Take everything to the platter."""
        self._synced = dict(self.rows)
        self._unsynced.clear()

    def lose_power(self, random: Random) -> int:
        """Keep what was synced and a beginning of the rest; return how many transactions were lost."""
        kept = random.randrange(len(self._unsynced) + 1)
        lost = len(self._unsynced) - kept
        for put, drop in self._unsynced[:kept]:
            _write(self._synced, put, drop)
        self.rows = dict(self._synced)
        self._unsynced.clear()
        return lost

    def copy(self) -> Rows:
        """Return the rows as they are now: a backup, to be put back one day."""
        return dict(self.rows)

    def restore(self, rows: Rows) -> None:
        """Put back a backup: the disk forgets everything since."""
        self.rows = dict(rows)
        self.sync()


def _write(rows: Rows, put: tuple[Row, ...], drop: tuple[Row, ...]) -> None:
    for row in drop:
        rows.pop(_identity(row), None)
    for row in put:
        held = rows.get(_identity(row))
        if held is None or _order(row) >= _order(held):
            rows[_identity(row)] = row


def _order(row: Row) -> tuple[Any, ...]:
    """Return what decides between two rows of one identity, as the replica's conditional upserts do."""
    match row:
        case IndexRow(_, _, counter, digest, _):
            return (counter, digest)
        case MarkRow(_, _, gen, epoch):
            return (gen, epoch)
    if type(row).__name__ == "FloorRow":
        return (row.gen, row.epoch, row.digest)  # type: ignore[union-attr]
    return ()


_KEYS = {
    "DeltaRow": ("digest",),
    "OutboxRow": ("digest",),
    "TrustRow": ("version", "digest"),
    "IndexRow": ("scope", "kid"),
    "SegmentRow": ("scope", "kid", "n"),
    "MarkRow": ("scope", "kid"),
    "FloorRow": ("scope", "kid"),
    "FloorSegmentRow": ("scope", "hash"),
    "HistoryRow": ("digest",),
    "AuditRow": ("event", "name"),
}


def _identity(row: Row) -> tuple[Any, ...]:
    kind = type(row).__name__
    return (kind, *(getattr(row, field) for field in _KEYS[kind]))
