"""The replica in SQLite: the only door to its files.

What is stored is what was signed; whoever loads it verifies it again, for SQLite does not notice flipped bytes (46 of
60 gave wrong rows in silence). So a damaged file is an inconvenience: it is moved aside, and the broker fills a new
one.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from tars_settings.adapters.statedir import check_dir, check_file, private_dir, private_file, set_aside
from tars_settings.adapters.tables import (
    MAX_AUDIT_ROWS,
    MAX_EVIDENCE_ROWS,
    MAX_HISTORY_BYTES,
    MAX_HISTORY_ROWS,
    OLDEST_HISTORY,
    PRUNE_AUDIT,
    PRUNE_HISTORY,
    READ_HISTORY,
    SLACK_ROWS,
    TABLES,
    Table,
)
from tars_settings.core.records import AuditRow, HistoryRow, Row
from tars_settings.errors import ReplicaError, StateDirError

_log: Final = logging.getLogger("tars_settings.replica")

FILE_NAME: Final = "replica.db"
SQLITE_VERSION: Final = sqlite3.sqlite_version
SCHEMA_VERSION: Final = 1
_PLAUSIBLE_VERSION: Final = 1000
_BUSY_S: Final = 2.0
_FULL, _NORMAL, _OFF = 2, 1, 0
_CACHE_KIB: Final = 256
_REQUIRED: Final = frozenset(table.name for table in TABLES.values() if not table.added)

T = TypeVar("T")
RecordT = TypeVar("RecordT", HistoryRow, AuditRow)


def has_wal_fix(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Return whether this SQLite has the fix of the WAL-reset bug, which corrupts files (sqlite.org/wal.html).

    >>> [has_wal_fix(v) for v in ((3, 40, 1), (3, 44, 6), (3, 45, 0), (3, 50, 7), (3, 51, 2), (3, 51, 3))]
    [False, True, False, True, False, True]
    """
    branch = version[:2]
    if branch in ((3, 44), (3, 50)):
        return version >= ((3, 44, 6) if branch == (3, 44) else (3, 50, 7))
    return version >= (3, 51, 3)


