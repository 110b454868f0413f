"""Directories and files that are ours alone: made 0700 and 0600, never through a symbolic link.

SQLite, ``open`` and diskcache follow links and create files that others read (REVIEW E4), so what they are given is
made and checked here first. A directory that only we can write to is what makes the check last.
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Final

from tars_settings.errors import StateDirError

_COMPANIONS: Final = ("", "-journal", "-wal", "-shm")
_KEPT_CORPSES: Final = 3


def private_dir(path: Path) -> Path:
    """Create *path*, and what is missing above it, with mode 0700, and return it when it is ours alone.

    Raises:
        StateDirError: it can't be made, is a symbolic link or no directory, belongs to someone else, or others may
            enter it. The message says what to type.
    """
    try:
        for missing in reversed([one for one in path.parents if not one.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StateDirError(f"{path} can't be made: {error.strerror or error}") from error
    check_dir(path)
    return path


def check_dir(path: Path) -> None:
    """Raise StateDirError unless *path* is a directory of ours that nobody else may enter."""
    try:
        found = path.lstat()
    except OSError as error:
        raise StateDirError(f"{path} can't be used: {error.strerror or error}") from error
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no directory"
        raise StateDirError(f"{path} is {kind}; name the directory itself")
    if found.st_uid != os.geteuid():
        raise StateDirError(f"{path} belongs to user {found.st_uid}, and this process is user {os.geteuid()}")
    if found.st_mode & 0o077:
        raise StateDirError(f"{path} is open to other users; type: chmod 700 {path}")


def check_file(path: Path) -> bool:
    """Return whether *path* exists; if so it is a plain file of ours.

    Raises:
        StateDirError: it is a symbolic link or anything else than a plain file, or belongs to someone else.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StateDirError(f"{path} can't be used: {error.strerror or error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise StateDirError(f"{path} is not a plain file; move it away")
    if found.st_uid != os.geteuid():
        raise StateDirError(f"{path} belongs to user {found.st_uid}, and this process is user {os.geteuid()}")
    return True


def private_file(path: Path) -> None:
    """Make *path* an empty file of mode 0600 where it is missing; where it is ours, take others' access away.

    Raises:
        StateDirError: see :func:`check_file`, or it can't be made.
    """
    check_file(path)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_mode & 0o077:
                os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StateDirError(f"{path} can't be made: {error.strerror or error}") from error


def set_aside(path: Path) -> Path:
    """Rename a damaged database and its companions to ``<name>.corrupt-<time>`` and return the new path.

    The three newest are kept for whoever wants to look; a disk that damages files for days is not to be filled.

    Raises:
        StateDirError: it can't be renamed.
    """
    stamp = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{time.time_ns() % 10**9:09d}"
    grave = path.with_name(f"{path.name}.corrupt-{stamp}")
    try:
        for companion in _COMPANIONS:
            there = path.with_name(path.name + companion)
            if there.exists():
                there.replace(grave.with_name(grave.name + companion))
        for old in sorted(path.parent.glob(f"{path.name}.corrupt-*[0-9]"))[:-_KEPT_CORPSES]:
            for companion in _COMPANIONS:
                old.with_name(old.name + companion).unlink(missing_ok=True)
    except OSError as error:
        raise StateDirError(f"{path} is damaged and can't be moved aside: {error.strerror or error}") from error
    return grave
