"""How rows lie in SQLite: a table for each kind, with the statements that put, drop and read them, and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from tars_settings.core.records import (
    AuditRow,
    DeltaRow,
    FloorRow,
    FloorSegmentRow,
    HistoryRow,
    IndexRow,
    MarkRow,
    OutboxRow,
    SegmentRow,
    TrustRow,
)


class Table(NamedTuple):
    """How one kind of row is kept: one for each ``key``, of which the greatest by ``rank`` stays.

    With ``once`` a row that is there stays as it is unless its rank is lower. What a later release of ours ``added`` is
    made where an older file lacks it, and what is no part of the ``state`` is read only when it is asked for.
    """

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    rank: tuple[str, ...] = ()
    order: str = ""
    once: bool = False
    kept: tuple[str, ...] = ()
    added: bool = False
    state: bool = True

    def create(self) -> str:
        """Return the statement that makes the table."""
        columns = ", ".join(f"{name} {kind} NOT NULL" for name, kind in self.columns.items())
        return f"CREATE TABLE IF NOT EXISTS {self.name} ({columns}, PRIMARY KEY ({', '.join(self.key)}))"

    def put(self) -> str:
        """Return the statement that puts a row."""
        # One statement, so that no other process gets between reading and writing. Equal rows are written again: the
        # held bytes may be damaged, and the arriving ones were verified.
        values = ", ".join("?" * len(self.columns))
        update = ", ".join(f"{name} = excluded.{name}" for name in self.columns if name not in self.kept)
        return (
            f"INSERT INTO {self.name} VALUES ({values})"  # noqa: S608 (our own constants, as below)
            f" ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {update} WHERE {self._guard()}"
        )

    def _guard(self) -> str:
        arriving = ", ".join(f"excluded.{name}" for name in self.rank)
        held = ", ".join(f"{self.name}.{name}" for name in self.rank)
        if self.once:
            # Nothing is written then, not even to a journal: whoever repeats himself wears no flash.
            return f"({arriving}) > ({held})" if self.rank else "FALSE"
        return f"({arriving}) >= ({held})" if self.rank else "TRUE"

    def drop(self) -> str:
        """Return the statement that drops a row."""
        matched = " AND ".join(f"{name} = ?" for name in self.identity())
        return f"DELETE FROM {self.name} WHERE {matched}"  # noqa: S608

    def identity(self) -> tuple[str, ...]:
        """Return what names a row when it is dropped: with its rank, so that a newer one stays."""
        return self.key + self.rank

    def types(self) -> tuple[type, ...]:
        """Return the types of a row's values in Python."""
        return tuple(PYTHON[declared] for declared in self.columns.values())

    def select(self) -> str:
        """Return the statement that reads all rows, to be narrowed down."""
        return f"SELECT {', '.join(self.columns)} FROM {self.name}"  # noqa: S608


_TEXT, _INT, _BYTES = "TEXT", "INTEGER", "BLOB"
PYTHON: Final[Mapping[str, type]] = MappingProxyType({_TEXT: str, _INT: int, _BYTES: bytes})

TABLES: Final[Mapping[type[Any], Table]] = MappingProxyType(
    {
        TrustRow: Table(
            "trust",
            {"version": _INT, "digest": _BYTES, "raw": _BYTES},
            ("version", "digest"),
            order=" ORDER BY version, digest",
        ),
        DeltaRow: Table("deltas", {"scope": _TEXT, "digest": _BYTES, "raw": _BYTES}, ("digest",)),
        IndexRow: Table(
            "heads",
            {"scope": _TEXT, "kid": _TEXT, "counter": _INT, "digest": _BYTES, "raw": _BYTES},
            ("scope", "kid"),
            rank=("counter", "digest"),
        ),
        SegmentRow: Table("segments", {"scope": _TEXT, "kid": _TEXT, "n": _INT, "raw": _BYTES}, ("scope", "kid", "n")),
        FloorRow: Table(
            "floors",
            {"scope": _TEXT, "kid": _TEXT, "gen": _INT, "epoch": _INT, "digest": _BYTES, "raw": _BYTES},
            ("scope", "kid"),
            rank=("gen", "epoch", "digest"),
        ),
        FloorSegmentRow: Table("floor_parts", {"scope": _TEXT, "hash": _TEXT, "raw": _BYTES}, ("scope", "hash")),
        MarkRow: Table(
            "marks",
            {"scope": _TEXT, "kid": _TEXT, "gen": _INT, "epoch": _INT},
            ("scope", "kid"),
            rank=("gen", "epoch"),
        ),
        OutboxRow: Table("outbox", {"scope": _TEXT, "digest": _BYTES, "raw": _BYTES}, ("digest",)),
        HistoryRow: Table(
            "history",
            {"scope": _TEXT, "gen": _INT, "epoch": _INT, "kid": _TEXT, "digest": _BYTES, "raw": _BYTES},
            ("scope", "gen", "epoch", "kid", "digest"),
            once=True,
            added=True,
            state=False,
        ),
        AuditRow: Table(
            "audit",
            {
                "event": _TEXT,
                "name": _TEXT,
                "first": _TEXT,
                "last": _TEXT,
                "count": _INT,
                "place": _TEXT,
                "kid": _TEXT,
                "reason": _TEXT,
                "detail": _TEXT,
                "evidence": _BYTES,
            },
            ("event", "name"),
            rank=("count",),
            once=True,
            kept=("first", "evidence"),
            added=True,
            state=False,
        ),
    }
)

MAX_HISTORY_ROWS: Final = 1000
MAX_HISTORY_BYTES: Final = 2 * 1024 * 1024
"""Of one scope; both are exceeded by a few rows at most, for a bound that is kept exactly is paid at each change."""
MAX_AUDIT_ROWS: Final = 200
MAX_EVIDENCE_ROWS: Final = 50
"""Of one event, so that a flood of one drives out nothing of another; of those that come with evidence, fewer."""
SLACK_ROWS: Final = 32

OLDEST_HISTORY: Final = """
    SELECT gen, epoch, kid, digest FROM (
        SELECT gen, epoch, kid, digest,
               ROW_NUMBER() OVER newest AS number, SUM(LENGTH(raw)) OVER newest AS bytes
        FROM history WHERE scope = ?
        WINDOW newest AS (ORDER BY gen DESC, epoch DESC, kid DESC, digest DESC)
    ) WHERE number > ? OR bytes > ? ORDER BY number LIMIT 1
"""
"""The newest stamp of a scope that is beyond the bounds."""
PRUNE_HISTORY: Final = "DELETE FROM history WHERE scope = ? AND (gen, epoch, kid, digest) <= (?, ?, ?, ?)"
PRUNE_AUDIT: Final = """
    DELETE FROM audit WHERE event = ? AND rowid <=
        (SELECT rowid FROM audit WHERE event = ? ORDER BY rowid DESC LIMIT 1 OFFSET ?)
"""
READ_HISTORY: Final = " WHERE scope = ? AND epoch > ? ORDER BY gen DESC, epoch DESC, kid DESC, digest DESC"
