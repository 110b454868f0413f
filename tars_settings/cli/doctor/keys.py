"""This host's keys against what the fleet says: who may sign here, and what of the secrets can be read here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tars_settings.adapters.keyfiles import read_key
from tars_settings.cli.doctor.finding import Finding
from tars_settings.cli.ratify import ROOT_KEY_FILE, homes
from tars_settings.core.records import MarkRow
from tars_settings.errors import KeyFileError, PassphraseError, SurroundingsError
from tars_settings.gossip.peer import Peer
from tars_settings.sources.environment import Environment
from tars_settings.trust.keys import SecretKey, SigningKey
from tars_settings.trust.locked import is_locked
from tars_settings.writer.archive import rows_of


def look(environment: Environment, peer: Peer) -> Iterator[Finding]:
    """Yield findings on this host's keys. *peer* holds what this host's replica, or the broker, says."""
    yield from _trust(peer)
    yield from _writer(environment, peer)
    yield from _root(environment)
    yield from _secrets(environment, peer)


def _trust(peer: Peer) -> Iterator[Finding]:
    if peer.trust.is_pin:
        message = "no trust document is here: nothing of the fleet counts until one comes from the broker"
        yield Finding("keys", "trust", "warning", message, "tars-settings keys list  # fetches it")
        return
    active = [writer for writer in peer.trust.body.writers if writer.status == "active"]
    if not active:
        message = f"trust document {peer.trust.version} has no active writer: nobody can push"
        yield Finding("keys", "trust", "problem", message, "tars-settings keys grant NAME '*' '_all' --public KEY")
        return
    names = ", ".join(writer.name for writer in active)
    yield Finding(
        "keys", "trust", "ok", f"trust document {peer.trust.version}, gen {peer.trust.gen}; may write: {names}"
    )


# --- the writer's key -------------------------------------------------------------------------------------------------


def _writer(environment: Environment, peer: Peer) -> Iterator[Finding]:
    path = environment.writer_key_file
    if path is None:
        yield Finding("keys", "writer", "ok", "no writer's key is here: this host reads, and can't push")
        return
    try:
        key = environment.writer_key()
    except PassphraseError:
        yield Finding("keys", "writer", "ok", f"{path} is under a passphrase, and was not opened")
        return
    except SurroundingsError as error:
        yield _unusable("writer", str(error), path)
        return
    listed = _listed(key, path, peer)
    yield listed
    if listed.severity == "ok":
        yield _only_here(environment, key, peer)


def _unusable(name: str, complaint: str, path: Path) -> Finding:
    message, _, change = complaint.partition("; type: ")
    change = change.partition(")")[0]
    return Finding("keys", name, "problem", message, change or f"ls -l {path}")


def _listed(key: SigningKey, path: Path, peer: Peer) -> Finding:
    if key.role != "writer":
        return Finding(
            "keys", "writer", "problem", f"{path} is a root key", "tars-settings keys new NAME  # for a writer"
        )
    writer = peer.trust.writer(key.kid)
    if peer.trust.is_pin:
        return Finding("keys", "writer", "hint", f"whether {key.name} may write is not known without a trust document")
    if writer is None:
        message = f"{key.name} ({path}) is not in the trust document: what it signs counts nowhere"
        return Finding(
            "keys", "writer", "problem", message, f"tars-settings keys grant {key.name} 'SCOPE' --public KEY"
        )
    if writer.status != "active":
        message = f"{writer.name} ({path}) is {writer.status}: what it signs now counts nowhere"
        return Finding("keys", "writer", "problem", message, "tars-settings keys new NAME  # and have it granted")
    return Finding("keys", "writer", "ok", f"{writer.name} may write {' '.join(writer.grants)}")


def _only_here(environment: Environment, key: SigningKey, peer: Peer) -> Finding:
    """Compare what the key signed with this host's own marks, which are on the disk before anything is published."""
    try:
        rows = rows_of(environment.replica_path)
    except SurroundingsError:
        rows = ()
    marks = {row.scope: (row.gen, row.epoch) for row in rows if isinstance(row, MarkRow) and row.kid == key.kid}
    beyond, unmarked = [], []
    for scope in peer.registers.scopes():
        signed = [(one.stamp.gen, one.stamp.epoch) for one in peer.registers.deltas(scope) if one.stamp.kid == key.kid]
        if not signed:
            continue
        if scope not in marks:
            unmarked.append(scope)
        elif max(signed) > marks[scope]:
            beyond.append(scope)
    if beyond:
        message = f"{key.name} signed in {', '.join(beyond)} what this host did not: another host has the same key"
        return Finding(
            "keys", "one host", "warning", message, "tars-settings keys new NAME  # on the other host: one key each"
        )
    if unmarked:
        where = ", ".join(unmarked)
        message = f"{key.name} signed in {where}, and this host has no mark of it: it was restored, or another host did"
        return Finding(
            "keys", "one host", "hint", message, "tars-settings keys new NAME  # where another host has the same key"
        )
    return Finding("keys", "one host", "ok", f"all that {key.name} signed was signed on this host")


def _root(environment: Environment) -> Iterator[Finding]:
    for home in homes(environment):
        path = home / ROOT_KEY_FILE
        if not path.is_file():
            continue
        try:
            locked = is_locked(read_key(path))
        except KeyFileError as error:
            yield _unusable("root", str(error), path)
            continue
        if locked:
            yield Finding("keys", "root", "ok", f"{path} is under a passphrase")
        else:
            message = f"{path} lies here in the open, and whoever has it is the fleet"
            yield Finding(
                "keys", "root", "hint", message, f"tars-settings keys passphrase {path}  # or keep it elsewhere"
            )


# --- secrets ----------------------------------------------------------------------------------------------------------


def _secrets(environment: Environment, peer: Peer) -> Iterator[Finding]:
    keys: dict[str, SecretKey] = {}
    try:
        keys = environment.secret_keys()
    except SurroundingsError as error:
        yield _unusable("secrets", str(error), environment.secret_keys_path or Path("secret.keys"))
        return
    used = _ids_in_use(peer)
    lacking = {name: where for name, where in used.items() if name not in keys}
    for name, where in sorted(lacking.items()):
        more = f", and {len(where) - 1} more" if len(where) > 1 else ""
        message = f"{where[0]}{more} is encrypted under {name}, which this host does not hold"
        yield Finding("keys", "secrets", "warning", message, f"add the line {name}:... to TARS_SETTINGS_SECRET_KEYS")
    idle = sorted(set(keys) - set(used))
    if idle and used:
        message = f"no live value is encrypted under {', '.join(idle)}"
        yield Finding("keys", "idle secrets", "hint", message, f"tars-settings keys retire {idle[0]} --secret")
    if not lacking:
        held = f"{', '.join(sorted(keys))} held" if keys else "no key held"
        yield Finding("keys", "secrets", "ok", f"all that is encrypted can be read here ({held})")


def _ids_in_use(peer: Peer) -> dict[str, list[str]]:
    """Return, by id of secret key, where live winners use it."""
    used: dict[str, list[str]] = {}
    for scope in peer.registers.scopes():
        for key, register in peer.registers.winners(scope).items():
            if register.assignment.is_secret and register.assignment.secret:
                used.setdefault(register.assignment.secret.id, []).append(f"{scope} {key}")
    return used
