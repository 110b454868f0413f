"""The record in the replica: what is pushed out and voided stays, bounded, and older files open."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tars_settings.adapters import tables
from tars_settings.adapters.memory import MemoryReplica
from tars_settings.adapters.replica import SqliteReplica
from tars_settings.core.records import AuditRow, DeltaRow, HistoryRow


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "replica.db"


@pytest.fixture
def replica(path: Path) -> Iterator[SqliteReplica]:
    store = SqliteReplica(path)
    yield store
    store.close()


def row(epoch: int, *, scope: str = "s", gen: int = 1, raw: bytes = b"{}") -> HistoryRow:
    return HistoryRow(scope, gen, epoch, "k", (gen * 10_000 + epoch).to_bytes(4, "big"), raw)


def entry(name: str = "a", count: int = 1, event: str = "rejected", last: str = "t1") -> AuditRow:
    return AuditRow(event, name, "t1", last, count, place="s", reason="malformed")


def test_history_is_told_newest_first_by_scope_and_epoch(replica: SqliteReplica) -> None:
    memory = MemoryReplica()
    for store in (replica, memory):
        store.apply([row(1), row(3), row(2), row(9, scope="other"), row(1, gen=2)])
    for store in (replica, memory):
        assert [(one.gen, one.epoch) for one in store.history("s")] == [(2, 1), (1, 3), (1, 2), (1, 1)]
        assert [one.epoch for one in store.history("s", 2)] == [3]
        assert not [one for one in store.load() if isinstance(one, HistoryRow)], "a start does not read its past"


def test_history_of_a_scope_is_bounded_by_number(replica: SqliteReplica) -> None:
    most = tables.MAX_HISTORY_ROWS
    for first in range(1, most + 200, 100):
        replica.apply([row(n) for n in range(first, first + 100)])
    kept = [one.epoch for one in replica.history("s")]
    assert most <= len(kept) <= most + tables.SLACK_ROWS + 100
    assert kept[0] == most + 200
    assert kept == list(range(kept[0], kept[-1] - 1, -1)), "the oldest went"


def test_history_of_a_scope_is_bounded_by_bytes(replica: SqliteReplica) -> None:
    size = 40 * 1024
    for first in range(1, 121, 20):
        numbers = range(first, first + 20)
        replica.apply([*(row(n, raw=b"x" * size) for n in numbers), *(row(n, scope="small") for n in numbers)])
    kept = replica.history("s")
    assert sum(len(one.raw) for one in kept) <= tables.MAX_HISTORY_BYTES + (tables.SLACK_ROWS + 20) * size
    assert kept[0].epoch == 120
    assert len(replica.history("small")) == 120, "another scope's bound is its own"


def test_what_is_older_than_all_that_is_kept_is_not_written_again(replica: SqliteReplica, path: Path) -> None:
    replica.apply([row(n) for n in range(1, tables.MAX_HISTORY_ROWS + 50)])
    gone = tables.MAX_HISTORY_ROWS + 49 - len(replica.history("s"))
    assert gone > 0, "nothing was pruned"
    before = path.read_bytes()
    replica.apply([row(gone)])
    assert path.read_bytes() == before


def test_the_same_row_again_writes_nothing(replica: SqliteReplica, path: Path) -> None:
    replica.apply([row(1), entry()])
    before = path.read_bytes()
    replica.apply([row(1), entry(last="t2")])
    assert path.read_bytes() == before
    assert [one.last for one in replica.audit()] == ["t1"]


def test_an_entry_that_counts_more_keeps_its_first_time(replica: SqliteReplica) -> None:
    replica.apply([entry()])
    replica.apply([AuditRow("rejected", "a", "t9", "t9", 7, place="s")])
    replica.apply([entry(count=3, last="t5")])
    assert [(one.first, one.last, one.count) for one in replica.audit()] == [("t1", "t9", 7)]


def test_a_flood_of_one_event_drives_out_nothing_of_another(replica: SqliteReplica) -> None:
    replica.apply([entry("only", event="trust")])
    for first in range(0, 3 * tables.MAX_AUDIT_ROWS, 50):
        replica.apply([entry(str(n)) for n in range(first, first + 50)])
    kept = replica.audit()
    assert [one.name for one in kept if one.event == "trust"] == ["only"]
    names = [int(one.name) for one in kept if one.event == "rejected"]
    assert tables.MAX_AUDIT_ROWS <= len(names) <= tables.MAX_AUDIT_ROWS + tables.SLACK_ROWS + 50
    assert max(names) == 3 * tables.MAX_AUDIT_ROWS - 1


@pytest.fixture
def older(path: Path) -> Path:
    """A file as the first releases made it: without the record."""
    store = SqliteReplica(path)
    store.apply([DeltaRow("s", b"d", b"{}")])
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE history")
        connection.execute("DROP TABLE audit")
    connection.close()
    return path


def test_an_older_file_opens_and_gets_a_record_when_there_is_one(older: Path) -> None:
    store = SqliteReplica(older)
    assert store.load() == [DeltaRow("s", b"d", b"{}")]
    assert (store.history("s"), store.audit()) == ([], [])
    store.apply([DeltaRow("s", b"e", b"{}"), row(1), entry()])
    assert (len(store.load()), len(store.history("s")), len(store.audit())) == (2, 1, 1)
    store.close()
    assert [one.name for one in older.parent.iterdir() if one.suffix != ".db"] == [], "it was not moved aside"


def test_an_older_file_that_is_only_looked_at_stays_as_it_is(older: Path) -> None:
    before = older.read_bytes()
    store = SqliteReplica(older, create=False)
    assert (len(store.load()), store.history("s"), store.audit()) == (1, [], [])
    store.close()
    assert older.read_bytes() == before


def test_a_row_of_another_form_is_left_out(replica: SqliteReplica, path: Path) -> None:
    replica.apply([row(1), row(2), entry()])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE history SET raw = 'text' WHERE epoch = 1")
        connection.execute("UPDATE audit SET count = 'many'")
    connection.close()
    assert [one.epoch for one in replica.history("s")] == [2]
    assert replica.audit() == []
