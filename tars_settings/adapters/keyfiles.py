"""Key files: written once, readable by their owner only. What they hold never appears in a message."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from tars_settings.adapters.statedir import private_dir
from tars_settings.errors import KeyFileError

__all__ = ["private_dir", "read_key", "replace_key", "write_key"]

_MAX_BYTES: Final = 64 * 1024


def write_key(path: Path, text: str) -> None:
    """Write *text* to a new file of mode 0600 in a directory of ours alone, and to the disk before it returns.

    Raises:
        KeyFileError: it exists already (and is as it was), or can't be written (and is not there).
        StateDirError: its directory can't be made, or is not ours alone.
    """
    private_dir(path.parent)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise KeyFileError(f"{path} exists already and is left alone; move it away first") from error
    except OSError as error:
        raise KeyFileError(f"{path} can't be written: {error.strerror or error}") from error
    try:
        _fill(descriptor, text.encode())
        _sync_dir(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise KeyFileError(f"{path} can't be written: {error.strerror or error}") from error


def replace_key(path: Path, text: str) -> None:
    """Put *text* in place of a key file of ours, whole or not at all; it is on the disk when this returns.

    Raises:
        KeyFileError: it is missing or not ours alone, or can't be written. It is as it was.
        StateDirError: its directory is not ours alone.
    """
    read_key(path)
    fresh = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    write_key(fresh, text)
    try:
        fresh.replace(path)
        _sync_dir(path.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise KeyFileError(f"{path} can't be written: {error.strerror or error}") from error


def _fill(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_key(path: Path) -> str:
    """Return the text of a key file that only we can read, without blanks at its ends.

    Raises:
        KeyFileError: it is missing, no plain file, someone else's, readable by others, or no text. The message says
            what to type.
    """
    try:
        # O_NONBLOCK: a pipe in its place must not hold the process until someone writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise KeyFileError(f"{path} is a symbolic link; name the file itself") from error
        raise KeyFileError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise KeyFileError("the path of a key file holds a NUL, or what is no text") from error
    try:
        _check(path, os.fstat(descriptor))
        content = os.read(descriptor, _MAX_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"{path} can't be read: {error.strerror or error}") from error
    finally:
        os.close(descriptor)
    return _text(path, content)


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeyFileError(f"{path} is not a plain file")
    if _is_credential(path, found):
        return
    if found.st_uid != os.geteuid():
        raise KeyFileError(f"{path} belongs to user {found.st_uid}; type: chown {os.geteuid()} {path}")
    if found.st_mode & 0o077:
        raise KeyFileError(f"{path} is open to other users; type: chmod 600 {path}")


def _is_credential(path: Path, found: os.stat_result) -> bool:
    """Return whether systemd handed the file to this service (``LoadCredential=``).

    It belongs to root there, and an ACL lets the service's user read it: the group's bits are the ACL's mask (acl(5)).
    """
    given = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return (
        bool(given) and path.parent == Path(given) and found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o027
    )


def _text(path: Path, content: bytes) -> str:
    if len(content) > _MAX_BYTES:
        raise KeyFileError(f"{path} is too large for a key")
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        pass
    # Raised out here: the other's object attribute holds the bytes, and would be this one's context.
    raise KeyFileError(f"{path} holds no text; it is not a key file of ours")
