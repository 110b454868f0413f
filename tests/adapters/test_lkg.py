"""The last-known-good store: two slots, and each of the doors that diskcache leaves open, tried."""

from __future__ import annotations

import os
import pickle
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import diskcache
import pytest

from tars_settings.adapters.lkg import DiskLkg, _Disk
from tars_settings.errors import LkgError
from tars_settings.ports import LkgStore
from tests.ordinary import as_ordinary_user, ordinary_dir


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "lkg" / "0123abcd"


@pytest.fixture
def lkg(directory: Path) -> Iterator[DiskLkg]:
    store = DiskLkg(directory)
    yield store
    store.close()


def test_newest_and_the_one_before(lkg: DiskLkg, directory: Path) -> None:
    store: LkgStore = lkg
    assert (store.read(0), store.read(1)) == (None, None)
    store.write(b"1", keep_previous=True)
    assert (store.read(0), store.read(1)) == (b"1", None)
    store.write(b"2", keep_previous=True)
    store.write(b"3", keep_previous=False)
    assert (store.read(0), store.read(1)) == (b"3", b"1")
    store.close()
    store.close()
    assert DiskLkg(directory).read(0) == b"3"


def test_reading_creates_nothing(directory: Path) -> None:
    assert DiskLkg(directory).read(0) is None
    assert not directory.parent.exists()


def test_large_content_stays_inside_the_database(lkg: DiskLkg, directory: Path) -> None:
    content = os.urandom(3_000_000)
    lkg.write(content, keep_previous=True)
    lkg.write(content, keep_previous=True)
    assert (lkg.read(0), lkg.read(1)) == (content, content)
    assert [entry.name for entry in directory.iterdir()] == ["cache.db"]


def test_file_and_directory_are_ours_alone(lkg: DiskLkg, directory: Path) -> None:
    held = os.umask(0)
    try:
        lkg.write(b"1", keep_previous=True)
    finally:
        os.umask(held)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "cache.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("fault", ["open directory", "link", "someone else's"])