class SqliteReplica:
    """Rows in one file, fulfilling :class:`tars_settings.ports.ReplicaStore`.

    The file is opened at the first use, again after a fork, and again when another process moved it aside. ``load``
    creates nothing. With *create* False nothing is created or moved aside at all: for one who only wants to look.
    Threads may share it.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self._path = path
        self._create = create
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        self._opened: tuple[int, int, int] = (0, 0, 0)
        self._synchronous = _FULL
        self._is_whole = False
        self._oldest: dict[str, tuple[int, int, str, bytes]] = {}
        self._slack: dict[tuple[type[Row], str], int] = {}

    def __repr__(self) -> str:
        return f"<SqliteReplica {self._path}>"

    def load(self, scopes: Iterable[str] | None = None) -> Sequence[Row]:
        """Return the rows of *scopes* (all where None) and every TrustRow; trust first, by version.

        A row that is not of its form is left out. A damaged file is moved aside, which one line of the log says, and
        nothing is returned; the next ``apply`` begins a new one.

        Raises:
            ReplicaError: it can't be read; or it is damaged, and can't or may not be moved aside.
        """
        wanted = None if scopes is None else sorted(set(scopes))
        with self._lock:
            try:
                connection = self._current(create=False)
                return [] if connection is None else self._careful(lambda: list(_rows(connection, wanted)))
            except _BuriedError:
                return []

    def apply(self, put: Sequence[Row], drop: Sequence[Row] = (), *, durable: bool = True) -> None:
        """Put and drop rows in one transaction; with *durable* it is on the disk when this returns.

        Raises:
            ReplicaError: nothing was changed. A damaged file was moved aside: put everything that is to be kept again.
        """
        with self._lock:
            connection = self._current(create=True)
            assert connection is not None  # noqa: S101 (for the type checker)
            self._careful(lambda: self._write(connection, put, drop, _FULL if durable else _NORMAL))

    def _write(self, connection: sqlite3.Connection, put: Sequence[Row], drop: Sequence[Row], level: int) -> None:
        if level != self._synchronous:
            _set_synchronous(connection, level)
            self._synchronous = level
        with _transaction(connection):
            if not self._is_whole:
                _create_added(connection)
            for kind, rows in _by_kind(put).items():
                kept = [row for row in rows if not self._is_pruned(row)] if kind is HistoryRow else rows
                connection.executemany(TABLES[kind].put(), map(_values(TABLES[kind].columns), kept))
            for kind, rows in _by_kind(drop).items():
                connection.executemany(TABLES[kind].drop(), map(_values(TABLES[kind].identity()), rows))
            self._prune(connection, put)
        self._is_whole = True

    # --- the record: nothing rests on it -----------------------------------------------------------------------------

    def _is_pruned(self, row: Row) -> bool:
        """Return whether a row is older than all that is kept: putting it would only wear the disk."""
        if not isinstance(row, HistoryRow) or row.scope not in self._oldest:
            return False
        return (row.gen, row.epoch, row.kid, row.digest) <= self._oldest[row.scope]

    def _prune(self, connection: sqlite3.Connection, put: Sequence[Row]) -> None:
        """Delete what is beyond the bounds, once in a while."""
        written = Counter(_part(row) for row in put if isinstance(row, HistoryRow | AuditRow))
        for part, rows in written.items():
            self._slack[part] = self._slack.get(part, 0) - rows
            if self._slack[part] <= 0:
                self._slack[part] = SLACK_ROWS
                self._prune_part(connection, *part)

    def _prune_part(self, connection: sqlite3.Connection, kind: type[Row], of: str) -> None:
        if kind is AuditRow:
            from tars_settings.core.audit import WITH_EVIDENCE  # noqa: PLC0415 - who only reads prunes nothing

            most = MAX_EVIDENCE_ROWS if of in WITH_EVIDENCE else MAX_AUDIT_ROWS
            connection.execute(PRUNE_AUDIT, (of, of, most))
            return
        oldest = connection.execute(OLDEST_HISTORY, (of, MAX_HISTORY_ROWS, MAX_HISTORY_BYTES)).fetchone()
        if oldest is not None:
            connection.execute(PRUNE_HISTORY, (of, *oldest))
            self._oldest[of] = oldest

    def history(self, scope: str, since: int = 0) -> Sequence[HistoryRow]:
        """Return what is kept of a scope's past besides its DeltaRows, of epochs above *since*, newest first.

        Raises:
            ReplicaError: as :meth:`load`.
        """
        return self._recorded(HistoryRow, READ_HISTORY, (scope, since))

    def audit(self) -> Sequence[AuditRow]:
        """Return the audit trail, in no order.

        Raises:
            ReplicaError: as :meth:`load`.
        """
        return self._recorded(AuditRow, "", ())

    def _recorded(self, kind: type[RecordT], where: str, values: tuple[Any, ...]) -> list[RecordT]:
        table = TABLES[kind]
        with self._lock:
            try:
                connection = self._current(create=False)
                if connection is None or table.name not in _schema(connection)[1]:
                    return []
                rows = self._careful(lambda: connection.execute(table.select() + where, values).fetchall())
            except _BuriedError:
                return []
        return [kind(*values) for values in rows if tuple(map(type, values)) == table.types()]

    def close(self) -> None:
        """Close it; harmless twice. The next use opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._opened[0] == os.getpid():
                connection.close()

    # --- opening ---------------------------------------------------------------------------------------------------

    def _current(self, *, create: bool) -> sqlite3.Connection | None:
        """Return a connection to the file as it is now, None where there is none and none is to be made."""
        if self._connection is not None and self._opened[0] != os.getpid():
            _inherited.append(self._connection)  # SQLite forbids its use in a child, and closing it too
            self._connection = None
        if self._connection is not None and self._opened != _mark_of(self._path):
            self.close()
        if self._connection is None:
            self._connection = self._careful(lambda: self._open(create=create))
            self._opened = _mark_of(self._path)
            self._synchronous = _FULL
            self._is_whole = False
            self._oldest.clear()
            self._slack.clear()
        return self._connection

    def _open(self, *, create: bool) -> sqlite3.Connection | None:
        if create and not self._create:
            raise ReplicaError(f"the replica {self._path} was opened for reading only")
        if create:
            private_dir(self._path.parent)
            private_file(self._path)
        elif not os.path.lexists(self._path):
            return None
        check_dir(self._path.parent)
        check_file(self._path)
        return self._connect(create=create)

    def _connect(self, *, create: bool) -> sqlite3.Connection | None:
        connection = _connect(self._path, "mode=rw" if os.access(self._path, os.W_OK) else "mode=ro")
        try:
            return self._prepare(connection, create=create)
        except sqlite3.OperationalError:
            connection.close()
            if create or (os.access(self._path, os.W_OK) and os.access(self._path.parent, os.W_OK)):
                raise
        # A journal or a WAL was left, and on a read-only disk it can't be played back. What is read this way may be a
        # mixture, and every row is verified by whoever loads it.
        connection = _connect(self._path, "mode=ro&immutable=1")
        return self._prepare(connection, create=False)

    def _prepare(self, connection: sqlite3.Connection, *, create: bool) -> sqlite3.Connection | None:
        try:
            _tune(connection)
            version, tables = _schema(connection)
            if SCHEMA_VERSION < version <= _PLAUSIBLE_VERSION:
                raise ReplicaError(f"the replica {self._path} was made by a newer release; it is left alone")
            if version == 0 and not tables:
                if not create:
                    connection.close()
                    return None
                _create_schema(connection)
            elif version > SCHEMA_VERSION or not tables.issuperset(_REQUIRED):
                raise sqlite3.DatabaseError("tables or version are not ours")
        except BaseException:
            connection.close()
            raise
        return connection

    def _careful(self, step: Callable[[], T]) -> T:
        """Carry out *step*; move a damaged file aside.

        Raises:
            ReplicaError: from whatever SQLite or the file system said.
        """
        try:
            return step()
        except (StateDirError, OSError, OverflowError) as error:
            raise ReplicaError(f"the replica {self._path} can't be used: {error}") from error
        except UnicodeDecodeError as error:
            # sqlite3 decodes SQLite's own message, which quotes the damaged schema.
            damage = sqlite3.DatabaseError("the schema is damaged")
            self._bury(damage)
            raise ReplicaError(f"the replica {self._path} can't be used: {damage}") from error
        except sqlite3.Error as error:
            if _is_damage(error):
                self._bury(error)
            raise ReplicaError(f"the replica {self._path} can't be used: {error}") from error

    def _bury(self, error: sqlite3.Error) -> None:
        """Move the damaged file aside.

        Raises:
            ReplicaError: always; it says that the file is damaged, and where it is now.
        """
        self.close()
        if not self._create:
            raise ReplicaError(f"the replica {self._path} is damaged: {error}") from error
        try:
            grave = set_aside(self._path)
        except StateDirError as refused:
            raise ReplicaError(str(refused)) from error
        _log.error("the replica was damaged (%s); it is now %s, and a new one is begun", error, grave)
        raise _BuriedError(f"the replica {self._path} was damaged ({error}); it is now {grave}") from error


