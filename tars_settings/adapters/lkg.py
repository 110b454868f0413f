"""The last-known-good store on diskcache: the only door to ``diskcache``.

diskcache unpickles what it reads (CVE-2025-69872), joins file names from the database unchecked and deletes such files,
and takes pragmas from the database it opens (REVIEW F10). So: two fixed keys, bytes held inline and nothing else, every
setting pinned, and a look at the rows before each use. What does not look like ours is refused, never interpreted.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeVar

import diskcache
from diskcache import core

from tars_settings.adapters.statedir import check_dir, check_file, private_dir, private_file, set_aside
from tars_settings.errors import LkgError, StateDirError

_log: Final = logging.getLogger("tars_settings.lkg")
_sqlite: Final = core.sqlite3

KEYS: Final = ("newest", "previous")
MAX_BYTES: Final = 2**26 - 1
_BUSY_S: Final = 2.0

# A rollback journal whatever the SQLite: two small rows gain nothing from a WAL, and many builds have its reset bug.
_PINNED: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "statistics": 0,
        "tag_index": 0,
        "eviction_policy": "none",
        "size_limit": 2**40,
        "cull_limit": 0,
        "sqlite_auto_vacuum": 0,
        "sqlite_cache_size": 2**8,
        "sqlite_journal_mode": "delete",
        "sqlite_mmap_size": 0,
        "sqlite_synchronous": 2,
        "disk_min_file_size": MAX_BYTES + 1,
        "disk_pickle_protocol": 0,
    }
)
_COUNTERS: Final = frozenset({"count", "size", "hits", "misses"})

_SCHEMA: Final = frozenset(
    {
        "Settings",
        "sqlite_autoindex_Settings_1",
        "Cache",
        "Cache_key_raw",
        "Cache_expire_time",
        "Settings_count_insert",
        "Settings_count_delete",
        "Settings_size_insert",
        "Settings_size_update",
        "Settings_size_delete",
    }
)

# raw = 1: the key is no pickle. mode = 1: nor is the value.
_FOREIGN_ROWS: Final = (
    "SELECT COUNT(*) FROM Cache WHERE NOT ("
    " typeof(key) = 'text' AND key IN ('newest', 'previous') AND raw IS 1 AND mode IS 1 AND filename IS NULL"
    " AND typeof(value) = 'blob' AND expire_time IS NULL AND tag IS NULL)"
)

T = TypeVar("T")


class DiskLkg:
    """Two slots in *directory*, fulfilling :class:`tars_settings.ports.LkgStore`.

    Opened at the first use. Reading creates nothing, and writes nothing. What was not written by us makes ``read`` fail
    and stays where it is; the next ``write`` moves it aside and begins anew. Each thread has a connection, which
    ``close`` closes for the thread that calls it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cache: _Cache | None = None

    def __repr__(self) -> str:
        return f"<DiskLkg {self._directory}>"

    @property
    def path(self) -> Path:
        """The database's file."""
        return self._directory / str(core.DBNAME)

    def read(self, slot: int) -> bytes | None:
        """Return the content of slot 0 (newest) or 1 (the one before), None where it is empty.

        Raises:
            LkgError: it can't be read, or holds something that we never write. Nothing of it was interpreted.
        """
        return self._careful(lambda: self._read(KEYS[slot]))

    def _read(self, key: str) -> bytes | None:
        if self._cache is None and not self._exists():
            return None
        cache = self._open(create=False)
        cache.refuse_foreign()
        content: bytes | None = cache.get(key)
        return content

    def write(self, sealed: bytes, *, keep_previous: bool | Callable[[bytes], bool]) -> None:
        """Put *sealed* into slot 0; with *keep_previous* what was there moves to slot 1. On disk when this returns.

        *keep_previous* may be a question about what is there, asked where no other process can write in between.

        Raises:
            LkgError: it can't be written; what was there is still there, or was damaged and has been moved aside.
        """
        try:
            self._careful(lambda: self._write(sealed, keep_previous=keep_previous))
        except _ForeignError as error:
            self._bury(error)
            self._careful(lambda: self._write(sealed, keep_previous=keep_previous))

    def _write(self, sealed: bytes, *, keep_previous: bool | Callable[[bytes], bool]) -> None:
        if len(sealed) > MAX_BYTES:
            raise LkgError(f"{len(sealed)} bytes are too many for the last-known-good store")
        cache = self._open(create=True)
        with cache.transact():
            cache.refuse_foreign()
            held = cache.get(KEYS[0])
            if held is not None and (keep_previous(held) if callable(keep_previous) else keep_previous):
                cache.set(KEYS[1], held)
            cache.set(KEYS[0], sealed)

    def close(self) -> None:
        """Close this thread's connection; harmless twice. The next use opens it again."""
        cache, self._cache = self._cache, None
        if cache is not None:
            cache.close()

    def _exists(self) -> bool:
        return os.path.lexists(self.path)

    def _open(self, *, create: bool) -> _Cache:
        if self._cache is None:
            fresh = not self._exists() or self.path.lstat().st_size == 0
            if create:
                private_dir(self._directory)
                private_file(self.path)
            check_dir(self._directory)
            check_file(self.path)
            if fresh and not create:
                raise _ForeignError(f"the last-known-good store {self.path} is empty, which we never leave it")
            self._cache = _Cache(self._directory, fresh=fresh)
        return self._cache

    def _careful(self, step: Callable[[], T]) -> T:
        """Carry out *step*.

        Raises:
            LkgError: from whatever SQLite, diskcache or the file system said; :class:`_ForeignError` where the file is
                damaged or someone else's.
        """
        try:
            return step()
        except LkgError:
            self.close()
            raise
        except (StateDirError, OSError, core.Timeout, _sqlite.OperationalError) as error:
            self.close()
            why = str(error) or type(error).__name__
            raise LkgError(f"the last-known-good store {self.path} can't be used: {why}") from error
        except (_sqlite.Error, ValueError, TypeError, LookupError, AttributeError) as error:
            # diskcache on a database that is not of its form.
            self.close()
            raise _ForeignError(f"the last-known-good store {self.path} is damaged: {error}") from error

    def _bury(self, why: LkgError) -> None:
        try:
            grave = set_aside(self.path)
        except StateDirError as error:
            raise LkgError(str(error)) from error
        _log.error("%s; it is now %s, and a new one is begun", why, grave.name)


