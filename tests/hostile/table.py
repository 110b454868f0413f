"""``python -m tests.hostile.table`` writes the table of attacks into docs/threat-model.rst, between its two marks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.hostile.rows import PARTS, ROWS, Row

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "threat-model.rst"
BEGIN: Final = ".. The table: begin (made by python -m tests.hostile.table)\n"
END: Final = ".. The table: end\n"


def table() -> str:
    """Return the table, a part for each kind of attacker."""
    return "\n".join(line for letter, title in PARTS.items() for line in _part(letter, title)) + "\n"


def _part(letter: str, title: str) -> Iterator[str]:
    heading = f"{letter}. {title}"
    yield from (heading, "-" * len(heading), "")
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 20 25 25 30", "")
    yield from _row(("Attack", "What comes of it", "By what means", "Tests"))
    for row in ROWS:
        if row.name.startswith(letter):
            yield from _row((f"**{row.name}** {row.attack}", row.outcome, row.mechanism, _tests(row)))
    yield ""


def _row(cells: tuple[str, ...]) -> Iterator[str]:
    for number, cell in enumerate(cells):
        yield f"   {'* -' if number == 0 else '  -'} {cell.replace('`', '``')}"


def _tests(row: Row) -> str:
    return "; ".join(f"`{_short(test)}`" for test in row.tests) or "none: see on the left"


def _short(test: str) -> str:
    path, _, name = test.partition("::")
    return f"{path.removeprefix('tests/').removesuffix('.py')}: {name.removeprefix('test_').replace('_', ' ')}"


def written() -> str:
    """Return the document with the table as it should be."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"{DOCUMENT.name} lost the marks of its table"
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(written())
