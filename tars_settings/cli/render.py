"""What people and machines see: data on stdout, talk on stderr.

Tables on a terminal, tab-separated lines in a pipe, one JSON document with ``--json``. Whatever came over the network
may hold escape sequences (presence is not even signed), so every cell is made printable before a terminal sees it.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TextIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

MASK: Final = "**********"

_STYLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "applied": "green",
        "ready": "green",
        "retained": "green",
        "yes": "green",
        "good": "green",
        "bad": "bold red",
        "refused": "bold red",
        "superseded": "bold red",
        "unconfirmed": "bold red",
        "no": "bold red",
        "degraded": "yellow",
        "stale": "yellow",
        "joining": "yellow",
        "silent": "yellow",
        "shadowed": "yellow",
        "offline": "dim",
        "ok": "green",
        "warning": "yellow",
        "problem": "bold red",
    }
)


@dataclass(frozen=True)
class Table:
    """Rows of text under columns; a cell may have several lines."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Marked(str):
    """A cell of which pieces, (begin, end) in characters, stand out on a terminal."""

    __slots__ = ("marks",)
    marks: tuple[tuple[int, int], ...]

    def __new__(cls, text: str, marks: tuple[tuple[int, int], ...]) -> Marked:
        """Return *text* with its marks."""
        marked = super().__new__(cls, text)
        marked.marks = marks
        return marked


def printable(text: str) -> str:
    r"""Return *text* with everything that could steer a terminal written as an escape.

    >>> printable("a\x1b[31mb\n"), printable("\u202egnp")
    ('a\\x1b[31mb\\n', '\\u202egnp')
    """
    return "".join(c if c == " " or not unicodedata.category(c).startswith(("C", "Z")) else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def moment_text(at: str) -> str:
    """Return a time of the wire as people read it; it may be broken at the blank.

    >>> moment_text("2026-11-27T23:54:56Z")
    '2026-11-27 23:54:56'
    """
    return at[:19].replace("T", " ")


def value_text(value: Any) -> str:
    """Return a JSON value on one line; a string as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def several(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> several(1, "topic"), several(2, "topic")
    ('1 topic', '2 topics')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


class Output:
    """One command's way to speak. With *as_json* only :meth:`document` writes to stdout.

    ``compact`` is set by a command that prints several documents: each is one line then.
    """

    def __init__(self, *, as_json: bool = False, stdout: TextIO | None = None) -> None:
        self.as_json = as_json
        self.compact = False
        self._stdout = stdout

    @property
    def stdout(self) -> TextIO:
        """Where data goes; looked up late, so that a test may replace it."""
        return self._stdout or sys.stdout

    def note(self, text: str) -> None:
        """Say something to the person who waits; it may have several lines."""
        print(_printable_lines(text), file=sys.stderr, flush=True)

    def document(self, document: Mapping[str, Any]) -> None:
        """Write the JSON document, where one was asked for. Characters beyond ASCII are escaped."""
        if self.as_json:
            print(json.dumps(document, indent=None if self.compact else 2), file=self.stdout, flush=True)

    def line(self, text: str, *, exact: bool = False) -> None:
        """Write one line of data for people; with *exact* a pipe gets it unchanged."""
        if not self.as_json:
            print(text if exact and not self.stdout.isatty() else printable(text), file=self.stdout, flush=True)

    def row(self, cells: Sequence[str]) -> None:
        """Write one row of a table that has no end: cells apart by tabs in a pipe, by two blanks on a terminal."""
        apart = "  " if self.stdout.isatty() else "\t"
        self._written(apart.join(printable(cell) for cell in cells if cell or apart == "\t"))

    def _written(self, text: str) -> None:
        if not self.as_json:
            print(text, file=self.stdout, flush=True)

    def table(self, table: Table) -> None:
        """Write a table: drawn on a terminal, tab-separated lines without a heading in a pipe."""
        if self.as_json or not table.rows:
            return
        if self.stdout.isatty():
            draw(Console(file=self.stdout, highlight=False), table)
            return
        for row in table.rows:
            print("\t".join(printable("; ".join(cell.split("\n"))) for cell in row), file=self.stdout, flush=True)


def draw(console: Console, table: Table) -> None:
    """Draw a table that stays legible at 80 columns and without colour."""
    console.print(drawing(table))


def drawing(table: Table) -> RichTable:
    """Return what :func:`draw` prints."""
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        drawn.add_column(column, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(styled(cell) for cell in row))
    return drawn


def styled(cell: str) -> Text:
    """Return a cell as text, never as markup; words that mean good or bad get a colour besides."""
    text = Text(_printable_lines(cell), style=_STYLES.get(cell.partition(" ")[0].rstrip(":,"), ""))
    if isinstance(cell, Marked) and text.plain == cell:  # an escape would shift what is meant
        for begin, end in cell.marks:
            text.stylize("bold", begin, end)
    return text


def rows_of(rows: Sequence[Sequence[object]]) -> tuple[tuple[str, ...], ...]:
    """Return rows as text; None is an empty cell."""
    return tuple(
        tuple("" if cell is None else cell if isinstance(cell, str) else str(cell) for cell in row) for row in rows
    )