def test_what_is_not_ours_alone_is_refused(directory: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    DiskLkg(directory).write(b"1", keep_previous=True)
    if fault == "open directory":
        directory.chmod(0o755)
    elif fault == "link":
        (directory / "cache.db").rename(directory / "moved")
        (directory / "cache.db").symlink_to("moved")
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(LkgError):
        DiskLkg(directory).read(0)
    with pytest.raises(LkgError):
        DiskLkg(directory).write(b"2", keep_previous=True)


def test_it_is_as_durable_as_sqlite_can_be(lkg: DiskLkg, directory: Path) -> None:
    lkg.write(b"1", keep_previous=True)
    lkg.close()
    lkg.write(b"2", keep_previous=True)
    cache = lkg._cache
    assert cache is not None
    pragmas = {
        name: cache._sql(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode", "mmap_size")
    }
    assert pragmas == {"synchronous": 2, "journal_mode": "delete", "mmap_size": 0}
    assert cache.eviction_policy == "none"


def test_opening_an_existing_store_writes_nothing(directory: Path) -> None:
    DiskLkg(directory).write(b"1", keep_previous=True)
    before = (directory / "cache.db").stat().st_mtime_ns, (directory / "cache.db").read_bytes()
    assert DiskLkg(directory).read(0) == b"1"
    assert ((directory / "cache.db").stat().st_mtime_ns, (directory / "cache.db").read_bytes()) == before


# --- attacks: who can write to the disk plants something --------------------------------------------------------------


class Bomb:
    """Runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


Plant = Callable[[sqlite3.Connection, Path], None]


def pickled_value(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps(Bomb(outside / "fired")),))


def pickled_key(database: sqlite3.Connection, outside: Path) -> None:
    database.execute(
        "INSERT INTO Cache(key, raw, mode, value) VALUES (?, 0, 1, x'00')", (pickle.dumps(Bomb(outside / "fired")),)
    )


def file_name(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("UPDATE Cache SET mode = 2, value = NULL, filename = ?", (str(outside / "victim"),))


def file_name_beside_a_value(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("UPDATE Cache SET filename = ?", (str(outside / "victim"),))


def text_from_a_file(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("UPDATE Cache SET mode = 3, filename = ?", (str(outside / "victim"),))


def text_value(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("UPDATE Cache SET value = 'text'")


def number_value(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("UPDATE Cache SET value = 1")


def expired(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("UPDATE Cache SET expire_time = 1")


def unknown_key(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("INSERT INTO Cache(key, raw, mode, value) VALUES ('third', 1, 1, x'00')")


def setting_changed(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("UPDATE Settings SET value = 'least-recently-used' WHERE key = 'eviction_policy'")


def setting_of_another_type(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("UPDATE Settings SET value = '0' WHERE key = 'cull_limit'")


def pragma_changed(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("UPDATE Settings SET value = 0 WHERE key = 'sqlite_synchronous'")


def pragma_planted(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("INSERT INTO Settings VALUES ('sqlite_writable_schema', 1)")


def attribute_planted(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("INSERT INTO Settings VALUES ('get', 'x')")


def setting_missing(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("DELETE FROM Settings WHERE key = 'cull_limit'")


def trigger_planted(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("CREATE TRIGGER evil AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END")


def table_missing(database: sqlite3.Connection, outside: Path) -> None:
    database.execute("DROP TABLE Cache")


PLANTS: list[Plant] = [
    pickled_value, pickled_key, file_name, file_name_beside_a_value, text_from_a_file, text_value, number_value,
    expired, unknown_key, setting_changed, setting_of_another_type, pragma_changed, pragma_planted, attribute_planted,
    setting_missing, trigger_planted, table_missing,
]  # fmt: skip


def plant(directory: Path, outside: Path, attack: Plant) -> None:
    outside.mkdir(exist_ok=True)
    (outside / "victim").write_text("precious")
    database = sqlite3.connect(directory / "cache.db")
    with database:
        attack(database, outside)
    database.close()


@pytest.mark.parametrize("attack", PLANTS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("opened", [True, False], ids=["opened before", "opened after"])
def test_what_was_planted_is_refused_and_the_next_write_begins_anew(
    directory: Path, tmp_path: Path, attack: Plant, opened: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store, outside = DiskLkg(directory), tmp_path / "outside"
    store.write(b"good", keep_previous=True)
    if not opened:
        store.close()
    plant(directory, outside, attack)
    for slot in (0, 1, 0):
        with pytest.raises(LkgError):
            store.read(slot)
    assert list(directory.iterdir()) == [directory / "cache.db"], "reading moves nothing"
    store.write(b"new", keep_previous=True)
    assert (store.read(0), store.read(1)) == (b"new", None)
    (record,) = caplog.records
    assert (record.name, "a new one is begun" in record.getMessage()) == ("tars_settings.lkg", True)
    assert sorted(entry.name for entry in outside.iterdir()) == ["victim"], "something ran"
    assert (outside / "victim").read_text() == "precious"
    store.close()


@pytest.mark.parametrize("attack", PLANTS, ids=lambda attack: attack.__name__)
def test_what_was_planted_under_an_open_store_is_not_written_beside(
    directory: Path, tmp_path: Path, attack: Plant
) -> None:
    store, outside = DiskLkg(directory), tmp_path / "outside"
    store.write(b"good", keep_previous=True)
    plant(directory, outside, attack)
    store.write(b"new", keep_previous=True)
    assert (store.read(0), store.read(1)) == (b"new", None)
    assert len(list(directory.glob("cache.db.corrupt-*"))) == 1
    assert [entry.name for entry in outside.iterdir()] == ["victim"]
    store.close()


def test_the_disk_itself_refuses_what_the_look_at_the_rows_would_have_stopped(tmp_path: Path) -> None:
    disk = _Disk(str(tmp_path), 0, 0)
    fired = pickle.dumps(Bomb(tmp_path / "fired"))
    refused: list[Callable[[], object]] = [
        lambda: disk.fetch(4, None, fired, False),
        lambda: disk.fetch(1, "x", b"", False),
        lambda: disk.fetch(1, None, "text", False),
        lambda: disk.fetch(1, None, b"", True),
        lambda: disk.get(fired, 0),
        lambda: disk.get("third", 1),
        lambda: disk.put(("newest",)),
        lambda: disk.store(["a", "list"], False, "newest"),
        lambda: disk.store(b"", False, "third"),
        lambda: disk.store(b"", True, "newest"),
        lambda: disk.remove("x"),
        lambda: disk.filename("newest"),
        lambda: disk.hash("newest"),
        lambda: disk._write("x", [], "xb"),
    ]
    for step in refused:
        with pytest.raises(LkgError):
            step()
    assert list(tmp_path.iterdir()) == []
    assert set(vars(diskcache.Disk)) - set(vars(_Disk)) <= {"__init__", "__dict__", "__weakref__"}, "a door is open"


def test_the_same_attacks_succeed_on_plain_diskcache(tmp_path: Path) -> None:
    """The attacks are real: without the walls one runs code, and one reads and deletes a foreign file."""
    outside = tmp_path / "outside"
    with diskcache.Cache(str(tmp_path / "plain")) as cache:
        cache["newest"] = b"good"
        plant(tmp_path / "plain", outside, pickled_value)
        cache.get("newest")
        assert (outside / "fired").is_dir()
        plant(tmp_path / "plain", outside, file_name)
        assert cache["newest"] == b"precious"
        cache["newest"] = b"new"
        assert not (outside / "victim").exists()


@pytest.mark.parametrize("damage", ["garbage", "empty", "cut"])
def test_a_damaged_file_is_an_event_and_never_the_same_as_missing(directory: Path, damage: str) -> None:
    store = DiskLkg(directory)
    store.write(b"x" * 20_000, keep_previous=True)
    store.close()
    path = directory / "cache.db"
    content = path.read_bytes()
    path.write_bytes({"garbage": b"garbage, " * 1000, "empty": b"", "cut": content[: len(content) // 2]}[damage])
    with pytest.raises(LkgError):
        store.read(0)
    store.write(b"new", keep_previous=True)
    assert store.read(0) == b"new"


def test_a_cut_file_is_never_the_same_as_missing(directory: Path) -> None:
    """SQLite fills the rest of a last page with zeros without a word: that is the seal's to notice."""
    original = b"x" * 9_000
    store = DiskLkg(directory)
    store.write(original, keep_previous=True)
    store.close()
    content = (directory / "cache.db").read_bytes()
    refused = 0
    for size in range(0, len(content), 997):
        (directory / "cache.db").write_bytes(content[:size])
        try:
            found = DiskLkg(directory).read(0)
        except LkgError:
            refused += 1
        else:
            assert found is not None
            assert found != original
    assert refused > 20


def test_a_read_only_directory_can_be_read() -> None:
    def prepare() -> None:
        DiskLkg(directory).write(b"good", keep_previous=True)
        (directory / "cache.db").chmod(0o400)
        directory.chmod(0o500)

    def step() -> None:
        store = DiskLkg(directory)
        assert store.read(0) == b"good"
        with pytest.raises(LkgError):
            store.write(b"new", keep_previous=True)
        assert store.read(0) == b"good"

    with ordinary_dir() as parent:
        directory = parent / "lkg"
        as_ordinary_user(prepare)
        as_ordinary_user(step)


def test_a_full_disk_keeps_what_was_there(lkg: DiskLkg) -> None:
    lkg.write(b"good", keep_previous=True)
    cache = lkg._cache
    assert cache is not None
    (pages,) = cache._sql("PRAGMA page_count").fetchone()
    cache._sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LkgError, match="full"):
        lkg.write(b"x" * 100_000, keep_previous=True)
    assert (lkg.read(0), lkg.read(1)) == (b"good", None)


def test_other_threads_may_read(lkg: DiskLkg) -> None:
    lkg.write(b"good", keep_previous=True)
    seen: list[bytes | None] = []
    thread = threading.Thread(target=lambda: (seen.append(lkg.read(0)), lkg.close()))
    thread.start()
    thread.join()
    assert seen == [b"good"]


def test_a_forked_child_reads_and_writes(lkg: DiskLkg) -> None:
    lkg.write(b"good", keep_previous=True)
    child = os.fork()
    if child == 0:
        lkg.write(b"child", keep_previous=True)
        os._exit(0 if lkg.read(1) == b"good" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lkg.read(0) == b"child"