_SURROUNDINGS: Final = ("locked", "full", "readonly", "unable to open", "disk i/o", "out of memory", "interrupted")


def _is_damage(error: sqlite3.Error) -> bool:
    """Return whether the file itself is bad, and not what surrounds it.

    A flipped bit in a column's name or in the header's format number gives an OperationalError, as a full disk does.
    Python 3.10 does not tell SQLite's error code, so its words must do.
    """
    said = str(error).lower()
    if isinstance(error, sqlite3.OperationalError):
        return not any(words in said for words in _SURROUNDINGS)
    # A row that breaks a constraint means a damaged index: each is put by an upsert. A missing value is the caller's.
    broken = isinstance(error, sqlite3.IntegrityError) and "not null" not in said
    return broken or type(error) is sqlite3.DatabaseError


class _BuriedError(ReplicaError):
    """The file was damaged and has been moved aside."""


_inherited: Final[list[sqlite3.Connection]] = []
"""Connections of a parent process, kept so that the collector does not close them either."""


def _by_kind(rows: Sequence[Row]) -> dict[type[Row], list[Row]]:
    """Return rows by kind, in their order: rows of one kind share a statement."""
    kinds: dict[type[Row], list[Row]] = {}
    for row in rows:
        kinds.setdefault(type(row), []).append(row)
    return kinds


