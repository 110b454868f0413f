"""Small files that are written anew as a whole: a temporary file, fsync, rename."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from tars_settings.adapters.statedir import check_file, private_dir
from tars_settings.errors import StateDirError

_MAX_BYTES: Final = 16 * 1024


def read_whole(path: Path) -> bytes | None:
    """Return what a small file of ours holds, None where it is missing.

    Raises:
        StateDirError: it is no plain file of ours, too large, or can't be read.
    """
    if not check_file(path):
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateDirError(f"{path} can't be read: {error.strerror or error}") from error
    if len(content) > _MAX_BYTES:
        raise StateDirError(f"{path} is larger than we ever make it")
    return content


def replace_whole(path: Path, content: bytes) -> None:
    """Put *content* in the place of a file, mode 0600, on the disk when this returns.

    Raises:
        StateDirError: it can't be written; what was there is still there.
    """
    private_dir(path.parent)
    check_file(path)
    # The process's number and random bytes: another process of this host may be at it too.
    fresh = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(6).hex()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise StateDirError(f"{path} can't be written: {error.strerror or error}") from error


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        StateDirError: it can't be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StateDirError(f"{path} can't be removed: {error.strerror or error}") from error
