"""The threat model says what is tested, and what it says is there."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from tests.hostile.rows import ROWS, Row
from tests.hostile.table import DOCUMENT, written

ROOT = Path(__file__).resolve().parents[2]
REVIEWED = {"A": 19, "B": 6, "C": 4, "D": 8, "E": 8, "G": 5}


@functools.cache
def functions_of(path: Path) -> frozenset[str]:
    return frozenset(node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))


def test_the_document_holds_the_table_as_it_is() -> None:
    assert DOCUMENT.read_text() == written(), "run: python -m tests.hostile.table"


def test_every_attack_has_its_row() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {f"{part}{n}" for part, last in REVIEWED.items() for n in range(1, last + 1)} <= set(names)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_its_tests_are_there_or_it_says_why_there_are_none(row: Row) -> None:
    missing = [test for test in row.tests if test.split("::")[1] not in functions_of(ROOT / test.split("::")[0])]
    assert missing == []
    assert row.tests or row.outcome.startswith("Not defended")


def test_every_test_of_an_attack_is_in_the_table() -> None:
    named = {test for row in ROWS for test in row.tests}
    here = {
        f"{path.relative_to(ROOT)}::{test}"
        for path in (ROOT / "tests/hostile").glob("test_*.py")
        if path.name != "test_table.py"
        for test in functions_of(path)
        if test.startswith("test_")
    }
    assert here <= named
    for test in here:
        number = test.split("::test_")[1].split("_")[0]
        (row,) = (row for row in ROWS if test in row.tests)
        assert number == f"{row.name[0].lower()}{int(row.name[1:]):02}"
