"""Secret keys: made, put to use, and dropped when nothing needs them any more.

A rotation has three steps, and workers read both keys in between: make the new key and copy the file to the workers;
``keys rotate-secrets``; ``keys retire --secret``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from tars_settings.adapters.keyfiles import read_key, replace_key, write_key
from tars_settings.cli.common import Common
from tars_settings.cli.options import AnswersOption
from tars_settings.cli.ratify import confirmed, homes
from tars_settings.cli.scopes import every_scope
from tars_settings.cli.session import session
from tars_settings.core.delta import Assignment, Ciphertext, Delta
from tars_settings.core.names import Scope, check_service, overlap
from tars_settings.core.register import Register, effective
from tars_settings.errors import ConfigurationError, ConflictError, KeyFileError, RefusedError, SecretKeyMissingError
from tars_settings.sources.environment import Environment
from tars_settings.sources.lastgood import usable_lkgs
from tars_settings.trust.keys import SecretKey
from tars_settings.trust.secrets import DEFAULT_ALGORITHM, NONCE_BYTES, choose_key, decrypt, encrypt
from tars_settings.writer import Writer

SECRETS_FILE: Final = "secret.keys"
_KEYS_AT_A_TIME: Final = 8
_TRIES: Final = 32
"""How often what somebody else set meanwhile is read again."""

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The secret key to encrypt with from now on")]
Algorithm = Literal["xchacha20poly1305", "aes256gcm"]
AlgorithmOption = Annotated[str, typer.Option("--algorithm", metavar="NAME", help="xchacha20poly1305 or aes256gcm")]


# --- the file ---------------------------------------------------------------------------------------------------------


def new(common: Common, key_id: str, file: Path | None) -> int:
    """Add a new secret key at the end of the file: readable, and not used for encrypting yet.

    Raises:
        RefusedError: the id is there already.
        KeyFileError, StateDirError: the file is not ours alone, or can't be written.
    """
    check_service(key_id, what="key id")
    path = _file(common.environment(), file)
    made = SecretKey(key_id, os.urandom(32)).to_text()
    if os.path.lexists(path):
        text = read_key(path)
        if key_id in _ids(text):
            raise RefusedError(f"{path} holds a secret key {key_id!r} already; nothing is ever overwritten")
        replace_key(path, f"{text}\n{made}\n")
    else:
        write_key(path, f"# Encrypts the fleet's secret values; workers and writers need it.\n{made}\n")
    common.out.document({"role": "secret", "name": key_id, "kid": None, "public": None, "file": str(path)})
    common.out.note(
        f"The secret key {key_id} is in {path}: readable, not used yet. Copy the file to the workers' hosts (they read "
        f"it again by themselves), then type:  tars-settings keys rotate-secrets {key_id}"
    )
    return 0


def _file(environment: Environment, file: Path | None) -> Path:
    if file is not None:
        return file.expanduser().absolute()
    if environment.secret_keys_text is not None and environment.secret_keys_path is None:
        raise ConfigurationError(
            "TARS_SETTINGS_SECRET_KEYS holds the keys themselves, so no file can be changed: name one with --file, or "
            "let the variable name one"
        )
    return (environment.secret_keys_path or homes(environment)[0] / SECRETS_FILE).absolute()


def _ids(text: str) -> list[str]:
    return [line.partition(":")[0].strip() for line in text.splitlines() if _is_key(line)]


def _is_key(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _rewrite(path: Path, *, first: str = "", without: str = "") -> None:
    """Put one key before the others, or take one out; comments stay where they are."""
    lines = read_key(path).splitlines()
    keys = {line.partition(":")[0].strip(): line for line in lines if _is_key(line)}
    order = sorted(keys.items(), key=lambda item: item[0] != first)
    kept = [line for key_id, line in order if key_id != without]
    replace_key(path, "\n".join([*(line for line in lines if not _is_key(line)), *kept]) + "\n")


# --- rotation ---------------------------------------------------------------------------------------------------------


def rotate(
    common: Common, to: IdArgument, algorithm: AlgorithmOption = DEFAULT_ALGORITHM, timeout_s: AnswersOption = 5.0
) -> int:
    """Encrypt the fleet's secrets anew under another key, which every worker must be able to read by now.

    A service's own key (SERVICE or SERVICE-k2) is for that service's secrets, any other for those of every service that
    has none of its own. Stops at the first scope that a worker refuses. Exit code 1 where anything is left.

    Example: tars-settings keys rotate-secrets k2
    """
    alg = _algorithm(algorithm)
    path = common.environment().secret_keys_path
    if to not in common.environment().secret_keys():
        raise SecretKeyMissingError(f"no secret key {to!r} is held here; type: tars-settings keys new {to} --secret")
    if path is not None:
        _rewrite(path, first=to)
    done = _Rotation(to, alg, timeout_s)
    with session(common, read_only=False) as writer:
        for scope in every_scope(common, writer):
            if not done.refused and _is_meant(writer.environment, scope, to):
                done.rotate(writer, scope)
    common.out.document({"to": to, "rotated": done.rotated, "left": [*done.left, *done.busy], "refused": done.refused})
    _say(common, done)
    return 1 if done.left or done.busy or done.refused else 0


@dataclass
class _Rotation:
    """What was encrypted anew, and what was not: SCOPE KEY of each, and the workers that refused it."""

    to: str
    alg: Algorithm
    timeout_s: float
    rotated: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def rotate(self, writer: Writer, scope: str) -> None:
        """Rotate the secrets of one scope; what somebody sets meanwhile is read again, and never put back."""
        for _ in range(_TRIES):
            work, crossed = _work(writer, scope, self.to)
            if not work or self._batches(writer, scope, work):
                self.left += [f"{scope} {one.key}" for one in crossed]
                return
        self.busy += [f"{scope} {one.key}" for one in _work(writer, scope, self.to)[0]]

    def _batches(self, writer: Writer, scope: str, work: list[Register]) -> bool:
        """Push batch by batch; return False where somebody else was faster."""
        for batch in _batches(_anew(writer.environment, scope, work, self.to, self.alg)):
            try:
                report = writer.push_as_is(scope, batch, reason=f"encrypted under {self.to}").wait(self.timeout_s)
            except ConflictError:
                return False
            if report.stage == "superseded":
                return False
            if report.stage != "retained":
                raise RefusedError(
                    f"{scope}: {report.stage}: {report.reason or 'it was not read back in time'}; type it again"
                )
            self.rotated += [f"{scope} {one.key}" for one in batch]
            self.refused += [f"{one.service}@{one.instance}" for one in report.refused]
            if self.refused:
                break
        return True


def _say(common: Common, done: _Rotation) -> None:
    for where in done.rotated:
        common.out.line(where)
    count = len(done.rotated)
    common.out.note(f"{count} {'secret is' if count == 1 else 'secrets are'} encrypted under {done.to} now")
    if done.left:
        common.out.note(
            "left as they are, for a key above or below them is set too, or they are on trial (confirm or revert it "
            f"first): {', '.join(done.left)}"
        )
    if done.busy:
        common.out.note(f"left as they are, for somebody set them all the time: {', '.join(done.busy)}; type it again")
    if done.refused:
        common.out.note(
            f"refused by {', '.join(done.refused)}: do they hold {done.to}? They keep their last good values; the rest "
            "was left"
        )


def _algorithm(name: str) -> Algorithm:
    match name:
        case "xchacha20poly1305" | "aes256gcm":
            return name
    raise typer.BadParameter("expected xchacha20poly1305 or aes256gcm")


def _is_meant(environment: Environment, scope: str, to: str) -> bool:
    """Return whether this key is what a push to the scope would encrypt with, were it the first of all."""
    keys = environment.secret_keys()
    ordered = {to: keys[to], **{name: key for name, key in keys.items() if name != to}}
    chosen = choose_key(ordered, Scope.parse(scope).service)
    return chosen is not None and chosen.id == to


def _work(writer: Writer, scope: str, to: str) -> tuple[list[Register], list[Register]]:
    """Return the secrets to encrypt anew, and those that can't be.

    Signed anew they would hide a key below them, or stay where they are only tried.
    """
    winners = writer.view(scope)
    tried = [one for one in winners.values() if one.delta.trial is not None and _ids_of(one) - {to}]
    settled = [one for one in effective(winners.values()) if one.delta.trial is None]
    old = [one for one in settled if _id_of(one.assignment) not in (None, to)]
    crossed = [one for one in old if any(key != one.key and overlap(key, one.key) for key in winners)]
    return [one for one in old if one not in crossed], [*crossed, *tried]


def _id_of(assignment: Assignment) -> str | None:
    return assignment.secret.id if isinstance(assignment.secret, Ciphertext) else None


def _ids_of(register: Register) -> set[str]:
    """Return the keys that a winner needs, on trial or after it."""
    return _ids_in(register.delta, register.key)


def _ids_in(delta: Delta, key: str) -> set[str]:
    found = {_id_of(item) for item in delta.said() if item.key == key}
    return {one for one in found if one is not None}


def _anew(
    environment: Environment, scope: str, registers: Iterable[Register], to: str, alg: Algorithm
) -> list[Assignment]:
    """Return the secrets under another key; decrypted values are in memory only while this runs."""
    keys, fleet = environment.secret_keys(), environment.fleet_id
    found = []
    for one in registers:
        held: Ciphertext = one.assignment.secret  # type: ignore[assignment] # only secrets are given
        plain = decrypt(held, keys, fleet=fleet, scope=scope, key=one.key)
        nonce = os.urandom(NONCE_BYTES[alg])
        fresh = encrypt(plain, keys[to], fleet=fleet, scope=scope, key=one.key, nonce=nonce, alg=alg)
        found.append(Assignment(one.key, secret=fresh, over=one.delta.stamp.digest.hex()))
    return found


def _batches(items: list[Assignment]) -> Iterator[tuple[Assignment, ...]]:
    for start in range(0, len(items), _KEYS_AT_A_TIME):
        yield tuple(items[start : start + _KEYS_AT_A_TIME])


# --- dropping ---------------------------------------------------------------------------------------------------------


def retire(common: Common, key_id: str, *, yes: bool) -> int:
    """Take a secret key out of this host's file, unless a winner, a writer's head or this host's LKG needs it.

    Raises:
        RefusedError: it is in use, and by what; or it is the last.
    """
    environment = common.environment()
    path = _file(environment, None)
    held = environment.secret_keys()
    if key_id not in held:
        raise KeyFileError(f"{path} holds no secret key {key_id!r}")
    if len(held) == 1:
        raise RefusedError(
            f"{key_id} is the only secret key here; make another first: tars-settings keys new ID --secret"
        )
    with session(common) as writer:
        users = list(dict.fromkeys(_users(writer, every_scope(common, writer), key_id)))
    if users:
        raise RefusedError(f"the secret key {key_id} is in use: {'; '.join(users[:8])}. See: keys rotate-secrets")
    confirmed(common, f"Drop the secret key {key_id} from {path}? Workers' LKGs can't be seen from here.", yes=yes)
    _rewrite(path, without=key_id)
    common.out.document({"id": key_id, "retired": True, "file": str(path)})
    common.out.note(f"{key_id} is gone from {path}; drop it on the workers' hosts too")
    return 0


def _users(writer: Writer, scopes: Iterable[str], key_id: str) -> Iterator[str]:
    """Yield what needs the key: each writer's greatest delta of a key counts, for it wins when others are voided."""
    document, registers = writer.trust, writer.agent.replicator.peer.registers
    services = set()
    for scope in scopes:
        services.add(Scope.parse(scope).service)
        for one in writer.view(scope).values():
            if key_id in _ids_of(one):
                yield f"{scope} {one.key}"
        for kid in document.writers_of(scope):
            newest = {item.key: delta for delta in registers.live_of(scope, kid) for item in delta.assign}
            held = sorted(key for key, delta in newest.items() if key_id in _ids_in(delta, key))
            yield from (f"{scope} {key} in the head of {document.name_of(kid)}" for key in held)
    for service in sorted(services - {None}, key=str):
        for kept in usable_lkgs(writer.environment, str(service), known=document):
            if any(_id_of(item) == key_id for delta in kept.view.deltas() for item in delta.said()):
                yield f"this host's last known good values of {service}"
