"""What this host keeps: directories, the disk, the replica with all its signatures, last known good values."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tars_settings.adapters.lkg import DiskLkg
from tars_settings.adapters.replica import SQLITE_VERSION, has_wal_fix
from tars_settings.adapters.statedir import check_dir
from tars_settings.cli.doctor.finding import Finding, Severity
from tars_settings.cli.render import several
from tars_settings.core.wire import short_hash
from tars_settings.errors import RejectedError, StateDirError, SurroundingsError
from tars_settings.sources.environment import Environment
from tars_settings.sources.lastgood import opened_lkg
from tars_settings.trust.seal import SealKey
from tars_settings.writer.archive import Archive, counted, refused, signed_bytes

LOW_BYTES: Final = 100 * 2**20
FULL_BYTES: Final = 16 * 2**20
_MIB: Final = 2**20
_WAL_FORMAT: Final = 2
"""Byte 18 of a SQLite file that is in WAL mode (sqlite.org/fileformat2.html, section 1.3.3)."""


def look(environment: Environment, services: Iterable[str]) -> Iterator[Finding]:
    """Yield findings on the state directory. *services* are those that are known to be somewhere in the fleet."""
    directory = environment.state_dir
    if not os.path.lexists(directory):
        yield Finding("state", "directory", "hint", f"{directory} is not there: nothing is kept on this host yet")
        return
    found = _directories(environment)
    yield found
    if found.is_bad:
        return  # what is in there, nobody should rely on, and perhaps can't read
    yield _disk(directory)
    if os.path.lexists(environment.fleet_dir):
        yield from _files(environment.fleet_dir)
        yield from _corpses(environment.fleet_dir)
        yield from _replica(environment)
        yield from _last_good(environment, services)


# --- directory and disk -----------------------------------------------------------------------------------------------


def _directories(environment: Environment) -> Finding:
    there = [path for path in (environment.state_dir, environment.fleet_dir) if os.path.lexists(path)]
    for path in there:
        try:
            check_dir(path)
        except StateDirError as error:
            message, _, change = str(error).partition("; type: ")
            return Finding("state", "directory", "problem", message, change or f"ls -ld {path}")
        if not os.access(path, os.W_OK):
            message = f"{path} can't be written to: settings go on from memory, and are forgotten with the process"
            change = f"mount -o remount,rw {path}  # or name another with TARS_SETTINGS_STATE_DIR"
            return Finding("state", "directory", "problem", message, change)
    return Finding("state", "directory", "ok", f"{environment.state_dir} is this user's alone")


def _disk(directory: Path) -> Finding:
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return Finding("state", "disk", "warning", f"the free space of {directory} can't be told: {error.strerror}")
    severity: Severity = "problem" if free < FULL_BYTES else "warning" if free < LOW_BYTES else "ok"
    message = f"{free // _MIB} MiB are free on the disk of {directory}"
    return Finding("state", "disk", severity, message, "" if severity == "ok" else f"df -h {directory}")


def _files(directory: Path) -> Iterator[Finding]:
    open_, foreign = [], []
    for path in sorted(directory.rglob("*")):
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid():
            foreign.append(path)
        elif found.st_mode & 0o077:
            open_.append(path)
    if foreign:
        message = f"{several(len(foreign), 'file')} are links or belong to another user, such as {foreign[0]}"
        yield Finding("state", "files", "problem", message, f"ls -l {foreign[0].parent}")
    if open_:
        message = f"{several(len(open_), 'file')} are open to other users, such as {open_[0]}"
        yield Finding("state", "files", "warning", message, f"chmod -R go= {directory}")
    if not foreign and not open_:
        yield Finding("state", "files", "ok", "no file is open to others")


def _corpses(directory: Path) -> Iterator[Finding]:
    found = sorted(
        path for path in directory.rglob("*.corrupt-*") if not path.name.endswith(("-wal", "-shm", "-journal"))
    )
    if found:
        yield Finding(
            "state",
            "damaged",
            "warning",
            f"{several(len(found), 'damaged file')} were moved aside, {found[-1].name} last: look at the disk",
            f"rm {' '.join(str(path) + '*' for path in found)}  # when nobody needs them any more",
        )


# --- replica ----------------------------------------------------------------------------------------------------------


def _replica(environment: Environment) -> Iterator[Finding]:
    path = environment.replica_path
    if not path.is_file():
        yield Finding("state", "replica", "hint", "there is no replica of this fleet yet: the first join makes one")
        return
    yield _journal(path)
    archive = Archive(environment)
    try:
        offers = archive.offer(signed_bytes(path))
    except SurroundingsError as error:
        yield Finding("state", "replica", "problem", str(error), f"mv {path} {path}.old  # the broker fills a new one")
        return
    counts, reasons = counted(offers), refused(offers)
    good = sum(counts.values()) - sum(reasons.values())
    if reasons:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        message = f"{sum(reasons.values())} of {len(offers)} signed rows do not count ({why}); {good} do"
        yield Finding("state", "signatures", "problem", message, f"mv {path} {path}.old  # the broker fills a new one")
    else:
        yield Finding("state", "signatures", "ok", f"all of {len(offers)} signed rows of the replica verify")
    if lacking := archive.lacking():
        message = f"the replica lacks what heads name: {lacking[0]}" + (
            f", and {len(lacking) - 1} more" * (len(lacking) > 1)
        )
        yield Finding("state", "completeness", "hint", message, "tars-settings list  # catches up")


def _journal(path: Path) -> Finding:
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        return Finding("state", "sqlite", "problem", f"{path} can't be read: {error.strerror}", f"ls -l {path}")
    is_wal = len(header) > 18 and header[18] == _WAL_FORMAT
    journal = "a write-ahead log" if is_wal else "a rollback journal"
    if is_wal and not has_wal_fix():
        message = f"SQLite {SQLITE_VERSION} has the WAL-reset bug, which damages files, and the replica is in WAL mode"
        return Finding(
            "state", "sqlite", "warning", message, f"sqlite3 {path} 'PRAGMA journal_mode=DELETE'  # all workers stopped"
        )
    return Finding("state", "sqlite", "ok", f"SQLite {SQLITE_VERSION}, {journal}")


# --- last known good values -------------------------------------------------------------------------------------------


def _last_good(environment: Environment, services: Iterable[str]) -> Iterator[Finding]:
    directories = [
        path for path in sorted(environment.fleet_dir.glob("lkg-*")) if path.is_dir() and ".corrupt-" not in path.name
    ]
    if not directories:
        return
    try:
        key = environment.seal_key()
    except SurroundingsError as error:
        yield Finding("state", "seal", "problem", str(error), "tars-settings keys rotate-seal")
        return
    if key is None:
        message = "last known good values are here, and the key that sealed them is not: they are of no use"
        yield Finding(
            "state", "seal", "warning", message, f"ls -l {environment.seal_key_path}  # or TARS_SETTINGS_SEAL_KEY"
        )
        return
    names = {f"lkg-{short_hash(service.encode())}": service for service in services}
    for directory in directories:
        yield _seals(environment, directory, names.get(directory.name), key)


def _seals(environment: Environment, directory: Path, service: str | None, key: SealKey) -> Finding:
    if service is None:
        return Finding("state", "seal", "hint", f"{directory.name} is of a service that is not known here: not checked")
    store = DiskLkg(directory)
    try:
        sealed = [found for slot in (0, 1) if (found := store.read(slot)) is not None]
        for one in sealed:
            opened_lkg(one, key, environment.fleet_id, service)
    except RejectedError as error:
        message = f"the seal on the last known good values of {service} is broken: {error}"
        return Finding(
            "state", "seal", "problem", message, f"rm -r {directory}  # the next healthy start writes new ones"
        )
    except SurroundingsError as error:
        return Finding("state", "seal", "problem", f"{service}: {error}", f"ls -l {directory}")
    finally:
        store.close()
    return Finding(
        "state", "seal", "ok", f"{service}: {several(len(sealed), 'set')} of last known good values, seals whole"
    )
