"""Directories and files that are ours alone, key files, and the clock."""

from __future__ import annotations

import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from tars_settings.adapters.clock import SystemClock
from tars_settings.adapters.keyfiles import private_dir, read_key, write_key
from tars_settings.adapters.statedir import private_file, set_aside
from tars_settings.errors import KeyFileError, StateDirError
from tars_settings.ports import Clock
from tests.ordinary import as_ordinary_user, ordinary_dir


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(autouse=True)
def open_umask() -> object:
    """What is private must be so under the most careless umask."""
    held = os.umask(0)
    yield
    os.umask(held)


def test_a_private_directory_is_made_with_0700_and_found_again(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "b"
    assert private_dir(wanted) == private_dir(wanted) == wanted
    assert mode(wanted) == 0o700


@pytest.mark.parametrize("bits", [0o750, 0o701, 0o777])
def test_a_directory_that_others_may_enter_is_refused_with_the_cure(tmp_path: Path, bits: int) -> None:
    wanted = tmp_path / "open"
    wanted.mkdir()
    wanted.chmod(bits)
    with pytest.raises(StateDirError, match=f"chmod 700 {wanted}"):
        private_dir(wanted)


def test_a_link_to_a_directory_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    with pytest.raises(StateDirError, match="symbolic link"):
        private_dir(tmp_path / "link")
    with pytest.raises(StateDirError, match=r"can't be made|no directory"):
        private_dir(tmp_path / "file")


def test_someone_elses_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private_dir(tmp_path / "theirs")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StateDirError, match="belongs to user"):
        private_dir(tmp_path / "theirs")


def test_a_directory_that_cannot_be_made_says_so_at_once() -> None:
    def step() -> None:
        locked.chmod(0o500)
        with pytest.raises(StateDirError, match="can't be made: Permission denied"):
            private_dir(locked / "state")

    with ordinary_dir() as locked:
        as_ordinary_user(step)


def test_a_private_file_is_never_a_link_and_loses_foreign_access(tmp_path: Path) -> None:
    private_file(tmp_path / "new")
    assert mode(tmp_path / "new") == 0o600
    (tmp_path / "wide").write_text("kept")
    (tmp_path / "wide").chmod(0o644)
    private_file(tmp_path / "wide")
    assert (mode(tmp_path / "wide"), (tmp_path / "wide").read_text()) == (0o600, "kept")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(StateDirError, match="not a plain file"):
        private_file(tmp_path / "link")
    assert not (tmp_path / "target").exists()


def test_what_is_set_aside_goes_with_its_companions_and_few_are_kept(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    for number in range(5):
        for companion in ("", "-wal", "-shm", "-journal"):
            (tmp_path / f"x.db{companion}").write_text(str(number))
        grave = set_aside(database)
        assert grave.read_text() == str(number)
        assert not database.exists()
    assert len(list(tmp_path.iterdir())) == 3 * 4
    assert not (tmp_path / "x.db-wal").exists()


def test_a_key_is_written_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "root.key"
    write_key(path, "secret\n")
    assert (read_key(path), mode(path), mode(path.parent)) == ("secret", 0o600, 0o700)
    with pytest.raises(KeyFileError, match="exists already"):
        write_key(path, "other")
    assert read_key(path) == "secret"


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    directory = private_dir(tmp_path / "keys")
    (directory / "root.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="exists already"):
        write_key(directory / "root.key", "secret")
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_that_is_half_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        write_key(tmp_path / "keys" / "root.key", "secret")
    assert list((tmp_path / "keys").iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", "No such file"),
        ("wide", "chmod 600"),
        ("link", "symbolic link"),
        ("pipe", "not a plain file"),
        ("binary", "no text"),
        ("large", "too large"),
        ("directory", "not a plain file"),
    ],
)
def test_a_key_that_others_could_read_or_make_is_refused(tmp_path: Path, fault: str, words: str) -> None:
    path = tmp_path / "keys" / "root.key"
    write_key(path, "hunter2")
    contents = {"binary": b"hunter2\xff", "large": b"x" * 70_000}
    if fault in contents:
        path.write_bytes(contents[fault])
    elif fault == "wide":
        path.chmod(0o640)
    else:
        path.rename(path.with_suffix(".moved"))
    if fault == "link":
        path.symlink_to(path.with_suffix(".moved"))
    elif fault == "pipe":
        os.mkfifo(path, 0o600)
    elif fault == "directory":
        path.mkdir(0o700)
    with pytest.raises(KeyFileError, match=words) as caught:
        read_key(path)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None or isinstance(caught.value.__context__, OSError)


def test_a_key_of_someone_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_key(tmp_path / "keys" / "root.key", "secret")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(KeyFileError, match="chown"):
        read_key(tmp_path / "keys" / "root.key")


@pytest.mark.parametrize(("mode", "is_taken"), [(0o400, True), (0o440, True), (0o444, False), (0o460, False)])
def test_a_credential_of_systemd_is_root_s_and_the_service_may_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, is_taken: bool
) -> None:
    path = tmp_path / "credentials" / "seal.key"
    write_key(path, "secret")
    path.chmod(mode)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path.parent))
    if not is_taken:
        with pytest.raises(KeyFileError, match="chmod 600"):
            read_key(path)
        return
    assert read_key(path) == "secret"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    if mode & 0o077:
        with pytest.raises(KeyFileError, match="chmod 600"):
            read_key(path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path.parent))
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 4242)
    if path.stat().st_uid == 0:
        assert read_key(path) == "secret", "root's, as systemd leaves it"
    else:
        with pytest.raises(KeyFileError, match="chown"):
            read_key(path)


def test_the_clock_keeps_its_port() -> None:
    clock: Clock = SystemClock()
    assert clock.now_s() <= clock.now_s()
    assert clock.wall().utcoffset() == timedelta(0)
    assert 0 <= clock.random() < 1
    assert len(clock.token(24)) == 24
    assert clock.token(24) != clock.token(24)


def test_both_sides_of_a_fork_draw_different_numbers() -> None:
    clock = SystemClock()
    clock.random()
    end, child_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(child_end, repr(clock.random()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert repr(clock.random()).encode() != os.read(end, 100)
    os.close(end)
    os.close(child_end)


def test_a_key_s_path_that_no_system_takes_is_an_error_of_ours() -> None:
    with pytest.raises(KeyFileError, match="NUL"):
        read_key(Path("a\0b"))
