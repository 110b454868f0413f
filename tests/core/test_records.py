"""Rows by identity: of what is put and dropped of one row, the last word counts."""

from __future__ import annotations

from tars_settings.core.records import IndexRow, SegmentRow, identity


def test_a_number_that_is_taken_again_is_the_same_row() -> None:
    assert identity(SegmentRow("a", "k", 1, b"")) == identity(SegmentRow("a", "k", 1, b"{}"))


def test_an_older_index_that_goes_says_nothing_of_a_newer_one() -> None:
    assert identity(IndexRow("a", "k", 1, b"1", b"")) != identity(IndexRow("a", "k", 2, b"2", b""))
