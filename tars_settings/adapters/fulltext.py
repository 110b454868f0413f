"""Ranked full text over a few thousand small texts, in memory: SQLite's FTS5.

The other door to ``sqlite3`` beside the replica's: nothing here touches a file.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tars_settings.errors import SurroundingsError

_BEGIN, _END = "\x02", "\x03"
_TOKENS: Final = "porter unicode61 remove_diacritics 2"
_SNIPPET_TOKENS: Final = 16
MOST_WORDS: Final = 32

Connect = Callable[[], sqlite3.Connection]


@dataclass(frozen=True)
class Hit:
    """A text that was found: its number, and the best piece of it with (begin, end) of each word that was meant."""

    number: int
    snippet: str
    marks: tuple[tuple[int, int], ...]


class FullText:
    """Texts in columns, each of which weighs as much as *weights* says: a word in a heavy one ranks higher.

    Raises:
        SurroundingsError: the SQLite of this Python was built without FTS5.
    """

    def __init__(self, weights: Mapping[str, float], *, connect: Connect = lambda: sqlite3.connect(":memory:")) -> None:
        self._weights = tuple(weights.values())
        self._columns = tuple(weights)
        self._connection = connect()
        missing = ""
        try:
            # The names of columns are the caller's own, never a user's.
            columns = ", ".join(self._columns)
            self._connection.execute(f"CREATE VIRTUAL TABLE texts USING fts5({columns}, tokenize = '{_TOKENS}')")
        except sqlite3.OperationalError as error:
            missing = str(error)
        if missing:
            self._connection.close()
            raise SurroundingsError(
                f"this Python's SQLite ({sqlite3.sqlite_version}) can't search: {missing}. It was built without FTS5; "
                "the Pythons of python.org, Debian and conda have it"
            )

    def add(self, texts: Iterable[tuple[str, ...]]) -> None:
        """Add texts, one string a column; they are numbered from 1 in order."""
        holes = ", ".join("?" * len(self._columns))
        with self._connection:
            rows = [tuple(map(_plain, row)) for row in texts]
            self._connection.executemany(f"INSERT INTO texts VALUES ({holes})", rows)  # noqa: S608 - question marks

    def find(self, words: str, most: int = 1000) -> list[Hit]:
        """Return the texts that hold every one of *words*, best first; where none does, those that hold any.

        The last word may be the beginning of one. No word has a meaning of its own: each is quoted, ``AND``, ``*`` and
        quotation marks too, so there is no wrong query.
        """
        terms = [f'"{quoted}"' for word in words.split()[:MOST_WORDS] if (quoted := _plain(word).replace('"', '""'))]
        if not terms:
            return []
        terms[-1] += "*"
        return self._match(" ".join(terms), most) or self._match(" OR ".join(terms), most)

    def _match(self, query: str, most: int) -> list[Hit]:
        weights = ", ".join(map(str, self._weights))
        found = self._connection.execute(
            f"SELECT rowid, snippet(texts, -1, ?, ?, '…', {_SNIPPET_TOKENS}) FROM texts"  # noqa: S608 - numbers
            f" WHERE texts MATCH ? ORDER BY bm25(texts, {weights}), rowid LIMIT ?",
            (_BEGIN, _END, query, most),
        )
        return [_hit(number, marked) for number, marked in found]

    def close(self) -> None:
        """Forget everything; harmless twice."""
        self._connection.close()

    def __enter__(self) -> FullText:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.close()


def _plain(text: str) -> str:
    """Return a text without our own marks, NUL, and halves of characters, with which SQLite takes no text."""
    return text.replace(_BEGIN, " ").replace(_END, " ").replace("\0", " ").encode(errors="replace").decode()


def _hit(number: int, marked: str) -> Hit:
    plain = ""
    marks: list[tuple[int, int]] = []
    for piece in marked.split(_BEGIN):
        word, end, rest = piece.partition(_END)
        if end:
            marks.append((len(plain), len(plain) + len(word)))
        plain += word + rest
    return Hit(number, plain, tuple(marks))