def _values(names: Iterable[str]) -> Callable[[Row], tuple[Any, ...]]:
    taken = tuple(names)
    take = attrgetter(*taken)
    return take if len(taken) > 1 else lambda row: (take(row),)


def _part(row: HistoryRow | AuditRow) -> tuple[type[Row], str]:
    """Return what has a bound of its own: the history of a scope, the entries of one event."""
    return (HistoryRow, row.scope) if isinstance(row, HistoryRow) else (AuditRow, row.event)


def _mark_of(path: Path) -> tuple[int, int, int]:
    """Return what tells this file in this process from another one of the same name."""
    try:
        found = path.stat()
    except OSError:
        return (os.getpid(), 0, 0)
    return (os.getpid(), found.st_dev, found.st_ino)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(os.fspath(path.absolute()))}?{mode}",
        uri=True,
        timeout=_BUSY_S,
        isolation_level=None,
        check_same_thread=False,  # our own lock serialises
    )
    # A flipped bit in a text must not make all rows unreadable.
    connection.text_factory = lambda text: text.decode(errors="replace")
    return connection


def _tune(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA mmap_size = 0")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    # The pages of 2 MB, which is the default, are read once, and each worker of a host would keep them. What one
    # transaction changes stays in memory nonetheless: a spilled page would be one more wait for the disk.
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.execute("PRAGMA cache_spill = OFF")
    _set_synchronous(connection, _FULL)


def _set_synchronous(connection: sqlite3.Connection, level: int) -> None:
    connection.execute(f"PRAGMA synchronous = {level}")
    (found,) = connection.execute("PRAGMA synchronous").fetchone()
    if found != level:
        raise ReplicaError("this SQLite does not let synchronous be set; nothing durable can be promised")


def _schema(connection: sqlite3.Connection) -> tuple[int, set[str]]:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return version, tables


def _create_added(connection: sqlite3.Connection) -> None:
    """Make, in a file of an older release, the tables that it lacks; that release passes over them."""
    for table in TABLES.values():
        if table.added:
            connection.execute(table.create())


def _create_schema(connection: sqlite3.Connection) -> None:
    # Decided for new files only: a file that others have open is never switched.
    connection.execute(f"PRAGMA journal_mode = {'WAL' if has_wal_fix() else 'DELETE'}")
    # An empty schema is worth no wait for the disk (20 ms of a first join): whatever is put next takes it along, since
    # the whole file is synchronised, and a file that a power cut leaves half made holds nothing and is begun anew.
    _set_synchronous(connection, _OFF)
    with _transaction(connection):
        for table in TABLES.values():
            connection.execute(table.create())
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    _set_synchronous(connection, _FULL)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite ends it by itself when the disk is full
            connection.execute("ROLLBACK")
        raise


def _rows(connection: sqlite3.Connection, scopes: list[str] | None) -> Iterator[Row]:
    malformed = 0
    with _reading(connection):
        for kind, table in TABLES.items():
            if not table.state:
                continue
            types = table.types()
            for values in _select(connection, table, scopes):
                if tuple(map(type, values)) == types:
                    yield kind(*values)
                else:
                    malformed += 1
    if malformed:
        _log.warning("%d rows of the replica are malformed and were left out", malformed)


@contextlib.contextmanager
def _reading(connection: sqlite3.Connection) -> Iterator[None]:
    # All tables as they were at one moment, whatever other processes write meanwhile.
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _select(connection: sqlite3.Connection, table: Table, scopes: list[str] | None) -> Iterable[tuple[Any, ...]]:
    if scopes is None or "scope" not in table.columns:
        return connection.execute(table.select() + table.order)
    statement = f"{table.select()} WHERE scope = ?"
    return itertools.chain.from_iterable(connection.execute(statement, (scope,)) for scope in scopes)
