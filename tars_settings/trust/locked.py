"""Key files under a passphrase: Argon2id (RFC 9106) makes a key of it, XChaCha20-Poly1305 locks the seed.

One line, as an open key file's: ``tars-settings-locked-key-v1 ROLE NAME OPS:MIB:SALT BASE64``.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from tars_settings.core.names import is_service
from tars_settings.errors import DecryptionError, KeyFileError, PassphraseError
from tars_settings.trust import sodium
from tars_settings.trust.keys import Role, SigningKey

LOCKED_FORMAT: Final = "tars-settings-locked-key-v1"
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 24
OPS: Final = 3
MIB: Final = 256
"""libsodium's "moderate": about half a second and 256 MiB, once for each command."""
# A planted file must not make a command take all memory, or all day.
_MOST_OPS: Final = 16
_MOST_MIB: Final = 1024


def is_locked(text: str) -> bool:
    """Return whether a key file's content needs a passphrase."""
    return any(line.startswith(f"{LOCKED_FORMAT} ") for line in text.splitlines())


def lock(key: SigningKey, passphrase: str, *, salt: bytes, nonce: bytes, ops: int = OPS, mib: int = MIB) -> str:
    """Return the content of a key file that only *passphrase* opens.

    *salt* (16 bytes) and *nonce* (24 bytes) are fresh randomness.

    Raises:
        PassphraseError: the passphrase is empty.
    """
    if not passphrase:
        raise PassphraseError("an empty passphrase protects nothing")
    head = f"{LOCKED_FORMAT} {key.role} {key.name} {ops}:{mib}:{base64.b64encode(salt).decode()}"
    sealed = sodium.xchacha_encrypt(key.seed, head.encode(), nonce, sodium.argon2id(passphrase, salt, ops, mib))
    return (
        f"# The {key.role} key {key.name!r} of a tars-settings fleet, under a passphrase.\n"
        f"{head} {base64.b64encode(nonce + sealed).decode()}\n"
    )


def unlock(text: str, passphrase: str) -> SigningKey:
    """Return the key in a locked key file's content.

    Raises:
        KeyFileError: it holds no locked key, or asks for more work than a key file may.
        PassphraseError: another passphrase locked it, or it was changed.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    match lines[0].split() if len(lines) == 1 else []:
        case [fmt, ("root" | "writer") as role, name, cost, sealed] if fmt == LOCKED_FORMAT and is_service(name):
            return _opened(role, name, cost, sealed, passphrase)
    raise KeyFileError(f"not a locked key: expected one line '{LOCKED_FORMAT} root|writer NAME COST SEALED'")


def _opened(role: Role, name: str, cost: str, sealed: str, passphrase: str) -> SigningKey:
    ops, mib, salt = _cost(cost)
    content = _decode(sealed)
    aad = f"{LOCKED_FORMAT} {role} {name} {cost}".encode()
    derived = sodium.argon2id(passphrase, salt, ops, mib)
    try:
        seed = sodium.xchacha_decrypt(content[NONCE_BYTES:], aad, content[:NONCE_BYTES], derived)
    except DecryptionError:
        raise PassphraseError(f"the passphrase does not open the {role} key {name!r}") from None
    return SigningKey(role, name, seed)


def _cost(text: str) -> tuple[int, int, bytes]:
    ops, _, rest = text.partition(":")
    mib, _, salt = rest.partition(":")
    plain = ops.isascii() and ops.isdigit() and mib.isascii() and mib.isdigit() and len(ops) < 6 and len(mib) < 6
    raw = _decode(salt)
    if not plain or not 1 <= int(ops) <= _MOST_OPS or not 1 <= int(mib) <= _MOST_MIB or len(raw) != SALT_BYTES:
        raise KeyFileError(f"not a locked key: its cost is not within {_MOST_OPS} passes and {_MOST_MIB} MiB")
    return int(ops), int(mib), raw


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise KeyFileError("not a locked key: its base64 does not decode") from None
