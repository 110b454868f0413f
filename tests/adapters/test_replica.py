"""The replica on disk: its rules, and every fault that a disk and other processes have in store."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tars_settings.adapters import replica as module
from tars_settings.adapters.memory import MemoryReplica
from tars_settings.adapters.replica import SqliteReplica
from tars_settings.core.records import (
    DeltaRow,
    FloorRow,
    FloorSegmentRow,
    IndexRow,
    MarkRow,
    OutboxRow,
    Row,
    SegmentRow,
    TrustRow,
)
from tars_settings.errors import ReplicaError
from tars_settings.ports import ReplicaStore
from tests.ordinary import as_ordinary_user, ordinary_dir

ROWS: list[Row] = [
    TrustRow(1, b"t1", b"{trust}"),
    TrustRow(2, b"t2", b"{trust 2}"),
    DeltaRow("s", b"d1", b"{delta}"),
    DeltaRow("other", b"d2", b"\x00\xff"),
    IndexRow("s", "k", 3, b"i3", b"{index}"),
    SegmentRow("s", "k", 1, b"{segment}"),
    FloorRow("s", "k", 1, 5, b"f1", b"{floor}"),
    FloorSegmentRow("s", "h", b"{part}"),
    MarkRow("s", "k", 1, 7),
    OutboxRow("s", b"o1", b"{outbox}"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "replica.db"


@pytest.fixture
def replica(path: Path) -> Iterator[SqliteReplica]:
    store = SqliteReplica(path)
    yield store
    store.close()


def test_what_is_put_is_there_for_the_next_process(path: Path) -> None:
    first: ReplicaStore = SqliteReplica(path)
    first.apply(ROWS)
    first.close()
    first.close()
    again = SqliteReplica(path).load()
    assert sorted(again, key=repr) == sorted(ROWS, key=repr)
    assert again[:2] == ROWS[:2]


def test_scopes_are_chosen_and_trust_always_comes(replica: SqliteReplica) -> None:
    replica.apply(ROWS)
    assert replica.load(["other", "absent"]) == [*ROWS[:2], DeltaRow("other", b"d2", b"\x00\xff")]
    assert replica.load([]) == ROWS[:2]


def test_reading_creates_nothing(path: Path) -> None:
    for store in (SqliteReplica(path), SqliteReplica(path, create=False)):
        assert store.load() == []
        assert not path.parent.exists()
    with pytest.raises(ReplicaError, match="reading only"):
        SqliteReplica(path, create=False).apply(ROWS)
    assert not path.parent.exists()


def test_an_empty_file_is_an_empty_replica(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    store = SqliteReplica(path)
    assert store.load() == []
    store.apply(ROWS)
    assert len(store.load()) == len(ROWS)


def test_file_and_directory_are_ours_alone(path: Path) -> None:
    held = os.umask(0)
    try:
        SqliteReplica(path).apply(ROWS)
    finally:
        os.umask(held)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("fault", ["open directory", "link", "someone else's"])
def test_what_is_not_ours_alone_is_refused(path: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteReplica(path).apply(ROWS)
    if fault == "open directory":
        path.parent.chmod(0o755)
    elif fault == "link":
        path.rename(path.with_name("moved"))
        path.symlink_to("moved")
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    for step in (SqliteReplica(path).load, lambda: SqliteReplica(path).apply(ROWS)):
        with pytest.raises(ReplicaError):
            step()


def test_sqlite_is_set_as_promised(replica: SqliteReplica) -> None:
    replica.apply(ROWS)
    connection = replica._connection
    assert connection is not None

    def pragma(name: str) -> object:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert (pragma("synchronous"), pragma("mmap_size"), pragma("user_version")) == (2, 0, 1)
    assert pragma("journal_mode") == ("wal" if module.has_wal_fix() else "delete")
    replica.apply(ROWS, durable=False)
    assert pragma("synchronous") == 1
    replica.apply(ROWS)
    assert pragma("synchronous") == 2


@pytest.mark.parametrize("fixed", [True, False])
def test_both_journals_keep_rows(path: Path, fixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_wal_fix", lambda: fixed)
    store, looker = SqliteReplica(path), SqliteReplica(path, create=False)
    store.apply(ROWS)
    assert path.with_name("replica.db-wal").exists() is fixed
    assert len(looker.load()) == len(ROWS)
    store.close()
    assert len(SqliteReplica(path).load()) == len(ROWS)


@pytest.mark.parametrize(
    ("version", "fixed"),
    [((3, 7, 0), False), ((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True), ((3, 45, 9), False),
     ((3, 50, 6), False), ((3, 50, 7), True), ((3, 51, 2), False), ((3, 51, 3), True), ((3, 52, 0), True)],
)  # fmt: skip
def test_which_builds_have_the_wal_fix(version: tuple[int, int, int], fixed: bool) -> None:
    assert module.has_wal_fix(version) is fixed


def test_an_older_index_or_mark_never_replaces_a_newer_one(replica: SqliteReplica) -> None:
    newest = [IndexRow("s", "k", 3, b"b", b"3b"), MarkRow("s", "k", 2, 1)]
    replica.apply(newest)
    older = [IndexRow("s", "k", 2, b"z", b"2z"), IndexRow("s", "k", 3, b"a", b"3a"), MarkRow("s", "k", 1, 9)]
    replica.apply(older, drop=older)
    assert replica.load() == newest
    newer = [IndexRow("s", "k", 3, b"c", b"3c"), MarkRow("s", "k", 2, 2)]
    replica.apply(newer)
    assert replica.load() == newer


def test_damaged_bytes_are_healed_by_putting_the_row_again(replica: SqliteReplica, path: Path) -> None:
    replica.apply(ROWS)
    with sqlite3.connect(path) as other:
        for table in ("deltas", "trust", "heads", "segments", "outbox"):
            other.execute(f"UPDATE {table} SET raw = x'00'")
    other.close()
    assert replica.load() != ROWS
    replica.apply(ROWS)
    assert sorted(replica.load(), key=repr) == sorted(ROWS, key=repr)


names, kids, digests = st.sampled_from("st"), st.sampled_from("kl"), st.sampled_from([b"a", b"b", b"c"])
rows: st.SearchStrategy[Row] = st.one_of(
    st.builds(DeltaRow, names, digests, digests),
    st.builds(TrustRow, st.integers(1, 3), digests, digests),
    st.builds(IndexRow, names, kids, st.integers(0, 2**53 - 1) | st.integers(0, 3), digests, digests),
    st.builds(SegmentRow, names, kids, st.integers(1, 2), digests),
    st.builds(FloorRow, names, kids, st.integers(0, 1), st.integers(1, 2), digests, digests),
    st.builds(FloorSegmentRow, names, kids, digests),
    st.builds(MarkRow, names, kids, st.integers(0, 2), st.integers(1, 3)),
    st.builds(OutboxRow, names, digests, digests),
)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.tuples(st.lists(rows, max_size=5), st.lists(rows, max_size=2)), max_size=8))
def test_disk_and_memory_agree(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[list[Row], list[Row]]]
) -> None:
    disk = SqliteReplica(tmp_path_factory.mktemp("agree") / "state" / "r.db")
    memory = MemoryReplica()
    for put, drop in steps:
        disk.apply(put, drop, durable=False)
        memory.apply(put, drop)
    for scopes in (None, ["s"]):
        assert sorted(disk.load(scopes), key=repr) == sorted(memory.load(scopes), key=repr)
    disk.close()


def test_a_failing_transaction_changes_nothing(replica: SqliteReplica) -> None:
    replica.apply(ROWS)
    with pytest.raises(ReplicaError):
        replica.apply([DeltaRow("s", b"new", b"new"), MarkRow("s", "k", 1, 2**70)])
    assert sorted(replica.load(), key=repr) == sorted(ROWS, key=repr)
    replica.apply([DeltaRow("s", b"new", b"new")])
    assert DeltaRow("s", b"new", b"new") in replica.load()


def one_line(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    assert record.name == "tars_settings.replica"
    return record.getMessage()


@pytest.mark.parametrize(
    "damage", ["no database", "cut", "no tables", "schema page", "column name", "format", "version"]
)
def test_a_damaged_file_is_moved_aside_and_a_new_one_begun(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    SqliteReplica(path).apply([*ROWS, *(DeltaRow("s", b"%d" % n, b"x" * 2000) for n in range(50))])
    content = path.read_bytes()
    if damage == "no database":
        path.write_bytes(b"garbage, " * 1000)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "no tables":
        with sqlite3.connect(path) as other:
            other.execute("DROP TABLE heads")
        other.close()
    elif damage == "schema page":
        path.write_bytes(content[:110] + b"\xff" * 3000 + content[3110:])
    elif damage == "column name":
        path.write_bytes(content.replace(b"raw BLOB", b"rax BLOB"))
    elif damage == "format":
        path.write_bytes(content[:44] + b"\0\0\0\x09" + content[48:])
    else:
        path.write_bytes(content[:60] + b"\x40\0\0\x01" + content[64:])
    damaged = path.read_bytes()
    with pytest.raises(ReplicaError, match="damaged"):
        SqliteReplica(path, create=False).load()
    assert path.read_bytes() == damaged, "one who only looks moves nothing"
    caplog.clear()
    store = SqliteReplica(path)
    assert store.load() == []
    assert "was damaged" in one_line(caplog)
    (grave,) = path.parent.glob("replica.db.corrupt-*")
    assert grave.read_bytes() == damaged
    store.apply(ROWS)
    assert len(store.load()) == len(ROWS)


def test_damage_found_while_writing_is_told(path: Path) -> None:
    store = SqliteReplica(path)
    store.apply(ROWS)
    store.close()
    path.write_bytes(b"garbage, " * 1000)
    with pytest.raises(ReplicaError, match="was damaged"):
        store.apply(ROWS)
    store.apply(ROWS)
    assert len(store.load()) == len(ROWS)


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_never_raise_anything_else(path: Path, seed: int) -> None:
    """Rows may be wrong or missing, which signatures show; what is raised is ReplicaError, and a write heals."""
    SqliteReplica(path).apply([*ROWS, *(DeltaRow("s", b"%d" % n, b"x" * 300) for n in range(30))])
    chance, content = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(8):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    store = SqliteReplica(path)
    with contextlib.suppress(ReplicaError):
        assert all(isinstance(row, Row) for row in store.load())
    with contextlib.suppress(ReplicaError):
        store.apply(ROWS)
    store.close()


def test_a_row_of_another_form_is_left_out_and_counted(
    replica: SqliteReplica, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replica.apply(ROWS)
    with sqlite3.connect(path) as other:
        other.execute("UPDATE heads SET counter = 'many'")
        other.execute("UPDATE deltas SET scope = CAST(x'ff' AS TEXT) WHERE digest = x'6431'")
    other.close()
    loaded = replica.load()
    assert not any(isinstance(row, IndexRow) for row in loaded)
    assert DeltaRow("\N{REPLACEMENT CHARACTER}", b"d1", b"{delta}") in loaded
    assert "1 rows" in one_line(caplog)


def test_a_file_of_a_newer_release_is_left_alone(path: Path) -> None:
    SqliteReplica(path).apply(ROWS)
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 2")
    other.close()
    before = path.read_bytes()
    for step in (SqliteReplica(path).load, lambda: SqliteReplica(path).apply(ROWS)):
        with pytest.raises(ReplicaError, match="newer release"):
            step()
    assert path.read_bytes() == before


def test_a_full_disk_is_told_and_reads_go_on(replica: SqliteReplica) -> None:
    replica.apply(ROWS)
    connection = replica._connection
    assert connection is not None
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")  # what SQLite says then is what it says of a full disk
    with pytest.raises(ReplicaError, match="full"):
        replica.apply([DeltaRow("s", b"%d" % n, b"x" * 4000) for n in range(20)])
    assert sorted(replica.load(), key=repr) == sorted(ROWS, key=repr)
    connection.execute("PRAGMA max_page_count = 100000")
    replica.apply([DeltaRow("s", b"new", b"new")])
    assert len(replica.load()) == len(ROWS) + 1


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_read_only_directory_can_be_read(journal: str) -> None:
    def prepare() -> None:
        SqliteReplica(path).apply(ROWS)
        with sqlite3.connect(path) as other:
            other.execute(f"PRAGMA journal_mode = {journal}")
        other.close()
        path.chmod(0o400)
        path.parent.chmod(0o500)

    def step() -> None:
        for store in (SqliteReplica(path), SqliteReplica(path, create=False)):
            assert len(store.load()) == len(ROWS)
            with pytest.raises(ReplicaError, match="read"):
                store.apply([DeltaRow("s", b"new", b"new")])
            assert len(store.load()) == len(ROWS)
        with pytest.raises(PermissionError):
            (path.parent / "probe").touch()

    with ordinary_dir() as directory:
        path = directory / "state" / "replica.db"
        as_ordinary_user(prepare)
        as_ordinary_user(step)


def test_a_state_directory_that_cannot_be_made_is_an_empty_replica_that_refuses_writes() -> None:
    def step() -> None:
        directory.chmod(0o500)
        store = SqliteReplica(directory / "state" / "replica.db")
        assert store.load() == []
        with pytest.raises(ReplicaError, match="Permission denied"):
            store.apply(ROWS)

    with ordinary_dir() as directory:
        as_ordinary_user(step)


def test_a_locked_file_is_told_after_the_busy_timeout(
    replica: SqliteReplica, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BUSY_S", 0.05)
    replica.apply(ROWS)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ReplicaError, match="locked"):
        replica.apply([DeltaRow("s", b"new", b"new")])
    other.execute("ROLLBACK")
    other.close()
    replica.apply([DeltaRow("s", b"new", b"new")])


def test_any_thread_may_use_it(replica: SqliteReplica) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for n in range(20):
                replica.apply([DeltaRow("s", b"%d/%d" % (number, n), b"x")], durable=False)
                replica.load()
        except BaseException as error:  # noqa: BLE001 (reported below)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(replica.load()) == 80


def test_a_forked_child_opens_its_own(replica: SqliteReplica) -> None:
    replica.apply(ROWS)
    child = os.fork()
    if child == 0:
        parents = replica._connection
        replica.apply([DeltaRow("s", b"child", b"child")])
        os._exit(0 if replica._connection is not parents and parents in module._inherited else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert DeltaRow("s", b"child", b"child") in replica.load()
    replica.apply([DeltaRow("s", b"parent", b"parent")])


def test_a_file_that_another_process_moved_aside_is_not_written_to(replica: SqliteReplica, path: Path) -> None:
    replica.apply(ROWS)
    path.rename(path.with_name("moved"))
    assert replica.load() == []
    replica.apply(ROWS[:3])
    assert len(SqliteReplica(path).load()) == 3


WRITER = """
import sys
from pathlib import Path
from tars_settings.adapters.replica import SqliteReplica
from tars_settings.core.records import IndexRow, MarkRow
store = SqliteReplica(Path(sys.argv[1]))
me = int(sys.argv[2])
for n in range(60):
    counter = n * 4 + me
    store.apply([IndexRow("s", "k", counter, b"%d" % me, b"%d" % counter), MarkRow("s", "k", 1, counter + 1)])
    (index,) = [row for row in store.load(["s"]) if isinstance(row, IndexRow)]
    assert index.counter >= counter, (index.counter, counter)