class _ForeignError(LkgError):
    """The store holds something that we never write: damage, or someone's work."""


def _refuse(*_args: object, **_kwargs: object) -> NoReturn:
    raise _ForeignError("the last-known-good store was asked for a file, or for something else than bytes")


class _Disk(diskcache.Disk):  # type: ignore[misc]  # diskcache is untyped
    """Keys from a fixed set, bytes inline; every other door of the original is walled up."""

    hash = filename = _write = staticmethod(_refuse)

    def put(self, key: object) -> tuple[str, bool]:
        if key not in KEYS:
            _refuse()
        return str(key), True

    def get(self, key: object, raw: object) -> str:
        if raw != 1 or key not in KEYS:
            _refuse()
        return str(key)

    def store(self, value: object, read: object, key: object = None) -> tuple[int, int, None, bytes]:
        if read or type(value) is not bytes or len(value) > MAX_BYTES or key not in KEYS:
            _refuse()
        return 0, core.MODE_RAW, None, value

    def fetch(self, mode: object, filename: object, value: object, read: object) -> bytes:
        if read or mode != core.MODE_RAW or filename is not None or type(value) is not bytes:
            _refuse()
        return value

    def remove(self, file_path: object) -> None:
        if file_path is not None:
            _refuse()


class _Cache(diskcache.Cache):  # type: ignore[misc]
    """A Cache whose settings come from here and never from the database.

    The original writes its forty settings at each opening, each with a sync: about a second on an SD card, and
    impossible on a read-only disk. An existing database is only checked.
    """

    def __init__(self, directory: Path, *, fresh: bool) -> None:
        self._fresh = fresh
        if fresh:
            # A crash in here leaves a file that does not pass for ours, and is replaced by the next write.
            super().__init__(str(directory), _BUSY_S, _Disk, **{**_PINNED, "sqlite_synchronous": 0})
            self.reset("sqlite_synchronous", _PINNED["sqlite_synchronous"])
            self._fresh = False
        else:
            self._directory = str(directory)
            self._timeout = _BUSY_S
            self._local = threading.local()
            self._txn_id = None
            self._disk = _Disk(str(directory), _PINNED["disk_min_file_size"], _PINNED["disk_pickle_protocol"])
            for name, value in _PINNED.items():
                setattr(self, name, value)

    def reset(self, key: str, value: Any = core.ENOVAL, update: bool = True) -> Any:
        """Adopt a setting; diskcache calls this with what stands in the database, pragmas included."""
        if value is not core.ENOVAL and key not in _COUNTERS and not self._may_be(key, value):
            raise _ForeignError(f"the last-known-good store has the setting {key!a:.40} changed")
        return super().reset(key, value, update)

    def _may_be(self, key: str, value: object) -> bool:
        if self._fresh and key == "sqlite_synchronous":
            return value in (0, 2)
        return key in _PINNED and type(value) is type(_PINNED[key]) and value == _PINNED[key]

    def refuse_foreign(self) -> None:
        """Raise _ForeignError where something is not ours. Nothing but names and plain columns is looked at."""
        found = {name for (name,) in self._sql("SELECT name FROM sqlite_master").fetchall()}
        if found != _SCHEMA:
            raise _ForeignError("the last-known-good store does not have the tables and triggers that we make")
        settings = dict(self._sql("SELECT key, value FROM Settings").fetchall())
        changed = [key for key, value in settings.items() if key not in _COUNTERS and not self._may_be(key, value)]
        ((rows,),) = self._sql(_FOREIGN_ROWS).fetchall()
        if changed or rows or settings.keys() != _PINNED.keys() | _COUNTERS:
            raise _ForeignError(f"the last-known-good store holds {rows} rows, or settings, that we never write")
