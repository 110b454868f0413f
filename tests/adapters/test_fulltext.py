"""Facts of full text: what ranks first, what is marked, and that no word is a wrong query."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tars_settings.adapters.fulltext import FullText
from tars_settings.errors import SurroundingsError

TEXTS = [
    ("vad_threshold", "Speech probability that opens the gate"),
    ("gate", "Something else"),
    ("audio.gain", "Amplification before recognition; quiet microphones need more"),
    ("größe", "Café size"),
]


@pytest.fixture(scope="module")
def index() -> Iterator[FullText]:
    with FullText({"key": 10.0, "description": 1.0}) as index:
        index.add(TEXTS)
        yield index


def _found(index: FullText, words: str) -> list[str]:
    return [TEXTS[hit.number - 1][0] for hit in index.find(words)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("gate", ["gate", "vad_threshold"]),
        ("threshold", ["vad_threshold"]),
        ("vad_threshold", ["vad_threshold"]),
        ("opening gates", ["vad_threshold"]),
        ("micro", ["audio.gain"]),
        ("cafe", ["größe"]),
        ("GROSSE groesse größe", ["größe"]),
        ("gate microphone", ["gate", "vad_threshold", "audio.gain"]),
        ("nothing at all", []),
        ("", []),
    ],
)
def test_the_best_is_first_and_words_are_met_in_any_form(index: FullText, words: str, expected: list[str]) -> None:
    assert sorted(_found(index, words)) == sorted(expected)
    assert _found(index, words)[:1] == expected[:1] or len(expected) > 2


def test_what_was_meant_is_marked(index: FullText) -> None:
    (hit,) = index.find("opens probability")
    assert [hit.snippet[begin:end] for begin, end in hit.marks] == ["probability", "opens"]


@pytest.mark.parametrize(
    "words", ['"', '""', "gate AND", "NOT", "key:gate", "*", "gate)", "a^2", "NEAR(a b", "-gate", "'"]
)
def test_no_word_of_the_query_language_is_one_here(index: FullText, words: str) -> None:
    index.find(words)
    assert "gate" in _found(index, "gate"), "and the index is as it was"


@given(st.text())
@settings(max_examples=40)
def test_no_text_is_a_wrong_query_or_a_wrong_text(text: str) -> None:
    with FullText({"key": 1.0}) as index:
        index.add([(text,)])
        index.find(text)


def test_a_sqlite_without_full_text_is_named(index: FullText) -> None:
    refused: list[str] = []

    class Old(sqlite3.Connection):
        def execute(self, sql: str, *more: object) -> sqlite3.Cursor:
            if "fts5" in sql:
                refused.append(sql)
                raise sqlite3.OperationalError("no such module: fts5")
            return super().execute(sql, *more)  # type: ignore[arg-type]

    with pytest.raises(SurroundingsError, match="built without FTS5"):
        FullText({"key": 1.0}, connect=lambda: sqlite3.connect(":memory:", factory=Old))
    assert refused