"""


def test_four_processes_never_see_an_index_go_back(path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(path)]
    root = str(Path(module.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    writers = [subprocess.Popen([*command, str(me)], env=environment, stderr=subprocess.PIPE) for me in range(4)]
    for writer in writers:
        _, complaint = writer.communicate(timeout=60)
        assert writer.returncode == 0, complaint.decode()
    highest = 59 * 4 + 3
    assert SqliteReplica(path).load() == [
        IndexRow("s", "k", highest, b"3", b"%d" % highest),
        MarkRow("s", "k", 1, highest + 1),
    ]


def test_a_process_killed_in_the_middle_leaves_old_or_new(path: Path) -> None:
    SqliteReplica(path).apply(ROWS)
    child = os.fork()
    if child == 0:
        store = SqliteReplica(path)
        connection = store._current(create=True)
        assert connection is not None
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM deltas")
        connection.execute("PRAGMA cache_spill = 1")
        os.kill(os.getpid(), 9)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
    assert sorted(SqliteReplica(path).load(), key=repr) == sorted(ROWS, key=repr)


def test_it_logs_no_values(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = SqliteReplica(path)
    store.apply([DeltaRow("s", b"d", b"hunter2")])
    store.close()
    path.write_bytes(b"hunter2" * 1000)
    assert store.load() == []
    assert "hunter2" not in caplog.text
    assert "hunter2" not in repr(store)
